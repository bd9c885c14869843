/** protocol.ts: what the page and the worker say to each other.
 * The page makes calls, `{ id, call, params }`; each is answered once, `{ id, value }` or
 * `{ id, error }`, and may send events before, `{ id, event }`. `{ id, cancel: true }` asks a call
 * to end; it still answers. `{ id, reply }` answers an event that asks for something. */
import type { ErrorRecord } from "./errors.js";

/** How the browser's store of models is used; the names and meanings of fetch(). */
export type CacheMode =
  | "default" // from the store when the server still has the same file, or cannot be reached
  | "force-cache" // from the store if it is there: nothing is asked
  | "reload" // download, and store anew
  | "no-store"; // download, and store nothing

export type Source =
  | { kind: "url"; url: string; cache: CacheMode }
  | { kind: "blob"; blob: Blob; name: string }
  | { kind: "path"; path: string }
  | { kind: "pieces"; bytes?: number; name: string }; // the page sends them, one for each "pull"

/** The modules: with relaxed SIMD or without, with threads ("-mt") or without, with 64-bit memory ("-64")
 * or without. */
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
  base?: string; // folder of the wasm files; beside the worker if absent
  build?: Build; // the best that this browser can run if absent
}

export interface OpenParams extends EngineParams {
  source: Source;
  sha256?: string;
}

/** Facts of a model. */
export interface ModelInfo {
  architecture: string;
  weights: string; // "int8", "int4", "mixed" or "f32"
  parameters: number;
  fileBytes: number;
  layers: number;
  vocabSize: number;
  contextMax: number; // positions it was trained for; 0 when the file does not say
  hasTemplate: boolean; // false for base models: text goes in as it is
}

export interface Opened {
  info: ModelInfo;
  build: Build;
}

/** Where an open stands. `total` is 0 while nobody knows it. */
export interface Progress {
  phase: "waiting" | "download" | "cache" | "open"; // waiting: another tab is downloading it
  loaded: number; // bytes
  total: number;
}

/** Options of a session as the module takes them: complete and checked. */
export interface SessionParams {
  nContext: number;
  threads: number;
  maxOutputTokens: number;
  seed: number;
  temperature: number;
  topK: number;
  topP: number;
  stop: string[];
  system?: string;
  template?: string;
  noTemplate: boolean;
  adapter: number; // 0: none
  adapterScale: number; // 0 is 1
}

export type FinishReason = "stop" | "length" | "context" | "cancelled";

/** What an answer cost. */
export interface Result {
  finishReason: FinishReason;
  promptTokens: number;
  outputTokens: number;
  prefillMs: number;
  decodeMs: number;
  firstTokenMs: number; // from the call to the first token
  seed: number;
}

/** Will it fit? Told before the download. */
export interface Fit {
  fits: boolean;
  reason?: string; // why not, in a sentence
  fileBytes: number;
  sessionBytes: number; // of one session with the context asked for
  memoryBytes: number; // all together
  context: number; // tokens, that the numbers are for
  cached: boolean; // it is in the store already: no download is needed
}

export type Role = "none" | "user" | "model" | "system";

/** Calls: [params, value, events]. */
export interface Calls {
  open: [OpenParams, Opened, { progress: Progress } | { pull: true }];
  check: [EngineParams & { source: Source; nContext: number }, Fit, never];
  adapter: [{ source: Source; sha256?: string }, number, { progress: Progress } | { pull: true }];
  closeAdapter: [{ adapter: number }, void, never];
  session: [SessionParams, { session: number; nContext: number }, never];
  closeSession: [{ session: number }, void, never];
  setAdapter: [{ session: number; adapter: number; scale: number }, void, never];
  append: [{ session: number; role: Role; text: string }, void, never];
  say: [{ session: number; text?: string }, Result, { text: string }];
  prefill: [{ session: number; tokens: Int32Array }, void, never];
  logits: [{ session: number }, Float32Array | null, never];
  position: [{ session: number }, number, never];
  rewind: [{ session: number; position: number }, void, never];
  clone: [{ session: number }, { session: number; nContext: number }, never];
  encode: [{ text: string; special: boolean }, Int32Array, never];
  decode: [{ tokens: Int32Array }, string, never];
  tokenizer: [Record<string, never>, TokenizerParts, never];
  memory: [Record<string, never>, number, never];
}
export type CallName = keyof Calls;

/** What a second module needs to count tokens: see token_counter.ts. */
export interface TokenizerParts {
  module: WebAssembly.Module;
  build: Build;
  header: Uint8Array; // the file's beginning
  fileBytes: number;
}

export type ToWorker =
  | { id: number; call: CallName; params: unknown }
  | { id: number; cancel: true }
  | { id: number; reply: unknown };

export type ToPage =
  | { id: number; value: unknown }
  | { id: number; error: ErrorRecord }
  | { id: number; event: unknown }
  | { fatal: ErrorRecord }; // the engine stopped: no call will be answered any more

/** One end of the wire between page and worker. */
export interface Port {
  post(message: unknown, transfer?: Transferable[]): void;
  onmessage: (message: never) => void;
  /** The other end is gone. "internal" unless its script never came. */
  onerror: (message: string, status?: "io" | "internal") => void;
  end(): void;
}
