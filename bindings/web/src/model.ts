/** model.ts: a model, in a worker of its own. Whatever it computes, the page stays free. */
import { checkCount, checkNames, checkText, checkWord, QuipError } from "./errors.js";
import { Host } from "./host.js";
import { BUILDS, type Build, type CacheMode, type Fit, type ModelInfo, type Opened, type Progress, type Source } from "./protocol.js";
import { Session, type SessionOptions } from "./session.js";
import { namePieces, type ModelSource, type Pieces } from "./sources.js";
import { TokenCounter } from "./token_counter.js";
import { folder } from "#page";

export interface OpenOptions {
  /** Ends the open: it then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  onprogress?: ((progress: Progress) => void) | undefined;
  /** Of URLs: how the browser's store of models is used; "default" if absent. */
  cache?: CacheMode | undefined;
  /** Of the file, in hexadecimal: anything else is refused. In the store it is the file's name, so that
   * one file of many URLs is kept once, and nothing is asked when it is there. */
  sha256?: string | undefined;
  /** The folder with this package's worker.js and *.wasm, where they do not lie beside this script. */
  baseUrl?: string | URL | undefined;
  /** Which module runs: the best one if absent. */
  build?: Build | undefined;
}

const OPEN_OPTIONS = ["signal", "onprogress", "cache", "sha256", "baseUrl", "build"] as const;
const ADAPTER_OPTIONS = ["signal", "onprogress", "cache", "sha256"] as const;
const CHECK_OPTIONS = ["signal", "baseUrl", "build", "context"] as const;

export type AdapterOptions = Pick<OpenOptions, (typeof ADAPTER_OPTIONS)[number]>;

export interface CheckOptions extends Pick<OpenOptions, "signal" | "baseUrl" | "build"> {
  /** Tokens of context that the numbers are for; as SessionOptions. */
  context?: number | undefined;
}

/** LoRA weights of a fine-tune, for any number of a model's sessions. */
export class Adapter {
  /** @internal Model.loadAdapter() */
  constructor(
    private readonly host: Host,
    private readonly id: number,
  ) {}

  /** @internal Its number in the worker of `host`. */
  idIn(host: Host): number {
    if (host !== this.host)
      throw new QuipError("argument", "the adapter is of another model, or its engine stopped: load it again");
    return this.id;
  }

  /** Give its memory back. Sessions that use it keep what they need. */
  async close(): Promise<void> {
    await this.host.call("closeAdapter", { adapter: this.id }).catch(() => {}); // its model is closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const CACHE_MODES: CacheMode[] = ["default", "force-cache", "reload", "no-store"];

/** The values of options that are words. */
function checkWords({ cache, sha256, build }: OpenOptions): void {
  checkWord("cache", cache, CACHE_MODES);
  checkWord("build", build, BUILDS);
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(sha256))
    throw new QuipError("argument", `sha256 is '${sha256}'; it must be 64 hexadecimal digits`);
}

const engineParams = (o: Pick<OpenOptions, "baseUrl" | "build">) => ({
  base: o.baseUrl === undefined ? undefined : folder(String(o.baseUrl)),
  build: o.build,
});

/** What a load reports and asks for. */
const listener = (o: OpenOptions, pieces: Pieces | null) => (event: { progress: Progress } | { pull: true }) => {
  if ("progress" in event) o.onprogress?.(event.progress);
  else return pieces!.next();
};

/** A worker with the model open in it. */
interface Live {
  host: Host;
  opened: Opened;
}

/** How long an aborted open may take to put its things in order. */
const LAST_WORDS_MS = 300;

async function start(source: Source, pieces: Pieces | null, o: OpenOptions): Promise<Live> {
  const params = engineParams(o);
  const host = new Host(params.base);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stop = () => (timer = setTimeout(() => host.end(), LAST_WORDS_MS)); // it may wait for a server, or be hashing
  o.signal?.addEventListener("abort", stop, { once: true });
  try {
    const opened = await host.call(
      "open",
      { ...params, source, sha256: o.sha256 },
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

export class Model {
  #live: Promise<Live>;
  #reopen: (() => Promise<Live>) | null;
  #counter: TokenCounter | null = null;
  #isClosed = false;

  /** Facts of the model. */
  readonly info: ModelInfo;
  /** The module that runs. */
  readonly build: Build;

  private constructor(live: Live, reopen: (() => Promise<Live>) | null) {
    this.#live = Promise.resolve(live);
    this.#reopen = reopen;
    this.info = live.opened.info;
    this.build = live.opened.build;
  }

  /** Open a model from wherever it is: a URL (or in Node a path), a File or Blob, a Response, a stream
   * or bytes. URLs are kept in the browser's store: the next visit needs no network. */
  static async open(source: ModelSource, options: OpenOptions = {}): Promise<Model> {
    checkNames("Model.open", options, OPEN_OPTIONS);
    checkWords(options);
    options.signal?.throwIfAborted();
    const { named, pieces } = namePieces(source, options.cache);
    const live = await start(named, pieces, options);
    // what can be read again is opened again when an engine stops
    const again = { ...options, signal: undefined, onprogress: undefined };
    return new Model(live, pieces ? null : () => start(named, null, again));
  }

  /** Will the model at this URL fit, and if not, why? Fetches the first megabytes of the file only. */
  static async check(url: string | URL, options: CheckOptions = {}): Promise<Fit> {
    checkNames("Model.check", options, CHECK_OPTIONS);
    checkWords(options);
    const nContext = checkCount("context", options.context);
    const { named } = namePieces(url, undefined);
    if (named.kind === "pieces" || named.kind === "blob")
      throw new QuipError("argument", "Model.check takes a URL or, in Node, a path");
    options.signal?.throwIfAborted();
    const params = engineParams(options);
    const host = new Host(params.base);
    const stop = () => host.end(); // it has nothing to put in order
    options.signal?.addEventListener("abort", stop, { once: true });
    try {
      const call = { ...params, source: named, nContext };
      return await host.call("check", call, { signal: options.signal });
    } finally {
      options.signal?.removeEventListener("abort", stop);
      host.end();
    }
  }

  /** A conversation. What cannot be opened is told by the first call on it. */
  session(options: SessionOptions = {}): Session {
    return Session.open(() => this.#alive(), options);
  }

  /** LoRA weights of a fine-tune of this model, from wherever Model.open takes a model from: a file of
   * MediaPipe's converter, or safetensors of PEFT. */
  async loadAdapter(source: ModelSource, options: AdapterOptions = {}): Promise<Adapter> {
    checkNames("Model.loadAdapter", options, ADAPTER_OPTIONS);
    checkWords(options);
    const { named, pieces } = namePieces(source, options.cache);
    const host = await this.#alive();
    const call = { signal: options.signal, onevent: listener(options, pieces) };
    try {
      return new Adapter(host, await host.call("adapter", { source: named, sha256: options.sha256 }, call));
    } catch (error) {
      await pieces?.cancel(error);
      throw error;
    }
  }

  /** How many tokens a text has: no template, no token at the beginning. */
  async countTokens(text: string): Promise<number> {
    return (await this.encode(text)).length;
  }

  /** The tokens of a text. With `special`, control tokens spelled out in it become theirs. */
  async encode(text: string, { special = false } = {}): Promise<Int32Array> {
    checkText("the text", text);
    return (await this.#alive()).call("encode", { text, special });
  }

  async decode(tokens: Int32Array | number[]): Promise<string> {
    return (await this.#alive()).call("decode", { tokens: Int32Array.from(tokens) });
  }

  /** A function that counts tokens at once, in the page: it holds a few megabytes of its own. */
  async tokenCounter(): Promise<(text: string) => number> {
    this.#counter ??= await TokenCounter.open(await (await this.#alive()).call("tokenizer", {}));
    const counter = this.#counter;
    return (text) => counter.count(text);
  }

  /** Bytes of memory that the engine has taken: model, sessions and all. */
  async memory(): Promise<number> {
    return (await this.#alive()).call("memory", {});
  }

  /** End whatever runs, and give the memory back. Sessions of the model are closed with it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#live.then(({ host }) => host.end(), () => {});
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The worker; another one when it stopped and the model can be read again. */
  async #alive(): Promise<Host> {
    const current = this.#live;
    const { host } = await current;
    if (this.#isClosed) throw new QuipError("argument", "the model is closed");
    if (!host.dead) return host;
    if (!this.#reopen) throw host.dead;
    if (this.#live === current) {
      this.#live = this.#reopen();
      this.#live.catch(() => (this.#live = current)); // the next call tries again
    }
    return this.#alive();
  }
}
