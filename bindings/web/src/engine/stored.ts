/** stored.ts: a model in the store, opened by the worker: read, write, mark as complete. */
import { QuipError } from "../errors.js";
import { keyOf, openStoreFolder, readMeta, removeStored, type StoredMeta } from "../store_files.js";
import type { FileMemory } from "./file_memory.js";

/** FileSystemSyncAccessHandle, which TypeScript declares only for workers. */
interface SyncHandle {
  read(to: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}
type FileHandle = FileSystemFileHandle & { createSyncAccessHandle(): Promise<SyncHandle> };

const PIECE = 8 << 20;

async function openSync(folder: FileSystemDirectoryHandle, name: string): Promise<SyncHandle> {
  const file = (await folder.getFileHandle(name, { create: true })) as FileHandle;
  return file.createSyncAccessHandle();
}

export class Stored {
  private constructor(
    private readonly folder: FileSystemDirectoryHandle,
    private readonly key: string,
    private file: SyncHandle | null,
    public meta: StoredMeta | null,
  ) {}

  /** Open the entry of a URL, or make one. Null if the browser cannot store it. */
  static async open(url: string, sha256?: string): Promise<Stored | null> {
    const folder = await openStoreFolder();
    if (!folder) return null;
    try {
      const key = await keyOf(url, sha256);
      const file = await openSync(folder, `${key}.bin`);
      const meta = await readMeta(folder, key);
      return new Stored(folder, key, file, meta);
    } catch {
      return null;
    }
  }

  /** The number of bytes that are stored. */
  get bytes(): number {
    return this.meta && this.file ? Math.min(this.file.getSize(), this.meta.version.bytes || Infinity) : 0;
  }

  get isComplete(): boolean {
    return this.meta !== null && this.meta.isComplete && this.bytes === this.meta.version.bytes;
  }

  /** Copy the stored bytes to `file`. `onpiece` may throw to stop that. */
  async load(file: FileMemory, onpiece: () => void | Promise<void>): Promise<void> {
    const n = this.bytes;
    for (let at = 0; at < n; at += PIECE) {
      const to = file.reserve(Math.min(PIECE, n - at));
      if (this.#read(to, at) !== to.length) throw new QuipError("io", `${this.meta?.url}: the stored file ends early`);
      file.advance(to.length);
      await onpiece();
    }
  }

  /** Some browsers read into shared memory; others throw a TypeError. */
  #read(to: Uint8Array, at: number): number {
    try {
      return this.file!.read(to, { at });
    } catch (error) {
      if (!(error instanceof TypeError) || to.buffer instanceof ArrayBuffer) throw error;
    }
    const piece = new Uint8Array(to.length);
    const n = this.file!.read(piece, { at });
    to.set(piece);
    return n;
  }

  /** Start a new file, or continue after the stored bytes. */
  async begin(meta: StoredMeta, isContinued: boolean): Promise<void> {
    await this.#keep(() => {
      if (!isContinued) this.file!.truncate(0);
    });
    this.meta = meta;
    await this.#writeMeta();
  }

  async write(piece: Uint8Array, at: number): Promise<void> {
    await this.#keep(() => {
      if (this.file!.write(piece, { at }) !== piece.length) throw new Error("the store is full");
    });
  }

  /** Mark the file, which has this size, as complete. */
  async complete(bytes: number): Promise<void> {
    if (!this.file || !this.meta) return;
    await this.#keep(() => this.file!.flush());
    this.meta = { ...this.meta, isComplete: true, version: { ...this.meta.version, bytes } };
    await this.#writeMeta();
  }

  /** Record that it was used now. */
  async touch(): Promise<void> {
    if (!this.meta) return;
    this.meta.usedAt = Date.now();
    await this.#writeMeta();
  }

  /** Remove it from the store: it is damaged, or the device is full. */
  async remove(): Promise<void> {
    this.close();
    this.meta = null;
    await removeStored(this.folder, this.key).catch(() => {});
  }

  close(): void {
    this.file?.close();
    this.file = null;
  }

  /** If writing fails, remove the entry. The model still runs. */
  async #keep(write: () => void): Promise<void> {
    if (!this.file) return;
    try {
      write();
    } catch {
      await this.remove();
    }
  }

  async #writeMeta(): Promise<void> {
    if (!this.file) return;
    try {
      const file = await openSync(this.folder, `${this.key}.json`);
      const bytes = new TextEncoder().encode(JSON.stringify(this.meta));
      file.truncate(0);
      file.write(bytes, { at: 0 });
      file.close();
    } catch {
      await this.remove();
    }
  }
}
