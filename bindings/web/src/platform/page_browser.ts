/** page_browser.ts: starts the worker in browsers, Deno and Bun. */
import { QuipError } from "../errors.js";
import type { Port, Source } from "../protocol.js";
import { beside, spawn } from "./spawn_browser.js";

export function startWorker(base?: string): Port {
  checkScope();
  // Bundlers look for exactly this expression. With a base, the caller serves the files.
  const script = base === undefined ? beside("./worker.js") : new URL("worker.js", base);
  let worker: Worker;
  try {
    worker =
      base === undefined
        ? spawn(script, () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "quip" }))
        : spawn(script);
  } catch (error) {
    throw new QuipError("io", `the worker ${script} was not allowed to start: ${(error as Error).message}`);
  }
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

/** A model runs in a worker, which not every script can start. */
function checkScope(): void {
  if (typeof Worker === "function") return;
  const scope = globalThis.constructor?.name ?? "";
  const kind = { ServiceWorkerGlobalScope: "a service worker", SharedWorkerGlobalScope: "a shared worker" }[scope] ?? "this script";
  throw new QuipError(
    "unsupported",
    `${kind} cannot start a worker, which a model needs; open the model in a page, in a worker of a page, or in ` +
      "the offscreen document of an extension, and send messages to it",
  );
}

/** The source that a string or URL names: in a browser always a URL. What follows "#" is not part of its
 * name: the server does not get it. */
export function namedSource(name: string): Source {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : undefined;
  let url: URL;
  try {
    url = new URL(name, here);
  } catch {
    throw new QuipError("argument", `'${name}' is not a URL`);
  }
  if (/^[a-z]:$/.test(url.protocol))
    throw new QuipError("argument", `'${name}' is a path, which a browser cannot open; use a URL, a File or a Blob`);
  if (/^https?:$/.test(url.protocol)) url.hash = "";
  return { kind: "url", url: url.href, cache: "default" };
}

/** The URL of the folder in a caller's baseUrl. */
export function folder(base: string): string {
  const here = typeof document === "object" ? document.baseURI : typeof location === "object" ? location.href : import.meta.url;
  return new URL(base.endsWith("/") ? base : base + "/", here).href;
}
