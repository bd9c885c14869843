/** fit.ts: does a model fit into memory? Computed from the first megabytes of its file. */
import { QuipError } from "../errors.js";
import { openKept } from "../store_files.js";
import type { Build, Fit, Source } from "../protocol.js";
import { readFile } from "#worker";
import { needs64 } from "./builds.js";
import { describe } from "./download.js";
import { LIMIT, LIMIT_64, newMemory64 } from "./module.js";
import { gib, limitText } from "./file_memory.js";
import { withHead } from "./head.js";
import type { Engine } from "./engine.js";

const PAGE = 65536;

/** Access to the beginning of a file whose size is known. */
interface Head {
  total: number;
  read(begin: number, end: number): Promise<Uint8Array>;
}

async function headOf(source: Source, signal: AbortSignal): Promise<Head> {
  if (source.kind === "path") {
    const file = await readFile(source.path);
    await file.close();
    return { total: file.bytes, read: (begin, end) => readPart(source.path, begin, end) };
  }
  const { url } = source as { url: string };
  return { total: await sizeOf(url, signal), read: (begin, end) => part(url, begin, end, signal) };
}

/** A stored file. Reading it works also while a tab has it open. */
const headOfKept = (file: File): Head => ({
  total: file.size,
  read: async (begin, end) => new Uint8Array(await file.slice(begin, end).arrayBuffer()),
});

const nameOf = (source: Source) => (source.kind === "url" ? source.url : (source as { path: string }).path);

async function readPart(path: string, begin: number, end: number): Promise<Uint8Array> {
  const file = await readFile(path);
  try {
    const bytes = new Uint8Array(end - begin);
    for (let at = 0; at < bytes.length; ) at += await file.read(bytes.subarray(at), begin + at);
    return bytes;
  } finally {
    await file.close();
  }
}

export async function check(engine: Engine, source: Source, nContext: number, build: Build | undefined, signal: AbortSignal): Promise<Fit> {
  const kept = source.kind === "url" ? await openKept(source.url).catch(() => null) : null;
  const planOf = async ({ total, read }: Head) => ({
    total,
    plan: await withHead(total, read, (head) => engine.plan(nameOf(source), head, total, nContext)),
  });
  const { total, plan } = await headOf(source, signal)
    .then(planOf)
    .catch((error) => {
      signal.throwIfAborted();
      if (!kept || !(error instanceof QuipError)) throw error;
      return planOf(headOfKept(kept)); // Model.open would use it, too
    });
  const fit = {
    fileBytes: total,
    sessionBytes: plan.kvBytes + plan.scratchBytes,
    memoryBytes: total + plan.modelBytes + plan.kvBytes + plan.scratchBytes + engine.memoryBytes,
    nContext: plan.nContext,
    cached: kept !== null,
  };
  const reason = whyNot(fit.memoryBytes, fit.nContext, build ? engine.module.limit : needs64(total) ? LIMIT_64 : LIMIT);
  return { ...fit, fits: !reason, reason };
}

function whyNot(bytes: number, nContext: number, limit: number): string | undefined {
  const needs = `with a context of ${nContext} tokens the model needs ${gib(bytes)} of memory`;
  if (bytes > limit) return `${needs}; a page can use only ${limitText(limit)}`;
  const device = (globalThis.navigator as { deviceMemory?: number } | undefined)?.deviceMemory; // in GiB, rounded, at most 8
  if (device && device < 8 && bytes > device * 2 ** 30) return `${needs}; this device has only ${device} GB`;
  try {
    // memory costs nothing until it is used
    if (limit === LIMIT) new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
    else newMemory64(bytes);
  } catch {
    return `${needs}, more than this device grants the page`;
  }
  return undefined;
}

/** Request a URL, and close the connection as soon as `use` has read what it needs. */
async function ask<T>(url: string, range: string | null, signal: AbortSignal, use: (response: Response) => T | Promise<T>): Promise<T> {
  const closer = new AbortController();
  const stop = () => closer.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  try {
    const headers: HeadersInit = range ? { Range: range } : {};
    const response = await fetch(url, { headers, signal: closer.signal, cache: "no-store" });
    if (!response.ok) throw new QuipError("io", `Failed to fetch model: ${url} (${response.status})`);
    return await use(response);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof QuipError) throw error;
    throw new QuipError("io", `Failed to fetch model: ${url} (${(error as Error).message})`);
  } finally {
    signal.removeEventListener("abort", stop);
    closer.abort();
  }
}

/** The size of the file at a URL. A server of another origin may hide Content-Range, but it cannot hide
 * Content-Length. */
async function sizeOf(url: string, signal: AbortSignal): Promise<number> {
  const size = (response: Response) => describe(response).version.bytes;
  const bytes = (await ask(url, "bytes=0-0", signal, size)) || (await ask(url, null, signal, size));
  if (!bytes) throw new QuipError("io", `${url}: the server does not say how large the file is`);
  return bytes;
}

/** Bytes [begin, end) of a URL. Works also with a server that can only send the whole file. */
const part = (url: string, begin: number, end: number, signal: AbortSignal): Promise<Uint8Array> =>
  ask(url, `bytes=${begin}-${end - 1}`, signal, (response) =>
    firstBytes(response, response.status === 206 ? 0 : begin, end - begin),
  );

async function firstBytes(response: Response, skip: number, n: number): Promise<Uint8Array> {
  const reader = response.body!.getReader();
  const bytes = new Uint8Array(n);
  let at = -skip;
  while (at < n) {
    const { done, value } = await reader.read();
    if (done) break;
    const from = Math.max(0, -at);
    const useful = value.subarray(from, Math.max(from, n - at));
    bytes.set(useful, Math.max(0, at));
    at += value.length;
  }
  return bytes.subarray(0, Math.max(0, Math.min(at, n)));
}
