/** module.ts: the WebAssembly module in JavaScript: its functions, memory, structs, texts and errors.
 * The contract is quip.h and native/quip_web.h; abi.ts is generated from them. Memory may grow in every
 * call, and then a view of it is invalid: views are made where they are used and never kept. */
import { QuipError, type Status } from "../errors.js";
import type { Build } from "../protocol.js";
import { abi } from "./abi.js";
import type { Gpu } from "./gpu.js";

type Fn = (...args: number[]) => number;

/** The functions of the module. Outside of this file every argument and result is a number from 0, also
 * an address in 64-bit memory. */
export type Exports = { [name in keyof typeof abi.functions]: Fn };

type StructName = keyof typeof abi.structs;
type Field<S extends StructName> = keyof (typeof abi.structs)[S]["fields"];

const { QUIP_OK, ...FAILURES } = abi.enums.quip_status;

/** The status that a number of quip.h stands for: QUIP_E_CONTEXT_FULL is "context_full". */
const STATUS = Object.fromEntries(
  Object.entries(FAILURES).map(([name, value]) => [value, name.slice("QUIP_E_".length).toLowerCase()]),
) as Record<number, Status>;

/** Thrown by a call that the GPU has not done yet. */
export const NOT_YET = Symbol("not yet");

const PAGE = 65536;
const FIRST_PAGES = 64;
/** The largest memory of a module. Only the part that is used costs anything. */
export const LIMIT = 2 ** 32;
export const LIMIT_64 = 2 ** 34;

const isShared = (build: Build) => build.includes("-mt");
const is64 = (build: Build) => build.endsWith("-64");

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** TextDecoder and crypto reject shared memory: they get a copy. */
const unshared = (bytes: Uint8Array) => (bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice());

/** An address or size as a number. 64-bit memory has BigInts, 32-bit memory signed numbers. */
export const address = (value: number | bigint) => (typeof value === "bigint" ? Number(value) : value >>> 0);

/** What a module imports of a GPU, where there is none. */
const noGpu = (module: WebAssembly.Module) =>
  Object.fromEntries(WebAssembly.Module.imports(module).filter((i) => i.module === "gpu").map(({ name }) => [name, () => 0]));

/** The functions that a module imports: a clock, random numbers and a GPU. */
export function imports(module: WebAssembly.Module, memory: () => WebAssembly.Memory, gpu: Gpu | null = null) {
  // local time, which chat templates may ask for; it never goes back
  const origin = performance.timeOrigin - new Date().getTimezoneOffset() * 60000;
  const now = () => origin + performance.now();
  const random = (at: number | bigint, n: number | bigint) => {
    const to = new Uint8Array(memory().buffer, address(at), address(n));
    to.set(crypto.getRandomValues(new Uint8Array(to.length)));
  };
  return { env: { now, random }, gpu: gpu?.imports(memory) ?? noGpu(module) };
}

/** The exports, with numbers for addresses. */
export function exportsOf(instance: WebAssembly.Instance, build: Build): Exports {
  const fingerprint = instance.exports.quip_web_abi as (() => number) | undefined;
  if (fingerprint?.() !== abi.fingerprint)
    throw new QuipError("io", `quip-${build}.wasm is of another release of this package than its scripts; empty the caches that serve them`);
  const functions = Object.entries(abi.functions).map(([name, signature]) => {
    const f = instance.exports[name] as Raw | undefined; // some modules have no threads
    return [name, f && withNumbers(f, signature, is64(build))];
  });
  return Object.fromEntries(functions) as Exports;
}

type Raw = (...args: (number | bigint)[]) => number | bigint;

function withNumbers(f: Raw, signature: string, isWide: boolean): Fn {
  const g: Raw = isWide ? (...args) => f(...args.map((arg, i) => (signature[i] === "a" ? BigInt(arg) : arg))) : f;
  return signature.endsWith(">a") ? (...args) => address(g(...args)) : (g as Fn);
}

export class Module {
  readonly #error: Struct<"quip_error">;
  readonly #result: number; // where a function puts a handle or a count

  private constructor(
    readonly x: Exports,
    readonly memory: WebAssembly.Memory,
    readonly build: Build,
  ) {
    const [at, result] = [this.x.quip_web_malloc(Struct.bytes(this, "quip_error")), this.x.quip_web_malloc(8)];
    this.#error = new Struct(this, "quip_error", at);
    this.#result = result;
  }

  /** Instantiate a build. Null if it needs shared memory and the device has none. */
  static start(module: WebAssembly.Module, build: Build, gpu: Gpu | null = null): Promise<Module | null> {
    return isShared(build) ? Module.#shared(module, build, gpu) : Module.#single(module, build, gpu);
  }

  static async #single(module: WebAssembly.Module, build: Build, gpu: Gpu | null): Promise<Module> {
    let memory: WebAssembly.Memory;
    const instance = await WebAssembly.instantiate(module, imports(module, () => memory, gpu));
    memory = instance.exports.memory as WebAssembly.Memory;
    return new Module(exportsOf(instance, build), memory, build);
  }

  /** With memory that workers share. */
  static async #shared(module: WebAssembly.Module, build: Build, gpu: Gpu | null): Promise<Module | null> {
    const memory = sharedMemory(is64(build));
    if (!memory) return null;
    const all = imports(module, () => memory, gpu);
    const instance = await WebAssembly.instantiate(module, { ...all, env: { ...all.env, memory } });
    return new Module(exportsOf(instance, build), memory, build);
  }

  get isShared(): boolean {
    return isShared(this.build);
  }

  get is64(): boolean {
    return is64(this.build);
  }

  /** The largest size of its memory, in bytes. */
  get limit(): number {
    return this.is64 ? LIMIT_64 : LIMIT;
  }

  /** Does this engine compute as the module requires? (Relaxed SIMD in the baseline compiler of Node 20
   * does not.) */
  get isRight(): boolean {
    return this.x.quip_backend_check(abi.enums.quip_backend.QUIP_BACKEND_CPU, 0) === QUIP_OK;
  }

  /* ---- memory ---- */

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

  /** NUL-terminated text of at most `most` bytes. */
  cText(pointer: number, most = 512): string {
    const rest = this.memory.buffer.byteLength - pointer;
    return this.text(pointer, this.bytes(pointer, Math.min(rest, most)).indexOf(0));
  }

  /** Run f with memory for its arguments, which is freed when f ends. */
  scoped<T>(f: (arena: Arena) => T): T {
    const arena = new Arena(this);
    try {
      return f(arena);
    } finally {
      arena.free();
    }
  }

  /* ---- calls ---- */

  /** Call a function that returns a quip_status and whose last parameter, left out here, is a
   * quip_error. Throws if it fails, or NOT_YET. */
  call(name: keyof Exports, ...args: number[]): void {
    const returned = this.x[name](...args, this.#error.pointer);
    if (returned === QUIP_OK) return;
    if (returned === abi.enums.quip_web_status.QUIP_WEB_NOT_YET) throw NOT_YET;
    const status = STATUS[this.#error.get("status")] ?? "internal";
    throw new QuipError(status, this.cText(this.#error.at("message")));
  }

  /** The same for a function that fills *handle, its first parameter. */
  handle(name: keyof Exports, ...args: number[]): number {
    this.call(name, this.#result, ...args);
    return this.#load();
  }

  /** The same for a function that fills *n, its last parameter but one: an int. */
  count(name: keyof Exports, ...args: number[]): number {
    this.call(name, ...args, this.#result);
    return this.view(this.#result, 4).getInt32(0, true);
  }

  /** The same for a size_t. */
  size(name: keyof Exports, ...args: number[]): number {
    this.call(name, ...args, this.#result);
    return this.#load();
  }

  #load(): number {
    const view = this.view(this.#result, 8);
    return this.is64 ? Number(view.getBigUint64(0, true)) : view.getUint32(0, true);
  }

  /** A model without weights, from the beginning of its file. */
  openHead(name: string, head: Uint8Array, fileBytes: number): number {
    return this.scoped((a) => {
      const options = a.struct("quip_model_options", { name: a.cText(name) });
      return this.handle("quip_web_model_open_head", a.put(head), head.length, fileBytes, options.pointer);
    });
  }
}

function sharedMemory(isWide: boolean): WebAssembly.Memory | null {
  try {
    return isWide
      ? newMemory64(FIRST_PAGES * PAGE, { maximum: BigInt(LIMIT_64 / PAGE), shared: true })
      : new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: LIMIT / PAGE, shared: true });
  } catch {
    return null; // a RangeError: browsers reserve the maximum as address space
  }
}

/** Memory with 64-bit addresses. Throws if the browser has none. */
export function newMemory64(bytes: number, more: object = {}): WebAssembly.Memory {
  const descriptor = { address: "i64", initial: BigInt(Math.ceil(bytes / PAGE)), ...more };
  return new WebAssembly.Memory(descriptor as never);
}

/** A struct of quip.h in the module's memory. */
export class Struct<S extends StructName> {
  readonly #module: Module;
  readonly #name: S;

  constructor(
    module: Module,
    name: S,
    readonly pointer: number,
  ) {
    this.#module = module;
    this.#name = name;
  }

  static bytes(module: Module, name: StructName): number {
    return abi.structs[name].size[module.is64 ? 1 : 0];
  }

  #field(name: Field<S>): readonly [kind: string, at: number] {
    const fields = abi.structs[this.#name].fields as Record<Field<S>, readonly [string, number, number]>;
    const [kind, at32, at64] = fields[name];
    return [kind, this.pointer + (this.#module.is64 ? at64 : at32)];
  }

  /** The address of a field. */
  at(name: Field<S>): number {
    return this.#field(name)[1];
  }

  get(name: Field<S>): number {
    const [kind, at] = this.#field(name);
    const view = this.#module.view(at, kind === "bool" ? 1 : kind === "u64" ? 8 : 4);
    if (kind === "bool") return view.getUint8(0);
    if (kind === "i32") return view.getInt32(0, true);
    if (kind === "f32") return view.getFloat32(0, true);
    if (kind === "u64" || (kind === "address" && this.#module.is64))
      return Number(this.#module.view(at, 8).getBigUint64(0, true));
    return view.getUint32(0, true);
  }

  set(name: Field<S>, value: number | boolean): void {
    const [kind, at] = this.#field(name);
    const isWide = kind === "u64" || (kind === "address" && this.#module.is64);
    const view = this.#module.view(at, isWide ? 8 : kind === "bool" ? 1 : 4);
    if (isWide) view.setBigUint64(0, BigInt(value), true);
    else if (kind === "bool") view.setUint8(0, Number(value));
    else if (kind === "f32") view.setFloat32(0, Number(value), true);
    else view.setUint32(0, Number(value), true);
  }
}

/** Memory for the arguments of one call. */
export class Arena {
  #module: Module;
  #pointers: number[] = [];

  constructor(module: Module) {
    this.#module = module;
  }

  alloc(n: number): number {
    const pointer = this.#module.x.quip_web_malloc(n || 1);
    if (!pointer) throw new QuipError("memory", `out of memory: ${n} bytes for arguments`);
    this.#pointers.push(pointer);
    return pointer;
  }

  put(bytes: Uint8Array): number {
    const pointer = this.alloc(bytes.length);
    this.#module.bytes(pointer, bytes.length).set(bytes);
    return pointer;
  }

  /** A struct whose other fields are zero. A struct_size is filled in. */
  struct<S extends StructName>(name: S, values: { [field in Field<S>]?: number | boolean } = {}): Struct<S> {
    const bytes = Struct.bytes(this.#module, name);
    const struct = new Struct(this.#module, name, this.put(new Uint8Array(bytes)));
    if ("struct_size" in abi.structs[name].fields) struct.set("struct_size" as Field<S>, bytes);
    for (const [field, value] of Object.entries(values)) struct.set(field as Field<S>, value as number | boolean);
    return struct;
  }

  /** Text as [pointer, length]. */
  text(s: string): [number, number] {
    const bytes = utf8.encode(s);
    return [this.put(bytes), bytes.length];
  }

  /** NUL-terminated text; NULL for undefined. */
  cText(s: string | undefined): number {
    return s === undefined ? 0 : this.put(utf8.encode(s + "\0"));
  }

  ints(values: Int32Array | number[]): number {
    const copy = Int32Array.from(values);
    return this.put(new Uint8Array(copy.buffer));
  }

  /** An array of addresses. */
  pointers(values: number[]): number {
    const array = this.#module.is64 ? BigUint64Array.from(values, BigInt) : Uint32Array.from(values);
    return this.put(new Uint8Array(array.buffer));
  }

  free(): void {
    for (const pointer of this.#pointers) this.#module.x.quip_web_free(pointer);
    this.#pointers = [];
  }
}
