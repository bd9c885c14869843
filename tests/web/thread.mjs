// thread.mjs: one thread of a module: waits in it for something to run, as long as it lives.
import { workerData } from 'node:worker_threads';

const { module, memory, index, stack } = workerData;
const env = { memory, now: () => performance.timeOrigin + performance.now(), random: () => {} };
const { exports } = new WebAssembly.Instance(module, { env });
exports.quip_web_thread_enter(stack);
exports.quip_web_thread_run(index);
