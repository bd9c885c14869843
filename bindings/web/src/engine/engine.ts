/** engine.ts: the module that this engine runs best, started: calls of the library in numbers and
 * texts. One engine holds one model; what it computes is native/quip_web.h. */
import { QuipError } from "../errors.js";
import type { Build, EngineParams, FinishReason, ModelInfo, Result, Role, SessionParams } from "../protocol.js";
import { compile, processors } from "#worker";
import { buildsToTry, needs64 } from "./builds.js";
import { Module } from "./module.js";
import type { Place } from "./place.js";
import { Threads } from "./threads.js";

const ROLES: Record<Role, number> = { none: 0, user: 1, model: 2, system: 3 };
const FINISH: Record<number, FinishReason> = { 1: "stop", 2: "length", 3: "context", 4: "cancelled" };

const OPTIONS_BYTES = 80; // of struct web_session_options
const NO_TEMPLATE = 1; // enum web_session_flag

export class Engine {
  private constructor(
    readonly build: Build,
    readonly module: Module,
    readonly compiled: WebAssembly.Module,
    private readonly threads: Threads | null,
  ) {}

  /** The best build that runs here, for a file of this size. */
  static async start({ build, base }: EngineParams, fileBytes = 0): Promise<Engine> {
    for (const candidate of buildsToTry(build, needs64(fileBytes))) {
      const engine = await Engine.#try(candidate, base);
      if (engine) return engine;
    }
    throw new QuipError("unsupported", `the build '${build}' does not run in this engine: use another`);
  }

  /** Null when the engine computes relaxed dot products wrongly (Node 20's baseline compiler), or has no
   * room for shared memory (some phones). */
  static async #try(build: Build, base?: string): Promise<Engine | null> {
    const compiled = await compile(build, base);
    const module = await Module.start(compiled, build);
    if (!module?.x.relaxed_ok()) return null;
    return new Engine(build, module, compiled, module.isShared ? new Threads(compiled, module) : null);
  }

  end(): void {
    this.threads?.end();
  }

  get memoryBytes(): number {
    return this.module.memory.buffer.byteLength;
  }

  /* ---- models ---- */

  /** The place then belongs to the model. */
  openModel(place: Place): number {
    if (!place.length) throw new QuipError("format", `${place.name} is empty`);
    place.trim();
    return this.module.handle(this.module.x.model_open(place.pointer, place.length), place.name);
  }

  /** LoRA weights for the model; the place is then free again. */
  openAdapter(model: number, place: Place): number {
    const adapter = this.module.handle(this.module.x.adapter_open(model, place.pointer, place.length), place.name);
    place.free();
    return adapter;
  }

  modelInfo(model: number): ModelInfo {
    const all = JSON.parse(this.module.cText(this.module.x.model_info(model)));
    return {
      architecture: all.architecture,
      weights: all.weights,
      parameters: all.nParameters,
      fileBytes: all.fileBytes,
      layers: all.nLayers,
      vocabSize: all.vocabSize,
      contextMax: all.nContextMax,
      hasTemplate: all.hasTemplate,
    };
  }

  /** What a model and a session with this context take, from the beginning of the model's file. */
  plan(file: string, header: Uint8Array, fileBytes: number, nContext: number): Plan {
    return this.module.scoped((a) => {
      const options = a.put(new Uint8Array(OPTIONS_BYTES));
      this.module.view(options, 4).setInt32(0, nContext, true);
      const figures = this.module.x.plan(a.put(header), header.length, fileBytes, options);
      const v = this.module.view(this.module.handle(figures, file), 40);
      const at = (i: number) => v.getFloat64(8 * i, true);
      return { kvBytes: at(1), scratchBytes: at(2), modelBytes: at(3), nContext: at(4) };
    });
  }

  /* ---- sessions ---- */

  async openSession(model: number, o: SessionParams): Promise<number> {
    const n = o.threads || processors();
    await this.threads?.ensure(n - 1);
    return this.module.scoped((a) => {
      const options = a.alloc(OPTIONS_BYTES);
      const system = a.cText(o.system);
      const template = a.cText(o.template);
      const stop = o.stop.length ? a.pointers(o.stop.map((s) => a.cText(s))) : 0;
      const v = this.module.view(options, OPTIONS_BYTES);
      const ints = [o.nContext, this.threads ? n : 1, o.maxOutputTokens, o.topK];
      ints.forEach((value, i) => v.setInt32(4 * i, value, true));
      v.setFloat32(16, o.temperature, true);
      v.setFloat32(20, o.topP, true);
      v.setBigUint64(24, BigInt(o.seed), true);
      v.setUint32(32, o.noTemplate ? NO_TEMPLATE : 0, true);
      v.setInt32(36, o.stop.length, true);
      const pointers = [system, template, stop, o.adapter];
      pointers.forEach((value, i) => v.setBigUint64(40 + 8 * i, BigInt(value), true));
      v.setFloat32(72, o.adapterScale, true);
      return this.module.handle(this.module.x.session_open(model, options));
    });
  }

  /** Put a text into the context; returns how many tokens are to be run by appendStep. */
  appendBegin(session: number, role: Role, text: string): number {
    return this.module.scoped((a) =>
      this.module.check(this.module.x.append_begin(session, ROLES[role], ...a.text(text))),
    );
  }

  /** Run at most n of them; returns how many are left. */
  appendStep(session: number, n: number): number {
    return this.module.check(this.module.x.append_step(session, n));
  }

  /** The next piece of the answer; at its end the reason. */
  next(session: number): string | FinishEnd {
    this.module.check(this.module.x.next(session));
    const v = this.module.view(this.module.x.piece(), 20);
    const reason = v.getInt32(16, true);
    if (reason) return { reason: FINISH[reason] };
    return this.module.text(Number(v.getBigUint64(0, true)), Number(v.getBigUint64(8, true)));
  }

  /** End the answer with its next piece. */
  cancel(session: number): void {
    Atomics.store(this.module.bytes(this.module.x.session_cancel_flag(session), 1), 0, 1);
  }

  result(session: number): Result {
    const v = this.module.view(this.module.x.result(session), 64);
    const at = (i: number) => v.getFloat64(8 * i, true);
    return {
      finishReason: FINISH[at(0)] ?? "stop",
      promptTokens: at(1),
      outputTokens: at(2),
      prefillMs: at(3),
      decodeMs: at(4),
      firstTokenMs: at(5),
      seed: at(6) + at(7) * 2 ** 32,
    };
  }

  /* ---- tokens and logits ---- */

  encode(model: number, text: string, special: boolean): Int32Array {
    return this.module.scoped((a) => {
      const [pointer, n] = a.text(text);
      const count = (to: number, capacity: number) =>
        this.module.check(this.module.x.encode(model, pointer, n, special ? 1 : 0, to, capacity));
      const capacity = count(0, 0);
      const to = a.alloc(4 * capacity);
      count(to, capacity);
      return new Int32Array(this.module.bytes(to, 4 * capacity).slice().buffer);
    });
  }

  countTokens(model: number, text: string): number {
    return this.module.scoped((a) => this.module.check(this.module.x.encode(model, ...a.text(text), 0, 0, 0)));
  }

  decode(model: number, tokens: Int32Array): string {
    return this.module.scoped((a) => {
      const ids = a.ints(tokens);
      const write = (to: number, capacity: number) =>
        this.module.check(this.module.x.decode(model, ids, tokens.length, to, capacity));
      const n = write(0, 0);
      const to = a.alloc(n);
      write(to, n);
      return this.module.text(to, n);
    });
  }

  prefill(session: number, tokens: Int32Array): void {
    this.module.scoped((a) => this.module.check(this.module.x.prefill(session, a.ints(tokens), tokens.length)));
  }

  logits(session: number, vocabSize: number): Float32Array | null {
    const pointer = this.module.x.logits(session);
    return pointer ? new Float32Array(this.module.bytes(pointer, 4 * vocabSize).slice().buffer) : null;
  }
}

export interface Plan {
  kvBytes: number;
  scratchBytes: number;
  modelBytes: number;
  nContext: number;
}

export interface FinishEnd {
  reason: FinishReason;
}
