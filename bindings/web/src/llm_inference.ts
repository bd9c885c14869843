/** llm_inference.ts: the calls of MediaPipe's LLM Inference API for the Web, with its names, defaults and
 * messages, on Model and Session. What differs, on purpose:
 *
 * - Nothing needs WebGPU. GPU options are taken and not used.
 * - Loading and generating run in a worker; cancelProcessing() is heard during the prompt as well.
 * - sizeInTokens() answers at any time.
 * - close() ends what runs instead of refusing.
 * - A prompt that spells out the model's turn markers goes in as it is, as samples for the original
 *   write them. Another goes into the template of the model's file, if that has one. */
import { checkNames, QuipError } from "./errors.js";
import { Model, type Adapter, type OpenOptions } from "./model.js";
import type { Reply } from "./reply.js";
import type { Session } from "./session.js";

/** Where the package's files lie. */
export interface WasmFileset {
  wasmLoaderPath: string;
  wasmBinaryPath: string;
}

export class FilesetResolver {
  /** `basePath` is the folder with this package's dist files; '' is beside the script, where bundlers
   * put them. A folder of the original's files, left over in code that moves here, has none of ours
   * and counts as ''. */
  static async forGenAiTasks(basePath = "", _useModule = false): Promise<WasmFileset> {
    const base = basePath.includes("@mediapipe/") ? "" : basePath.replace(/\/?$/, (slash) => (basePath ? "/" : slash));
    return { wasmLoaderPath: `${base}worker.js`, wasmBinaryPath: `${base}quip-simd.wasm` };
  }
}

export interface BaseOptions {
  modelAssetPath?: string | undefined;
  modelAssetBuffer?: Uint8Array | ReadableStreamDefaultReader<Uint8Array> | undefined;
  delegate?: "CPU" | "GPU" | undefined; // not used
  gpuOptions?: unknown | undefined; // not used
}

export interface LlmInferenceOptions {
  baseOptions?: BaseOptions | undefined;
  /** Tokens of prompt and answer together; 512 if absent. */
  maxTokens?: number | undefined;
  /** 40 if absent. 1 is greedy. */
  topK?: number | undefined;
  /** 0.8 if absent. 0 is greedy. */
  temperature?: number | undefined;
  /** 0 if absent. */
  randomSeed?: number | undefined;
  /** Answers to one prompt; 1 if absent. */
  numResponses?: number | undefined;
  loraRanks?: number[] | undefined; // not used: any rank works
  forceF32?: boolean | undefined; // not used
  maxNumImages?: number | undefined; // 0: there is no vision
  supportAudio?: boolean | undefined; // false: there is no hearing
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

/** The next piece of the answer; ('', true) at the end. */
export type ProgressListener = (partialResult: string, done: boolean) => unknown;
/** The next pieces, one for each response. */
export type MultiResponseProgressListener = (partialResult: string[], done: boolean) => unknown;

const BUSY = "Previous invocation or loading is still ongoing.";
const NO_MODEL = "the LlmInference has no model: it was closed, or what it loaded last is none";

function promptText(prompt: Prompt): string {
  const parts = Array.isArray(prompt) ? prompt : [prompt];
  for (const part of parts)
    if (typeof part !== "string")
      throw new QuipError("unsupported", "a prompt may have text only: these models neither see nor hear");
  return parts.join("");
}

function checkOptions(o: LlmInferenceOptions): void {
  checkNames("LlmInference", o, OPTIONS);
  if (o.numResponses !== undefined && o.numResponses < 1)
    throw new QuipError("argument", "'numResponses' must be at least 1.");
  if (o.maxNumImages || o.supportAudio)
    throw new QuipError("unsupported", "maxNumImages and supportAudio: these models neither see nor hear");
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

  /** For code that asks: no GPU device is needed, and none is made. */
  static async createWebGpuDevice(): Promise<undefined> {
    return undefined;
  }

  get isIdle(): boolean {
    return !this.#loading && !this.#session;
  }

  /** Change some options; one that is undefined gets its default again. With another model in
   * baseOptions, that is loaded in place of the present one. */
  async setOptions(options: LlmInferenceOptions): Promise<void> {
    if (!this.isIdle) throw new QuipError("argument", "Cannot set options while loading or processing.");
    checkOptions(options);
    const { baseOptions, ...others } = options;
    Object.assign(this.#options, others);
    const source = baseOptions?.modelAssetPath ?? baseOptions?.modelAssetBuffer;
    if (source !== undefined) await this.#load(source);
  }

  async #load(source: NonNullable<BaseOptions["modelAssetPath"] | BaseOptions["modelAssetBuffer"]>): Promise<void> {
    const { signal } = (this.#loading = new AbortController());
    try {
      await this.#leave();
      const options: OpenOptions = { signal };
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

  /** Let the model go. */
  async #leave(): Promise<void> {
    const model = this.#model;
    this.#model = this.#count = null;
    await model?.close();
  }

  /** Answer a prompt: each one is a conversation of its own. Resolves with the whole text. */
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

  /** The same with numResponses answers. */
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

  /** How many tokens a prompt has. */
  sizeInTokens(prompt: Prompt): number | undefined {
    return this.#count?.(promptText(prompt));
  }

  /** End the answer that is being given: its promise resolves with the text so far. */
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

  /** End what loads or runs, and give the memory back. */
  close(): void {
    this.#loading?.abort(new QuipError("cancelled", "the LlmInference was closed while it loaded"));
    this.cancelProcessing();
    void this.#leave();
  }

  /* Throws at once when it is busy, as the original does. */
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
    const session = this.#model.session({
      context: o.maxTokens ?? 512,
      topK: Math.max(o.topK ?? 40, 1),
      temperature: o.temperature ?? 0.8,
      seed: o.randomSeed ?? 0,
      adapter: lora?.adapter,
    });
    this.#session = session;
    this.#isCancelled = false;
    return this.#answers(this.#model, session, text, n, listener).finally(() => {
      this.#session = this.#reply = null;
      return session.close();
    });
  }

  /** One answer after the other: the prompt runs once, and what follows it is forgotten in between. */
  async #answers(
    model: Model,
    session: Session,
    text: string,
    n: number,
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
      if (i) await session.rewind(position);
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

const CANCELLED = Symbol("cancelled");

/** Text for the model's template, not a prompt that spells its own turns. */
async function isPlain(model: Model, text: string): Promise<boolean> {
  if (!model.info.hasTemplate) return false;
  const [plain, special] = await Promise.all([model.encode(text), model.encode(text, { special: true })]);
  return plain.length === special.length && plain.every((token, i) => token === special[i]);
}

function splitArguments<L extends (...args: never[]) => unknown>(
  loraOrListener: LoraModel | L | undefined,
  listener: L | undefined,
): [LoraModel | undefined, L | undefined] {
  return typeof loraOrListener === "function" ? [undefined, loraOrListener] : [loraOrListener, listener];
}
