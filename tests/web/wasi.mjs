// wasi.mjs PROGRAM.wasm ARGUMENTS...: run a command-line program in Node, or print "skipped" if this Node
// cannot run it.
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const program = readFileSync(process.argv[2]);
if (!WebAssembly.validate(program)) {
  console.log(`${process.argv[2]}: skipped: this Node has no relaxed SIMD`);
  process.exit(0);
}
const wasi = new WASI({ version: 'preview1', args: process.argv.slice(2), returnOnExit: true });
const { instance } = await WebAssembly.instantiate(program, wasi.getImportObject());
process.exitCode = wasi.start(instance);
