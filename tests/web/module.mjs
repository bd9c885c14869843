// module.mjs: a WebAssembly module of bindings/web/native/quip_web.h as a JavaScript object, for tests.
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const Status = { argument: -1, memory: -2, io: -3, format: -4, unsupported: -5, contextFull: -6, cancelled: -7 };

export class QuipError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The builds that this engine runs, as { name: WebAssembly.Module }. */
export function builds(folder) {
  const all = {};
  for (const name of ['simd', 'relaxed', 'simd-mt', 'relaxed-mt']) {
    const bytes = readFileSync(`${folder}/quip-${name}.wasm`);
    if (WebAssembly.validate(bytes)) all[name] = new WebAssembly.Module(bytes);
  }
  return all;
}

export class Quip {
  /** `maxPages` bounds the memory of a build with threads: 64 KiB each. */
  constructor(module, maxPages = 65536) {
    const imports = WebAssembly.Module.imports(module);
    this.module = module;
    const env = {
      now: () => performance.timeOrigin + performance.now(),
      random: (to, n) => crypto.getRandomValues(new Uint8Array(this.memory.buffer, to >>> 0, n)),
    };
    if (imports.some((i) => i.kind === 'memory'))
      env.memory = new WebAssembly.Memory({ initial: 64, maximum: maxPages, shared: true });
    this.x = new WebAssembly.Instance(module, { env }).exports;
    this.memory = env.memory ?? this.x.memory;
    this.workers = [];
  }

  get isThreaded() {
    return this.memory.buffer instanceof SharedArrayBuffer;
  }

  /** Start workers for sessions with more than one thread; resolves when they wait. */
  async startThreads(n) {
    for (let index = this.workers.length; index < n; index++)
      this.workers.push(
        new Worker(new URL('./thread.mjs', import.meta.url), {
          workerData: { module: this.module, memory: this.memory, index, stack: this.x.quip_web_pages_alloc(65536) >>> 0 },
        }),
      );
    while (this.x.quip_web_threads_idle() < n) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  async close() {
    await Promise.all(this.workers.map((w) => w.terminate()));
  }

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

  error() {
    const at = this.x.quip_web_error() >>> 0;
    return new QuipError(this.view().getInt32(at, true), this.terminated(at + 4));
  }

  /** A status or count; throws when negative. */
  check(status) {
    if (status < 0) throw this.error();
    return status;
  }

  /** A pointer or handle; throws when 0. */
  made(pointer) {
    if (pointer === 0) throw this.error();
    return pointer >>> 0;
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

  openModel(file) {
    const pages = this.x.quip_web_pages_alloc(file.length) >>> 0;
    if (!pages) throw new QuipError(Status.memory, 'no pages');
    this.bytes(pages, file.length).set(file);
    try {
      return this.made(this.x.quip_web_model_open(pages, file.length));
    } catch (error) {
      this.x.quip_web_pages_free(pages, file.length);
      throw error;
    }
  }

  info(model) {
    return JSON.parse(this.terminated(this.x.quip_web_model_info(model)));
  }

  /** The struct of quip_web.h, from { nContext, nThreads, maxOutputTokens, topK, temperature, topP, seed, flags, adapter }. */
  options(o = {}) {
    const block = new DataView(new ArrayBuffer(80));
    block.setInt32(0, o.nContext ?? 0, true);
    block.setInt32(4, o.nThreads ?? 1, true);
    block.setInt32(8, o.maxOutputTokens ?? 0, true);
    block.setInt32(12, o.topK ?? 0, true);
    block.setFloat32(16, o.temperature ?? 0, true);
    block.setFloat32(20, o.topP ?? 0, true);
    block.setBigUint64(24, BigInt(o.seed ?? 1), true);
    block.setUint32(32, o.flags ?? 0, true);
    block.setBigUint64(64, BigInt(o.adapter ?? 0), true);
    return new Uint8Array(block.buffer);
  }

  openSession(model, options) {
    return this.with(this.options(options), (at) => this.made(this.x.quip_web_session_open(model, at)));
  }

  prefill(session, ids) {
    const bytes = new Uint8Array(Int32Array.from(ids).buffer);
    this.with(bytes, (at) => this.check(this.x.quip_web_prefill(session, at, ids.length)));
  }

  logits(session, vocabSize) {
    const at = this.x.quip_web_logits(session) >>> 0;
    return at ? this.bytes(at, vocabSize * 4).slice() : null;
  }

  append(session, role, text) {
    this.withText(text, (at, n) => this.check(this.x.quip_web_append(session, role, at, n)));
  }

  /** { text, reason } of the next piece. */
  next(session) {
    this.check(this.x.quip_web_next(session));
    const piece = this.x.quip_web_piece() >>> 0;
    const view = this.view();
    return {
      text: this.text(view.getUint32(piece, true), view.getUint32(piece + 8, true)),
      reason: view.getInt32(piece + 16, true),
    };
  }

  answer(session) {
    for (let all = ''; ; ) {
      const { text, reason } = this.next(session);
      if (reason) return { text: all, reason };
      all += text;
    }
  }
}
