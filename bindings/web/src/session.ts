/** session.ts: one conversation, and its answers. */
import { checkCount, checkNames, checkNumber, checkText, checkWord, QuipError } from "./errors.js";
import type { Host } from "./host.js";
import type { Adapter } from "./model.js";
import type { Result, Role, SessionParams } from "./protocol.js";
import { Reply } from "./reply.js";

/** As quip_session_options; what is absent is the default. */
export interface SessionOptions {
  /** System prompt, put before the first turn by the model's template. */
  system?: string | undefined;
  /** Tokens of prompt and answer together; absent: 4096, or the model's own maximum if smaller. */
  context?: number | undefined;
  /** Of one answer; absent: as many as the context holds. */
  maxOutputTokens?: number | undefined;
  /** 0 or absent: always the likeliest token, the same text every time. */
  temperature?: number | undefined;
  /** Draw from the k likeliest; 0 or absent: no limit. */
  topK?: number | undefined;
  /** Then from the shortest run of those whose probabilities reach p; absent: 1, no limit. */
  topP?: number | undefined;
  /** The same seed gives the same text; absent: one is drawn, which Result.seed tells. */
  seed?: number | undefined;
  /** Texts that end an answer, beside the model's own. */
  stop?: string[] | undefined;
  /** Threads to compute on, where the page has them; absent: one a processor. */
  threads?: number | undefined;
  /** How turns are spelled: "gemma", "chatml", "llama3", ...; "none": text goes in as it is; absent: as
   * the model's file says. */
  template?: string | undefined;
  /** LoRA weights beside the model's. */
  adapter?: Adapter | undefined;
  /** How much they count: 1 if absent, 0 not at all. */
  adapterScale?: number | undefined;
}

const OPTIONS = [
  "system",
  "context",
  "maxOutputTokens",
  "temperature",
  "topK",
  "topP",
  "seed",
  "stop",
  "threads",
  "template",
  "adapter",
  "adapterScale",
] as const satisfies readonly (keyof SessionOptions)[];

export interface SayOptions {
  /** Ends the answer: what is waited for then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface AppendOptions {
  /** Whose text it is; "user" if absent. "none": it goes in as it is. */
  role?: Role | undefined;
  /** Ends it: the conversation is then as it was before. */
  signal?: AbortSignal | undefined;
}

const drawSeed = () => {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low || 1; // 53 bits: a number that JavaScript has exactly
};

/** The module draws a seed for 0; here 0 is a seed like any other, the same in every SDK. */
const SEED_OF_ZERO = 0x9e3779b97f4a7;

function toParams(o: SessionOptions): SessionParams {
  checkNames("a session", o, OPTIONS);
  for (const name of ["system", "template"] as const) if (o[name] !== undefined) checkText(name, o[name]);
  if (o.stop !== undefined && !Array.isArray(o.stop)) throw new QuipError("argument", "stop must be an array of strings");
  o.stop?.forEach((text, i) => checkText(`stop[${i}]`, text));
  const seed = checkCount("seed", o.seed, Number.MAX_SAFE_INTEGER) || SEED_OF_ZERO;
  return {
    nContext: checkCount("context", o.context),
    threads: checkCount("threads", o.threads),
    maxOutputTokens: checkCount("maxOutputTokens", o.maxOutputTokens),
    seed: o.seed === undefined ? drawSeed() : seed,
    temperature: checkNumber("temperature", o.temperature),
    topK: checkCount("topK", o.topK),
    topP: checkNumber("topP", o.topP),
    stop: o.stop ?? [],
    system: o.system,
    template: o.template === "none" ? undefined : o.template,
    noTemplate: o.template === "none",
    adapter: 0, // numbers of adapters are their worker's
    adapterScale: o.adapterScale ?? 1,
  };
}

/** The number of an adapter in the worker; that of none where its weights count nothing. (To the module
 * a scale of 0 is the default.) */
const adapterIn = (host: Host, adapter: Adapter | null | undefined, scale = 1) =>
  scale === 0 ? 0 : (adapter?.idIn(host) ?? 0);

/** The session in the worker. */
interface Remote {
  host: Host;
  session: number;
  nContext: number;
}

const closed = () => new QuipError("argument", "the session is closed");

/** Calls on one session run one after the other, in the order they were made. */
export class Session {
  #remote: Promise<Remote>;
  #last: Promise<unknown>;
  #running = new Set<{ cancel(): void }>(); // answers and appends, under way or waiting for their turn
  #isClosed = false;

  private constructor(remote: Promise<Remote>) {
    this.#remote = remote;
    this.#last = remote.catch(() => {}); // an error is that of the first call
  }

  /** @internal Model.session() */
  static open(host: () => Promise<Host>, options: SessionOptions): Session {
    const params = toParams(options);
    const open = async () => {
      const h = await host();
      const adapter = adapterIn(h, options.adapter, options.adapterScale);
      return { host: h, ...(await h.call("session", { ...params, adapter })) };
    };
    return new Session(open());
  }

  /** Say something, as the user; the answer streams:
   *
   *     for await (const text of chat.say("Why is the sky blue?")) show(text);
   *
   * Leaving the loop ends the answer. The conversation keeps what was said. */
  say(text: string, options: SayOptions = {}): Reply {
    checkText("what is said", text);
    return this.#answer(text, options);
  }

  /** Let the model go on from what was appended. */
  answer(options: SayOptions = {}): Reply {
    return this.#answer(undefined, options);
  }

  #answer(text: string | undefined, options: SayOptions): Reply {
    checkNames("say", options, ["signal"]);
    const reply = new Reply(options.signal, (signal, ontext) =>
      this.#inTurn<Result>(({ host, session }) =>
        host.call("say", { session, text }, { signal, onevent: (e) => ontext(e.text) }),
      ),
    );
    void this.#during(reply, reply.result()).catch(() => {}); // whoever waits for the reply hears of it
    return reply;
  }

  /** While `work` is under way close() ends it by `task`. */
  async #during<T>(task: { cancel(): void }, work: Promise<T>): Promise<T> {
    this.#running.add(task);
    try {
      return await work;
    } finally {
      this.#running.delete(task);
    }
  }

  /** Put text of a role into the conversation without asking for an answer. Text of role "none" goes in
   * as it is; control tokens spelled out in it are control tokens. */
  append(text: string, options: AppendOptions = {}): Promise<void> {
    const { role = "user", signal } = options;
    checkNames("append", options, ["role", "signal"]);
    checkText("the text", text);
    checkWord("role", role, ["none", "user", "model", "system"] satisfies Role[]);
    const stop = new AbortController();
    const abort = () => stop.abort(signal!.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    const task = { cancel: () => stop.abort(closed()) };
    const appended = this.#inTurn(({ host, session }) =>
      host.call("append", { session, role, text }, { signal: stop.signal }),
    );
    return this.#during(task, appended).finally(() => signal?.removeEventListener("abort", abort));
  }

  /** Run the model over tokens. */
  prefill(tokens: Int32Array | number[]): Promise<void> {
    const ids = Int32Array.from(tokens);
    return this.#inTurn(({ host, session }) => host.call("prefill", { session, tokens: ids }));
  }

  /** The scores [vocabSize] of every next token; null when the last token has not been run yet, as in an
   * answer. */
  logits(): Promise<Float32Array | null> {
    return this.#inTurn(({ host, session }) => host.call("logits", { session }));
  }

  /** Tokens in the context. */
  position(): Promise<number> {
    return this.#inTurn(({ host, session }) => host.call("position", { session }));
  }

  /** Tokens that the context can hold. */
  async context(): Promise<number> {
    return (await this.#remote).nContext;
  }

  /** Forget everything from token `position` on. */
  rewind(position: number): Promise<void> {
    checkCount("position", position);
    return this.#inTurn(({ host, session }) => host.call("rewind", { session, position }));
  }

  /** Use other LoRA weights from here on, or none. The conversation stays: it is run again with them. */
  setAdapter(adapter: Adapter | null, scale = 1): Promise<void> {
    return this.#inTurn(({ host, session }) =>
      host.call("setAdapter", { session, adapter: adapterIn(host, adapter, scale), scale }),
    );
  }

  /** A second session that goes on from here. */
  clone(): Session {
    return new Session(
      this.#inTurn(async ({ host, session }) => ({ host, ...(await host.call("clone", { session })) })),
    );
  }

  /** End what runs, and give the memory back. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    for (const task of this.#running) task.cancel();
    const end = this.#inTurn(({ host, session }) => host.call("closeSession", { session }));
    this.#isClosed = true;
    await end.catch(() => {}); // it never opened, or its model is closed: nothing is left of it
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Run a call when those before it have ended. */
  #inTurn<T>(call: (remote: Remote) => Promise<T>): Promise<T> {
    if (this.#isClosed) return Promise.reject(closed());
    const result = this.#last.then(() => this.#remote).then(call);
    this.#last = result.catch(() => {});
    return result;
  }
}
