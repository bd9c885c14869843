// thread.mjs: a worker that runs a thread of a module; it waits in the module for work and never ends.
import { workerData } from 'node:worker_threads';

const { module, memory, index, stack } = workerData;
const env = { memory, now: () => performance.timeOrigin + performance.now(), random: () => {} };
const imports = WebAssembly.Module.imports(module).filter((i) => i.module === 'gpu');
const gpu = Object.fromEntries(imports.map(({ name }) => [name, () => 0]));
const { exports } = new WebAssembly.Instance(module, { env, gpu });
exports.quip_web_thread_enter(stack);
exports.quip_web_thread_run(index);
