/** model.ts: a model, in a worker of its own, so that the page stays responsive while it computes. */
import { checkCount, checkNames, checkText, checkTokens, checkWord, QuipError } from "./errors.js";
import { Host, type CallOptions } from "./host.js";
import { BACKENDS, BUILDS, type Backend, type Build, type CacheMode, type CallName, type Calls, type Fit, type ModelInfo, type Opened, type Progress, type Source } from "./protocol.js";
import { Session, type SessionOptions } from "./session.js";
import { namePieces, type ModelSource, type Pieces } from "./sources.js";
import { TokenCounter } from "./token_counter.js";
import { folder } from "#page";

export interface OpenOptions {
  /** Aborts the open, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  onprogress?: ((progress: Progress) => void) | undefined;
  /** For URLs: how the browser's store of models is used; default: "default". */
  cache?: CacheMode | undefined;
  /** SHA-256 of the file, in hexadecimal. Any other file is an error. The store uses it as a key: a file
   * with several URLs is stored once, and opened without a request. */
  sha256?: string | undefined;
  /** The folder of this package's worker.js and *.wasm, if it is not the folder of this script. */
  baseUrl?: string | URL | undefined;
  /** The module to run; default: the best one. */
  build?: Build | undefined;
  /** What runs the model; default: "auto", the GPU if the browser has one that was measured to be faster for
   * this model, else the CPU. ModelInfo says which one it is, and why. */
  backend?: Backend | undefined;
  /** Threads that the sessions of the model use, if the page has threads; default: one for each
   * processor, but one that is left to the browser if there are 8 or more. */
  nThreads?: number | undefined;
  /** Leave the processor to others: half the threads if nThreads is absent, and no busy waiting. Slower,
   * but the answers are the same. */
  background?: boolean | undefined;
}

const OPEN_OPTIONS = ["signal", "onprogress", "cache", "sha256", "baseUrl", "build", "backend", "nThreads", "background"] as const;
const ADAPTER_OPTIONS = ["signal", "onprogress", "cache", "sha256"] as const;
const CHECK_OPTIONS = ["signal", "baseUrl", "build", "nContext"] as const;

export type AdapterOptions = Pick<OpenOptions, (typeof ADAPTER_OPTIONS)[number]>;

export interface CheckOptions extends Pick<OpenOptions, "signal" | "baseUrl" | "build"> {
  /** As in SessionOptions: the numbers are for this context. */
  nContext?: number | undefined;
}

/** Closes adapters that were not closed, some time after the program has dropped them. */
const droppedAdapters = new FinalizationRegistry<() => void>((close) => close());

/** LoRA weights of a fine-tune, which any number of sessions of one model may use. */
export class Adapter {
  /** @internal Model.loadAdapter() */
  constructor(
    private readonly host: Host,
    private readonly id: number,
  ) {
    droppedAdapters.register(this, () => void host.call("closeAdapter", { adapter: id }).catch(() => {}), this);
  }

  /** @internal The number of the adapter in the worker of `host`. */
  idIn(host: Host): number {
    if (host !== this.host)
      throw new QuipError("argument", "the adapter belongs to another model, or to an engine that stopped; load it again");
    return this.id;
  }

  /** Free its memory. Sessions that use it keep what they need of it. */
  async close(): Promise<void> {
    droppedAdapters.unregister(this);
    await this.host.call("closeAdapter", { adapter: this.id }).catch(() => {}); // its model is closed already
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export interface EmbedOptions {
  /** Name of a task prompt of the model, such as "query", whose text is put before each text. */
  prompt?: string | undefined;
  /** Text that is put before each text instead of a prompt. */
  prefix?: string | undefined;
  /** Which tokens an embedding is made of; default: as the model file says. */
  pooling?: "mean" | "first" | "last" | undefined;
  /** Keep only the first numbers of each embedding. */
  dimensions?: number | undefined;
  /** Tokens of a text; longer ones are cut. Default: as the model file says. */
  maxTokens?: number | undefined;
  /** Do not scale embeddings to length 1. */
  noNormalize?: boolean | undefined;
  /** A longer text is an error. */
  noTruncation?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

const EMBED_OPTIONS = ["prompt", "prefix", "pooling", "dimensions", "maxTokens", "noNormalize", "noTruncation", "signal"] as const;
const POOLINGS = ["mean", "first", "last"] as const;

const CACHE_MODES: CacheMode[] = ["default", "force-cache", "reload", "no-store"];

/** Check the values of options that are words. */
function checkWords({ cache, sha256, build, backend }: OpenOptions): void {
  checkWord("cache", cache, CACHE_MODES);
  checkWord("build", build, BUILDS);
  checkWord("backend", backend, BACKENDS);
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(sha256))
    throw new QuipError("argument", `sha256 is '${sha256}'; must be 64 hexadecimal digits`);
}

const engineParams = (o: Pick<OpenOptions, "baseUrl" | "build">) => ({
  base: o.baseUrl === undefined ? undefined : folder(String(o.baseUrl)),
  build: o.build,
});

/** Handles the events of a load. */
const listener = (o: OpenOptions, pieces: Pieces | null) => (event: { progress: Progress } | { pull: true }) => {
  if ("progress" in event) o.onprogress?.(event.progress);
  else return pieces!.next();
};

/** A worker with the model open in it. */
interface Live {
  host: Host;
  opened: Opened;
}

/** How long an aborted open may take to close its file in the store. */
const ABORT_MS = 300;

async function start(source: Source, pieces: Pieces | null, o: OpenOptions): Promise<Live> {
  const params = engineParams(o);
  const host = new Host(params.base);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stop = () => (timer = setTimeout(() => host.end(), ABORT_MS)); // it may be waiting for a server, or hashing
  o.signal?.addEventListener("abort", stop, { once: true });
  try {
    const opened = await host.call(
      "open",
      { ...params, backend: o.backend ?? "auto", nThreads: checkCount("nThreads", o.nThreads), background: !!o.background, source, sha256: o.sha256 },
      { signal: o.signal, onevent: listener(o, pieces) },
    );
    o.signal?.throwIfAborted();
    return { host, opened };
  } catch (error) {
    host.end();
    await pieces?.cancel(error);
    throw error;
  } finally {
    clearTimeout(timer);
    o.signal?.removeEventListener("abort", stop);
  }
}

const end = (live: Promise<Live>) => live.then(({ host }) => host.end(), () => {});

/** Ends the workers of models that were not closed, some time after the program has dropped them. */
const droppedModels = new FinalizationRegistry<{ live: Promise<Live> }>(({ live }) => void end(live));

export class Model {
  #current: { live: Promise<Live> };
  #calls = 0; // that run: until they end, this model is not collected
  #reopen: (() => Promise<Live>) | null;
  #counter: TokenCounter | null = null;
  #isClosed = false;

  /** Properties of the model. */
  readonly info: ModelInfo;
  /** The module that runs. */
  readonly build: Build;

  private constructor(live: Live, reopen: (() => Promise<Live>) | null) {
    this.#current = { live: Promise.resolve(live) };
    this.#reopen = reopen;
    droppedModels.register(this, this.#current, this);
    this.info = live.opened.info;
    this.build = live.opened.build;
  }

  /** Open a model: from a URL (in Node also a path), a File or Blob, a Response, a stream or bytes. The
   * file of a URL is stored in the browser, so the next visit needs no network. */
  static async open(source: ModelSource, options: OpenOptions = {}): Promise<Model> {
    checkNames("Model.open", options, OPEN_OPTIONS);
    checkWords(options);
    checkCount("nThreads", options.nThreads);
    options.signal?.throwIfAborted();
    const { named, pieces } = namePieces(source, options.cache);
    const live = await start(named, pieces, options);
    // if the engine stops, a source that can be read again is opened again
    const again = { ...options, signal: undefined, onprogress: undefined };
    return new Model(live, pieces ? null : () => start(named, null, again));
  }

  /** Does the model at this URL fit into memory, and if not, why? Fetches only the first megabytes of the
   * file. */
  static async check(url: string | URL, options: CheckOptions = {}): Promise<Fit> {
    checkNames("Model.check", options, CHECK_OPTIONS);
    checkWords(options);
    const nContext = checkCount("nContext", options.nContext);
    const { named } = namePieces(url, undefined);
    if (named.kind === "pieces" || named.kind === "blob")
      throw new QuipError("argument", "Model.check needs a URL or, in Node, a path");
    options.signal?.throwIfAborted();
    const params = engineParams(options);
    const host = new Host(params.base);
    const stop = () => host.end(); // it has no file open
    options.signal?.addEventListener("abort", stop, { once: true });
    try {
      const call = { ...params, source: named, nContext };
      return await host.call("check", call, { signal: options.signal });
    } finally {
      options.signal?.removeEventListener("abort", stop);
      host.end();
    }
  }

  /** Begin a conversation. If it cannot be opened, the first call on it fails. */
  session(options: SessionOptions = {}): Session {
    return Session.open(this, () => this.#alive(), options);
  }

  /** Load LoRA weights of a fine-tune of this model, from any source that Model.open accepts: a MediaPipe
   * LoRA file, or the safetensors file of PEFT. */
  async loadAdapter(source: ModelSource, options: AdapterOptions = {}): Promise<Adapter> {
    checkNames("Model.loadAdapter", options, ADAPTER_OPTIONS);
    checkWords(options);
    const { named, pieces } = namePieces(source, options.cache);
    const call = { signal: options.signal, onevent: listener(options, pieces) };
    try {
      return await this.#inUse(async (host) => new Adapter(host, await host.call("adapter", { source: named, sha256: options.sha256 }, call)));
    } catch (error) {
      await pieces?.cancel(error);
      throw error;
    }
  }

  /** The number of tokens of a text, without template and without a first token. */
  async countTokens(text: string): Promise<number> {
    return (await this.tokenize(text)).length;
  }

  /** The token ids of a text. With `withSpecial`, control tokens that are spelled out in it become their
   * ids. */
  async tokenize(text: string, { withSpecial = false } = {}): Promise<Int32Array> {
    checkText("the text", text);
    return this.#call("tokenize", { text, withSpecial });
  }

  /** The text of token ids. */
  async detokenize(tokens: Int32Array | number[]): Promise<string> {
    return this.#call("detokenize", { tokens: checkTokens("tokens", tokens) });
  }

  /** Embeddings of texts. Instead of a text there may be token ids, which are used as they are. The sum of
   * the products of two embeddings is their cosine. */
  async embed(texts: (string | Int32Array | number[])[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    checkNames("Model.embed", options, EMBED_OPTIONS);
    checkWord("pooling", options.pooling, [...POOLINGS]);
    const { prompt, prefix, signal } = options;
    if (prompt !== undefined) checkText("prompt", prompt);
    if (prefix !== undefined) checkText("prefix", prefix);
    const params = {
      ...(prompt === undefined ? {} : { prompt }),
      ...(prefix === undefined ? {} : { prefix }),
      pooling: options.pooling ? POOLINGS.indexOf(options.pooling) + 1 : 0,
      dimensions: checkCount("dimensions", options.dimensions),
      maxTokens: checkCount("maxTokens", options.maxTokens),
      noNormalize: !!options.noNormalize,
      noTruncation: !!options.noTruncation,
    };
    if (!Array.isArray(texts)) throw new QuipError("argument", "texts must be an array of texts or token ids");
    const inputs = texts.map((text, i) => (typeof text === "string" ? text : checkTokens(`texts[${i}]`, text)));
    return this.#call("embed", { texts: inputs, options: params }, { signal });
  }

  /** A synchronous function that counts tokens in the page. It needs a few megabytes of its own. */
  async tokenCounter(): Promise<(text: string) => number> {
    this.#counter ??= await TokenCounter.open(await this.#call("tokenizer", {}));
    const counter = this.#counter;
    return (text) => counter.count(text);
  }

  /** Bytes of memory that the engine uses, for the model and all its sessions. */
  async memory(): Promise<number> {
    return this.#call("memory", {});
  }

  /** Stop what is running and free the memory, also that of the model's sessions. */
  async close(): Promise<void> {
    this.#isClosed = true;
    droppedModels.unregister(this);
    await end(this.#current.live);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Use the worker. */
  async #inUse<T>(use: (host: Host) => Promise<T>): Promise<T> {
    this.#calls++;
    try {
      return await use(await this.#alive());
    } finally {
      this.#calls--;
    }
  }

  #call<C extends CallName>(call: C, params: Calls[C][0], options: CallOptions<C> = {}): Promise<Calls[C][1]> {
    return this.#inUse((host) => host.call(call, params, options));
  }

  /** The worker, or a new one if it stopped and the model can be read again. */
  async #alive(): Promise<Host> {
    const { live } = this.#current;
    const { host } = await live;
    if (this.#isClosed) throw new QuipError("argument", "the model is closed");
    if (!host.dead) return host;
    if (!this.#reopen) throw host.dead;
    if (this.#current.live === live) {
      this.#current.live = this.#reopen();
      this.#current.live.catch(() => (this.#current.live = live)); // the next call tries again
    }
    return this.#alive();
  }
}
