/** load.ts: from wherever a file is into its place in memory. */
import { QuipError, type Status } from "../errors.js";
import { openStoreFolder, withLock, type StoredMeta } from "../store_files.js";
import type { Progress, Source } from "../protocol.js";
import { Download, isSameVersion } from "./download.js";
import type { Module } from "./module.js";
import { gib, Place } from "./place.js";
import { sha256 } from "./sha256.js";
import { Stored } from "./stored.js";
import { readFile } from "#worker";

/** The call on whose behalf a file is loaded. */
export interface Loading {
  signal: AbortSignal;
  progress(p: Progress): void;
  /** The next piece of a file that the page sends; null at its end. */
  pull(): Promise<Uint8Array | null>;
  /** Let messages in, such as a cancel. */
  breathe(): Promise<void>;
}

/** The module in whose memory a file of so many bytes is to lie; 0 when nobody knows. */
export type Memory = (bytes: number) => Module | Promise<Module>;

const PIECE = 8 << 20;
const PROGRESS_MS = 50;
const PATIENCE_MS = 3000; // for a server's word on what is in the store already

/** Report at most every 50 ms, and the last. */
function throttled(loading: Loading, phase: Progress["phase"], total: number) {
  let next = 0;
  return (loaded: number) => {
    const now = performance.now();
    if (now < next && loaded !== total) return;
    next = now + PROGRESS_MS;
    loading.progress({ phase, loaded, total });
  };
}

/** Load a file, and hand it to `use`, to which its place then belongs. What `use` refuses as no
 * model is not kept in the store, and downloaded once more if it came from there. */
export async function load<T>(
  memory: Memory,
  source: Source,
  hash: string | undefined,
  loading: Loading,
  use: (place: Place) => T,
): Promise<T> {
  if (source.kind === "url") return loadUrl(memory, source, hash, loading, use);
  const place = await (source.kind === "blob"
    ? loadBlob(memory, source.blob, source.name, loading)
    : source.kind === "path"
      ? loadPath(memory, source.path, loading)
      : loadPieces(memory, source.name, source.bytes ?? 0, loading));
  try {
    verify(place, hash);
    return use(place);
  } catch (error) {
    place.free();
    throw error;
  }
}

function verify(place: Place, hash: string | undefined): void {
  if (!hash) return;
  const found = sha256(place.bytes());
  if (found !== hash.toLowerCase())
    throw new QuipError("io", `${place.name} is damaged: its SHA-256 is ${found}, expected is ${hash}`);
}

/** Fill a place of known size by `fill`, which gives it back when that fails. */
async function filled(place: Place, fill: () => Promise<void>): Promise<Place> {
  try {
    await fill();
    return place;
  } catch (error) {
    place.free();
    throw error;
  }
}

async function loadBlob(memory: Memory, blob: Blob, name: string, loading: Loading): Promise<Place> {
  const report = throttled(loading, "open", blob.size);
  const place = new Place(await memory(blob.size), name, blob.size);
  return filled(place, async () => {
    for (let at = 0; at < blob.size; at += PIECE) {
      const piece = await blob.slice(at, at + PIECE).arrayBuffer().catch((error: Error) => {
        throw new QuipError("io", `${name} cannot be read: ${error.message}`);
      });
      loading.signal.throwIfAborted();
      place.append(new Uint8Array(piece));
      report(place.length);
    }
  });
}

async function loadPath(memory: Memory, path: string, loading: Loading): Promise<Place> {
  const file = await readFile(path);
  const report = throttled(loading, "open", file.bytes);
  try {
    const place = new Place(await memory(file.bytes), path, file.bytes);
    return await filled(place, async () => {
      while (place.length < file.bytes) {
        const room = place.room(Math.min(PIECE, file.bytes - place.length));
        place.advance(await file.read(room, place.length));
        loading.signal.throwIfAborted();
        report(place.length);
      }
    });
  } finally {
    await file.close();
  }
}

async function loadPieces(memory: Memory, name: string, bytes: number, loading: Loading): Promise<Place> {
  const report = throttled(loading, "download", bytes);
  const place = new Place(await memory(bytes), name, bytes);
  return filled(place, async () => {
    for (let piece; (piece = await loading.pull()); report(place.length)) {
      loading.signal.throwIfAborted();
      place.append(piece);
    }
    if (bytes && place.length !== bytes)
      throw new QuipError("io", `${name} ended after ${place.length} of ${bytes} bytes`);
  });
}

/* ---- URLs, and the store ---- */

const isA = (error: unknown, status: Status) => error instanceof QuipError && error.status === status;

type UrlSource = Extract<Source, { kind: "url" }>;

async function loadUrl<T>(
  memory: Memory,
  source: UrlSource,
  hash: string | undefined,
  loading: Loading,
  use: (place: Place) => T,
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
    const place = await fetchUrl(memory, source.url, mode, hash, stored, loading);
    try {
      return use(place);
    } catch (error) {
      place.free();
      if (isA(error, "format") || isA(error, "unsupported")) await stored?.remove();
      throw error;
    }
  }
}

async function fetchUrl(
  memory: Memory,
  url: string,
  mode: UrlSource["cache"],
  hash: string | undefined,
  stored: Stored | null,
  loading: Loading,
): Promise<Place> {
  const isHere = stored?.isComplete && mode !== "reload";
  if (isHere && (mode === "force-cache" || hash)) return fromStore(memory, url, stored, loading);

  const have = stored?.meta && mode !== "reload" && !isHere ? { version: stored.meta.version, bytes: stored.bytes } : undefined;
  const asking = new AbortController();
  loading.signal.addEventListener("abort", () => asking.abort(loading.signal.reason), { once: true });
  const timer = isHere ? setTimeout(() => asking.abort(), PATIENCE_MS) : undefined;
  let download: Download;
  try {
    download = await Download.start(url, asking.signal, have);
  } catch (error) {
    if (!isHere || loading.signal.aborted) throw error;
    return fromStore(memory, url, stored, loading); // offline, or as good as
  } finally {
    clearTimeout(timer);
  }
  try {
    if (isHere && isSameVersion(download.version, stored.meta!.version)) return await fromStore(memory, url, stored, loading);
    return await fromNetwork(memory, download, hash, stored, loading);
  } finally {
    download.stop();
  }
}

async function fromStore(memory: Memory, url: string, stored: Stored, loading: Loading): Promise<Place> {
  const report = throttled(loading, "cache", stored.bytes);
  const place = new Place(await memory(stored.bytes), url, stored.bytes);
  return filled(place, async () => {
    await fromFile(stored, place, loading, report);
    await stored.touch();
  });
}

/** Copy what is stored, or the beginning that is. */
function fromFile(stored: Stored, place: Place, loading: Loading, report: (loaded: number) => void): Promise<void> {
  return stored.load(place, async () => {
    await loading.breathe();
    loading.signal.throwIfAborted();
    report(place.length);
  });
}

async function fromNetwork(
  memory: Memory,
  download: Download,
  hash: string | undefined,
  stored: Stored | null,
  loading: Loading,
): Promise<Place> {
  const { url, version, from } = download;
  const report = throttled(loading, "download", version.bytes);
  const place = new Place(await memory(version.bytes), url, version.bytes);
  const meta: StoredMeta = { url, version, sha256: hash, isComplete: false, usedAt: Date.now() };
  return filled(place, async () => {
    if (from) await fromFile(stored!, place, loading, report);
    await stored?.begin(meta, from > 0);
    for await (const piece of download.pieces()) {
      if (version.bytes && place.length + piece.length > version.bytes)
        throw new QuipError("io", `${url} goes on after the ${gib(version.bytes)} that the server announced`);
      await stored?.write(piece, place.length);
      place.append(piece);
      report(place.length);
    }
    try {
      verify(place, hash);
    } catch (error) {
      await stored?.remove();
      throw error;
    }
    await stored?.complete(place.length);
  });
}
