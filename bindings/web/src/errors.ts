/** errors.ts: what goes wrong, as a kind and a sentence. */

/** The kinds of quip.h, and `internal`: the engine itself stopped, which is a defect of Quip. */
export type Status =
  | "argument"
  | "memory"
  | "io"
  | "format"
  | "unsupported"
  | "context_full"
  | "cancelled"
  | "internal";

/** Every error of this package: `status` for programs, `message` for people. (An aborted
 * `AbortSignal` is the exception: as everywhere on the platform its own reason is thrown.) */
export class QuipError extends Error {
  override readonly name = "QuipError";
  constructor(
    readonly status: Status,
    message: string,
  ) {
    super(message);
  }
}

/** An error as it crosses to another thread. */
export interface ErrorRecord {
  status: Status;
  message: string;
}

export function toRecord(error: unknown): ErrorRecord {
  if (error instanceof QuipError) return { status: error.status, message: error.message };
  return { status: "internal", message: error instanceof Error ? error.message : String(error) };
}

export const fromRecord = (r: ErrorRecord) => new QuipError(r.status, r.message);

/** Options by name: one that does not exist is an error that names it, not silence. */
export function checkNames(what: string, options: object, known: readonly string[]): void {
  for (const name of Object.keys(options))
    if (!known.includes(name))
      throw new QuipError("argument", `${what} has no option '${name}'; there are: ${known.join(", ")}`);
}

/** A number of the options; 0 if absent. */
export function checkNumber(name: string, value: unknown = 0): number {
  if (typeof value === "number" && value >= 0 && Number.isFinite(value)) return value;
  throw new QuipError("argument", `${name} is ${String(value)}; it must be a number from 0`);
}

/** A whole number of the options; 0 if absent. The module has 32 bits for it. */
export function checkCount(name: string, value: unknown = 0, most = 2 ** 31 - 1): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new QuipError("argument", `${name} is ${String(value)}; it must be a whole number from 0 to ${most}`);
}

/** One of some words, or undefined. */
export function checkWord(name: string, value: unknown, known: readonly string[]): void {
  if (value !== undefined && !known.includes(value as string))
    throw new QuipError("argument", `${name} is '${String(value)}'; possible is ${known.join(", ")}`);
}

export function checkText(what: string, text: unknown): asserts text is string {
  if (typeof text !== "string")
    throw new QuipError("argument", `${what} is of type ${typeof text}; it must be a string`);
}
