/** reply.ts: an answer that is being given. */
import type { Result } from "./protocol.js";

/** Why a reply ended that its own reader ended: no error. */
const STOPPED = Symbol("stopped");

const NOTHING: Result = {
  finishReason: "cancelled",
  promptTokens: 0,
  outputTokens: 0,
  prefillMs: 0,
  decodeMs: 0,
  firstTokenMs: 0,
  seed: 0,
};

type Run = (signal: AbortSignal, ontext: (text: string) => void) => Promise<Result>;

/** Iterate over it for the pieces as they come, or wait for text() or result(). It begins at once,
 * whether anybody looks or not, and may be read more than once. */
export class Reply implements AsyncIterable<string> {
  #pieces: string[] = [];
  #wake: (() => void)[] = [];
  #isOver = false;
  #stop = new AbortController();
  #result: Promise<Result>;

  /** @internal Session.say() */
  constructor(signal: AbortSignal | undefined, run: Run) {
    this.#result = this.#run(signal, run);
    this.#result.catch(() => {}); // whoever waits hears of it
  }

  async #run(signal: AbortSignal | undefined, run: Run): Promise<Result> {
    const abort = () => this.#stop.abort(signal!.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const result = await run(this.#stop.signal, (text) => {
        this.#pieces.push(text);
        this.#notify();
      });
      if (result.finishReason === "cancelled") signal?.throwIfAborted();
      return result;
    } catch (error) {
      if (error === STOPPED) return { ...NOTHING }; // before the answer began
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#isOver = true;
      this.#notify();
    }
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** End the answer here. What is waited for ends as if the model had stopped by itself. */
  cancel(): void {
    if (!this.#isOver) this.#stop.abort(STOPPED);
  }

  /** The whole answer. */
  async text(): Promise<string> {
    await this.#result;
    return this.#pieces.join("");
  }

  /** Why it ended and what it cost. */
  result(): Promise<Result> {
    return this.#result;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    let i = 0;
    try {
      for (;;) {
        while (i < this.#pieces.length) yield this.#pieces[i++];
        if (this.#isOver) break;
        await new Promise<void>((resolve) => this.#wake.push(resolve));
      }
      await this.#result; // its error, if it has one
    } finally {
      this.cancel();
    }
  }
}
