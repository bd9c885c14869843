/** spawn_browser.ts: a module worker from a script, also of another origin. */

const HERE = import.meta.url;

/** A script beside this one, in words that no bundler takes for an asset: `new URL(name,
 * import.meta.url)` is one, and webpack would look for a folder of possible names. */
export const beside = (name: string) => new URL(name, HERE);

/** Browsers start workers from their own origin alone. A script on a CDN is therefore imported by a
 * worker of one line, the only blob this package makes, and only then. (A sandboxed frame has no origin,
 * not even that of its blobs: there the line lies in the URL.) `start` starts it otherwise. */
export function spawn(script: URL, start = () => new Worker(script, { type: "module", name: "quip" })): Worker {
  const { origin } = globalThis as { origin?: string }; // "null" in a sandboxed frame; none in Deno
  const isForeign = /^https?:$/.test(script.protocol) && origin !== undefined && script.origin !== origin;
  if (!isForeign) return start();
  const line = `import ${JSON.stringify(script.href)};`;
  const type = "text/javascript";
  const url = origin === "null" ? `data:${type},${encodeURIComponent(line)}` : URL.createObjectURL(new Blob([line], { type }));
  const worker = new Worker(url, { type: "module", name: "quip" });
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
  return worker;
}
