/** worker.ts: the worker (worker.js): one engine, one model, any number of sessions. It handles the calls
 * of protocol.ts. A long call runs in short steps and lets messages arrive between them, so sessions take
 * turns, and loading, prefill and decode can be cancelled. */
import { QuipError, toRecord } from "../errors.js";
import type { CallName, Calls, Fit, Role, ToPage, ToWorker } from "../protocol.js";
import { parentPort, yieldToMessages } from "#worker";
import { chooseBackend, findGpu } from "./backend.js";
import { needs64 } from "./builds.js";
import { Engine } from "./engine.js";
import { check } from "./fit.js";
import { tokenizerParts } from "./head.js";
import type { FileMemory } from "./file_memory.js";
import { load, type Loading } from "./load.js";
import { release } from "../release.js";

const STEP_MS = 30; // about how long a step of a prefill may take
const LEAST_STEP = 16; // tokens
const MOST_STEP = 1024;

const port = parentPort();
const running = new Map<number, Call>();

/** A call that is running. */
class Call implements Loading {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;
  #asked: ((reply: unknown) => void) | null = null;

  constructor(readonly id: number) {}

  event(event: unknown): void {
    send({ id: this.id, event });
  }

  progress(progress: object): void {
    this.event({ progress });
  }

  pull(): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      if (this.signal.aborted) return reject(this.signal.reason);
      const stop = () => reject(this.signal.reason);
      this.signal.addEventListener("abort", stop, { once: true });
      this.#asked = (reply) => {
        this.signal.removeEventListener("abort", stop);
        resolve(reply as Uint8Array | null);
      };
      this.event({ pull: true });
    });
  }

  reply(reply: unknown): void {
    this.#asked?.(reply);
    this.#asked = null;
  }

  cancel(): void {
    this.#controller.abort(new QuipError("cancelled", "cancelled"));
  }

  yieldToMessages = yieldToMessages;
}

function send(message: ToPage, transfer: Transferable[] = []): void {
  port.post(message, transfer);
}

/* ---- the state of this worker ---- */

let engine: Engine; // undefined until a call has started it
let model = 0;
let embedder = 0;
let modelFile = { pointer: 0, length: 0 };
let vocabSize = 0;
let embeddingSize = 0;
let stepTokens = LEAST_STEP; // of a step that took about STEP_MS
let openOnCpu: () => number; // the same model, for embeddings, which cannot say "not yet"
const adapters = new Set<number>();

function open(session: number): number {
  if (!engine.sessions.has(session)) throw new QuipError("argument", "the session is closed");
  return session;
}

/** `adapter` is 0 to remove it. */
function openAdapter(adapter: number): number {
  if (adapter && !adapters.has(adapter)) throw new QuipError("argument", "the adapter is closed");
  return adapter;
}

/** Open a session. Who runs out of memory has often opened many. */
async function add(openSession: () => number) {
  let session = 0;
  try {
    session = openSession();
    if (await engine.gpu?.isShort()) throw new QuipError("memory", "the GPU has no memory for the session");
  } catch (error) {
    engine.closeSession(session);
    if (!(error instanceof QuipError) || error.status !== "memory") throw error;
    const n = engine.sessions.size;
    const others = n === 1 ? "1 session is" : `${n} sessions are`;
    const remedy = `${others} open; call close() on those that are not needed, or choose a smaller nContext`;
    throw new QuipError("memory", `${error.message}; ${n ? remedy : "choose a smaller nContext"}`);
  }
  return { session, nContext: engine.module.x.quip_session_n_context(session) };
}

/** Run the `left` tokens that were appended last, in steps. A cancel removes them. */
async function run(session: number, left: number, call: Call): Promise<void> {
  while (left > 0) {
    const n = Math.min(left, stepTokens);
    const start = performance.now();
    left = await engine.run(session, n);
    const ms = performance.now() - start;
    if (n === stepTokens && ms < STEP_MS) stepTokens = Math.min(2 * n, MOST_STEP);
    else if (ms > 2 * STEP_MS) stepTokens = Math.max(n >> 1, LEAST_STEP);
    await yieldToMessages();
    if (left > 0 && (call.signal.aborted || !engine.sessions.has(session))) {
      if (engine.sessions.has(session)) engine.undo(session);
      throw call.signal.reason ?? new QuipError("argument", "the session was closed");
    }
  }
}

const append = (session: number, role: Role, text: string, call: Call) =>
  run(session, engine.beginAppend(session, role, text), call);

const handlers: { [C in CallName]: (params: Calls[C][0], call: Call) => Promise<Calls[C][1]> | Calls[C][1] } = {
  async open({ source, sha256, ...params }, call) {
    const { gpu, reason } = await findGpu(params.backend);
    engine = await Engine.start(params, 0, gpu);
    const choose = async (bytes: number) => {
      if (needs64(bytes) && !params.build && !engine.module.is64) engine = await Engine.start(params, bytes, gpu);
      await engine.startThreads(params.nThreads);
      return engine.module;
    };
    let loaded: FileMemory;
    model = await load(choose, source, sha256, call, (file) => engine.openModel((loaded = file), params, "cpu"));
    modelFile = { pointer: loaded!.pointer, length: loaded!.length };
    if (gpu) call.progress({ phase: "gpu", loaded: modelFile.length, total: modelFile.length });
    const chosen = gpu ? await chooseBackend(engine, model, loaded!, params) : { model, reason };
    model = chosen.model;
    const info = { ...engine.modelInfo(model), backendReason: chosen.reason };
    ({ vocabSize, embeddingSize } = info);
    const onCpu = info.backend === "cpu" ? model : 0;
    openOnCpu = () => onCpu || engine.openModel(loaded, params, "cpu");
    return { info, build: engine.build };
  },

  async check({ source, nContext, ...params }, call): Promise<Fit> {
    engine = await Engine.start({ ...params, build: params.build ?? "simd" });
    return check(engine, source, nContext, params.build, call.signal);
  },

  async adapter({ source, sha256 }, call) {
    const adapter = await load(() => engine.module, source, sha256, call, async (file) => {
      await engine.idle();
      return engine.openAdapter(model, file);
    });
    adapters.add(adapter);
    return adapter;
  },

  closeAdapter({ adapter }) {
    if (adapters.delete(adapter)) engine.module.x.quip_adapter_close(adapter);
  },

  setAdapter({ session, adapter, scale }) {
    engine.setAdapter(open(session), openAdapter(adapter), scale);
  },

  session(params) {
    openAdapter(params.adapter);
    return add(() => engine.openSession(model, params));
  },

  closeSession({ session }) {
    engine.closeSession(session);
  },

  clone({ session }) {
    return add(() => engine.clone(open(session)));
  },

  setOptions({ session, ...params }) {
    engine.setOptions(open(session), params);
  },

  append({ session, role, text }, call) {
    return append(open(session), role, text, call);
  },

  async say({ session, text }, call) {
    open(session);
    if (text !== undefined) await append(session, "user", text, call);
    for (let isFirst = true; ; isFirst = false) {
      if (call.signal.aborted) engine.cancel(session);
      let piece;
      try {
        piece = await engine.next(session);
      } catch (error) {
        if (isFirst && text !== undefined) engine.undo(session); // the context is full: no answer
        throw error;
      }
      if (piece === null) return engine.result(session);
      if (piece) call.event({ text: piece });
      await yieldToMessages();
      open(session);
    }
  },

  prefill({ session, tokens }, call) {
    return run(session, engine.beginPrefill(open(session), tokens), call);
  },
  logits({ session }) {
    return engine.logits(open(session), vocabSize);
  },
  position({ session }) {
    return engine.module.x.quip_session_position(open(session));
  },
  rewind({ session, position }) {
    engine.rewind(open(session), position);
  },
  tokenize({ text, withSpecial }) {
    return engine.tokenize(model, text, withSpecial);
  },
  detokenize({ tokens }) {
    return engine.detokenize(model, tokens);
  },
  async embed({ texts, options }, call) {
    const all: Float32Array[] = [];
    embedder ||= openOnCpu();
    for (let n = 1; all.length < texts.length; ) {
      const start = performance.now();
      const part = texts.slice(all.length, all.length + n);
      all.push(...engine.embed(embedder, part, options.dimensions || embeddingSize, options));
      if (performance.now() - start < STEP_MS) n *= 2;
      await yieldToMessages();
      if (call.signal.aborted) throw call.signal.reason;
    }
    return all;
  },
  tokenizer() {
    return tokenizerParts(engine, () => engine.module.bytes(modelFile.pointer, modelFile.length));
  },
  memory() {
    return engine.memoryBytes;
  },
};

/** After a trap the state of the module is unknown: the page must start another worker. */
const isTrap = (error: unknown) =>
  error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message));

async function answer(id: number, name: CallName, params: unknown): Promise<void> {
  const call = new Call(id);
  running.set(id, call);
  try {
    const handle = handlers[name] as (params: unknown, call: Call) => unknown;
    await engine?.idle();
    send({ id, value: await handle(params, call) });
  } catch (error) {
    if (isTrap(error)) send({ fatal: { status: "internal", message: `the engine stopped in '${name}': ${(error as Error).message}` } });
    else send({ id, error: toRecord(error) });
  } finally {
    running.delete(id);
  }
}

port.onmessage = (message: ToWorker) => {
  if ("call" in message && message.release !== release)
    send({ fatal: { status: "io", message: "worker.js and index.js are of two releases of this package; empty the caches that serve them" } });
  else if ("call" in message) void answer(message.id, message.call, message.params);
  else if ("cancel" in message) running.get(message.id)?.cancel();
  else running.get(message.id)?.reply(message.reply);
};
