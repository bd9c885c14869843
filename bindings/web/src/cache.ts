/** cache.ts: the models that the browser keeps for this origin. */
import { keyOf, openStoreFolder, readMeta, removeStored } from "./store_files.js";

export interface StoredModel {
  url: string;
  bytes: number; // that are here
  totalBytes: number; // of the whole file; 0 if unknown
  isComplete: boolean; // false: a download that will go on where it ended
  sha256?: string;
  usedAt: Date;
}

/** What is kept, and room for more. Everything works on pages that keep nothing: there is then
 * nothing to list. */
export const cache = {
  async list(): Promise<StoredModel[]> {
    const folder = await openStoreFolder();
    const found: StoredModel[] = [];
    if (!folder) return found;
    for await (const name of (folder as FileSystemDirectoryHandle & { keys(): AsyncIterable<string> }).keys()) {
      const [key, kind] = name.split(".");
      const meta = kind === "json" ? await readMeta(folder, key) : null;
      if (!meta) continue;
      const file = await folder.getFileHandle(`${key}.bin`).then((f) => f.getFile(), () => null);
      found.push({
        url: meta.url,
        bytes: file?.size ?? 0,
        totalBytes: meta.version.bytes,
        isComplete: meta.isComplete && file?.size === meta.version.bytes,
        sha256: meta.sha256,
        usedAt: new Date(meta.usedAt),
      });
    }
    return found.sort((a, b) => b.usedAt.getTime() - a.usedAt.getTime());
  },

  /** Remove the model of a URL, or of a SHA-256. False: it was not there. */
  async remove(what: string | URL | { sha256: string }): Promise<boolean> {
    const folder = await openStoreFolder();
    if (!folder) return false;
    const isHash = typeof what === "object" && "sha256" in what;
    const url = isHash ? "" : new URL(what, typeof document === "object" ? document.baseURI : undefined).href;
    const keys = isHash ? [what.sha256.toLowerCase()] : await keysOfUrl(url);
    for (const key of keys) await removeStored(folder, key);
    return keys.length > 0;
  },

  /** Remove all. */
  async clear(): Promise<void> {
    for (const { url, sha256 } of await cache.list()) await cache.remove(sha256 ? { sha256 } : url);
  },

  /** Bytes that this origin uses and may use, as far as the browser tells. */
  async quota(): Promise<{ usedBytes: number; totalBytes: number }> {
    const { usage = 0, quota = 0 } = (await navigator.storage?.estimate?.()) ?? {};
    return { usedBytes: usage, totalBytes: quota };
  },

  /** Ask the browser not to evict what is kept when the device runs full. */
  async persist(): Promise<boolean> {
    return (await navigator.storage?.persist?.()) ?? false;
  },
};

async function keysOfUrl(url: string): Promise<string[]> {
  const found = [];
  for (const model of await cache.list()) if (model.url === url) found.push(await keyOf(url, model.sha256));
  return found;
}
