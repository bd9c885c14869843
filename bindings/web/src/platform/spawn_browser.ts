/** spawn_browser.ts: starts a module worker, also from a script of another origin. */

const HERE = import.meta.url;

/** The URL of a script in the folder of this one. Written so that bundlers do not recognize an asset: for
 * `new URL(name, import.meta.url)` webpack would bundle a whole folder. */
export const beside = (name: string) => new URL(name, HERE);

/** Browsers start a worker only from a script of the page's origin. A script on a CDN is therefore imported
 * by a worker of one line, which is a blob. A sandboxed frame has no origin, and cannot even use its own
 * blobs: there the line is a data URL. In all other cases `start` is called. */
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
