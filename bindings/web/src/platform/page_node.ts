/** page_node.ts: starts the worker in Node. */
import { pathToFileURL, fileURLToPath } from "node:url";
import { resolve, sep } from "node:path";
import { Worker } from "node:worker_threads";
import type { Port, Source } from "../protocol.js";

export function startWorker(base?: string): Port {
  const worker = new Worker(new URL("./worker.js", base ?? import.meta.url));
  const port: Port = {
    post: (message, transfer) => worker.postMessage(message, transfer as never),
    onmessage: () => {},
    onerror: () => {},
    end: () => void worker.terminate(),
  };
  worker.on("message", (message) => port.onmessage(message as never));
  worker.on("error", (error) => port.onerror(error.message));
  worker.on("messageerror", () => port.onerror("a message from the worker could not be read"));
  worker.on("exit", () => port.onerror("the worker stopped"));
  return port;
}

/** The source that a string or URL names: a path, unless it has a scheme. */
export function namedSource(name: string): Source {
  if (/^(https?|data|blob):/.test(name)) return { kind: "url", url: name, cache: "default" };
  return { kind: "path", path: name.startsWith("file:") ? fileURLToPath(name) : resolve(name) };
}

/** The URL of the folder in a caller's baseUrl. */
export function folder(base: string): string {
  if (/^(https?|file):/.test(base)) return base.endsWith("/") ? base : base + "/";
  return pathToFileURL(resolve(base) + sep).href;
}
