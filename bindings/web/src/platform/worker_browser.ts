/** worker_browser.ts: the functions of a browser, of Deno and of Bun that the worker needs. */
import { QuipError } from "../errors.js";
import type { Build, Port } from "../protocol.js";
import { beside, spawn } from "./spawn_browser.js";

/* Bundlers look for exactly these expressions. */
const BESIDE: Record<Build, () => URL> = {
  simd: () => new URL("./quip-simd.wasm", import.meta.url),
  relaxed: () => new URL("./quip-relaxed.wasm", import.meta.url),
  "simd-mt": () => new URL("./quip-simd-mt.wasm", import.meta.url),
  "relaxed-mt": () => new URL("./quip-relaxed-mt.wasm", import.meta.url),
  "simd-64": () => new URL("./quip-simd-64.wasm", import.meta.url),
  "relaxed-64": () => new URL("./quip-relaxed-64.wasm", import.meta.url),
  "simd-mt-64": () => new URL("./quip-simd-mt-64.wasm", import.meta.url),
  "relaxed-mt-64": () => new URL("./quip-relaxed-mt-64.wasm", import.meta.url),
};

/** Fetch and compile the module of a build, from `base` or from the folder of this script. */
export async function compile(build: Build, base?: string): Promise<WebAssembly.Module> {
  const url = base === undefined ? BESIDE[build]() : new URL(`quip-${build}.wasm`, base);
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new QuipError("io", `the module ${url} cannot be fetched: ${(error as Error).message}`);
  }
  if (!response.ok)
    throw new QuipError("io", `the module ${url} cannot be fetched: status ${response.status}; serve the package's dist folder`);
  const type = response.headers.get("content-type") ?? "no type";
  try {
    return type.startsWith("application/wasm") && WebAssembly.compileStreaming
      ? await WebAssembly.compileStreaming(response)
      : await WebAssembly.compile(await response.arrayBuffer());
  } catch (error) {
    throw new QuipError("io", `the module ${url} (${type}) cannot be compiled: ${(error as Error).message}`);
  }
}

/** Start a thread: a worker whose first message is `data`. */
export function startThread(data: unknown): { ready: Promise<void>; end(): void } {
  const worker = spawn(
    beside("./thread.js"),
    () => new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "quip-thread" }),
  );
  const ready = new Promise<void>((resolve, reject) => {
    worker.addEventListener("message", () => resolve(), { once: true });
    worker.onerror = (e) => {
      e.preventDefault(); // the page's worker does not fail with it
      reject(new Error(e.message || "thread.js did not start"));
    };
  });
  worker.postMessage(data);
  return { ready, end: () => worker.terminate() };
}

/** Called in a thread: handle the first message. */
export function inThread(run: (data: never) => Promise<() => void>): void {
  onmessage = async (e) => {
    try {
      const go = await run(e.data as never);
      postMessage("ready");
      go();
    } catch (error) {
      setTimeout(() => { throw error; }); // an error event, unlike a rejection: who waits for "ready" gets it
    }
  };
}

export function readFile(path: string): Promise<{ bytes: number; read(to: Uint8Array, at: number): Promise<number>; close(): Promise<void> }> {
  throw new QuipError("unsupported", `${path} is a path, which a browser cannot open; use a URL, a File or a Blob`);
}

/* A message to this worker itself is handled after those that wait already. */
const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()!();

/** Let the messages that wait be handled. */
export const yieldToMessages = () =>
  new Promise<void>((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });

/** How many threads a model has if nothing is said. Where there are many processors, the browser has one of them:
 * with a thread on each of 16, SmolLM2 135M was 6 to 8 times slower than with 15. */
export function defaultThreads(): number {
  const n = navigator.hardwareConcurrency || 1;
  return n < 8 ? n : n - 1;
}

export function parentPort(): Port {
  const port: Port = {
    post: (message, transfer) => postMessage(message, { transfer }),
    onmessage: () => {},
    onerror: () => {},
    end: () => close(),
  };
  onmessage = (e) => port.onmessage(e.data as never);
  return port;
}
