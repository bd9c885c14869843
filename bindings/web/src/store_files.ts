/** store_files.ts: the files of the store in the browser's private file system (OPFS). The page lists and
 * removes them; the worker reads and writes them.
 *
 *     quip-models/<key>.<n>.bin     version n of a file, or the part of it that was downloaded
 *     quip-models/<key>.<n>.json    StoredMeta, written before the first byte and after the last
 *
 * The key is the SHA-256 of the file if the caller passed it, otherwise the SHA-256 of the URL. Every
 * download gets a new number. When it is complete and verified, its meta says so, and only then the files
 * of older versions are removed: at any time one version is whole. Earlier releases of this package wrote
 * <key>.bin and <key>.json, which is version 0. */
import type { Version } from "./engine/download.js";
import { QuipError } from "./errors.js";

export const STORE_FOLDER = "quip-models";

/** How long a removal waits for others. A download that was aborted takes a moment to end. */
const BUSY_MS = 2000;

export interface StoredMeta {
  url: string;
  version: Version; // as the server describes it
  bytes?: number; // of the complete file, if the server announced another number (of a compressed file)
  sha256?: string; // checked when it was downloaded
  isComplete: boolean;
  usedAt: number; // milliseconds since 1970
}

/** A version that is stored, or a part of one. */
export interface StoredVersion {
  n: number;
  meta: StoredMeta;
  bytes: number; // in the file
}

/** What is stored of one file. */
export interface StoredEntry {
  key: string;
  kept: StoredVersion | null; // complete
  part: StoredVersion | null; // of a newer version, or of the first one
  rubbish: string[]; // files of older versions, and of writes that were interrupted
}

/** The folder of the store. Null if the browser has no such file system or denies it to this page (private
 * windows, insecure pages). */
export async function openStoreFolder(): Promise<FileSystemDirectoryHandle | null> {
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(STORE_FOLDER, { create: true });
  } catch {
    return null;
  }
}

export async function keyOf(url: string, sha256?: string): Promise<string> {
  if (sha256) return sha256.toLowerCase();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
}

export const fileName = (key: string, n: number, kind: "bin" | "json") => (n ? `${key}.${n}.${kind}` : `${key}.${kind}`);

async function readMeta(folder: FileSystemDirectoryHandle, name: string): Promise<StoredMeta | null> {
  try {
    const meta = JSON.parse(await (await (await folder.getFileHandle(name)).getFile()).text());
    return typeof meta?.url === "string" && typeof meta?.version?.bytes === "number" ? meta : null;
  } catch {
    return null; // it does not exist, or writing it was interrupted
  }
}

const sizeOfFile = (folder: FileSystemDirectoryHandle, name: string) =>
  folder.getFileHandle(name).then((handle) => handle.getFile()).then((file) => file.size, () => 0);

/** The size of the complete file. */
export const wholeBytes = (meta: StoredMeta) => meta.bytes ?? meta.version.bytes;

/** What is stored with each key, or with one key. */
export async function readEntries(folder: FileSystemDirectoryHandle, only?: string): Promise<StoredEntry[]> {
  const files = new Map<string, Set<number>>(); // the numbers of each key
  const names: [key: string, n: number, name: string][] = [];
  for await (const name of (folder as FileSystemDirectoryHandle & { keys(): AsyncIterable<string> }).keys()) {
    const [, key, n = "0"] = /^([0-9a-f]{64})(?:\.(\d+))?\.(?:json|bin)$/.exec(name) ?? [];
    if (!key || (only && key !== only)) continue;
    names.push([key, Number(n), name]);
    files.set(key, (files.get(key) ?? new Set()).add(Number(n)));
  }
  const entries = [];
  for (const [key, numbers] of files) {
    const entry: StoredEntry = { key, kept: null, part: null, rubbish: [] };
    for (const n of [...numbers].sort((a, b) => b - a)) {
      if (entry.kept) break;
      const meta = await readMeta(folder, fileName(key, n, "json"));
      if (!meta) continue;
      const bytes = await sizeOfFile(folder, fileName(key, n, "bin"));
      if (meta.isComplete && bytes > 0 && bytes === wholeBytes(meta)) entry.kept = { n, meta, bytes };
      else if (!meta.isComplete) entry.part ??= { n, meta, bytes };
    }
    const used = [entry.kept?.n, entry.part?.n];
    entry.rubbish = names.filter(([k, n]) => k === key && !used.includes(n)).map(([, , name]) => name);
    entries.push(entry);
  }
  return entries;
}

export async function readEntry(folder: FileSystemDirectoryHandle, key: string): Promise<StoredEntry> {
  return (await readEntries(folder, key))[0] ?? { key, kept: null, part: null, rubbish: [] };
}

/** The complete file of a URL, as it is now. Null if it is not stored. */
export async function openKept(url: string): Promise<File | null> {
  const folder = await openStoreFolder();
  if (!folder) return null;
  const { key, kept } = await readEntry(folder, await keyOf(url));
  return kept && (await (await folder.getFileHandle(fileName(key, kept.n, "bin"))).getFile());
}

/** Remove a version: its meta first, so that what is left of an interrupted removal is rubbish. */
export async function removeVersion(folder: FileSystemDirectoryHandle, key: string, n: number): Promise<void> {
  await removeFiles(folder, [fileName(key, n, "json"), fileName(key, n, "bin")]);
}

export async function removeFiles(folder: FileSystemDirectoryHandle, names: string[]): Promise<void> {
  for (const name of names)
    await folder.removeEntry(name).catch((error: DOMException) => {
      if (error.name !== "NotFoundError") throw error;
    });
}

/** Remove all that is stored with a key. The URL is for the error. */
export async function removeStored(folder: FileSystemDirectoryHandle, key: string, url: string): Promise<void> {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  const remove = async () => {
    const { kept, part, rubbish } = await readEntry(folder, key);
    for (const version of [kept, part]) if (version) await removeVersion(folder, key, version.n);
    await removeFiles(folder, rubbish);
  };
  const busy = () => new QuipError("io", `${url} is being downloaded or read, perhaps by another tab; remove it later`);
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(busy()), BUSY_MS);
  try {
    if (!locks) return await remove();
    await locks.request(lockName(key), { signal: waiting.signal }, remove);
  } catch (error) {
    if ((error as Error).name === "NoModificationAllowedError") throw busy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

const lockName = (key: string) => `${STORE_FOLDER}/${key}`;

/** Let one tab at a time read or write an entry. Who has to wait gets `onwait()`; with `instead`, its value is
 * used after `patienceMs`, unless it is null. In old browsers without locks, the second tab cannot write
 * the file and downloads it for itself. */
export async function withLock<T>(
  key: string,
  signal: AbortSignal,
  body: () => Promise<T>,
  { onwait, patienceMs, instead }: { onwait(): void; patienceMs: number; instead?: () => Promise<{ value: T } | null> },
): Promise<T> {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  if (!locks) return body();
  let result: { value: T } | null = null;
  await locks.request(lockName(key), { ifAvailable: true }, async (lock) => {
    if (lock) result = { value: await body() };
  });
  if (result) return (result as { value: T }).value;
  onwait();
  if (instead) {
    const waiting = new AbortController();
    const stop = () => waiting.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    const timer = setTimeout(() => waiting.abort(), patienceMs);
    let hasLock = false;
    const get = async () => {
      hasLock = true;
      return { value: await body() };
    };
    try {
      return ((await locks.request(lockName(key), { signal: waiting.signal }, get)) as { value: T }).value;
    } catch (error) {
      if (hasLock || signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
    result = await instead();
    if (result) return (result as { value: T }).value;
  }
  return locks.request(lockName(key), { signal }, body) as Promise<T>;
}
