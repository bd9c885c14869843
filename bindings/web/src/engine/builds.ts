/** builds.ts: chooses the module that this browser can run. */
import { QuipError } from "../errors.js";
import type { Build } from "../protocol.js";
import { LIMIT } from "./module.js";

/* A module with one function, in binary form: validate() says whether the browser knows its opcode. Its
 * parts are: magic number, version; type section () -> (); function section; code section. */
const probe = (...body: number[]) =>
  WebAssembly.validate(
    // prettier-ignore
    new Uint8Array([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      1, 4, 1, 0x60, 0, 0,
      3, 2, 1, 0,
      10, body.length + 4, 1, body.length + 2, 0, ...body, 0x0b,
    ]),
  );

const ZERO_VECTOR = [0x41, 0, 0xfd, 15]; // i32.const 0; i8x16.splat
const DROP = 0x1a;

/** i8x16.splat: fixed-width SIMD. */
export const hasSimd = () => probe(...ZERO_VECTOR, DROP);

/** i32x4.relaxed_dot_i8x16_i7x16_add_s. */
export const hasRelaxed = () =>
  probe(...ZERO_VECTOR, ...ZERO_VECTOR, ...ZERO_VECTOR, 0xfd, 0x93, 0x02, DROP);

/** Memory that threads share. A page has it only if it is cross-origin isolated. */
export const hasThreads = () =>
  typeof SharedArrayBuffer === "function" && (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;

/** Memory with 64-bit addresses. */
export const hasMemory64 = () =>
  // prettier-ignore
  WebAssembly.validate(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 5, 3, 1, 4, 1])); // a memory, flag 4

/* Memory that must remain for sessions, beside the file. */
const SESSION_BYTES = 512 << 20;

/** Must a file of this size be in 64-bit memory, if the browser has it? In 32-bit memory a model runs
 * faster: every access to 64-bit memory is checked. */
export const needs64 = (fileBytes: number) => fileBytes > LIMIT - SESSION_BYTES && hasMemory64();

/** The builds to try, best first. Starting one may still fail: relaxed SIMD may compute wrongly, and the
 * device may have too little memory for a shared one. */
export function buildsToTry(requested?: Build, isLarge = false): Build[] {
  if (!hasSimd())
    throw new QuipError(
      "unsupported",
      "this browser has no WebAssembly SIMD; use Chrome or Edge 100, Firefox 114, Safari 16.4, Node 20 or later",
    );
  if (requested) {
    if (requested.includes("-mt") && !hasThreads())
      throw new QuipError("unsupported", `the build '${requested}' needs a cross-origin isolated page (headers COOP and COEP)`);
    if (requested.startsWith("relaxed") && !hasRelaxed())
      throw new QuipError("unsupported", `the build '${requested}' needs relaxed SIMD, which this browser does not have`);
    if (requested.endsWith("-64") && !hasMemory64())
      throw new QuipError("unsupported", `the build '${requested}' needs 64-bit memory, which this browser does not have`);
    return [requested];
  }
  const single: Build[] = hasRelaxed() ? ["relaxed", "simd"] : ["simd"];
  const all = hasThreads() ? [...single.map((kind) => `${kind}-mt` as Build), ...single] : single;
  return isLarge ? all.map((build) => `${build}-64` as Build) : all;
}
