/** spawn_browser.ts: a module worker from a script, also of another origin. */

/** A script beside this one, in an expression that bundlers do not take for an asset of its own. */
export const beside = (name: string) => new URL(name, import.meta.url);

/** Browsers start workers from their own origin alone. A script on a CDN is therefore imported by a
 * worker of one line, the only blob this package makes, and only then. `start` starts it otherwise. */
export function spawn(script: URL, start = () => new Worker(script, { type: "module", name: "quip" })): Worker {
  const origin = typeof location === "object" ? location.origin : "null";
  const isForeign = /^https?:$/.test(script.protocol) && origin !== "null" && script.origin !== origin;
  if (!isForeign) return start();
  const line = new Blob([`import ${JSON.stringify(script.href)};`], { type: "text/javascript" });
  const url = URL.createObjectURL(line);
  const worker = new Worker(url, { type: "module", name: "quip" });
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
  return worker;
}
