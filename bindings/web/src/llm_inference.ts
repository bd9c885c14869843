/** llm_inference.ts: the calls of MediaPipe's LLM Inference API for the Web, with its names, defaults and
 * messages, on top of Model and Session. These differences are deliberate:
 *
 * - Nothing needs WebGPU. A GPU runs the model where it is faster than the CPU; other GPU options are
 *   accepted and ignored.
 * - Loading and generating run in a worker. cancelProcessing() works during the prompt, too.
 * - sizeInTokens() works at any time.
 * - close() stops what is running instead of throwing.
 * - A prompt that contains the turn markers of the model is passed on as it is: samples for MediaPipe are
 *   written that way. Any other prompt is put into the template of the model file, if it has one. */
import { checkNames, QuipError } from "./errors.js";
import { Model, type Adapter, type OpenOptions } from "./model.js";
import type { Backend } from "./protocol.js";
import type { Reply } from "./reply.js";
import type { Session } from "./session.js";

/** The location of this package's files. */
export interface WasmFileset {
  wasmLoaderPath: string;
  wasmBinaryPath: string;
}

export class FilesetResolver {
  /** `basePath` is the folder of this package's dist files; '' is the folder of the script, where bundlers
   * put them. A folder of MediaPipe's files, from code that was written for it, counts as ''. */
  static async forGenAiTasks(basePath = "", _useModule = false): Promise<WasmFileset> {
    const base = basePath.includes("@mediapipe/") ? "" : basePath.replace(/\/?$/, (slash) => (basePath ? "/" : slash));
    return { wasmLoaderPath: `${base}worker.js`, wasmBinaryPath: `${base}quip-simd.wasm` };
  }
}

export interface BaseOptions {
  modelAssetPath?: string | undefined;
  modelAssetBuffer?: Uint8Array | ReadableStreamDefaultReader<Uint8Array> | undefined;
  delegate?: "CPU" | "GPU" | undefined; // "CPU": no GPU; "GPU", the default: one that is faster than the CPU
  gpuOptions?: unknown | undefined; // ignored
}

export interface LlmInferenceOptions {
  baseOptions?: BaseOptions | undefined;
  /** Tokens of prompt and answer together; default: 512. */
  maxTokens?: number | undefined;
  /** Default: 40. 1 is greedy. */
  topK?: number | undefined;
  /** Default: 0.8. 0 is greedy. */
  temperature?: number | undefined;
  /** Default: 0. */
  randomSeed?: number | undefined;
  /** Answers to one prompt; default: 1. */
  numResponses?: number | undefined;
  loraRanks?: number[] | undefined; // ignored: every rank works
  forceF32?: boolean | undefined; // ignored
  maxNumImages?: number | undefined; // must be 0: images are not supported
  supportAudio?: boolean | undefined; // must be false: audio is not supported
}

const OPTIONS = [
  "baseOptions",
  "maxTokens",
  "topK",
  "temperature",
  "randomSeed",
  "numResponses",
  "loraRanks",
  "forceF32",
  "maxNumImages",
  "supportAudio",
];

export interface Image {
  imageSource: unknown;
}
export interface Audio {
  audioSource: unknown;
}
type PromptPart = string | Image | Audio;
export type Prompt = PromptPart | PromptPart[];

/** Receives the next piece of the answer, and ('', true) at the end. */
export type ProgressListener = (partialResult: string, done: boolean) => unknown;
/** Receives the next pieces, one for each response. */
export type MultiResponseProgressListener = (partialResult: string[], done: boolean) => unknown;

const BUSY = "Previous invocation or loading is still ongoing.";
const NO_MODEL = "the LlmInference has no model; it was closed, or its last load failed";

function promptText(prompt: Prompt): string {
  const parts = Array.isArray(prompt) ? prompt : [prompt];
  for (const part of parts)
    if (typeof part !== "string")
      throw new QuipError("unsupported", "a prompt must be text; images and audio are not supported");
  return parts.join("");
}

function checkOptions(o: LlmInferenceOptions): void {
  checkNames("LlmInference", o, OPTIONS);
  if (o.numResponses !== undefined && o.numResponses < 1)
    throw new QuipError("argument", "'numResponses' must be at least 1.");
  if (o.maxNumImages || o.supportAudio)
    throw new QuipError("unsupported", "maxNumImages must be 0 and supportAudio false; images and audio are not supported");
  const { modelAssetPath, modelAssetBuffer } = o.baseOptions ?? {};
  if (modelAssetPath !== undefined && modelAssetBuffer !== undefined)
    throw new QuipError("argument", "Cannot set both baseOptions.modelAssetPath and baseOptions.modelAssetBuffer");
}

function baseUrl({ wasmLoaderPath }: WasmFileset): string | undefined {
  return wasmLoaderPath.replace(/[^/]*$/, "") || undefined;
}

export class LlmInference {
  #fileset: WasmFileset;
  #options: LlmInferenceOptions = {};
  #model: Model | null = null;
  #count: ((text: string) => number) | null = null;
  #loading: AbortController | null = null; // a model or LoRA weights
  #session: Session | null = null; // while it answers
  #reply: Reply | null = null;
  #isCancelled = false;

  private constructor(fileset: WasmFileset) {
    this.#fileset = fileset;
  }

  static async createFromOptions(fileset: WasmFileset, options: LlmInferenceOptions): Promise<LlmInference> {
    const { modelAssetPath, modelAssetBuffer } = options.baseOptions ?? {};
    checkOptions(options);
    if (modelAssetPath === undefined && modelAssetBuffer === undefined)
      throw new QuipError("argument", "No model asset provided.");
    const llm = new LlmInference(fileset);
    await llm.setOptions(options);
    return llm;
  }

  static createFromModelPath(fileset: WasmFileset, modelAssetPath: string): Promise<LlmInference> {
    return LlmInference.createFromOptions(fileset, { baseOptions: { modelAssetPath } });
  }

  static createFromModelBuffer(
    fileset: WasmFileset,
    modelAssetBuffer: Uint8Array | ReadableStreamDefaultReader<Uint8Array>,
  ): Promise<LlmInference> {
    return LlmInference.createFromOptions(fileset, { baseOptions: { modelAssetBuffer } });
  }

  /** Does nothing: no GPU device is needed. */
  static async createWebGpuDevice(): Promise<undefined> {
    return undefined;
  }

  get isIdle(): boolean {
    return !this.#loading && !this.#session;
  }

  /** Change some options; one that is undefined gets its default. A model in baseOptions is loaded and
   * replaces the current one. */
  async setOptions(options: LlmInferenceOptions): Promise<void> {
    if (!this.isIdle) throw new QuipError("argument", "Cannot set options while loading or processing.");
    checkOptions(options);
    const { baseOptions, ...others } = options;
    Object.assign(this.#options, others);
    const source = baseOptions?.modelAssetPath ?? baseOptions?.modelAssetBuffer;
    if (source !== undefined) await this.#load(source, baseOptions?.delegate === "CPU" ? "cpu" : "auto");
  }

  async #load(
    source: NonNullable<BaseOptions["modelAssetPath"] | BaseOptions["modelAssetBuffer"]>,
    backend: Backend,
  ): Promise<void> {
    const { signal } = (this.#loading = new AbortController());
    try {
      await this.#leave();
      const options: OpenOptions = { signal, backend };
      const base = baseUrl(this.#fileset);
      if (base !== undefined) options.baseUrl = base;
      this.#model = await Model.open(source, options);
      this.#count = await this.#model.tokenCounter().catch(() => null); // sizeInTokens() is then undefined
      signal.throwIfAborted();
    } catch (error) {
      await this.#leave();
      throw error;
    } finally {
      this.#loading = null;
    }
  }

  /** Close the model. */
  async #leave(): Promise<void> {
    const model = this.#model;
    this.#model = this.#count = null;
    await model?.close();
  }

  /** Generate the answer to a prompt, which begins a new conversation. Resolves with the whole text. */
  generateResponse(prompt: Prompt, listener?: ProgressListener): Promise<string>;
  generateResponse(prompt: Prompt, loraModel?: LoraModel, listener?: ProgressListener): Promise<string>;
  generateResponse(
    prompt: Prompt,
    loraOrListener?: LoraModel | ProgressListener,
    listener?: ProgressListener,
  ): Promise<string> {
    if ((this.#options.numResponses ?? 1) > 1)
      console.warn("'numResponses' is set larger than 1 and this function only returns the first response: use generateResponses() for all of them.");
    const [lora, onpiece] = splitArguments(loraOrListener, listener);
    const first = onpiece && ((pieces: string[], done: boolean) => onpiece(pieces[0], done));
    return this.#generate(prompt, 1, lora, first).then(([text]) => text);
  }

  /** The same for numResponses answers. */
  generateResponses(prompt: Prompt, listener?: MultiResponseProgressListener): Promise<string[]>;
  generateResponses(prompt: Prompt, loraModel?: LoraModel, listener?: MultiResponseProgressListener): Promise<string[]>;
  generateResponses(
    prompt: Prompt,
    loraOrListener?: LoraModel | MultiResponseProgressListener,
    listener?: MultiResponseProgressListener,
  ): Promise<string[]> {
    const [lora, onpieces] = splitArguments(loraOrListener, listener);
    return this.#generate(prompt, this.#options.numResponses ?? 1, lora, onpieces);
  }

  /** The number of tokens of a prompt. */
  sizeInTokens(prompt: Prompt): number | undefined {
    return this.#count?.(promptText(prompt));
  }

  /** End the answer that is being generated. Its promise resolves with the text so far. */
  cancelProcessing(): void {
    if (!this.#session) return;
    this.#isCancelled = true;
    this.#reply?.cancel();
  }

  /** Load LoRA weights for this model. */
  async loadLoraModel(source: string | Uint8Array | Blob): Promise<LoraModel> {
    if (!this.isIdle) throw new QuipError("argument", BUSY);
    if (!this.#model) throw new QuipError("argument", NO_MODEL);
    const { signal } = (this.#loading = new AbortController());
    try {
      return new LoraModel(this, await this.#model.loadAdapter(source, { signal }));
    } finally {
      this.#loading = null;
    }
  }

  /** Stop what is loading or running, and free the memory. */
  close(): void {
    this.#loading?.abort(new QuipError("cancelled", "the LlmInference was closed while it was loading"));
    this.cancelProcessing();
    void this.#leave();
  }

  /* Throws at once if it is busy, as MediaPipe does. */
  #generate(
    prompt: Prompt,
    n: number,
    lora: LoraModel | undefined,
    listener: MultiResponseProgressListener | undefined,
  ): Promise<string[]> {
    const text = promptText(prompt);
    if (!this.isIdle) throw new QuipError("argument", BUSY);
    if (!this.#model) throw new QuipError("argument", NO_MODEL);
    if (lora && lora.owner !== this)
      throw new QuipError("argument", "The LoRA model was not loaded by this LLM Inference task.");
    const o = this.#options;
    const options = {
      nContext: o.maxTokens ?? 512,
      topK: Math.max(o.topK ?? 40, 1),
      temperature: o.temperature ?? 0.8,
      ...NOTHING_MORE,
      seed: o.randomSeed ?? 0,
    };
    const session = this.#model.session({ ...options, adapter: lora?.adapter });
    this.#session = session;
    this.#isCancelled = false;
    const prepare = (i: number) => session.setOptions({ ...options, seed: responseSeed(options.seed, i) });
    return this.#answers(this.#model, session, text, n, prepare, listener).finally(() => {
      this.#session = this.#reply = null;
      return session.close();
    });
  }

  /** Generate one answer after the other. The prompt runs once; each answer is removed before the next. */
  async #answers(
    model: Model,
    session: Session,
    text: string,
    n: number,
    prepare: (i: number) => Promise<void>,
    listener: MultiResponseProgressListener | undefined,
  ): Promise<string[]> {
    const answers = Array<string>(n).fill("");
    const role = (await isPlain(model, text)) ? "user" : "none";
    const stop = new AbortController();
    this.#reply = { cancel: () => stop.abort(CANCELLED) } as Reply;
    try {
      if (!this.#isCancelled) await session.append(text, { role, signal: stop.signal });
    } catch (error) {
      if (error !== CANCELLED) throw error;
    }
    const position = await session.position();
    for (let i = 0; i < n && !this.#isCancelled; i++) {
      if (i) {
        await session.rewind(position);
        await prepare(i);
      }
      const reply = (this.#reply = session.answer());
      for await (const piece of reply) {
        answers[i] += piece;
        listener?.(answers.map((_, j) => (j === i ? piece : "")), false);
      }
    }
    listener?.(answers.map(() => ""), true);
    return answers;
  }
}

/** A LoRA model that an LlmInference loaded. */
export class LoraModel {
  /** @internal */
  constructor(
    readonly owner: LlmInference,
    readonly adapter: Adapter,
  ) {}
}

/* MediaPipe draws with temperature and topK alone: defaults of the library and of the model file do not
 * count. */
const NOTHING_MORE = { topP: 1, minP: 0, repeatPenalty: 1, noRepeatNgram: 0 };

const CANCELLED = Symbol("cancelled");

/** The seed of response i. An answer depends only on its seed, so each response needs another one. */
const responseSeed = (seed: number, i: number) => (seed + i * 2 ** 32) % 2 ** 53;

/** True if the prompt is plain text for the model's template; false if it contains turn markers. */
async function isPlain(model: Model, text: string): Promise<boolean> {
  if (!model.info.hasTemplate) return false;
  const [plain, withSpecial] = await Promise.all([model.tokenize(text), model.tokenize(text, { withSpecial: true })]);
  return plain.length === withSpecial.length && plain.every((token, i) => token === withSpecial[i]);
}

function splitArguments<L extends (...args: never[]) => unknown>(
  loraOrListener: LoraModel | L | undefined,
  listener: L | undefined,
): [LoraModel | undefined, L | undefined] {
  return typeof loraOrListener === "function" ? [undefined, loraOrListener] : [loraOrListener, listener];
}
