/** module.ts: the WebAssembly module as JavaScript sees it: its exports, memory, text and errors.
 * The contract is native/quip_web.h. Memory may grow in every call, and a view of it is then void:
 * views are made where they are used and never kept. */
import { QuipError, type Status } from "../errors.js";

type Fn = (...args: number[]) => number;

/** The functions of quip_web.h, without their prefix `quip_web_`. */
export interface Exports {
  error: Fn;
  relaxed_ok: Fn;
  malloc: Fn;
  free: Fn;
  pages_alloc: Fn;
  pages_free: Fn;
  thread_enter: Fn;
  thread_run: Fn;
  threads_idle: Fn;
  model_open: Fn;
  model_close: Fn;
  model_info: Fn;
  header_open: Fn;
  adapter_open: Fn;
  adapter_close: Fn;
  session_open: Fn;
  session_set_adapter: Fn;
  session_close: Fn;
  session_clone: Fn;
  session_rewind: Fn;
  session_position: Fn;
  session_n_context: Fn;
  session_cancel_flag: Fn;
  append_begin: Fn;
  append_step: Fn;
  append_undo: Fn;
  next: Fn;
  piece: Fn;
  result: Fn;
  encode: Fn;
  decode: Fn;
  prefill: Fn;
  logits: Fn;
  plan: Fn;
}

const STATUS: Record<number, Status> = {
  [-1]: "argument",
  [-2]: "memory",
  [-3]: "io",
  [-4]: "format",
  [-5]: "unsupported",
  [-6]: "context_full",
  [-7]: "cancelled",
};

const MAX_PAGES = 65536; // 4 GiB, of which only what is used is taken
const FIRST_PAGES = 64;

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** TextDecoder refuses shared memory, and crypto too: a copy that is not shared. */
const unshared = (bytes: Uint8Array) => (bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice());

/** What the module asks for: time, and random numbers for seeds nobody gave. */
export function imports(memory: () => WebAssembly.Memory): WebAssembly.Imports {
  const now = () => performance.now();
  const random = (at: number, n: number) => {
    const to = new Uint8Array(memory().buffer, at >>> 0, n >>> 0);
    to.set(crypto.getRandomValues(new Uint8Array(to.length)));
  };
  return { env: { now, random } };
}

/** The exports by their short names. */
export function exportsOf(instance: WebAssembly.Instance): Exports {
  const all = Object.entries(instance.exports).filter(([, f]) => typeof f === "function");
  return Object.fromEntries(all.map(([name, f]) => [name.replace(/^quip_web_/, ""), f])) as unknown as Exports;
}

export class Module {
  constructor(
    readonly x: Exports,
    readonly memory: WebAssembly.Memory,
  ) {}

  /** Instantiate a build without threads. */
  static async single(module: WebAssembly.Module): Promise<Module> {
    let memory: WebAssembly.Memory;
    const instance = await WebAssembly.instantiate(module, imports(() => memory));
    memory = instance.exports.memory as WebAssembly.Memory;
    return new Module(exportsOf(instance), memory);
  }

  /** Instantiate a build with threads: on memory that workers share. Null when none can be had. */
  static async shared(module: WebAssembly.Module): Promise<Module | null> {
    const memory = sharedMemory();
    if (!memory) return null;
    const { env } = imports(() => memory);
    const instance = await WebAssembly.instantiate(module, { env: { ...env, memory } });
    return new Module(exportsOf(instance), memory);
  }

  /** n bytes at a pointer, until the next call. */
  bytes(pointer: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, pointer >>> 0, n);
  }

  view(pointer: number, n: number): DataView {
    return new DataView(this.memory.buffer, pointer >>> 0, n);
  }

  text(pointer: number, n: number): string {
    return fromUtf8.decode(unshared(this.bytes(pointer, n)));
  }

  /** NUL-terminated text. */
  cText(pointer: number): string {
    const all = new Uint8Array(this.memory.buffer, pointer >>> 0);
    return this.text(pointer, all.indexOf(0));
  }

  /** The error of the call that just failed. */
  error(): QuipError {
    const at = this.x.error();
    const status = this.view(at, 4).getInt32(0, true);
    return new QuipError(STATUS[status] ?? "internal", this.cText(at + 4));
  }

  /** A count or QUIP_OK; negative is a status, and thrown. */
  check(result: number): number {
    if (result < 0) throw this.error();
    return result;
  }

  /** A handle; 0 is a failure, and thrown. */
  handle(result: number): number {
    if (!result) throw this.error();
    return result >>> 0;
  }

  /** A model without weights, from the beginning of its file. */
  openHeader(header: Uint8Array, fileBytes: number): number {
    return this.scoped((a) => this.handle(this.x.header_open(a.put(header), header.length, fileBytes)));
  }

  /** Run f with memory for its arguments, which goes when f ends. */
  scoped<T>(f: (arena: Arena) => T): T {
    const arena = new Arena(this);
    try {
      return f(arena);
    } finally {
      arena.free();
    }
  }
}

function sharedMemory(): WebAssembly.Memory | null {
  try {
    return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: MAX_PAGES, shared: true });
  } catch {
    return null; // a RangeError: all of the maximum is reserved at once
  }
}

/** Arguments of one call, in the module's memory. */
export class Arena {
  #module: Module;
  #pointers: number[] = [];

  constructor(module: Module) {
    this.#module = module;
  }

  alloc(n: number): number {
    const pointer = this.#module.x.malloc(n || 1) >>> 0;
    if (!pointer) throw new QuipError("memory", `no memory for ${n} bytes of arguments`);
    this.#pointers.push(pointer);
    return pointer;
  }

  put(bytes: Uint8Array): number {
    const pointer = this.alloc(bytes.length);
    this.#module.bytes(pointer, bytes.length).set(bytes);
    return pointer;
  }

  /** Text as [pointer, length]. */
  text(s: string): [number, number] {
    const bytes = utf8.encode(s);
    return [this.put(bytes), bytes.length];
  }

  /** NUL-terminated text; 0 for none. */
  cText(s: string | undefined): number {
    return s === undefined ? 0 : this.put(utf8.encode(s + "\0"));
  }

  ints(values: Int32Array | number[]): number {
    const copy = Int32Array.from(values);
    return this.put(new Uint8Array(copy.buffer));
  }

  free(): void {
    for (const pointer of this.#pointers) this.#module.x.free(pointer);
    this.#pointers = [];
  }
}
