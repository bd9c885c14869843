/** stored.ts: what is stored of a model, as the worker reads and writes it: a complete version that is kept,
 * and beside it the part of another one, which replaces the kept one when it is complete and verified. */
import { QuipError } from "../errors.js";
import {
  fileName,
  keyOf,
  openStoreFolder,
  readEntries,
  readEntry,
  removeFiles,
  removeVersion,
  type StoredEntry,
  type StoredMeta,
  type StoredVersion,
} from "../store_files.js";
import type { FileMemory } from "./file_memory.js";

/** FileSystemSyncAccessHandle, which TypeScript declares only for workers. */
interface SyncHandle {
  read(to: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}
type Mode = "readwrite" | "read-only"; // browsers without read-only handles have one reader at a time
type FileHandle = FileSystemFileHandle & { createSyncAccessHandle(options: { mode: Mode }): Promise<SyncHandle> };

/** What is stored cannot be read, or is not what was expected. */
export class Damaged extends QuipError {
  constructor(message: string) {
    super("io", message);
  }
}

const PIECE = 8 << 20;

async function openSync(folder: FileSystemDirectoryHandle, name: string, mode: Mode): Promise<SyncHandle> {
  const file = (await folder.getFileHandle(name, { create: mode === "readwrite" })) as FileHandle;
  return file.createSyncAccessHandle({ mode });
}

/** Replace the text of a file. */
export async function writeText(folder: FileSystemDirectoryHandle, name: string, text: string): Promise<void> {
  const file = await openSync(folder, name, "readwrite");
  try {
    const bytes = new TextEncoder().encode(text);
    if (file.write(bytes, { at: 0 }) !== bytes.length) throw new Error("the store is full");
    file.truncate(bytes.length);
    file.flush();
  } finally {
    file.close();
  }
}

/** Some browsers read into shared memory; others throw a TypeError. */
function readAt(file: SyncHandle, to: Uint8Array, at: number): number {
  try {
    return file.read(to, { at });
  } catch (error) {
    if (!(error instanceof TypeError) || to.buffer instanceof ArrayBuffer) throw error;
  }
  const piece = new Uint8Array(to.length);
  const n = file.read(piece, { at });
  to.set(piece);
  return n;
}

export class Stored {
  #writing: SyncHandle | null = null; // the file of the part

  private constructor(
    private readonly folder: FileSystemDirectoryHandle,
    private readonly entry: StoredEntry,
  ) {}

  /** What is stored for a URL. Null if this page can store nothing. */
  static async open(url: string, sha256?: string): Promise<Stored | null> {
    const folder = await openStoreFolder();
    if (!folder) return null;
    try {
      return new Stored(folder, await readEntry(folder, await keyOf(url, sha256)));
    } catch {
      return null;
    }
  }

  get kept(): StoredVersion | null {
    return this.entry.kept;
  }

  get part(): StoredVersion | null {
    return this.entry.part;
  }

  /** Copy the first bytes of a version to `file`. `onpiece` may throw to stop that. */
  async load(version: StoredVersion, bytes: number, file: FileMemory, onpiece: () => void | Promise<void>): Promise<void> {
    const { url } = version.meta;
    let from: SyncHandle | null = null;
    try {
      from = await openSync(this.folder, fileName(this.entry.key, version.n, "bin"), "read-only");
      for (let at = 0; at < bytes; at += PIECE) {
        const to = file.reserve(Math.min(PIECE, bytes - at));
        if (readAt(from, to, at) !== to.length) throw new Damaged(`${url}: the stored file ends early`);
        file.advance(to.length);
        await onpiece();
      }
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      throw new Damaged(`${url}: the stored file cannot be read: ${error.message}`);
    } finally {
      from?.close();
    }
  }

  /** Start a new version, or continue the part. */
  async begin(meta: StoredMeta, isContinued: boolean): Promise<void> {
    const { key, kept, part } = this.entry;
    const n = isContinued && part ? part.n : Math.max(kept?.n ?? 0, part?.n ?? 0) + 1;
    await this.#keep(async () => {
      await this.#sweep();
      if (!isContinued) await this.drop();
      this.entry.part = { n, meta, bytes: isContinued ? (part?.bytes ?? 0) : 0 };
      await this.#writeMeta(this.entry.part);
      this.#writing = await openSync(this.folder, fileName(key, n, "bin"), "readwrite");
    });
  }

  async write(piece: Uint8Array, at: number): Promise<void> {
    const file = this.#writing;
    if (!file) return;
    await this.#keep(async () => {
      if (file.write(piece, { at }) !== piece.length) throw new Error("the store is full");
    });
  }

  /** The part is complete, has this size, and was verified: it replaces the kept version. */
  async commit(bytes: number): Promise<void> {
    const { key, kept, part } = this.entry;
    const file = this.#writing;
    if (!file || !part) return;
    await this.#keep(async () => {
      file.truncate(bytes);
      file.flush();
      this.close();
      part.meta = { ...part.meta, isComplete: true, bytes };
      part.bytes = bytes;
      await this.#writeMeta(part);
      this.entry.kept = part;
      this.entry.part = null;
    });
    if (kept && this.entry.kept === part) await removeVersion(this.folder, key, kept.n).catch(() => {}); // another tab reads it
  }

  /** Record that the kept version was used now. */
  async touch(): Promise<void> {
    if (!this.kept) return;
    this.kept.meta.usedAt = Date.now();
    await this.#writeMeta(this.kept).catch(() => {});
  }

  /** Remove the part if it is being written: it cannot be used. */
  async abandon(): Promise<void> {
    if (this.#writing) await this.drop();
  }

  /** Remove the part: it is damaged, or the device is full. */
  async drop(): Promise<void> {
    this.close();
    const { key, part } = this.entry;
    this.entry.part = null;
    if (part) await removeVersion(this.folder, key, part.n).catch(() => {});
  }

  /** Remove the kept version: it is damaged. */
  async removeKept(): Promise<void> {
    const { key, kept } = this.entry;
    this.entry.kept = null;
    if (kept) await removeVersion(this.folder, key, kept.n).catch(() => {});
  }

  close(): void {
    this.#writing?.close();
    this.#writing = null;
  }

  /** If writing fails, remove the part. The model still runs, and the kept version stays. */
  async #keep(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch {
      await this.drop();
    }
  }

  /** Remove what interrupted writes and removals left: files of this key, and files without meta of others. */
  async #sweep(): Promise<void> {
    const rubbish = (await readEntries(this.folder)).flatMap((entry) => {
      const isOther = entry.key !== this.entry.key;
      return isOther && (entry.kept || entry.part) ? [] : entry.rubbish;
    });
    for (const name of rubbish) await removeFiles(this.folder, [name]).catch(() => {}); // another tab uses it
  }

  /** Only a version that is not complete yet gets a meta of another length. If a crash leaves half of it, that
   * version is lost, never the kept one. */
  async #writeMeta({ n, meta }: StoredVersion): Promise<void> {
    await writeText(this.folder, fileName(this.entry.key, n, "json"), JSON.stringify(meta));
  }
}
