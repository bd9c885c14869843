/** threads.ts: workers that run the library's threads. They are started before a model opens and wait
 * in the module for work. */
import { startThread } from "#worker";
import type { ThreadStart } from "./thread.js";
import { abi } from "./abi.js";
import type { Module } from "./module.js";

const { WEB_MAX_WORKERS, WEB_STACK_BYTES } = abi.enums.web_limit;

export class Threads {
  #workers: { end(): void }[] = [];

  constructor(
    private readonly compiled: WebAssembly.Module,
    private readonly module: Module,
  ) {}

  /** Start workers until n of them wait, or as many as the browser allows. */
  async ensure(n: number): Promise<void> {
    const { x, memory, build } = this.module;
    const starting: Promise<void>[] = [];
    const idle = x.quip_web_threads_idle();
    for (let i = idle; i < n && this.#workers.length < WEB_MAX_WORKERS; i++) {
      const stack = x.quip_memory_alloc(WEB_STACK_BYTES);
      if (!stack) break;
      const start: ThreadStart = { module: this.compiled, build, memory, stack, index: this.#workers.length };
      const thread = startThread(start);
      this.#workers.push(thread);
      starting.push(thread.ready);
    }
    const started = (await Promise.allSettled(starting)).filter((s) => s.status === "fulfilled").length;
    // a worker reports "ready" a moment before it waits in the module
    for (let tries = 0; tries < 1000 && x.quip_web_threads_idle() < idle + started; tries++)
      await new Promise((resolve) => setTimeout(resolve, 1));
  }

  end(): void {
    for (const worker of this.#workers) worker.end();
    this.#workers = [];
  }
}
