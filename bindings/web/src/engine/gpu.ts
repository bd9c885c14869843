/** gpu.ts: a GPU of this browser, and the functions that the library (src/webgpu/device_web.c) calls on it.
 * Objects of WebGPU have numbers there; 0 is none. Calls of the library do not wait: who makes them waits
 * with `pending`, and calls again. */
import { QuipError } from "../errors.js";
import { address } from "./module.js";
import subgroupShader from "../../../../src/webgpu/subgroup.wgsl";

/** Why a GPU cannot be used, for QuipError and for `backendReason`. */
const unsupported = (why: string) => new QuipError("unsupported", why);

/* GPUBufferUsage, GPUMapMode and GPUShaderStage, which Node does not have. */
const [MAP_READ, COPY_SRC, COPY_DST, UNIFORM, STORAGE] = [1, 4, 8, 64, 128];
const MODE_READ = 1;
const STAGE_COMPUTE = 4;

/** By enum gpu_usage of device.h. */
const USAGES = [STORAGE | COPY_SRC | COPY_DST, UNIFORM | COPY_DST, MAP_READ | COPY_DST];

/** Before each shader, if the GPU has subgroups. wgpu-native does not know this line. */
const ENABLE_SUBGROUPS = "enable subgroups;\n";

/** Of WGSL: dot4I8Packed and the like, which shaders of every model call. wgpu-native and Dawn always have it. */
const PACKED_PRODUCTS = "packed_4x8_integer_dot_product";

const LOST = "was lost; open the model again";

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder();

type Handle = GPUBuffer | GPUComputePipeline | GPUBindGroup;
type Address = number | bigint;
type Layout = { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout };

/** How many neighbouring threads are a subgroup, if it is the same number from 8 to 64 for all threads of a
 * workgroup; otherwise 1. src/webgpu/subgroups.c asks the same of native GPUs. */
async function subgroupOf(device: GPUDevice): Promise<number> {
  const size = 4 * 256;
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: ENABLE_SUBGROUPS + subgroupShader });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const out = device.createBuffer({ usage: STORAGE | COPY_SRC, size });
  const copy = device.createBuffer({ usage: MAP_READ | COPY_DST, size });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 1, resource: { buffer: out } }] }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, copy, 0, size);
  device.queue.submit([encoder.finish()]);
  const [error] = await Promise.all([device.popErrorScope(), copy.mapAsync(MODE_READ)]).catch(() => [true]);
  const found = error ? [1] : [...new Set(new Uint32Array(copy.getMappedRange()))];
  for (const buffer of [out, copy]) buffer.destroy();
  const [first] = found as [number];
  return found.length === 1 && [8, 16, 32, 64].includes(first) ? first : 1;
}

/** Sleeps for less than the 4 ms that timers take; null if the browser cannot. */
function shortSleep(): ((ms: number) => Promise<unknown>) | null {
  type Waits = { waitAsync?(cell: Int32Array, index: number, value: number, ms: number): { value: Promise<unknown> | string } };
  const atomics = Atomics as Waits;
  if (!atomics.waitAsync) return null;
  try {
    const cell = new Int32Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer);
    return async (ms) => atomics.waitAsync!(cell, 0, 0, ms).value;
  } catch {
    return null;
  }
}

export class Gpu {
  #objects = new Map<number, Handle>();
  #nextId = 1;
  #layouts = new Map<string, Layout>();
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #closing: GPUBuffer[] = []; // that recorded work may use
  #scopes: Promise<unknown>[] = []; // of buffers that were created
  #mapped = new Set<GPUBuffer>();
  #isShort = false;
  #failure = "";
  readonly #sleep = shortSleep();
  #compiling = 0; // pipelines
  #waiting: (() => void)[] = []; // calls behind these, in their order

  /** Pipelines are compiled in the call that asks for them. Otherwise in the background and side by side, and
   * the calls that follow wait: a copy is made of what they write. */
  compilesAtOnce = false;

  /** Resolves when the bytes that the library asked for last are there, or cannot come; null: none. */
  pending: Promise<void> | null = null;

  private constructor(
    readonly name: string,
    readonly isSoftware: boolean,
    readonly subgroup: number, // threads; 1: no shader uses subgroups
    private readonly device: GPUDevice,
  ) {
    void device.lost.then(({ message }) => this.#fail(message ? `was lost: ${message}; open the model again` : LOST));
    device.addEventListener("uncapturederror", ({ error }) => this.#fail(`refused a call: ${error.message}`));
  }

  /** The fastest GPU that the browser offers. Throws with a sentence if there is none. */
  static async open(): Promise<Gpu> {
    const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
    if (!gpu)
      throw unsupported(
        globalThis.isSecureContext === false
          ? "WebGPU is for secure pages only; serve the page with https"
          : "this browser has no WebGPU",
      );
    if (!(gpu.wgslLanguageFeatures as GPU["wgslLanguageFeatures"] | undefined)?.has(PACKED_PRODUCTS))
      throw unsupported(`the WebGPU of this browser has no ${PACKED_PRODUCTS}, which the shaders need; use a newer browser`);
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw unsupported("the browser offers no GPU: there is none, or its driver is blocked");
    const { vendor, architecture, device: chip, description } = adapter.info;
    const name = description || [vendor, architecture, chip].filter(Boolean).join(" ") || "a GPU without a name";
    const isFallback = adapter.info.isFallbackAdapter || (adapter as { isFallbackAdapter?: boolean }).isFallbackAdapter;
    const isSoftware = !!isFallback || /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${name} ${architecture}`);
    const { limits } = adapter;
    const { subgroupMinSize: least, subgroupMaxSize: most } = adapter.info;
    const hasSubgroups = adapter.features.has("subgroups") && least === most && least >= 8;
    const device = await adapter
      .requestDevice({
        requiredFeatures: hasSubgroups ? ["subgroups"] : [],
        requiredLimits: {
          maxBufferSize: limits.maxBufferSize,
          maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
          maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
          maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
        },
      })
      .catch((error: Error) => {
        throw unsupported(`the GPU (${name}) cannot be opened: ${error.message}`);
      });
    return new Gpu(name, isSoftware, hasSubgroups ? await subgroupOf(device) : 1, device);
  }

  close(): void {
    this.device.destroy();
  }

  #fail(what: string): void {
    this.#failure ||= `the GPU (${this.name}) ${what}`;
  }

  /** Has a buffer that was created since the last call no memory? Resolves when that is known. */
  async isShort(): Promise<boolean> {
    await Promise.all(this.#scopes.splice(0));
    const isShort = this.#isShort;
    this.#isShort = false;
    return isShort;
  }

  /* ---- the imports of the module ---- */

  imports(memory: () => WebAssembly.Memory): WebAssembly.ModuleImports {
    const bytes = (at: Address, n: Address) => new Uint8Array(memory().buffer as ArrayBuffer, address(at), address(n));
    const put = (text: string, to: Address, n: Address) => {
      const found = utf8.encode(text).subarray(0, address(n));
      bytes(to, found.length).set(found);
      return found.length;
    };
    const { limits } = this.device;
    const numbers = [Number(this.isSoftware), limits.maxBufferSize, limits.maxStorageBufferBindingSize, limits.maxComputeWorkgroupsPerDimension, limits.maxComputeWorkgroupStorageSize, this.subgroup];
    const buffer = (id: number) => this.#objects.get(id) as GPUBuffer;
    return {
      limit: (which: number) => numbers[which],
      name: (to: Address, n: Address) => put(this.name, to, n),
      failure: (to: Address, n: Address) => put(this.#failure, to, n),
      buffer: (usage: number, size: number) => this.#buffer(usage, size),
      write: (to: number, offset: number, from: Address, n: Address) => {
        const copied = this.#compiling ? bytes(from, n).slice() : bytes(from, n);
        this.#compiled(() => this.device.queue.writeBuffer(buffer(to), offset, copied));
      },
      pipeline: (wgsl: Address, n: Address, nRead: number, nWrite: number) =>
        this.#pipeline(fromUtf8.decode(bytes(wgsl, n).slice()), nRead, nWrite),
      bindings: (ranges: Address, nRead: number, nWrite: number) =>
        this.#bindings(new Float64Array(memory().buffer, address(ranges), 3 * (1 + nRead + nWrite)), nRead, nWrite),
      dispatch: (pipeline: number, bindings: number, offset: number, x: number, y: number, z: number) => {
        if (!this.#compiling) this.#dispatch(pipeline, bindings, offset, x, y, z);
        else this.#waiting.push(() => this.#dispatch(pipeline, bindings, offset, x, y, z));
      },
      copy: (to: number, toOffset: number, from: number, fromOffset: number, n: number) =>
        this.#compiled(() => {
          this.#endPass();
          this.#recording().copyBufferToBuffer(buffer(from), fromOffset, buffer(to), toOffset, n);
        }),
      submit: () =>
        this.#compiled(() => {
          this.#endPass();
          if (this.#encoder) this.device.queue.submit([this.#encoder.finish()]);
          this.#forget();
        }),
      discard: () =>
        this.#compiled(() => {
          this.#endPass();
          this.#forget();
        }),
      map: (id: number, n: Address) => {
        this.pending = new Promise((resolve) => this.#compiled(() => resolve(this.#map(buffer(id), address(n)))));
      },
      mapped: (id: number, to: Address, n: Address) => {
        const from = buffer(id);
        if (!this.#mapped.delete(from)) return 0;
        bytes(to, n).set(new Uint8Array(from.getMappedRange(0, address(n))));
        from.unmap();
        return 1;
      },
      close: (id: number) => this.#compiled(() => this.#close(id)),
    };
  }

  #add(object: Handle): number {
    this.#objects.set(this.#nextId, object);
    return this.#nextId++;
  }

  #buffer(usage: number, size: number): number {
    this.device.pushErrorScope("out-of-memory");
    const id = this.#add(this.device.createBuffer({ usage: USAGES[usage]!, size }));
    const scope = this.device.popErrorScope();
    this.#scopes.push(scope.then((error) => void (this.#isShort ||= !!error), () => {})); // rejects when the GPU is lost
    return id;
  }

  #close(id: number): void {
    const object = this.#objects.get(id);
    this.#objects.delete(id);
    if (!object || !("destroy" in object)) return;
    this.#mapped.delete(object);
    if (this.#encoder) this.#closing.push(object);
    else object.destroy();
  }

  #layout(nRead: number, nWrite: number): Layout {
    const key = `${nRead} ${nWrite}`;
    let layout = this.#layouts.get(key);
    if (layout) return layout;
    const type = (i: number) => (i === 0 ? "uniform" : i <= nRead ? "read-only-storage" : "storage");
    const group = this.device.createBindGroupLayout({
      entries: Array.from({ length: 1 + nRead + nWrite }, (_, binding) => ({
        binding,
        visibility: STAGE_COMPUTE,
        buffer: { type: type(binding), hasDynamicOffset: binding === 0 },
      })),
    });
    layout = { group, pipeline: this.device.createPipelineLayout({ bindGroupLayouts: [group] }) };
    this.#layouts.set(key, layout);
    return layout;
  }

  #pipeline(code: string, nRead: number, nWrite: number): number {
    const module = this.device.createShaderModule({ code: this.subgroup > 1 ? ENABLE_SUBGROUPS + code : code });
    const descriptor = { layout: this.#layout(nRead, nWrite).pipeline, compute: { module, entryPoint: "main" } };
    if (this.compilesAtOnce) return this.#add(this.device.createComputePipeline(descriptor));
    const id = this.#nextId++;
    this.#compiling++;
    void this.device
      .createComputePipelineAsync(descriptor)
      .then((pipeline) => this.#objects.set(id, pipeline))
      .catch((error: Error) => this.#fail(`refused a shader: ${error.message}`))
      .then(() => --this.#compiling || this.#continue());
    return id;
  }

  /** Make a call, once the pipelines are compiled. */
  #compiled(call: () => void): void {
    if (this.#compiling) this.#waiting.push(call);
    else call();
  }

  #continue(): void {
    for (const call of this.#waiting.splice(0)) call();
  }

  /** `ranges` has a buffer, an offset and a size for each binding. */
  #bindings(ranges: Float64Array, nRead: number, nWrite: number): number {
    const entries = Array.from({ length: 1 + nRead + nWrite }, (_, binding) => {
      const [id, offset, size] = ranges.subarray(3 * binding, 3 * binding + 3) as unknown as [number, number, number];
      return { binding, resource: { buffer: this.#objects.get(id) as GPUBuffer, offset, size } };
    });
    return this.#add(this.device.createBindGroup({ layout: this.#layout(nRead, nWrite).group, entries }));
  }

  /* ---- recording ---- */

  #recording(): GPUCommandEncoder {
    return (this.#encoder ??= this.device.createCommandEncoder());
  }

  #dispatch(pipeline: number, bindings: number, offset: number, x: number, y: number, z: number): void {
    const compiled = this.#objects.get(pipeline) as GPUComputePipeline | undefined;
    if (!compiled) return; // it does not compile: #failure says so
    this.#pass ??= this.#recording().beginComputePass();
    this.#pass.setPipeline(compiled);
    this.#pass.setBindGroup(0, this.#objects.get(bindings) as GPUBindGroup, [offset]);
    this.#pass.dispatchWorkgroups(x >>> 0, y >>> 0, z >>> 0);
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }

  /** Nothing is recorded any more: close what it used. */
  #forget(): void {
    this.#encoder = null;
    for (const buffer of this.#closing.splice(0)) buffer.destroy();
  }

  #map(buffer: GPUBuffer, n: number): Promise<void> {
    const mapping = buffer.mapAsync(MODE_READ, 0, n);
    void this.#hurry(mapping);
    return mapping.then(
      () => void this.#mapped.add(buffer),
      // a lost GPU aborts the mapping, and `lost` may come much later
      (error: Error) => this.#fail(error.name === "AbortError" ? LOST : `did not return data: ${error.message}`),
    );
  }

  /** Chromium looks every 1 to 3 ms whether a GPU is done, and whenever something is submitted. So empty lists
   * are submitted while a mapping is awaited: after 0.25 ms, later after a 20th of the time so far. */
  async #hurry(mapping: Promise<void>): Promise<void> {
    let isDone = false;
    const end = () => (isDone = true);
    mapping.then(end, end);
    for (const begin = performance.now(); this.#sleep && !isDone; ) {
      await this.#sleep(Math.max(0.25, (performance.now() - begin) / 20));
      if (!isDone) this.device.queue.submit([]);
    }
  }
}
