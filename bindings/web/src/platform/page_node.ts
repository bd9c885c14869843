/** page_node.ts: starts the worker in Node. */
import { pathToFileURL, fileURLToPath } from "node:url";
import { resolve, sep } from "node:path";
import { Worker } from "node:worker_threads";
import { QuipError } from "../errors.js";
import type { Port, Source } from "../protocol.js";

export function startWorker(base?: string): Port {
  // Node's own options are not for it: with --input-type no worker starts
  const worker = new Worker(new URL("./worker.js", base ?? import.meta.url), { execArgv: [] });
  worker.unref(); // until there is a call
  const port: Port = {
    post: (message, transfer) => worker.postMessage(message, transfer as never),
    onmessage: () => {},
    onerror: () => {},
    end: () => void worker.terminate(),
    hold: (isBusy) => (isBusy ? worker.ref() : worker.unref()),
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
  return { kind: "path", path: name.startsWith("file:") ? pathOf(name) : resolve(name) };
}

function pathOf(url: string): string {
  try {
    return fileURLToPath(url);
  } catch (error) {
    throw new QuipError("argument", `'${url}' is not the URL of a file: ${(error as Error).message}`);
  }
}

/** The URL of the folder in a caller's baseUrl. */
export function folder(base: string): string {
  if (/^(https?|file):/.test(base)) return base.endsWith("/") ? base : base + "/";
  return pathToFileURL(resolve(base) + sep).href;
}
