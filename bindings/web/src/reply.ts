/** reply.ts: an answer that is being generated. */
import type { Result } from "./protocol.js";

/** The reason of a reply that its own reader ended. It is not an error. */
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

/** Iterate over it to get the pieces as they are generated, or wait for text() or result(). The answer
 * starts even without a reader, and it may be read more than once. */
export class Reply implements AsyncIterable<string> {
  #pieces: string[] = [];
  #wake: (() => void)[] = [];
  #isOver = false;
  #stop = new AbortController();
  #result: Promise<Result>;

  /** @internal Session.say() */
  constructor(signal: AbortSignal | undefined, run: Run) {
    this.#result = this.#run(signal, run);
    this.#result.catch(() => {}); // those who wait for it get the error
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

  /** End the answer here. Promises that wait for it resolve as if the model had ended it. */
  cancel(): void {
    if (!this.#isOver) this.#stop.abort(STOPPED);
  }

  /** The whole answer. */
  async text(): Promise<string> {
    await this.#result;
    return this.#pieces.join("");
  }

  /** Why it ended and what it took. */
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
      await this.#result; // throws if the answer failed
    } finally {
      this.cancel();
    }
  }
}
