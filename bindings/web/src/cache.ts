/** cache.ts: the models that the browser stores for this origin. */
import { keyOf, openStoreFolder, readMeta, removeStored } from "./store_files.js";

export interface StoredModel {
  url: string;
  bytes: number; // that are stored
  totalBytes: number; // of the whole file; 0 if unknown
  isComplete: boolean; // false: the next open continues the download
  sha256?: string;
  usedAt: Date;
}

/** List and remove stored models, and ask for storage. On a page that cannot store anything the list is
 * empty. */
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

  /** Remove the model of a URL or with a SHA-256. False if it is not stored. */
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

  /** The bytes that this origin uses and may use, as estimated by the browser. */
  async quota(): Promise<{ usedBytes: number; totalBytes: number }> {
    const { usage = 0, quota = 0 } = (await navigator.storage?.estimate?.()) ?? {};
    return { usedBytes: usage, totalBytes: quota };
  },

  /** Ask the browser to keep the stored models when storage on the device becomes scarce. */
  async persist(): Promise<boolean> {
    return (await navigator.storage?.persist?.()) ?? false;
  },
};

async function keysOfUrl(url: string): Promise<string[]> {
  const found = [];
  for (const model of await cache.list()) if (model.url === url) found.push(await keyOf(url, model.sha256));
  return found;
}
