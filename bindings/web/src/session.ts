/** session.ts: one conversation, and its answers. */
import { checkNames, checkText, QuipError } from "./errors.js";
import type { Host } from "./host.js";
import type { Adapter } from "./model.js";
import type { Result, Role, SessionParams } from "./protocol.js";
import { Reply } from "./reply.js";

/** As quip_session_options; what is absent is the default. */
export interface SessionOptions {
  /** System prompt, put before the first turn by the model's template. */
  system?: string;
  /** Tokens of prompt and answer together; absent: 4096, or the model's own maximum if smaller. */
  context?: number;
  /** Of one answer; absent: as many as the context holds. */
  maxOutputTokens?: number;
  /** 0 or absent: always the likeliest token, the same text every time. */
  temperature?: number;
  /** Draw from the k likeliest; 0 or absent: no limit. */
  topK?: number;
  /** Then from the shortest run of those whose probabilities reach p; absent: 1, no limit. */
  topP?: number;
  /** The same seed gives the same text; absent: one is drawn, which Result.seed tells. */
  seed?: number;
  /** Texts that end an answer, beside the model's own. */
  stop?: string[];
  /** Threads to compute on, where the page has them; absent: one a processor. */
  threads?: number;
  /** How turns are spelled: "gemma", "chatml", "llama3", ...; "none": text goes in as it is; absent: as
   * the model's file says. */
  template?: string;
  /** LoRA weights beside the model's. */
  adapter?: Adapter;
  /** 1 if absent. */
  adapterScale?: number;
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
  signal?: AbortSignal;
}

const drawSeed = () => {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low || 1; // 53 bits: a number that JavaScript has exactly
};

function number(name: string, value: number | undefined, isWhole = true): number {
  if (value === undefined) return 0;
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0 || (isWhole && !Number.isSafeInteger(value)))
    throw new QuipError("argument", `${name} is ${String(value)}; it must be a ${isWhole ? "whole number" : "number"} from 0`);
  return value;
}

function toParams(o: SessionOptions): SessionParams {
  checkNames("a session", o, OPTIONS);
  for (const name of ["system", "template"] as const) if (o[name] !== undefined) checkText(name, o[name]);
  if (o.stop !== undefined && !Array.isArray(o.stop)) throw new QuipError("argument", "stop must be an array of strings");
  o.stop?.forEach((text, i) => checkText(`stop[${i}]`, text));
  return {
    nContext: number("context", o.context),
    threads: number("threads", o.threads),
    maxOutputTokens: number("maxOutputTokens", o.maxOutputTokens),
    seed: number("seed", o.seed) || drawSeed(),
    temperature: number("temperature", o.temperature, false),
    topK: number("topK", o.topK),
    topP: number("topP", o.topP, false),
    stop: o.stop ?? [],
    system: o.system,
    template: o.template === "none" ? undefined : o.template,
    noTemplate: o.template === "none",
    adapter: 0, // numbers of adapters are their worker's
    adapterScale: o.adapterScale ?? 0,
  };
}

/** The session in the worker. */
interface Remote {
  host: Host;
  session: number;
  nContext: number;
}

/** Calls on one session run one after the other, in the order they were made. */
export class Session {
  #remote: Promise<Remote>;
  #last: Promise<unknown>;
  #reply: Reply | null = null;
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
      return { host: h, ...(await h.call("session", { ...params, adapter: options.adapter?.idIn(h) ?? 0 })) };
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
    this.#reply = reply;
    return reply;
  }

  /** Put text of a role into the conversation without asking for an answer. Text of role "none" goes in
   * as it is; control tokens spelled out in it are control tokens. */
  append(text: string, { role = "user", signal }: { role?: Role; signal?: AbortSignal } = {}): Promise<void> {
    checkText("the text", text);
    if (!["none", "user", "model", "system"].includes(role))
      throw new QuipError("argument", `role is '${role}'; there are none, user, model and system`);
    return this.#inTurn(({ host, session }) => host.call("append", { session, role, text }, { signal }));
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
    number("position", position);
    return this.#inTurn(({ host, session }) => host.call("rewind", { session, position }));
  }

  /** Use other LoRA weights from here on, or none. The conversation stays: it is run again with them. */
  setAdapter(adapter: Adapter | null, scale = 1): Promise<void> {
    return this.#inTurn(({ host, session }) =>
      host.call("setAdapter", { session, adapter: adapter?.idIn(host) ?? 0, scale }),
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
    this.#reply?.cancel();
    const closed = this.#inTurn(({ host, session }) => host.call("closeSession", { session }));
    this.#isClosed = true;
    await closed.catch(() => {}); // it never opened, or its model is closed: nothing is left of it
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Run a call when those before it have ended. */
  #inTurn<T>(call: (remote: Remote) => Promise<T>): Promise<T> {
    if (this.#isClosed) return Promise.reject(new QuipError("argument", "the session is closed"));
    const result = this.#last.then(() => this.#remote).then(call);
    this.#last = result.catch(() => {});
    return result;
  }
}
