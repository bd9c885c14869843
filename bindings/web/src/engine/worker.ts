/** worker.ts: the worker (worker.js): one engine, one model, any number of sessions. It answers the
 * calls of protocol.ts. Long calls run in short steps and look at the messages in between, so that
 * sessions take turns and a cancel is heard in loading, prefill and decode alike. */
import { QuipError, toRecord } from "../errors.js";
import type { CallName, Calls, Fit, ToPage, ToWorker } from "../protocol.js";
import { breathe, parentPort } from "#worker";
import { needs64 } from "./builds.js";
import { Engine } from "./engine.js";
import { check } from "./fit.js";
import { tokenizerParts } from "./header.js";
import { load, type Loading } from "./load.js";

const STEP_MS = 30; // about as long as a step of a prefill may take
const STEP_TOKENS = 16; // the first one

const port = parentPort();
const running = new Map<number, Call>();

/** A call that is being answered. */
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

  breathe = breathe;
}

function send(message: ToPage, transfer: Transferable[] = []): void {
  port.post(message, transfer);
}

/* ---- what there is ---- */

let engine: Engine;
let model = 0;
let file = { pointer: 0, length: 0 }; // the model's
let vocabSize = 0;
const sessions = new Set<number>();
const adapters = new Set<number>();

function open(session: number): number {
  if (!sessions.has(session)) throw new QuipError("argument", "the session is closed");
  return session;
}

/** 0 is none. */
function openAdapter(adapter: number): number {
  if (adapter && !adapters.has(adapter)) throw new QuipError("argument", "the adapter is closed");
  return adapter;
}

function added(session: number) {
  sessions.add(session);
  return { session, nContext: engine.module.x.session_n_context(session) };
}

/** Append a text in steps; a cancel undoes it. */
async function append(session: number, role: "none" | "user" | "model" | "system", text: string, call: Call): Promise<void> {
  let left = engine.appendBegin(session, role, text);
  let n = STEP_TOKENS;
  while (left > 0) {
    const start = performance.now();
    left = engine.appendStep(session, n);
    if (performance.now() - start < STEP_MS) n *= 2;
    await breathe();
    if (left > 0 && (call.signal.aborted || !sessions.has(session))) {
      if (sessions.has(session)) engine.module.x.append_undo(session);
      throw call.signal.reason ?? new QuipError("argument", "the session was closed");
    }
  }
}

const handlers: { [C in CallName]: (params: Calls[C][0], call: Call) => Promise<Calls[C][1]> | Calls[C][1] } = {
  async open({ source, sha256, ...params }, call) {
    engine = await Engine.start(params);
    const memory = async (bytes: number) => {
      if (needs64(bytes) && !params.build && !engine.module.is64) engine = await Engine.start(params, bytes);
      return engine.module;
    };
    model = await load(memory, source, sha256, call, (place) => {
      const opened = engine.openModel(place);
      file = { pointer: place.pointer, length: place.length };
      return opened;
    });
    const info = engine.modelInfo(model);
    vocabSize = info.vocabSize;
    return { info, build: engine.build };
  },

  async check({ source, nContext, ...params }, call): Promise<Fit> {
    engine = await Engine.start({ ...params, build: params.build ?? "simd" });
    return check(engine, source, nContext, params.build, call.signal);
  },

  async adapter({ source, sha256 }, call) {
    const adapter = await load(() => engine.module, source, sha256, call, (place) => engine.openAdapter(model, place));
    adapters.add(adapter);
    return adapter;
  },

  closeAdapter({ adapter }) {
    if (adapters.delete(adapter)) engine.module.x.adapter_close(adapter);
  },

  setAdapter({ session, adapter, scale }) {
    engine.module.check(engine.module.x.session_set_adapter(open(session), openAdapter(adapter), scale));
  },

  async session(params) {
    openAdapter(params.adapter);
    return added(await engine.openSession(model, params));
  },

  closeSession({ session }) {
    if (sessions.delete(session)) engine.module.x.session_close(session);
  },

  clone({ session }) {
    return added(engine.module.handle(engine.module.x.session_clone(open(session))));
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
        piece = engine.next(session);
      } catch (error) {
        if (isFirst && text !== undefined) engine.module.x.append_undo(session); // no room to answer
        throw error;
      }
      if (typeof piece !== "string") return engine.result(session);
      if (piece) call.event({ text: piece });
      await breathe();
      open(session);
    }
  },

  prefill({ session, tokens }) {
    engine.prefill(open(session), tokens);
  },
  logits({ session }) {
    return engine.logits(open(session), vocabSize);
  },
  position({ session }) {
    return engine.module.x.session_position(open(session));
  },
  rewind({ session, position }) {
    engine.module.check(engine.module.x.session_rewind(open(session), position));
  },
  encode({ text, special }) {
    return engine.encode(model, text, special);
  },
  decode({ tokens }) {
    return engine.decode(model, tokens);
  },
  tokenizer() {
    return tokenizerParts(engine, () => engine.module.bytes(file.pointer, file.length));
  },
  memory() {
    return engine.memoryBytes;
  },
};

/** A trap leaves the module in no known state: the page must start another worker. */
const isTrap = (error: unknown) =>
  error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message));

async function answer(id: number, name: CallName, params: unknown): Promise<void> {
  const call = new Call(id);
  running.set(id, call);
  try {
    const handle = handlers[name] as (params: unknown, call: Call) => unknown;
    send({ id, value: await handle(params, call) });
  } catch (error) {
    if (isTrap(error)) send({ fatal: { status: "internal", message: `the engine stopped in '${name}': ${(error as Error).message}` } });
    else send({ id, error: toRecord(error) });
  } finally {
    running.delete(id);
  }
}

port.onmessage = (message: ToWorker) => {
  if ("call" in message) void answer(message.id, message.call, message.params);
  else if ("cancel" in message) running.get(message.id)?.cancel();
  else running.get(message.id)?.reply(message.reply);
};
