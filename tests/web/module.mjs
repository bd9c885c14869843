// module.mjs: a WebAssembly module (bindings/web/native/quip_web.h) with 32-bit memory as a JavaScript
// object, for tests. Struct layouts are in abi.json, which the build of the modules generates from quip.h.
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const abi = JSON.parse(readFileSync(`${process.env.QUIP_WASM}/abi.json`, 'utf8'));
export const { quip_status: Status, quip_role: Role, quip_finish_reason: Finish } = abi.enums;

export class QuipError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The builds that this Node can run, as { name: WebAssembly.Module }. */
export function builds(folder) {
  const all = {};
  for (const name of ['simd', 'relaxed', 'simd-mt', 'relaxed-mt']) {
    const bytes = readFileSync(`${folder}/quip-${name}.wasm`);
    if (WebAssembly.validate(bytes)) all[name] = new WebAssembly.Module(bytes);
  }
  return all;
}

const GET = { bool: 'getUint8', i32: 'getInt32', u32: 'getUint32', address: 'getUint32', f32: 'getFloat32', u64: 'getBigUint64' };
const SET = { bool: 'setUint8', i32: 'setInt32', u32: 'setUint32', address: 'setUint32', f32: 'setFloat32', u64: 'setBigUint64' };

/** The imports of a GPU: there is none. */
export const noGpu = (module) =>
  Object.fromEntries(WebAssembly.Module.imports(module).filter((i) => i.module === 'gpu').map(({ name }) => [name, () => 0]));

export class Quip {
  /** `maxPages` limits the memory of a build with threads: 64 KiB each. */
  constructor(module, maxPages = 65536) {
    const imports = WebAssembly.Module.imports(module);
    this.module = module;
    const env = {
      now: () => performance.timeOrigin + performance.now(),
      random: (to, n) => crypto.getRandomValues(new Uint8Array(this.memory.buffer, to >>> 0, n)),
    };
    if (imports.some((i) => i.kind === 'memory'))
      env.memory = new WebAssembly.Memory({ initial: 64, maximum: maxPages, shared: true });
    this.x = new WebAssembly.Instance(module, { env, gpu: noGpu(module) }).exports;
    this.memory = env.memory ?? this.x.memory;
    this.workers = [];
    this.files = new Map(); // the memory of each model's file: [pointer, length]
    this.errorAt = this.x.quip_web_malloc(abi.structs.quip_error.size[0]) >>> 0;
    this.resultAt = this.x.quip_web_malloc(8) >>> 0; // where a function puts a handle or a count
  }

  get isThreaded() {
    return this.memory.buffer instanceof SharedArrayBuffer;
  }

  /** Does this Node compute relaxed dot products correctly? */
  get isRight() {
    return this.x.quip_backend_check(abi.enums.quip_backend.QUIP_BACKEND_CPU, 0) === Status.QUIP_OK;
  }

  /** Start workers for the threads of models; resolves when they wait. */
  async startThreads(n) {
    const { WEB_STACK_BYTES } = abi.enums.web_limit;
    for (let index = this.workers.length; index < n; index++) {
      const stack = this.x.quip_memory_alloc(WEB_STACK_BYTES) >>> 0;
      const workerData = { module: this.module, memory: this.memory, index, stack };
      this.workers.push(new Worker(new URL('./thread.mjs', import.meta.url), { workerData }));
    }
    while (this.x.quip_web_threads_idle() < n) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  async close() {
    await Promise.all(this.workers.map((w) => w.terminate()));
  }

  /* ---- memory ---- */

  bytes(at, n) {
    return new Uint8Array(this.memory.buffer, at >>> 0, n);
  }

  view() {
    return new DataView(this.memory.buffer);
  }

  text(at, n) {
    return decoder.decode(this.bytes(at, n).slice());
  }

  terminated(at) {
    const all = new Uint8Array(this.memory.buffer);
    let end = at >>> 0;
    while (all[end]) end++;
    return this.text(at, end - (at >>> 0));
  }

  /** Copy bytes, call fn(pointer, length), free them. */
  with(bytes, fn) {
    const at = this.x.quip_web_malloc(bytes.length || 1) >>> 0;
    this.bytes(at, bytes.length).set(bytes);
    try {
      return fn(at, bytes.length);
    } finally {
      this.x.quip_web_free(at);
    }
  }

  withText(text, fn) {
    return this.with(encoder.encode(text), fn);
  }

  /** A field of a struct at an address. */
  get(struct, at, field) {
    const [kind, offset] = abi.structs[struct].fields[field];
    return this.view()[GET[kind]](at + offset, true);
  }

  /** Call fn(pointer) with a struct that has these fields; all others are zero. */
  withStruct(struct, values, fn) {
    const { size, fields } = abi.structs[struct];
    const block = new DataView(new ArrayBuffer(size[0]));
    for (const [name, value] of Object.entries('struct_size' in fields ? { struct_size: size[0], ...values } : values)) {
      const [kind, offset] = fields[name];
      block[SET[kind]](offset, kind === 'u64' ? BigInt(value) : value, true);
    }
    return this.with(new Uint8Array(block.buffer), fn);
  }

  /* ---- calls ---- */

  error() {
    const { status, message } = abi.structs.quip_error.fields;
    return new QuipError(this.view().getInt32(this.errorAt + status[1], true), this.terminated(this.errorAt + message[1]));
  }

  /** Call a function that returns a status and has an error as its last parameter; throws if it fails. */
  call(name, ...args) {
    const status = this.x[name](...args, this.errorAt);
    if (status !== Status.QUIP_OK) {
      const error = this.error();
      if (error.status !== status) throw new Error(`${name} returned ${status}, its error says ${error.status}`);
      throw error;
    }
  }

  /** The same for a function that fills *handle, its first parameter. */
  handle(name, ...args) {
    this.call(name, this.resultAt, ...args);
    return this.view().getUint32(this.resultAt, true);
  }

  /** The same for a function that fills *n, its last parameter but one. */
  count(name, ...args) {
    this.call(name, ...args, this.resultAt);
    return this.view().getUint32(this.resultAt, true);
  }

  openModel(file, options = {}) {
    const pages = this.x.quip_memory_alloc(file.length) >>> 0;
    if (!pages) throw new QuipError(Status.QUIP_E_MEMORY, 'no pages');
    this.bytes(pages, file.length).set(file);
    try {
      const model = this.withText('test.bin\0', (name) =>
        this.withStruct('quip_model_options', { name, ...options }, (at) => this.handle('quip_web_model_open', pages, file.length, at)),
      );
      this.files.set(model, [pages, file.length]);
      return model;
    } catch (error) {
      this.x.quip_memory_free(pages, file.length);
      throw error;
    }
  }

  /** Close a model without sessions, and free its file. */
  closeModel(model) {
    this.x.quip_model_close(model);
    this.x.quip_memory_free(...this.files.get(model));
    this.files.delete(model);
  }

  /** { vocab_size, ... } */
  info(model) {
    return this.withStruct('quip_model_info', {}, (at) => {
      this.call('quip_model_get_info', model, at);
      const names = Object.keys(abi.structs.quip_model_info.fields);
      return Object.fromEntries(names.map((name) => [name, Number(this.get('quip_model_info', at, name))]));
    });
  }

  /** The options are fields of quip_session_options; one thread and a fixed seed by default. */
  openSession(model, options = {}) {
    const all = { n_threads: 1, seed: 1, has_seed: true, ...options };
    return this.withStruct('quip_session_options', all, (at) => this.handle('quip_session_open', model, at));
  }

  prefill(session, ids) {
    const bytes = new Uint8Array(Int32Array.from(ids).buffer);
    this.with(bytes, (at) => this.call('quip_session_prefill', session, at, ids.length));
  }

  logits(session, vocabSize) {
    const at = this.x.quip_session_logits(session) >>> 0;
    return at ? this.bytes(at, vocabSize * 4).slice() : null;
  }

  append(session, role, text) {
    this.withText(text, (at, n) => this.call('quip_session_append', session, role, at, n));
  }

  /** { text, reason, tokens } of the next piece. */
  next(session) {
    return this.withStruct('quip_piece', {}, (at) => {
      this.call('quip_session_next', session, at);
      const get = (name) => this.get('quip_piece', at, name);
      return {
        text: this.text(get('text'), get('n_text')),
        tokens: [...new Int32Array(this.memory.buffer, get('tokens'), get('n_tokens'))],
        reason: get('finish_reason'),
      };
    });
  }

  answer(session) {
    for (let all = '', ids = []; ; ) {
      const { text, reason, tokens } = this.next(session);
      ids.push(...tokens);
      if (reason) return { text: all, reason, ids };
      all += text;
    }
  }

  /** { n_prompt_tokens, ... } */
  result(session) {
    return this.withStruct('quip_result', {}, (at) => {
      this.call('quip_session_get_result', session, at);
      const names = Object.keys(abi.structs.quip_result.fields);
      return Object.fromEntries(names.map((name) => [name, Number(this.get('quip_result', at, name))]));
    });
  }
}
