/** page_browser.ts: starting the worker in browsers, and in what is like them (Deno, Bun). */
import type { Port, Source } from "../protocol.js";
import { beside, spawn } from "./spawn_browser.js";

export function startWorker(base?: string): Port {
  // Bundlers look for exactly this expression; another base is the caller's to serve.
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
        "where it lies elsewhere, name the folder as baseUrl",
      "io",
    );
  };
  worker.onmessageerror = () => port.onerror("a message of the worker could not be read");
  return port;
}

/** What a string or URL names: here, always something to fetch. */
export function namedSource(name: string): Source {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : undefined;
  return { kind: "url", url: new URL(name, here).href, cache: "default" };
}

/** The folder that a caller's base names. */
export function folder(base: string): string {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : import.meta.url;
  return new URL(base.endsWith("/") ? base : base + "/", here).href;
}
