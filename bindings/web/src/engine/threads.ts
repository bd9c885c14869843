/** threads.ts: workers that run the library's threads. They are started before a session that wants
 * them opens, wait inside the module, and serve one session after the other. */
import { startThread } from "#worker";
import type { ThreadStart } from "./thread.js";
import type { Module } from "./module.js";

/* Both of quip_web.h. */
const MAX_THREADS = 64;
const STACK_BYTES = 65536;

export class Threads {
  #workers: { end(): void }[] = [];

  constructor(
    private readonly compiled: WebAssembly.Module,
    private readonly module: Module,
  ) {}

  /** Have n workers waiting, or as many as can be had. */
  async ensure(n: number): Promise<void> {
    const { x, memory, build } = this.module;
    const starting: Promise<void>[] = [];
    const idle = x.threads_idle();
    for (let i = idle; i < n && this.#workers.length < MAX_THREADS; i++) {
      const stack = x.pages_alloc(STACK_BYTES);
      if (!stack) break;
      const start: ThreadStart = { module: this.compiled, build, memory, stack, index: this.#workers.length };
      const thread = startThread(start);
      this.#workers.push(thread);
      starting.push(thread.ready);
    }
    const started = (await Promise.allSettled(starting)).filter((s) => s.status === "fulfilled").length;
    // "ready" is said a moment before a worker waits in the module
    for (let tries = 0; tries < 1000 && x.threads_idle() < idle + started; tries++)
      await new Promise((resolve) => setTimeout(resolve, 1));
  }

  end(): void {
    for (const worker of this.#workers) worker.end();
    this.#workers = [];
  }
}
