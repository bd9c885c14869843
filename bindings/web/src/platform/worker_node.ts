/** worker_node.ts: the functions of Node that the worker needs. */
import { open, readFile as readWhole } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { parentPort as parent, Worker } from "node:worker_threads";
import { QuipError } from "../errors.js";
import type { Build, Port } from "../protocol.js";

/** Read and compile the module of a build, from `base` or from the folder above this script. */
export async function compile(build: Build, base?: string): Promise<WebAssembly.Module> {
  const url = base === undefined ? new URL(`../quip-${build}.wasm`, import.meta.url) : new URL(`../quip-${build}.wasm`, base);
  try {
    return await WebAssembly.compile(new Uint8Array(await readWhole(url)));
  } catch (error) {
    throw new QuipError("io", `the module ${url} cannot be read: ${(error as Error).message}`);
  }
}

/** Start a thread: a worker whose first message is `data`. */
export function startThread(data: unknown): { ready: Promise<void>; end(): void } {
  const worker = new Worker(new URL("./thread.js", import.meta.url), { execArgv: [] });
  worker.unref(); // it never ends by itself
  const ready = new Promise<void>((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
  });
  worker.postMessage(data);
  return { ready, end: () => void worker.terminate() };
}

/** Called in a thread: handle the first message. */
export function inThread(run: (data: never) => Promise<() => void>): void {
  parent!.once("message", async (data) => {
    const go = await run(data as never);
    parent!.postMessage("ready");
    setImmediate(go);
  });
}

export async function readFile(path: string) {
  const file = await open(path).catch((error: Error) => {
    throw new QuipError("io", `${path} cannot be opened: ${error.message}`);
  });
  const stat = await file.stat();
  const { size } = stat;
  if (!stat.isFile()) {
    await file.close();
    throw new QuipError("io", `${path} is ${stat.isDirectory() ? "a folder" : "not a file"}; expected a model file`);
  }
  return {
    bytes: size,
    /** Read at most to.length bytes at `at`. Returns how many were read. */
    async read(to: Uint8Array, at: number): Promise<number> {
      const { bytesRead } = await file.read(to, 0, to.length, at);
      if (!bytesRead) throw new QuipError("io", `${path} ends after ${at} of ${size} bytes`);
      return bytesRead;
    },
    close: () => file.close(),
  };
}

/** Let the messages that wait be handled. (A MessageChannel does not do that: Node handles up to a thousand
 * messages of one port first.) */
export const yieldToMessages = () => new Promise<void>((resolve) => setImmediate(resolve));

export const defaultThreads = availableParallelism;

export function parentPort(): Port {
  const port: Port = {
    post: (message, transfer) => parent!.postMessage(message, transfer as never),
    onmessage: () => {},
    onerror: () => {},
    end: () => parent!.close(),
  };
  parent!.on("message", (message) => port.onmessage(message as never));
  return port;
}
