/** load.ts: loads a file from anywhere into the memory of a module. */
import { QuipError, type Status } from "../errors.js";
import { openStoreFolder, withLock, type StoredMeta } from "../store_files.js";
import type { Progress, Source } from "../protocol.js";
import { Download, isSameVersion } from "./download.js";
import { FileMemory, gib } from "./file_memory.js";
import type { Module } from "./module.js";
import { sha256 } from "./sha256.js";
import { Stored } from "./stored.js";
import { readFile } from "#worker";

/** The call that loads a file. */
export interface Loading {
  signal: AbortSignal;
  progress(p: Progress): void;
  /** The next piece of a file that the page sends, or null at its end. */
  pull(): Promise<Uint8Array | null>;
  /** Let messages arrive, such as a cancel. */
  yieldToMessages(): Promise<void>;
}

/** Chooses the module whose memory a file of this size goes to. 0: the size is unknown. */
export type ChooseModule = (bytes: number) => Module | Promise<Module>;

const PIECE = 8 << 20;
const PROGRESS_MS = 50;
const PATIENCE_MS = 3000; // how long a server may take to say whether the stored file is current

/** Report progress at most every 50 ms, and at the end. */
function throttled(loading: Loading, phase: Progress["phase"], total: number) {
  let next = 0;
  return (loaded: number) => {
    const now = performance.now();
    if (now < next && loaded !== total) return;
    next = now + PROGRESS_MS;
    loading.progress({ phase, loaded, total });
  };
}

/** Load a file and pass it to `use`, which then owns its memory. If `use` finds that it is not a valid
 * model, it is removed from the store, and downloaded again if it came from there. */
export async function load<T>(
  choose: ChooseModule,
  source: Source,
  hash: string | undefined,
  loading: Loading,
  use: (file: FileMemory) => T,
): Promise<T> {
  if (source.kind === "url") return loadUrl(choose, source, hash, loading, use);
  const file = await (source.kind === "blob"
    ? loadBlob(choose, source.blob, source.name, loading)
    : source.kind === "path"
      ? loadPath(choose, source.path, loading)
      : loadPieces(choose, source.name, source.bytes ?? 0, loading));
  try {
    verify(file, hash);
    return use(file);
  } catch (error) {
    file.free();
    throw error;
  }
}

function verify(file: FileMemory, hash: string | undefined): void {
  if (!hash) return;
  const found = sha256(file.bytes());
  if (found !== hash.toLowerCase())
    throw new QuipError("io", `${file.name} is damaged: its SHA-256 is ${found}, expected ${hash}`);
}

/** Fill the memory of a file, and free it if that fails. */
async function filled(file: FileMemory, fill: () => Promise<void>): Promise<FileMemory> {
  try {
    await fill();
    return file;
  } catch (error) {
    file.free();
    throw error;
  }
}

async function loadBlob(choose: ChooseModule, blob: Blob, name: string, loading: Loading): Promise<FileMemory> {
  const report = throttled(loading, "open", blob.size);
  const file = new FileMemory(await choose(blob.size), name, blob.size);
  return filled(file, async () => {
    for (let at = 0; at < blob.size; at += PIECE) {
      const piece = await blob.slice(at, at + PIECE).arrayBuffer().catch((error: Error) => {
        throw new QuipError("io", `${name} cannot be read: ${error.message}`);
      });
      loading.signal.throwIfAborted();
      file.append(new Uint8Array(piece));
      report(file.length);
    }
  });
}

async function loadPath(choose: ChooseModule, path: string, loading: Loading): Promise<FileMemory> {
  const onDisk = await readFile(path);
  const report = throttled(loading, "open", onDisk.bytes);
  try {
    const file = new FileMemory(await choose(onDisk.bytes), path, onDisk.bytes);
    return await filled(file, async () => {
      while (file.length < onDisk.bytes) {
        const to = file.reserve(Math.min(PIECE, onDisk.bytes - file.length));
        file.advance(await onDisk.read(to, file.length));
        loading.signal.throwIfAborted();
        report(file.length);
      }
    });
  } finally {
    await onDisk.close();
  }
}

async function loadPieces(choose: ChooseModule, name: string, bytes: number, loading: Loading): Promise<FileMemory> {
  const report = throttled(loading, "download", bytes);
  const file = new FileMemory(await choose(bytes), name, bytes);
  return filled(file, async () => {
    for (let piece; (piece = await loading.pull()); report(file.length)) {
      loading.signal.throwIfAborted();
      file.append(piece);
    }
    if (bytes && file.length !== bytes)
      throw new QuipError("io", `${name} ended after ${file.length} of ${bytes} bytes`);
  });
}

/* ---- URLs and the store ---- */

const isA = (error: unknown, status: Status) => error instanceof QuipError && error.status === status;

type UrlSource = Extract<Source, { kind: "url" }>;

async function loadUrl<T>(
  choose: ChooseModule,
  source: UrlSource,
  hash: string | undefined,
  loading: Loading,
  use: (file: FileMemory) => T,
): Promise<T> {
  const keeps = source.cache !== "no-store" && /^https?:/.test(source.url);
  if (!keeps || !(await openStoreFolder())) return once(null, source.cache);
  const onwait = () => loading.progress({ phase: "waiting", loaded: 0, total: 0 });
  return withLock(hash ?? source.url, loading.signal, onwait, async () => {
    const stored = await Stored.open(source.url, hash);
    try {
      const wasComplete = stored?.isComplete && source.cache !== "reload";
      return await once(stored, source.cache).catch((error) => {
        if (!isA(error, "format") || !wasComplete) throw error;
        return once(stored, "reload");
      });
    } finally {
      stored?.close();
    }
  });

  async function once(stored: Stored | null, mode: UrlSource["cache"]): Promise<T> {
    const file = await fetchUrl(choose, source.url, mode, hash, stored, loading);
    try {
      return use(file);
    } catch (error) {
      file.free();
      if (isA(error, "format") || isA(error, "unsupported")) await stored?.remove();
      throw error;
    }
  }
}

async function fetchUrl(
  choose: ChooseModule,
  url: string,
  mode: UrlSource["cache"],
  hash: string | undefined,
  stored: Stored | null,
  loading: Loading,
): Promise<FileMemory> {
  const isStored = stored?.isComplete && mode !== "reload";
  if (isStored && (mode === "force-cache" || hash)) return fromStore(choose, url, stored, loading);

  const have = stored?.meta && mode !== "reload" && !isStored ? { version: stored.meta.version, bytes: stored.bytes } : undefined;
  const asking = new AbortController();
  loading.signal.addEventListener("abort", () => asking.abort(loading.signal.reason), { once: true });
  const timer = isStored ? setTimeout(() => asking.abort(), PATIENCE_MS) : undefined;
  let download: Download;
  try {
    download = await Download.start(url, asking.signal, have);
  } catch (error) {
    if (!isStored || loading.signal.aborted) throw error;
    return fromStore(choose, url, stored, loading); // offline, or a server that does not answer
  } finally {
    clearTimeout(timer);
  }
  try {
    if (isStored && isSameVersion(download.version, stored.meta!.version)) return await fromStore(choose, url, stored, loading);
    return await fromNetwork(choose, download, hash, stored, loading);
  } finally {
    download.stop();
  }
}

async function fromStore(choose: ChooseModule, url: string, stored: Stored, loading: Loading): Promise<FileMemory> {
  const report = throttled(loading, "cache", stored.bytes);
  const file = new FileMemory(await choose(stored.bytes), url, stored.bytes);
  return filled(file, async () => {
    await copyStored(stored, file, loading, report);
    await stored.touch();
  });
}

/** Copy the part of the file that is in the store. */
function copyStored(stored: Stored, file: FileMemory, loading: Loading, report: (loaded: number) => void): Promise<void> {
  return stored.load(file, async () => {
    await loading.yieldToMessages();
    loading.signal.throwIfAborted();
    report(file.length);
  });
}

async function fromNetwork(
  choose: ChooseModule,
  download: Download,
  hash: string | undefined,
  stored: Stored | null,
  loading: Loading,
): Promise<FileMemory> {
  const { url, version, from } = download;
  const report = throttled(loading, "download", version.bytes);
  const file = new FileMemory(await choose(version.bytes), url, version.bytes);
  const meta: StoredMeta = { url, version, sha256: hash, isComplete: false, usedAt: Date.now() };
  return filled(file, async () => {
    if (from) await copyStored(stored!, file, loading, report);
    await stored?.begin(meta, from > 0);
    for await (const piece of download.pieces()) {
      if (version.bytes && file.length + piece.length > version.bytes)
        throw new QuipError("io", `${url} is longer than the ${gib(version.bytes)} that the server announced`);
      await stored?.write(piece, file.length);
      file.append(piece);
      report(file.length);
    }
    try {
      verify(file, hash);
    } catch (error) {
      await stored?.remove();
      throw error;
    }
    await stored?.complete(file.length);
  });
}
