/** protocol.ts: the messages between the page and the worker.
 * The page makes calls, `{ id, call, params }`. The worker answers each of them once, with
 * `{ id, value }` or `{ id, error }`, and may send events before that, `{ id, event }`.
 * `{ id, cancel: true }` cancels a call, which is still answered. `{ id, reply }` answers an event that
 * asks for something. */
import type { ErrorRecord } from "./errors.js";

/** How the browser's store of models is used. The names and meanings are those of fetch(). */
export type CacheMode =
  | "default" // from the store if the server still has the same file or cannot be reached
  | "force-cache" // from the store if it is there, without a request
  | "reload" // download and replace the stored file
  | "no-store"; // download and store nothing

export type Source =
  | { kind: "url"; url: string; cache: CacheMode }
  | { kind: "blob"; blob: Blob; name: string }
  | { kind: "path"; path: string }
  | { kind: "pieces"; bytes?: number; name: string }; // the page sends one for each "pull"

/** The modules: without and with relaxed SIMD, threads ("-mt") and 64-bit memory ("-64"). */
export const BUILDS = [
  "simd",
  "relaxed",
  "simd-mt",
  "relaxed-mt",
  "simd-64",
  "relaxed-64",
  "simd-mt-64",
  "relaxed-mt-64",
] as const;
export type Build = (typeof BUILDS)[number];

export interface EngineParams {
  base?: string; // folder of the wasm files; absent: the folder of the worker
  build?: Build; // absent: the best one that this browser can run
}

/** What runs a model: enum quip_backend. `auto` is the GPU where it was measured to be faster, else the CPU. */
export const BACKENDS = ["auto", "cpu", "gpu"] as const;
export type Backend = (typeof BACKENDS)[number];

/** quip_model_options. */
export interface ModelParams {
  backend: Backend;
  nThreads: number;
  background: boolean;
}

export interface OpenParams extends EngineParams, ModelParams {
  source: Source;
  sha256?: string;
}

/** Properties of a model. */
export interface ModelInfo {
  architecture: string;
  weights: string; // "int8", "int4", "mixed" or "f32"
  parameters: number;
  fileBytes: number;
  layers: number;
  vocabSize: number;
  contextMax: number; // largest nContext; 0: the file does not limit it
  hasTemplate: boolean; // false: a base model, whose prompts are passed on unchanged
  isEmbedding: boolean; // an embedding model: it has embed(), and no sessions
  embeddingSize: number; // numbers of an embedding
  sampling: Sampling;
  backend: "cpu" | "gpu"; // that runs the model
  backendReason: string; // why, in a sentence; "" if this backend was requested
}

/** How a session draws tokens where its options say nothing. */
export interface Sampling {
  isOfModel: boolean; // as the model file says; false: as the library does
  temperature: number; // 0: greedy
  topK: number; // 0: no limit
  topP: number; // 1: no limit
  minP: number; // 0: no limit
  repeatPenalty: number; // 1: none
  penaltyWindow: number; // -1: all
  noRepeatNgram: number; // 0: none
}

/** quip_embed_options, checked. */
export interface EmbedParams {
  prompt?: string;
  prefix?: string;
  pooling: number;
  dimensions: number;
  maxTokens: number;
  noNormalize: boolean;
  noTruncation: boolean;
}

export interface Opened {
  info: ModelInfo;
  build: Build;
}

/** Progress of an open. `total` is 0 while it is unknown. waiting: another tab is downloading the file; gpu: all
 * bytes are there, and the GPU is compared with the CPU. */
export interface Progress {
  phase: "waiting" | "download" | "cache" | "open" | "gpu";
  loaded: number; // bytes
  total: number;
}

/** quip_session_options, checked, and the adapter. */
export interface SessionParams {
  nContext: number;
  nThreads: number;
  maxOutputTokens: number;
  seed?: number;
  temperature: number;
  greedy: boolean;
  topK: number;
  topP: number;
  minP: number;
  logitBias: [token: number, bias: number][];
  penaltyWindow: number;
  repeatPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  dryMultiplier: number;
  dryBase: number;
  dryAllowedLength: number;
  noRepeatNgram: number;
  stop: string[];
  system?: string;
  chatTemplate?: string;
  templateVariables?: string;
  noTemplate: boolean;
  noSpeculation: boolean;
  adapter: number; // 0: none
  adapterScale: number;
}

export type FinishReason = "stop" | "length" | "context" | "cancelled";

/** What an answer took. */
export interface Result {
  finishReason: FinishReason;
  promptTokens: number;
  outputTokens: number;
  prefillMs: number;
  decodeMs: number;
  firstTokenMs: number; // from the first call to the first token
  seed: number;
}

/** Whether a model fits into memory, before it is downloaded. */
export interface Fit {
  fits: boolean;
  reason?: string; // why not, in a sentence
  fileBytes: number;
  sessionBytes: number; // of one session with nContext tokens
  memoryBytes: number; // in all
  nContext: number; // that the numbers are for
  cached: boolean; // it is in the store: no download is needed
}

export type Role = "none" | "user" | "model" | "system";

/** Calls: [params, value, events]. */
export interface Calls {
  open: [OpenParams, Opened, { progress: Progress } | { pull: true }];
  check: [EngineParams & { source: Source; nContext: number }, Fit, never];
  adapter: [{ source: Source; sha256?: string }, number, { progress: Progress } | { pull: true }];
  closeAdapter: [{ adapter: number }, void, never];
  session: [SessionParams, { session: number; nContext: number }, never];
  setOptions: [SessionParams & { session: number }, void, never];
  closeSession: [{ session: number }, void, never];
  setAdapter: [{ session: number; adapter: number; scale: number }, void, never];
  append: [{ session: number; role: Role; text: string }, void, never];
  say: [{ session: number; text?: string }, Result, { text: string }];
  prefill: [{ session: number; tokens: Int32Array }, void, never];
  logits: [{ session: number }, Float32Array | null, never];
  position: [{ session: number }, number, never];
  rewind: [{ session: number; position: number }, void, never];
  clone: [{ session: number }, { session: number; nContext: number }, never];
  tokenize: [{ text: string; withSpecial: boolean }, Int32Array, never];
  detokenize: [{ tokens: Int32Array }, string, never];
  embed: [{ texts: (string | Int32Array)[]; options: EmbedParams }, Float32Array[], never];
  tokenizer: [Record<string, never>, TokenizerParts, never];
  memory: [Record<string, never>, number, never];
}
export type CallName = keyof Calls;

/** What a second module needs to count tokens (token_counter.ts). */
export interface TokenizerParts {
  module: WebAssembly.Module;
  build: Build;
  head: Uint8Array; // the first bytes of the model file
  fileBytes: number;
}

export type ToWorker =
  | { id: number; call: CallName; params: unknown; release: string }
  | { id: number; cancel: true }
  | { id: number; reply: unknown };

export type ToPage =
  | { id: number; value: unknown }
  | { id: number; error: ErrorRecord }
  | { id: number; event: unknown }
  | { fatal: ErrorRecord }; // the engine stopped and handles no more calls

/** One end of the connection between page and worker. */
export interface Port {
  post(message: unknown, transfer?: Transferable[]): void;
  onmessage: (message: never) => void;
  /** The other end stopped. The status is "internal", or "io" if its script could not be loaded. */
  onerror: (message: string, status?: "io" | "internal") => void;
  end(): void;
  /** In Node: does it keep the program running? */
  hold?(isBusy: boolean): void;
}
