/** file_memory.ts: the memory of a module that a file is loaded into, piece by piece, without a copy. */
import { QuipError } from "../errors.js";
import { LIMIT, type Module } from "./module.js";

const PAGE = 65536;
const STEP = 32 << 20; // the memory of a file of unknown size grows by this much

export const gib = (bytes: number) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export class FileMemory {
  pointer = 0;
  length = 0; // bytes written
  #capacity = 0;

  /** `bytes` is the size of the file, allocated at once, or 0 if it is unknown. */
  constructor(
    private readonly module: Module,
    readonly name: string,
    bytes = 0,
  ) {
    if (bytes) this.#grow(bytes);
  }

  /** Memory for the next n bytes. Call `advance` when they are written. */
  reserve(n: number): Uint8Array {
    if (this.length + n > this.#capacity)
      this.#grow(Math.max(this.length + n, this.#capacity + STEP));
    return this.module.bytes(this.pointer + this.length, n);
  }

  advance(n: number): void {
    this.length += n;
  }

  append(piece: Uint8Array): void {
    this.reserve(piece.length).set(piece);
    this.advance(piece.length);
  }

  /** Forget what was written. */
  restart(): void {
    this.length = 0;
  }

  bytes(): Uint8Array {
    return this.module.bytes(this.pointer, this.length);
  }

  /** The file is complete: free the pages that it does not need. */
  trim(): void {
    const capacity = Math.ceil(this.length / PAGE) * PAGE;
    if (capacity < this.#capacity) this.module.x.quip_memory_free(this.pointer + capacity, this.#capacity - capacity);
    this.#capacity = Math.min(this.#capacity, capacity);
  }

  free(): void {
    if (this.pointer) this.module.x.quip_memory_free(this.pointer, this.#capacity);
    this.pointer = this.length = this.#capacity = 0;
  }

  /** New memory usually follows what is allocated already and extends it. If not, the bytes are copied. */
  #grow(capacity: number): void {
    const { x, limit } = this.module;
    if (capacity < limit && this.#capacity % PAGE === 0) {
      const more = capacity - this.#capacity;
      const pointer = x.quip_memory_alloc(more);
      if (pointer && (!this.pointer || pointer === this.pointer + this.#capacity)) {
        this.pointer ||= pointer;
        this.#capacity = capacity;
        return;
      }
      if (pointer) x.quip_memory_free(pointer, more);
    }
    const pointer = capacity < limit ? x.quip_memory_alloc(capacity) : 0;
    if (!pointer) throw tooLarge(this.name, capacity, limit);
    this.module.bytes(pointer, this.length).set(this.bytes());
    if (this.pointer) x.quip_memory_free(this.pointer, this.#capacity);
    this.pointer = pointer;
    this.#capacity = capacity;
  }
}

/** The most that a page can use. */
export const limitText = (limit: number) => (limit === LIMIT ? "4 GB (32-bit WebAssembly)" : "16 GB (64-bit WebAssembly)");

function tooLarge(name: string, bytes: number, limit: number): QuipError {
  return bytes >= limit
    ? new QuipError(
        "unsupported",
        `${name} has ${gib(bytes)}, but a page can use only ${limitText(limit)}; use a smaller model or a smaller quantization`,
      )
    : new QuipError(
        "memory",
        `${name} needs ${gib(bytes)} of memory, more than this device grants the page; close other tabs or use a smaller model`,
      );
}
