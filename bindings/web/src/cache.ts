/** cache.ts: the models that the browser stores for this origin. */
import { keyOf, openStoreFolder, readEntries, removeStored, wholeBytes, type StoredEntry } from "./store_files.js";
import { namedSource } from "#page";

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
    if (!folder) return [];
    const found = (await readEntries(folder)).flatMap(({ kept, part }) => kept ?? part ?? []);
    return found
      .map(({ meta, bytes }) => ({
        url: meta.url,
        bytes,
        totalBytes: wholeBytes(meta),
        isComplete: meta.isComplete,
        sha256: meta.sha256,
        usedAt: new Date(meta.usedAt),
      }))
      .sort((a, b) => b.usedAt.getTime() - a.usedAt.getTime());
  },

  /** Remove the model of a URL or with a SHA-256. False if it is not stored. Fails if a download writes it, or
   * if a tab reads it. */
  async remove(what: string | URL | { sha256: string }): Promise<boolean> {
    const folder = await openStoreFolder();
    if (!folder) return false;
    const isIt = typeof what === "object" && "sha256" in what ? withHash(what.sha256) : withUrl(String(what));
    const found = (await cache.list()).filter(isIt);
    for (const { url, sha256 } of found) await removeStored(folder, await keyOf(url, sha256), url);
    return found.length > 0;
  },

  /** Remove all. Fails if one cannot be removed, after the others are. */
  async clear(): Promise<void> {
    const folder = await openStoreFolder();
    if (!folder) return;
    const entries = await readEntries(folder);
    const remove = ({ key, kept, part }: StoredEntry) => removeStored(folder, key, (kept ?? part)?.meta.url ?? key);
    const results = await Promise.allSettled(entries.map(remove));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  },

  /** The bytes that this origin uses and may use, as estimated by the browser. */
  async quota(): Promise<{ usedBytes: number; totalBytes: number }> {
    const { usage = 0, quota = 0 } = (await globalThis.navigator?.storage?.estimate?.()) ?? {};
    return { usedBytes: usage, totalBytes: quota };
  },

  /** Ask the browser to keep the stored models when storage on the device becomes scarce. */
  async persist(): Promise<boolean> {
    return (await globalThis.navigator?.storage?.persist?.()) ?? false;
  },
};

const withHash = (sha256: string) => (model: StoredModel) => model.sha256?.toLowerCase() === sha256.toLowerCase();

function withUrl(name: string): (model: StoredModel) => boolean {
  const source = namedSource(name);
  return (model) => source.kind === "url" && model.url === source.url;
}
