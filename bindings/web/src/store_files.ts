/** store_files.ts: the files of the store in the browser's private file system (OPFS). The page lists and
 * removes them; the worker reads and writes them.
 *
 *     quip-models/<key>.bin     the file, or the part that was downloaded
 *     quip-models/<key>.json    StoredMeta
 *
 * The key is the SHA-256 of the file if the caller passed it, otherwise the SHA-256 of the URL. */
import type { Version } from "./engine/download.js";

export const STORE_FOLDER = "quip-models";

export interface StoredMeta {
  url: string;
  version: Version;
  sha256?: string; // checked when it was downloaded
  isComplete: boolean;
  usedAt: number; // milliseconds since 1970
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

export async function readMeta(folder: FileSystemDirectoryHandle, key: string): Promise<StoredMeta | null> {
  try {
    const file = await (await folder.getFileHandle(`${key}.json`)).getFile();
    const meta = JSON.parse(await file.text());
    return typeof meta?.url === "string" && typeof meta?.version?.bytes === "number" ? meta : null;
  } catch {
    return null; // it does not exist, or writing it was interrupted
  }
}

export async function removeStored(folder: FileSystemDirectoryHandle, key: string): Promise<void> {
  for (const name of [`${key}.json`, `${key}.bin`])
    await folder.removeEntry(name).catch((error: DOMException) => {
      if (error.name !== "NotFoundError") throw error;
    });
}

/** Let one tab at a time read or write an entry. In old browsers without locks, the second tab cannot open
 * the file and downloads it for itself. */
export async function withLock<T>(
  key: string,
  signal: AbortSignal,
  onwait: () => void,
  body: () => Promise<T>,
): Promise<T> {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  if (!locks) return body();
  const name = `${STORE_FOLDER}/${key}`;
  let result: { value: T } | null = null;
  await locks.request(name, { ifAvailable: true }, async (lock) => {
    if (lock) result = { value: await body() };
  });
  if (result) return (result as { value: T }).value;
  onwait();
  return locks.request(name, { signal }, body) as Promise<T>;
}
