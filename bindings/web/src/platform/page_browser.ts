/** page_browser.ts: starts the worker in browsers, Deno and Bun. */
import type { Port, Source } from "../protocol.js";
import { beside, spawn } from "./spawn_browser.js";

export function startWorker(base?: string): Port {
  // Bundlers look for exactly this expression. With a base, the caller serves the files.
  const script = base === undefined ? beside("./worker.js") : new URL("worker.js", base);
  const worker =
    base === undefined
      ? spawn(script, () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "quip" }))
      : spawn(script);
  const port: Port = {
    post: (message, transfer) => worker.postMessage(message, transfer ?? []),
    onmessage: () => {},
    onerror: () => {},
    end: () => worker.terminate(),
  };
  worker.onmessage = (e) => port.onmessage(e.data as never);
  worker.onerror = (e) => {
    e.preventDefault?.();
    if (e.message) return port.onerror(e.message);
    port.onerror(
      `the worker did not start: ${script} must be reachable, allowed by the page's Content-Security-Policy ` +
        "(worker-src, 'wasm-unsafe-eval'), and in an isolated page served with its Cross-Origin-Embedder-Policy; " +
        "if it is in another folder, pass that as baseUrl",
      "io",
    );
  };
  worker.onmessageerror = () => port.onerror("a message from the worker could not be read");
  return port;
}

/** The source that a string or URL names: in a browser always a URL. */
export function namedSource(name: string): Source {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : undefined;
  return { kind: "url", url: new URL(name, here).href, cache: "default" };
}

/** The URL of the folder in a caller's baseUrl. */
export function folder(base: string): string {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : import.meta.url;
  return new URL(base.endsWith("/") ? base : base + "/", here).href;
}
