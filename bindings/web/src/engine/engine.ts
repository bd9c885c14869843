/** engine.ts: the functions of the library with JavaScript's numbers and texts, on the best module that
 * this browser can run. An engine has one model. */
import { QuipError } from "../errors.js";
import type { Build, EmbedParams, EngineParams, FinishReason, ModelInfo, ModelParams, Result, Role, SessionParams } from "../protocol.js";
import { compile, defaultThreads } from "#worker";
import { abi } from "./abi.js";
import { buildsToTry, needs64 } from "./builds.js";
import type { Gpu } from "./gpu.js";
import type { FileMemory } from "./file_memory.js";
import { Module, NOT_YET, Struct, type Arena } from "./module.js";
import { Threads } from "./threads.js";

const { quip_role: roles, quip_finish_reason: finishes, quip_backend: backends } = abi.enums;

const BACKEND = { cpu: backends.QUIP_BACKEND_CPU, gpu: backends.QUIP_BACKEND_GPU };

const ROLES: Record<Role, number> = {
  none: roles.QUIP_ROLE_NONE,
  user: roles.QUIP_ROLE_USER,
  model: roles.QUIP_ROLE_MODEL,
  system: roles.QUIP_ROLE_SYSTEM,
};
const FINISH: Record<number, FinishReason> = {
  [finishes.QUIP_FINISH_STOP]: "stop",
  [finishes.QUIP_FINISH_LENGTH]: "length",
  [finishes.QUIP_FINISH_CONTEXT]: "context",
  [finishes.QUIP_FINISH_CANCELLED]: "cancelled",
};
const finishReason = (value: number): FinishReason => FINISH[value] ?? "stop"; // so quip.h says

export class Engine {
  readonly #piece: Struct<"quip_piece">; // of every quip_session_next
  #step: Promise<void> | null = null; // that runs on the GPU
  /** The sessions that are open. */
  readonly sessions = new Set<number>();

  private constructor(
    readonly build: Build,
    readonly module: Module,
    readonly compiled: WebAssembly.Module,
    private readonly threads: Threads | null,
    readonly gpu: Gpu | null,
  ) {
    const bytes = Struct.bytes(module, "quip_piece");
    this.#piece = new Struct(module, "quip_piece", module.x.quip_web_malloc(bytes));
    this.#piece.set("struct_size", bytes);
  }

  /** Start the best build that runs here for a file of this size. */
  static async start({ build, base }: EngineParams, fileBytes = 0, gpu: Gpu | null = null): Promise<Engine> {
    for (const candidate of buildsToTry(build, needs64(fileBytes))) {
      const engine = await Engine.#try(candidate, base, gpu);
      if (engine) return engine;
    }
    throw new QuipError("unsupported", `the build '${build}' does not run in this browser; use another one`);
  }

  /** Null if the build does not run: the browser computes relaxed dot products wrongly (Node 20), or it
   * has no shared memory of that size (some phones). */
  static async #try(build: Build, base: string | undefined, gpu: Gpu | null): Promise<Engine | null> {
    const compiled = await compile(build, base);
    const module = await Module.start(compiled, build, gpu);
    if (!module?.isRight) return null;
    return new Engine(build, module, compiled, module.isShared ? new Threads(compiled, module) : null, gpu);
  }

  end(): void {
    this.threads?.end();
  }

  get memoryBytes(): number {
    return this.module.memory.buffer.byteLength;
  }

  /* ---- models ---- */

  /** Start the workers that the model's threads need. */
  async startThreads(nThreads: number): Promise<void> {
    await this.threads?.ensure((nThreads || defaultThreads()) - 1);
  }

  /** Open a model file, whose memory the model uses. */
  openModel(file: FileMemory, o: Omit<ModelParams, "backend">, backend: "cpu" | "gpu"): number {
    if (!file.length) throw new QuipError("format", `${file.name} is empty`);
    file.trim();
    const open = (a: Arena) => {
      const options = a.struct("quip_model_options", {
        backend: BACKEND[backend],
        n_threads: o.nThreads,
        background: o.background,
        name: a.cText(file.name),
      });
      return this.module.handle("quip_web_model_open", file.pointer, file.length, options.pointer);
    };
    if (this.gpu) this.gpu.compilesAtOnce = true; // all weights are written here: they should not wait
    try {
      return this.module.scoped(open);
    } finally {
      if (this.gpu) this.gpu.compilesAtOnce = false;
    }
  }

  /** Open LoRA weights for the model, and free the memory of their file. */
  openAdapter(model: number, file: FileMemory): number {
    const { pointer, length, name } = file;
    const adapter = this.module.scoped((a) =>
      this.module.handle("quip_web_adapter_open", model, pointer, length, a.cText(name)),
    );
    file.free();
    return adapter;
  }

  closeModel(model: number): void {
    this.module.x.quip_model_close(model);
  }

  modelInfo(model: number): Omit<ModelInfo, "backendReason"> {
    return this.module.scoped((a) => {
      const info = a.struct("quip_model_info");
      this.module.call("quip_model_get_info", model, info.pointer);
      return {
        architecture: this.module.cText(info.get("architecture")),
        weights: this.module.cText(info.get("weights")),
        parameters: info.get("n_parameters"),
        fileBytes: info.get("file_bytes"),
        layers: info.get("n_layers"),
        vocabSize: info.get("vocab_size"),
        contextMax: info.get("n_context_max"),
        hasTemplate: info.get("has_template") !== 0,
        isEmbedding: info.get("is_embedding") !== 0,
        embeddingSize: info.get("n_embedding"),
        backend: info.get("backend") === BACKEND.gpu ? "gpu" : "cpu",
        sampling: {
          isOfModel: info.get("has_sampling") !== 0,
          temperature: decimal(info.get("default_temperature")),
          topK: info.get("default_top_k"),
          topP: decimal(info.get("default_top_p")),
          minP: decimal(info.get("default_min_p")),
          repeatPenalty: decimal(info.get("default_repeat_penalty")),
          penaltyWindow: info.get("default_penalty_window"),
          noRepeatNgram: info.get("default_no_repeat_ngram"),
        },
      };
    });
  }

  /** The memory that a model and a session need, computed from the first bytes of the model file. */
  plan(name: string, head: Uint8Array, fileBytes: number, nContext: number): Plan {
    const model = this.module.openHead(name, head, fileBytes);
    try {
      return this.module.scoped((a) => {
        const options = a.struct("quip_session_options", { n_context: nContext });
        const plan = a.struct("quip_plan");
        this.module.call("quip_model_plan", model, options.pointer, plan.pointer);
        return {
          kvBytes: plan.get("kv_bytes"),
          scratchBytes: plan.get("scratch_bytes"),
          modelBytes: plan.get("model_bytes"),
          nContext: plan.get("n_context"),
        };
      });
    } finally {
      this.module.x.quip_model_close(model);
    }
  }

  /* ---- sessions ---- */

  openSession(model: number, o: SessionParams): number {
    const session = this.module.scoped((a) => this.module.handle("quip_session_open", model, sessionOptions(a, o)));
    this.sessions.add(session);
    try {
      if (o.adapter) this.setAdapter(session, o.adapter, o.adapterScale);
      return session;
    } catch (error) {
      this.closeSession(session);
      throw error;
    }
  }

  closeSession(session: number): void {
    if (this.sessions.delete(session)) this.module.x.quip_session_close(session);
  }

  setOptions(session: number, o: SessionParams): void {
    this.module.scoped((a) => this.module.call("quip_session_set_options", session, sessionOptions(a, o)));
  }

  /** `adapter` is 0 to remove it. */
  setAdapter(session: number, adapter: number, scale: number): void {
    this.module.call("quip_session_set_adapter", session, adapter, scale);
  }

  clone(session: number): number {
    const copy = this.module.handle("quip_session_clone", session);
    this.sessions.add(copy);
    return copy;
  }

  rewind(session: number, position: number): void {
    this.module.call("quip_session_rewind", session, position);
  }

  /** Append a text without running it. Returns the number of tokens that `run` has to run. */
  beginAppend(session: number, role: Role, text: string): number {
    return this.module.scoped((a) =>
      this.module.count("quip_session_begin_append", session, ROLES[role], ...a.text(text)),
    );
  }

  beginPrefill(session: number, tokens: Int32Array): number {
    return this.module.scoped((a) =>
      this.module.count("quip_session_begin_prefill", session, a.ints(tokens), tokens.length),
    );
  }

  /** Run at most n tokens. Resolves with the number of tokens that are left. */
  run(session: number, n: number): Promise<number> {
    return this.#inStep(session, () => this.module.count("quip_session_run", session, n));
  }

  /** Remove what was appended last. */
  undo(session: number): void {
    this.module.call("quip_session_undo", session);
  }

  /** The next piece of the answer, or null at its end. */
  next(session: number): Promise<string | null> {
    return this.#inStep(session, () => {
      this.module.call("quip_session_next", session, this.#piece.pointer);
      if (this.#piece.get("finish_reason") !== finishes.QUIP_FINISH_NONE) return null;
      return this.module.text(this.#piece.get("text"), this.#piece.get("n_text"));
    });
  }

  /** Let the next piece end the answer. */
  cancel(session: number): void {
    this.module.x.quip_session_cancel(session);
  }

  result(session: number): Result {
    return this.module.scoped((a) => {
      const result = a.struct("quip_result");
      this.module.call("quip_session_get_result", session, result.pointer);
      return {
        finishReason: finishReason(result.get("finish_reason")),
        promptTokens: result.get("n_prompt_tokens"),
        outputTokens: result.get("n_output_tokens"),
        prefillMs: result.get("prefill_ns") / 1e6,
        decodeMs: result.get("decode_ns") / 1e6,
        firstTokenMs: result.get("first_token_ns") / 1e6,
        seed: result.get("seed"),
      };
    });
  }

  /* ---- tokens and logits ---- */

  tokenize(model: number, text: string, withSpecial: boolean): Int32Array {
    return this.module.scoped((a) => {
      const [pointer, n] = a.text(text);
      const write = (to: number, capacity: number) =>
        this.module.count("quip_tokenize", model, pointer, n, Number(withSpecial), to, capacity);
      const capacity = write(0, 0);
      const to = a.alloc(4 * capacity);
      write(to, capacity);
      return new Int32Array(this.module.bytes(to, 4 * capacity).slice().buffer);
    });
  }

  detokenize(model: number, tokens: Int32Array): string {
    return this.module.scoped((a) => {
      const ids = a.ints(tokens);
      const write = (to: number, capacity: number) =>
        this.module.size("quip_detokenize", model, ids, tokens.length, to, capacity);
      const n = write(0, 0);
      const to = a.alloc(n);
      write(to, n);
      return this.module.text(to, n);
    });
  }

  /** Embeddings of some texts or token ids, of `width` numbers each. */
  embed(model: number, texts: (string | Int32Array)[], width: number, o: EmbedParams): Float32Array[] {
    return this.module.scoped((a) => {
      const bytes = Struct.bytes(this.module, "quip_embed_input");
      const inputs = a.put(new Uint8Array(bytes * texts.length));
      texts.forEach((text, i) => {
        const [pointer, n] = typeof text === "string" ? a.text(text) : [a.ints(text), text.length];
        const input = new Struct(this.module, "quip_embed_input", inputs + i * bytes);
        input.set(typeof text === "string" ? "text" : "tokens", pointer);
        input.set(typeof text === "string" ? "n_text" : "n_tokens", n);
      });
      const options = a.struct("quip_embed_options", {
        prompt: o.prompt === undefined ? 0 : a.cText(o.prompt),
        prefix: o.prefix === undefined ? 0 : a.cText(o.prefix),
        pooling: o.pooling,
        n_dimensions: o.dimensions,
        n_tokens_max: o.maxTokens,
        no_normalize: o.noNormalize,
        no_truncation: o.noTruncation,
      });
      const capacity = texts.length * width;
      const to = a.alloc(4 * capacity);
      this.module.call("quip_embed", model, inputs, texts.length, options.pointer, to, capacity);
      const all = new Float32Array(this.module.bytes(to, 4 * capacity).slice().buffer);
      return texts.map((_, i) => all.slice(i * width, (i + 1) * width));
    });
  }

  logits(session: number, vocabSize: number): Promise<Float32Array | null> {
    return this.#inStep(session, () => {
      const pointer = this.module.x.quip_session_logits(session);
      if (!pointer && this.gpu?.pending) throw NOT_YET;
      return pointer ? new Float32Array(this.module.bytes(pointer, 4 * vocabSize).slice().buffer) : null;
    });
  }

  /** Throws if the GPU does not compute what the CPU computes. */
  check(session: number): Promise<void> {
    return this.#inStep(session, () => this.module.call("quip_web_session_check", session));
  }

  /* ---- steps of the GPU ---- */

  /** Resolves when no step runs on the GPU. Until then the library accepts no other call. */
  async idle(): Promise<void> {
    while (this.#step) await this.#step;
  }

  /** Make a call on a session, and again until the GPU has done it. */
  async #inStep<T>(session: number, call: () => T): Promise<T> {
    await this.idle();
    if (!this.sessions.has(session)) throw new QuipError("argument", "the session is closed");
    if (!this.gpu) return call();
    let end!: () => void;
    this.#step = new Promise((resolve) => (end = resolve));
    try {
      for (;;)
        try {
          return call();
        } catch (error) {
          if (error !== NOT_YET || !this.gpu.pending) throw error;
          await this.gpu.pending;
          this.gpu.pending = null;
        }
    } finally {
      this.#step = null;
      end();
    }
  }
}

/** The short decimal that a float of the module was: 0.7, not 0.699999988079071. */
const decimal = (float: number) => Number(float.toPrecision(7));

/** The address of an array of quip_logit_bias. */
function biases(a: Arena, pairs: [token: number, bias: number][]): number {
  const array = new DataView(new ArrayBuffer(8 * pairs.length));
  pairs.forEach(([token, bias], i) => {
    array.setInt32(8 * i, token, true);
    array.setFloat32(8 * i + 4, bias, true);
  });
  return a.put(new Uint8Array(array.buffer));
}

/** The address of a quip_session_options. */
function sessionOptions(a: Arena, o: SessionParams): number {
  const options = a.struct("quip_session_options", {
    n_context: o.nContext,
    n_threads: o.nThreads,
    max_output_tokens: o.maxOutputTokens,
    top_k: o.topK,
    top_p: o.topP,
    min_p: o.minP,
    n_logit_bias: o.logitBias.length,
    logit_bias: o.logitBias.length ? biases(a, o.logitBias) : 0,
    penalty_window: o.penaltyWindow,
    repeat_penalty: o.repeatPenalty,
    presence_penalty: o.presencePenalty,
    frequency_penalty: o.frequencyPenalty,
    dry_multiplier: o.dryMultiplier,
    dry_base: o.dryBase,
    dry_allowed_length: o.dryAllowedLength,
    no_repeat_ngram: o.noRepeatNgram,
    temperature: o.temperature,
    greedy: o.greedy,
    seed: o.seed ?? 0,
    has_seed: o.seed !== undefined,
    no_template: o.noTemplate,
    no_speculation: o.noSpeculation,
    n_stop: o.stop.length,
    stop: o.stop.length ? a.pointers(o.stop.map((text) => a.cText(text))) : 0,
    system: a.cText(o.system),
    chat_template: a.cText(o.chatTemplate),
    template_variables: a.cText(o.templateVariables),
  });
  return options.pointer;
}

export interface Plan {
  kvBytes: number;
  scratchBytes: number;
  modelBytes: number;
  nContext: number;
}
