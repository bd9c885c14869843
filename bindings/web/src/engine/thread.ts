/** thread.ts: a worker that runs a thread of the library (thread.js). */
import type { Build } from "../protocol.js";
import { inThread } from "#worker";
import { exportsOf, imports } from "./module.js";

export interface ThreadStart {
  module: WebAssembly.Module;
  build: Build;
  memory: WebAssembly.Memory;
  stack: number;
  index: number;
}

export async function runThread({ module, build, memory, stack, index }: ThreadStart): Promise<() => void> {
  const all = imports(module, () => memory);
  const x = exportsOf(await WebAssembly.instantiate(module, { ...all, env: { ...all.env, memory } }), build);
  x.quip_web_thread_enter(stack);
  return () => x.quip_web_thread_run(index); // does not return
}

inThread(runThread);
