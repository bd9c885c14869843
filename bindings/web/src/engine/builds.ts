/** builds.ts: which of the modules this engine can run. */
import { QuipError } from "../errors.js";
import type { Build } from "../protocol.js";
import { LIMIT } from "./module.js";

/* Modules of one function, assembled by hand: validate() says whether the engine knows its opcode.
 * The frame is: magic, version; type section () -> (); function section; code section. */
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

/** Memory shared between threads: in a page only when it is cross-origin isolated. */
export const hasThreads = () =>
  typeof SharedArrayBuffer === "function" && (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;

/** Memory with 64-bit addresses. */
export const hasMemory64 = () =>
  // prettier-ignore
  WebAssembly.validate(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 5, 3, 1, 4, 1])); // a memory, flag 4

/* Room that 32-bit memory should have beside a file, for sessions. */
const SESSIONS = 512 << 20;

/** Is a file of this size better off in 64-bit memory, where there is that? In 32-bit memory, with
 * addresses that cost less, a model runs faster. */
export const needs64 = (fileBytes: number) => fileBytes > LIMIT - SESSIONS && hasMemory64();

/** The builds to try, best first. A relaxed one may still be refused by its own known-answer test, one
 * with threads by a device that has no room for shared memory. */
export function buildsToTry(wanted?: Build, isLarge = false): Build[] {
  if (!hasSimd())
    throw new QuipError(
      "unsupported",
      "this engine has no WebAssembly SIMD, which Quip needs: Chrome and Edge 100, Firefox 114, Safari 16.4, Node 20 or later run it",
    );
  if (wanted) {
    if (wanted.includes("-mt") && !hasThreads())
      throw new QuipError("unsupported", `the build '${wanted}' needs a cross-origin isolated page (headers COOP and COEP)`);
    if (wanted.startsWith("relaxed") && !hasRelaxed())
      throw new QuipError("unsupported", `the build '${wanted}' needs relaxed SIMD, which this engine has not`);
    if (wanted.endsWith("-64") && !hasMemory64())
      throw new QuipError("unsupported", `the build '${wanted}' needs 64-bit memory, which this engine has not`);
    return [wanted];
  }
  const single: Build[] = hasRelaxed() ? ["relaxed", "simd"] : ["simd"];
  const all = hasThreads() ? [...single.map((kind) => `${kind}-mt` as Build), ...single] : single;
  return isLarge ? all.map((build) => `${build}-64` as Build) : all;
}
