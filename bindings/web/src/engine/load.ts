/** load.ts: loads a file from anywhere into the memory of a module. */
import { QuipError, type Status } from "../errors.js";
import { keyOf, openStoreFolder, withLock, type StoredVersion } from "../store_files.js";
import type { Progress, Source } from "../protocol.js";
import { Download, isSameVersion, type Version } from "./download.js";
import { FileMemory } from "./file_memory.js";
import type { Module } from "./module.js";
import { sha256 } from "./sha256.js";
import { Damaged, Stored } from "./stored.js";
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

/** What is done with a file when it is loaded. */
export type Use<T> = (file: FileMemory) => T | Promise<T>;

const PIECE = 8 << 20;
const PROGRESS_MS = 50;
/** How long a server may take to say whether the stored file is current, and another tab to replace it. */
const PATIENCE_MS = 3000;

/** Report progress at most every 50 ms, and at the end. */
function throttled(loading: Loading, phase: Progress["phase"], total: number) {
  let next = 0;
  return (loaded: number) => {
    if (loaded > total) total = 0; // it was not announced, or with the size of a compressed file
    const now = performance.now();
    if (now < next && loaded !== total) return;
    next = now + PROGRESS_MS;
    loading.progress({ phase, loaded, total });
  };
}

/** Load a file and pass it to `use`, which then owns its memory, unless it fails. A download that `use` accepts is kept in the
 * store; one that is not a valid model is not, and the version that was kept before is used instead. */
export async function load<T>(
  choose: ChooseModule,
  source: Source,
  hash: string | undefined,
  loading: Loading,
  use: Use<T>,
): Promise<T> {
  if (source.kind === "url") return loadUrl(choose, source, hash, loading, use);
  const file = await (source.kind === "blob"
    ? loadBlob(choose, source.blob, source.name, loading)
    : source.kind === "path"
      ? loadPath(choose, source.path, loading)
      : loadPieces(choose, source.name, source.bytes ?? 0, loading));
  try {
    verify(file, hash);
    return await use(file);
  } catch (error) {
    file.free();
    throw error;
  }
}

function verify(file: FileMemory, hash: string | undefined): void {
  if (!hash) return;
  const found = sha256(file.bytes());
  if (found !== hash.toLowerCase())
    throw new Damaged(`${file.name} is damaged: its SHA-256 is ${found}, expected ${hash}`);
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

const isA = (error: unknown, ...status: Status[]) => error instanceof QuipError && status.includes(error.status);

/** A URL to load, and how. */
interface Job<T> {
  choose: ChooseModule;
  url: string;
  mode: Extract<Source, { kind: "url" }>["cache"];
  hash: string | undefined;
  stored: Stored | null; // null: nothing can be stored
  loading: Loading;
  use: Use<T>;
}

async function loadUrl<T>(
  choose: ChooseModule,
  source: Extract<Source, { kind: "url" }>,
  hash: string | undefined,
  loading: Loading,
  use: Use<T>,
): Promise<T> {
  const { url, cache: mode } = source;
  const job = { choose, url, mode, hash, loading, use };
  const keeps = mode !== "no-store" && /^https?:/.test(url);
  if (!keeps || !(await openStoreFolder())) return openUrl({ ...job, stored: null });
  const withStored = async () => {
    const stored = await Stored.open(url, hash);
    try {
      return await openUrl({ ...job, stored });
    } finally {
      stored?.close();
    }
  };
  /* Another tab is slow to replace the kept version: use that one. */
  const keptNow = async () => {
    const stored = await Stored.open(url, hash);
    if (!stored?.kept || mode === "reload") return null;
    return fromStore({ ...job, stored }, stored.kept).then((value) => ({ value }), () => null);
  };
  const onwait = () => loading.progress({ phase: "waiting", loaded: 0, total: 0 });
  return withLock(await keyOf(url, hash), loading.signal, withStored, { onwait, patienceMs: PATIENCE_MS, instead: keptNow });
}

/** The kept version, unless the server has another one that can be used. */
async function openUrl<T>(job: Job<T>): Promise<T> {
  const { url, mode, hash, stored, loading } = job;
  const { kept, part } = stored && mode !== "reload" ? stored : { kept: null, part: null };
  const have = part && { version: part.meta.version, bytes: part.bytes };
  if (!kept) return fromServer(job, await Download.start(url, loading.signal, !!hash, have));
  const isAsked = mode === "default" && !hash;
  const newer = isAsked ? await startNewer(job, kept, have) : null;
  if (newer)
    try {
      return await fromServer(job, newer);
    } catch (error) {
      loading.signal.throwIfAborted();
      if (!(error instanceof QuipError)) throw error;
    }
  try {
    return await fromStore(job, kept);
  } catch (error) {
    if (!isA(error, "format", "io")) throw error;
    if (isA(error, "format")) await stored!.removeKept(); // it is damaged
    return fromServer(job, await Download.start(url, loading.signal, !!hash));
  }
}

/** A download of the server's version. Null if it is the kept one, or if the server does not answer. */
async function startNewer<T>(
  { url, hash, stored, loading }: Job<T>,
  kept: StoredVersion,
  have: { version: Version; bytes: number } | null,
): Promise<Download | null> {
  const asking = new AbortController();
  const stop = () => asking.abort(loading.signal.reason);
  loading.signal.addEventListener("abort", stop, { once: true });
  const timer = setTimeout(() => asking.abort(), PATIENCE_MS);
  try {
    const download = await Download.start(url, asking.signal, !!hash, have);
    if (!isSameVersion(download.version, kept.meta.version)) return download;
    download.stop();
    await stored!.drop(); // the part of a version that the server does not have any more
    return null;
  } catch {
    loading.signal.throwIfAborted();
    return null;
  } finally {
    clearTimeout(timer);
  }
}

async function fromStore<T>({ choose, url, stored, loading, use }: Job<T>, kept: StoredVersion): Promise<T> {
  const report = throttled(loading, "cache", kept.bytes);
  const file = new FileMemory(await choose(kept.bytes), url, kept.bytes);
  try {
    await copyStored(stored!, kept, kept.bytes, file, loading, report);
    const value = await use(file);
    await stored!.touch();
    return value;
  } catch (error) {
    file.free();
    throw error;
  }
}

/** Copy a version, or a part of it, from the store. */
function copyStored(stored: Stored, version: StoredVersion, bytes: number, file: FileMemory, loading: Loading, report: (loaded: number) => void): Promise<void> {
  return stored.load(version, bytes, file, async () => {
    await loading.yieldToMessages();
    loading.signal.throwIfAborted();
    report(file.length);
  });
}

/** Use a download, and keep it if it can be used. If it continued a part and is damaged, the download begins again. */
async function fromServer<T>(job: Job<T>, download: Download): Promise<T> {
  const { url, hash, stored, loading, use } = job;
  try {
    const file = await receive(job, download);
    const bytes = file.length;
    let value: T;
    try {
      verify(file, hash);
      value = await use(file);
    } catch (error) {
      file.free();
      throw error;
    }
    await stored?.commit(bytes);
    return value;
  } catch (error) {
    if (!(error instanceof Damaged) && !isA(error, "format", "unsupported")) throw error;
    await stored?.abandon();
    if (!download.from) throw error;
  } finally {
    download.stop();
  }
  return fromServer(job, await Download.start(url, loading.signal, !!hash));
}

/** Download into memory and into the store. */
async function receive<T>({ choose, url, hash, stored, loading }: Job<T>, download: Download): Promise<FileMemory> {
  const { version, from } = download;
  const report = throttled(loading, "download", version.bytes);
  const file = new FileMemory(await choose(version.bytes), url, version.bytes);
  const begin = (isContinued: boolean) =>
    stored?.begin({ url, version, sha256: hash, isComplete: false, usedAt: Date.now() }, isContinued);
  return filled(file, async () => {
    let isKept = from > 0;
    if (from) {
      await continuePart(stored!, version.bytes, file, loading, report);
      await begin(true);
    }
    for await (const { at, bytes } of download.pieces()) {
      if (!at) {
        file.restart();
        isKept = !isPage(bytes);
        if (isKept) await begin(false);
      }
      const more = afterKnown(file, at, bytes);
      if (isKept) await stored?.write(more, file.length);
      file.append(more);
      report(file.length);
    }
  });
}

/** A piece of a file without the bytes that are there already. They must be the same. */
function afterKnown(file: FileMemory, at: number, bytes: Uint8Array): Uint8Array {
  const n = Math.min(file.length - at, bytes.length);
  const known = file.bytes().subarray(at, at + n);
  if (known.some((byte, i) => byte !== bytes[i]))
    throw new Damaged(`${file.name}: the part that is stored is not what the server has`);
  return bytes.subarray(n);
}

async function continuePart(stored: Stored, most: number, file: FileMemory, loading: Loading, report: (loaded: number) => void): Promise<void> {
  try {
    await copyStored(stored, stored.part!, Math.min(stored.part!.bytes, most), file, loading, report);
  } catch (error) {
    if (error instanceof Damaged) await stored.drop();
    throw error;
  }
}

/** Is it the beginning of a web page, which a captive portal sends for every name? The part that is stored
 * stays. */
const isPage = (bytes: Uint8Array) => /^(?:\xef\xbb\xbf)?\s*<[!?a-z]/i.test(String.fromCharCode(...bytes.subarray(0, 64)));
