/** session.ts: one conversation, and its answers. */
import { checkCount, checkNames, checkNumber, checkSigned, checkText, checkTokens, checkWord, QuipError } from "./errors.js";
import type { Host } from "./host.js";
import type { Adapter, Model } from "./model.js";
import type { Result, Role, SessionParams } from "./protocol.js";
import { Reply } from "./reply.js";

/** The options of quip_session_options, and the adapter. How tokens are drawn, from topK to temperature, is
 * as the model file says where an option is absent, or else as the library does: ModelInfo.sampling. */
export interface SessionOptions {
  /** Capacity of the context: tokens of all prompts and answers; default: 4096, or the maximum of the model
   * if that is smaller. */
  nContext?: number | undefined;
  /** Use at most this many of the model's threads; default: all. */
  nThreads?: number | undefined;
  /** Of one answer; default: no limit but nContext. */
  maxOutputTokens?: number | undefined;
  /** Draw from the k most likely tokens. 0: no limit; 1: greedy. */
  topK?: number | undefined;
  /** Then from the fewest tokens whose probabilities add up to p. 1: no limit. */
  topP?: number | undefined;
  /** Then from the tokens at least this likely, as a part of the best one's probability. 0: no limit. */
  minP?: number | undefined;
  /** Added to the logit of a token: pairs of token and number; -Infinity: never. */
  logitBias?: [token: number, bias: number][] | undefined;
  /** How many of the last tokens the penalties look at. -1: all. */
  penaltyWindow?: number | undefined;
  /** Divides the logit of a token of the window if it is positive, else multiplies it. 1: no effect. */
  repeatPenalty?: number | undefined;
  /** Subtracted from the logit of a token of the window. */
  presencePenalty?: number | undefined;
  /** Subtracted for each of its occurrences. */
  frequencyPenalty?: number | undefined;
  /** A token that would lengthen a repetition of n >= dryAllowedLength tokens loses
   * dryMultiplier * dryBase ** (n - dryAllowedLength); default: 0, no effect. */
  dryMultiplier?: number | undefined;
  /** Default: 1.75. */
  dryBase?: number | undefined;
  /** Default: 2. */
  dryAllowedLength?: number | undefined;
  /** No n tokens in a row come twice in the window. 0: they may. */
  noRepeatNgram?: number | undefined;
  /** 1: the model's probabilities; less: likely tokens become more likely still; 0: greedy. */
  temperature?: number | undefined;
  /** Always the most likely token, without the penalties that are defaults. */
  greedy?: boolean | undefined;
  /** The same seed gives the same answer; default: a random one, which Result.seed reports. */
  seed?: number | undefined;
  /** Pass text on as it is, even if the model has a template. */
  noTemplate?: boolean | undefined;
  /** Do not run guesses of the next tokens. Slower, but the answer is the same. */
  noSpeculation?: boolean | undefined;
  /** Texts that end an answer, in addition to those of the model. */
  stop?: string[] | undefined;
  /** System prompt, placed before the first turn. */
  system?: string | undefined;
  /** How turns are marked: "gemma", "chatml", "llama3", ..., or "none"; default: as the model file says. */
  chatTemplate?: string | undefined;
  /** What the model's own chat template reads, such as { enable_thinking: false, tools: [...] }. */
  templateVariables?: Record<string, unknown> | undefined;
  /** LoRA weights that are applied beside those of the model. */
  adapter?: Adapter | undefined;
  /** The effect of the adapter is multiplied by this; default: 1. */
  adapterScale?: number | undefined;
}

const OPTIONS = [
  "nContext",
  "nThreads",
  "maxOutputTokens",
  "topK",
  "topP",
  "minP",
  "logitBias",
  "penaltyWindow",
  "repeatPenalty",
  "presencePenalty",
  "frequencyPenalty",
  "dryMultiplier",
  "dryBase",
  "dryAllowedLength",
  "noRepeatNgram",
  "temperature",
  "greedy",
  "seed",
  "noTemplate",
  "noSpeculation",
  "stop",
  "system",
  "chatTemplate",
  "templateVariables",
  "adapter",
  "adapterScale",
] as const satisfies readonly (keyof SessionOptions)[];

export interface SayOptions {
  /** Aborts the answer. Promises that wait for it reject with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface PrefillOptions {
  /** Aborts the call. The conversation is then as it was before. */
  signal?: AbortSignal | undefined;
}

export interface AppendOptions extends PrefillOptions {
  /** Whose text it is; default: "user". "none": text without a role, which gets no template. */
  role?: Role | undefined;
}

/** A random seed of 53 bits. The library would draw 64 bits, which a number of JavaScript cannot report
 * exactly. */
const drawSeed = () => {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
};

/** An option of how tokens are drawn, as quip.h has it, where 0 is the default: 0 if it is absent, `none` if
 * it is 0. */
const said = (value: number, none: number, option: number | undefined) =>
  option === undefined ? 0 : value === 0 ? none : value;

function toParams(o: SessionOptions): SessionParams {
  checkNames("a session", o, OPTIONS);
  for (const name of ["system", "chatTemplate"] as const) if (o[name] !== undefined) checkText(name, o[name]);
  if (o.stop !== undefined && !Array.isArray(o.stop)) throw new QuipError("argument", "stop must be an array of strings");
  o.stop?.forEach((text, i) => checkText(`stop[${i}]`, text));
  return {
    nContext: checkCount("nContext", o.nContext),
    nThreads: checkCount("nThreads", o.nThreads),
    maxOutputTokens: checkCount("maxOutputTokens", o.maxOutputTokens),
    seed: o.seed === undefined ? undefined : checkCount("seed", o.seed, Number.MAX_SAFE_INTEGER),
    temperature: checkNumber("temperature", o.temperature),
    greedy: (o.greedy ?? false) || o.temperature === 0,
    topK: said(checkCount("topK", o.topK), -1, o.topK),
    topP: said(checkNumber("topP", o.topP), 1, o.topP),
    minP: said(checkNumber("minP", o.minP), -1, o.minP),
    logitBias: (o.logitBias ?? []).map(([token, bias], i) => [
      checkCount(`logitBias[${i}][0]`, token),
      bias === -Infinity ? bias : checkSigned(`logitBias[${i}][1]`, bias),
    ]),
    penaltyWindow: o.penaltyWindow === -1 ? -1 : checkCount("penaltyWindow", o.penaltyWindow),
    repeatPenalty: said(checkNumber("repeatPenalty", o.repeatPenalty), 1, o.repeatPenalty),
    presencePenalty: checkSigned("presencePenalty", o.presencePenalty),
    frequencyPenalty: checkSigned("frequencyPenalty", o.frequencyPenalty),
    dryMultiplier: checkNumber("dryMultiplier", o.dryMultiplier),
    dryBase: checkNumber("dryBase", o.dryBase),
    dryAllowedLength: checkCount("dryAllowedLength", o.dryAllowedLength),
    noRepeatNgram: said(checkCount("noRepeatNgram", o.noRepeatNgram), -1, o.noRepeatNgram),
    stop: o.stop ?? [],
    system: o.system,
    chatTemplate: o.chatTemplate,
    templateVariables: o.templateVariables && JSON.stringify(o.templateVariables),
    noTemplate: o.noTemplate ?? false,
    noSpeculation: o.noSpeculation ?? false,
    adapter: 0, // its number is known when the worker is
    adapterScale: o.adapterScale ?? 1,
  };
}

/** The session in the worker. */
interface Remote {
  host: Host;
  session: number;
  nContext: number;
}

const closed = () => new QuipError("argument", "the session is closed");

/** Closes sessions that were not closed, some time after the program has dropped them. */
const dropped = new FinalizationRegistry<Promise<Remote>>((remote) => {
  remote.then(({ host, session }) => host.call("closeSession", { session })).catch(() => {}); // its model is closed
});

/** A conversation. Its calls run one after the other, in the order in which they were made. Close it when it is
 * over: it has memory of its own (Fit.sessionBytes). */
export class Session {
  #remote: Promise<Remote>;
  #last: Promise<unknown>;
  #calls = new Set<Promise<unknown>>(); // that run or wait: until they end, this session is not collected
  #running = new Set<{ cancel(): void }>(); // those that close() cancels
  #isClosed = false;

  private constructor(
    /** The model of the conversation, which stays open as long as this session is used. */
    readonly model: Model,
    remote: Promise<Remote>,
  ) {
    this.#remote = remote;
    this.#last = remote.catch(() => {}); // the first call reports the error
    dropped.register(this, remote, this);
  }

  /** @internal Model.session() */
  static open(model: Model, host: () => Promise<Host>, options: SessionOptions): Session {
    const params = toParams(options);
    params.seed ??= drawSeed();
    const open = async () => {
      const h = await host();
      const adapter = options.adapter?.idIn(h) ?? 0;
      return { host: h, ...(await h.call("session", { ...params, adapter })) };
    };
    return new Session(model, open());
  }

  /** Append a text of the user and generate the answer, which streams:
   *
   *     for await (const text of chat.say("Why is the sky blue?")) show(text);
   *
   * Leaving the loop ends the answer. The conversation keeps the text so far. */
  say(text: string, options: SayOptions = {}): Reply {
    checkText("the text", text);
    return this.#answer(text, options);
  }

  /** Generate the answer to what was appended. */
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
    void this.#during(reply, reply.result()).catch(() => {}); // the caller gets the error from the reply
    return reply;
  }

  /** Until `work` has ended, close() cancels it through `task`. */
  async #during<T>(task: { cancel(): void }, work: Promise<T>): Promise<T> {
    this.#running.add(task);
    try {
      return await work;
    } finally {
      this.#running.delete(task);
    }
  }

  /** Append text of a role to the conversation without generating an answer. In text of role "none",
   * control tokens that are spelled out are recognized. */
  append(text: string, options: AppendOptions = {}): Promise<void> {
    const { role = "user", signal } = options;
    checkNames("append", options, ["role", "signal"]);
    checkText("the text", text);
    checkWord("role", role, ["none", "user", "model", "system"] satisfies Role[]);
    return this.#feed(signal, ({ host, session }, stop) =>
      host.call("append", { session, role, text }, { signal: stop }),
    );
  }

  /** Run the model over token ids. */
  prefill(tokens: Int32Array | number[], options: PrefillOptions = {}): Promise<void> {
    checkNames("prefill", options, ["signal"]);
    const ids = checkTokens("tokens", tokens);
    return this.#feed(options.signal, ({ host, session }, stop) =>
      host.call("prefill", { session, tokens: ids }, { signal: stop }),
    );
  }

  /** A call that `signal` and close() abort. */
  #feed(signal: AbortSignal | undefined, call: (remote: Remote, stop: AbortSignal) => Promise<void>): Promise<void> {
    const stop = new AbortController();
    const abort = () => stop.abort(signal!.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    const task = { cancel: () => stop.abort(closed()) };
    const fed = this.#inTurn((remote) => call(remote, stop.signal));
    return this.#during(task, fed).finally(() => signal?.removeEventListener("abort", abort));
  }

  /** The logits [vocabSize] after the last token. Null if the model has not run that token, for example
   * during an answer. */
  logits(): Promise<Float32Array | null> {
    return this.#inTurn(({ host, session }) => host.call("logits", { session }));
  }

  /** The number of tokens in the context. */
  position(): Promise<number> {
    return this.#inTurn(({ host, session }) => host.call("position", { session }));
  }

  /** The capacity of the context. */
  async nContext(): Promise<number> {
    return (await this.#remote).nContext;
  }

  /** Remove all tokens from `position` on. */
  rewind(position: number): Promise<void> {
    checkCount("position", position);
    return this.#inTurn(({ host, session }) => host.call("rewind", { session, position }));
  }

  /** Replace the options for the next calls; absent ones get their default. A seed restarts the random
   * numbers. nContext, noTemplate and chatTemplate cannot change, and `system` only before the first text.
   * For the adapter, call setAdapter. */
  setOptions(options: Omit<SessionOptions, "adapter" | "adapterScale">): Promise<void> {
    const params = toParams(options);
    if ("adapter" in options || "adapterScale" in options)
      throw new QuipError("argument", "setOptions does not change the adapter; call setAdapter");
    return this.#inTurn(({ host, session }) => host.call("setOptions", { session, ...params }));
  }

  /** Use other LoRA weights from now on, or none. The text of the conversation stays and is run again with
   * the new weights. */
  setAdapter(adapter: Adapter | null, scale = 1): Promise<void> {
    return this.#inTurn(({ host, session }) =>
      host.call("setAdapter", { session, adapter: adapter?.idIn(host) ?? 0, scale }),
    );
  }

  /** Open a second session that continues from the same point. */
  clone(): Session {
    return new Session(
      this.model,
      this.#inTurn(async ({ host, session }) => ({ host, ...(await host.call("clone", { session })) })),
    );
  }

  /** Stop what is running and free the memory. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    for (const task of this.#running) task.cancel();
    const end = this.#inTurn(({ host, session }) => host.call("closeSession", { session }));
    this.#isClosed = true;
    dropped.unregister(this);
    await end.catch(() => {}); // it was never opened, or its model is closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Run a call after those before it. */
  #inTurn<T>(call: (remote: Remote) => Promise<T>): Promise<T> {
    if (this.#isClosed) return Promise.reject(closed());
    const result = this.#last.then(() => this.#remote).then(call);
    const ended = () => void this.#calls.delete(result);
    this.#calls.add(result);
    this.#last = result.then(ended, ended);
    return result;
  }
}
