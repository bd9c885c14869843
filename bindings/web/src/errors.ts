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

export function checkText(what: string, text: unknown): asserts text is string {
  if (typeof text !== "string")
    throw new QuipError("argument", `${what} is of type ${typeof text}; it must be a string`);
}
