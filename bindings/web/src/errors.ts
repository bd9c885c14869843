/** errors.ts: errors of this package: a status and a sentence. */

/** The names of quip_status, and `internal`: the engine stopped, which is a bug in Quip. */
export type Status =
  | "argument"
  | "memory"
  | "io"
  | "format"
  | "unsupported"
  | "context_full"
  | "cancelled"
  | "device"
  | "internal";

/** Every error of this package: `status` is for programs, `message` for people. There is one exception:
 * when an `AbortSignal` is aborted, its own reason is thrown, as everywhere in browsers. */
export class QuipError extends Error {
  override readonly name = "QuipError";
  constructor(
    readonly status: Status,
    message: string,
  ) {
    super(message);
  }
}

/** An error in a message to another thread. */
export interface ErrorRecord {
  status: Status;
  message: string;
}

export function toRecord(error: unknown): ErrorRecord {
  if (error instanceof QuipError) return { status: error.status, message: error.message };
  if (error instanceof RangeError && /alloc|memory/i.test(error.message))
    return {
      status: "memory",
      message: `${error.message}; close models and sessions that are not needed, or other tabs, or use a smaller model`,
    };
  return { status: "internal", message: error instanceof Error ? error.message : String(error) };
}

export const fromRecord = (r: ErrorRecord) => new QuipError(r.status, r.message);

/** An unknown option is an error that names it. */
export function checkNames(what: string, options: object, known: readonly string[]): void {
  for (const name of Object.keys(options))
    if (!known.includes(name))
      throw new QuipError("argument", `${what} has no option '${name}'; must be one of ${known.join(", ")}`);
}

/** Check an option that is a number; default: 0. */
export function checkNumber(name: string, value: unknown = 0): number {
  if (typeof value === "number" && value >= 0 && Number.isFinite(value)) return value;
  throw new QuipError("argument", `${name} is ${String(value)}; must be a number of at least 0`);
}

/** Check an option that is any finite number; default: 0. */
export function checkSigned(name: string, value: unknown = 0): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw new QuipError("argument", `${name} is ${String(value)}; must be a number`);
}

/** Check an option that is a whole number; default: 0. Most of them have 32 bits in the module. */
export function checkCount(name: string, value: unknown = 0, most = 2 ** 31 - 1): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new QuipError("argument", `${name} is ${String(value)}; must be a whole number from 0 to ${most}`);
}

/** Check an option that is one of some words, or undefined. */
export function checkWord(name: string, value: unknown, known: readonly string[]): void {
  if (value !== undefined && !known.includes(value as string))
    throw new QuipError("argument", `${name} is '${String(value)}'; must be one of ${known.join(", ")}`);
}

export function checkText(what: string, text: unknown): asserts text is string {
  if (typeof text !== "string")
    throw new QuipError("argument", `${what} is of type ${typeof text}; must be a string`);
}

/** A copy of token ids. Int32Array.from would make a token of any text or fraction. */
export function checkTokens(what: string, tokens: unknown): Int32Array {
  if (tokens instanceof Int32Array) return tokens.slice();
  if (!Array.isArray(tokens)) throw new QuipError("argument", `${what} must be an Int32Array or an array of token ids`);
  const i = tokens.findIndex((token) => !Number.isInteger(token) || token < 0 || token >= 2 ** 31);
  if (i >= 0) throw new QuipError("argument", `${what}[${i}] is ${String(tokens[i])}; must be a token id`);
  return Int32Array.from(tokens as number[]);
}
