/** module.ts: the WebAssembly module as JavaScript sees it: its exports, memory, text and errors.
 * The contract is native/quip_web.h. Memory may grow in every call, and a view of it is then void:
 * views are made where they are used and never kept. */
import { QuipError, type Status } from "../errors.js";
import type { Build } from "../protocol.js";

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

/* Their arguments and results that are addresses or sizes (a) and other numbers (n). In a build with
 * 64-bit memory those are BigInts, in the others signed; outside of this file they are numbers from 0. */
const ADDRESSES: Partial<Record<keyof Exports, string>> = {
  error: ">a",
  malloc: "a>a",
  free: "a",
  pages_alloc: "a>a",
  pages_free: "aa",
  thread_enter: "a",
  model_open: "aa>a",
  model_close: "a",
  model_info: "a>a",
  header_open: "aan>a",
  adapter_open: "aaa>a",
  adapter_close: "a",
  session_open: "aa>a",
  session_set_adapter: "aan",
  session_close: "a",
  session_clone: "a>a",
  session_rewind: "an",
  session_position: "a",
  session_n_context: "a",
  session_cancel_flag: "a>a",
  append_begin: "anaa",
  append_step: "an",
  append_undo: "a",
  next: "a",
  piece: ">a",
  result: "a>a",
  encode: "aaanan",
  decode: "aanaa",
  prefill: "aan",
  logits: "a>a",
  plan: "aana>a",
};

const STATUS: Record<number, Status> = {
  [-1]: "argument",
  [-2]: "memory",
  [-3]: "io",
  [-4]: "format",
  [-5]: "unsupported",
  [-6]: "context_full",
  [-7]: "cancelled",
};

const PAGE = 65536;
const FIRST_PAGES = 64;
/** What a module's memory can be; only what is used of it is taken. */
export const LIMIT = 2 ** 32;
export const LIMIT_64 = 2 ** 34;

const isShared = (build: Build) => build.includes("-mt");
const is64 = (build: Build) => build.endsWith("-64");

const LONGEST_TEXT = 4096; // of those that end with a NUL

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** TextDecoder refuses shared memory, and crypto too: a copy that is not shared. */
const unshared = (bytes: Uint8Array) => (bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice());

/** An address or size, as the module has it. */
const address = (value: number | bigint) => (typeof value === "bigint" ? Number(value) : value >>> 0);

/** What the module asks for: time, and random numbers for seeds nobody gave. */
export function imports(memory: () => WebAssembly.Memory): WebAssembly.Imports {
  const now = () => performance.now();
  const random = (at: number | bigint, n: number | bigint) => {
    const to = new Uint8Array(memory().buffer, address(at), address(n));
    to.set(crypto.getRandomValues(new Uint8Array(to.length)));
  };
  return { env: { now, random } };
}

/** The exports by their short names, with numbers for addresses. */
export function exportsOf(instance: WebAssembly.Instance, build: Build): Exports {
  const exports: Record<string, unknown> = {};
  for (const [name, f] of Object.entries(instance.exports)) {
    if (typeof f !== "function") continue;
    const short = name.replace(/^quip_web_/, "");
    const kinds = ADDRESSES[short as keyof Exports];
    exports[short] = kinds ? withNumbers(f as Raw, kinds, is64(build)) : f;
  }
  return exports as unknown as Exports;
}

type Raw = (...args: (number | bigint)[]) => number | bigint;

function withNumbers(f: Raw, kinds: string, isWide: boolean): Fn {
  const g: Raw = isWide ? (...args) => f(...args.map((arg, i) => (kinds[i] === "a" ? BigInt(arg) : arg))) : f;
  return kinds.endsWith(">a") ? (...args) => address(g(...args)) : (g as Fn);
}

export class Module {
  private constructor(
    readonly x: Exports,
    readonly memory: WebAssembly.Memory,
    readonly build: Build,
  ) {}

  /** Instantiate a build. Null when it needs shared memory and none can be had. */
  static start(module: WebAssembly.Module, build: Build): Promise<Module | null> {
    return isShared(build) ? Module.#shared(module, build) : Module.#single(module, build);
  }

  static async #single(module: WebAssembly.Module, build: Build): Promise<Module> {
    let memory: WebAssembly.Memory;
    const instance = await WebAssembly.instantiate(module, imports(() => memory));
    memory = instance.exports.memory as WebAssembly.Memory;
    return new Module(exportsOf(instance, build), memory, build);
  }

  /** On memory that workers share. */
  static async #shared(module: WebAssembly.Module, build: Build): Promise<Module | null> {
    const memory = sharedMemory(is64(build));
    if (!memory) return null;
    const { env } = imports(() => memory);
    const instance = await WebAssembly.instantiate(module, { env: { ...env, memory } });
    return new Module(exportsOf(instance, build), memory, build);
  }

  get isShared(): boolean {
    return isShared(this.build);
  }

  get is64(): boolean {
    return is64(this.build);
  }

  /** Bytes of memory that it can have. */
  get limit(): number {
    return this.is64 ? LIMIT_64 : LIMIT;
  }

  /** n bytes at a pointer, until the next call. */
  bytes(pointer: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, pointer, n);
  }

  view(pointer: number, n: number): DataView {
    return new DataView(this.memory.buffer, pointer, n);
  }

  text(pointer: number, n: number): string {
    return fromUtf8.decode(unshared(this.bytes(pointer, n)));
  }

  /** NUL-terminated text. */
  cText(pointer: number): string {
    const rest = this.memory.buffer.byteLength - pointer;
    return this.text(pointer, this.bytes(pointer, Math.min(rest, LONGEST_TEXT)).indexOf(0));
  }

  /** The error of the call that just failed. `file` is what its file is called, if it had one. */
  error(file = "the model"): QuipError {
    const at = this.x.error();
    const status = this.view(at, 4).getInt32(0, true);
    return new QuipError(STATUS[status] ?? "internal", this.cText(at + 4).replaceAll("{file}", file));
  }

  /** A count or QUIP_OK; negative is a status, and thrown. */
  check(result: number): number {
    if (result < 0) throw this.error();
    return result;
  }

  /** A handle; 0 is a failure, and thrown. */
  handle(result: number, file?: string): number {
    if (!result) throw this.error(file);
    return result;
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

function sharedMemory(isWide: boolean): WebAssembly.Memory | null {
  try {
    return isWide
      ? newMemory64(FIRST_PAGES * PAGE, { maximum: BigInt(LIMIT_64 / PAGE), shared: true })
      : new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: LIMIT / PAGE, shared: true });
  } catch {
    return null; // a RangeError: all of the maximum is reserved at once
  }
}

/** Memory with 64-bit addresses; throws when there is none. */
export function newMemory64(bytes: number, more: object = {}): WebAssembly.Memory {
  const descriptor = { address: "i64", initial: BigInt(Math.ceil(bytes / PAGE)), ...more };
  return new WebAssembly.Memory(descriptor as never);
}

/** Arguments of one call, in the module's memory. */
export class Arena {
  #module: Module;
  #pointers: number[] = [];

  constructor(module: Module) {
    this.#module = module;
  }

  alloc(n: number): number {
    const pointer = this.#module.x.malloc(n || 1);
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

  /** An array of them. */
  pointers(values: number[]): number {
    const array = this.#module.is64 ? BigUint64Array.from(values, BigInt) : Uint32Array.from(values);
    return this.put(new Uint8Array(array.buffer));
  }

  free(): void {
    for (const pointer of this.#pointers) this.#module.x.free(pointer);
    this.#pointers = [];
  }
}
