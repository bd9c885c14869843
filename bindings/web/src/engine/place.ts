/** place.ts: where a file's bytes come to lie in the module's memory, piece by piece, once. */
import { QuipError } from "../errors.js";
import { LIMIT, type Module } from "./module.js";

const PAGE = 65536;
const STEP = 32 << 20; // by which a place of unknown size grows

export const gib = (bytes: number) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export class Place {
  pointer = 0;
  length = 0; // bytes written
  #capacity = 0;

  /** `bytes`: the file's size if known, taken at once; else 0. */
  constructor(
    private readonly module: Module,
    readonly name: string,
    bytes = 0,
  ) {
    if (bytes) this.#grow(bytes);
  }

  /** Room for the next n bytes; `advance` says how many were written. */
  room(n: number): Uint8Array {
    if (this.length + n > this.#capacity)
      this.#grow(Math.max(this.length + n, this.#capacity + STEP));
    return this.module.bytes(this.pointer + this.length, n);
  }

  advance(n: number): void {
    this.length += n;
  }

  append(piece: Uint8Array): void {
    this.room(piece.length).set(piece);
    this.advance(piece.length);
  }

  bytes(): Uint8Array {
    return this.module.bytes(this.pointer, this.length);
  }

  /** All is here: give back the pages that were taken in advance. */
  trim(): void {
    const capacity = Math.ceil(this.length / PAGE) * PAGE;
    if (capacity < this.#capacity) this.module.x.pages_free(this.pointer + capacity, this.#capacity - capacity);
    this.#capacity = Math.min(this.#capacity, capacity);
  }

  free(): void {
    if (this.pointer) this.module.x.pages_free(this.pointer, this.#capacity);
    this.pointer = this.length = this.#capacity = 0;
  }

  /** Memory that was never used lies at the end and adds to what is there; otherwise the bytes move. */
  #grow(capacity: number): void {
    if (capacity < this.module.limit && this.#capacity % PAGE === 0) {
      const more = capacity - this.#capacity;
      const pointer = this.module.x.pages_alloc(more);
      if (pointer && (!this.pointer || pointer === this.pointer + this.#capacity)) {
        this.pointer ||= pointer;
        this.#capacity = capacity;
        return;
      }
      if (pointer) this.module.x.pages_free(pointer, more);
    }
    const pointer = capacity < this.module.limit ? this.module.x.pages_alloc(capacity) : 0;
    if (!pointer) throw tooLarge(this.name, capacity, this.module.limit);
    this.module.bytes(pointer, this.length).set(this.bytes());
    this.module.x.pages_free(this.pointer, this.#capacity);
    this.pointer = pointer;
    this.#capacity = capacity;
  }
}

/** What a page can use at all. */
export const limitText = (limit: number) => (limit === LIMIT ? "4 GB (32-bit WebAssembly)" : "16 GB (64-bit WebAssembly)");

function tooLarge(name: string, bytes: number, limit: number): QuipError {
  return bytes >= limit
    ? new QuipError(
        "unsupported",
        `${name} has ${gib(bytes)}; a page can hold models of less than ${limitText(limit)}: use a smaller or more strongly quantized one`,
      )
    : new QuipError(
        "memory",
        `${name} needs ${gib(bytes)} of memory, which this device does not give the page: close other tabs, or use a smaller model`,
      );
}
