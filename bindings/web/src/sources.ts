/** sources.ts: turns a caller's source into what the worker gets: a name, or pieces that follow. */
import { QuipError } from "./errors.js";
import type { CacheMode, Source } from "./protocol.js";
import { namedSource } from "#page";

export type ModelSource =
  | string
  | URL
  | Blob
  | Response
  | ReadableStream<Uint8Array>
  | ReadableStreamDefaultReader<Uint8Array>
  | Uint8Array
  | ArrayBuffer;

/** Bytes that only the page can read. They are sent in pieces. */
export interface Pieces {
  next(): Promise<Uint8Array | null>; // null: the end
  cancel(reason: unknown): Promise<void>;
}

const PIECE = 4 << 20;

function ofBytes(all: Uint8Array): Pieces {
  let at = 0;
  return {
    async next() {
      if (at >= all.length) return null;
      return all.slice(at, (at += PIECE)); // a copy: a message with a part of a buffer would copy all of it
    },
    async cancel() {},
  };
}

function ofReader(reader: ReadableStreamDefaultReader<Uint8Array>): Pieces {
  return {
    async next() {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return null;
        if (!(value instanceof Uint8Array))
          throw new QuipError("argument", "the chunks of the stream must be Uint8Arrays");
        if (value.length) return value;
      }
    },
    cancel: (reason) => reader.cancel(reason).catch(() => {}),
  };
}

/** The source for the worker, and its pieces if the page must send them. */
export function namePieces(source: ModelSource, cache: CacheMode = "default"): { named: Source; pieces: Pieces | null } {
  if (typeof source === "string" || source instanceof URL) {
    if (!String(source).trim())
      throw new QuipError("argument", "the source of a model is an empty text; must be a URL or, in Node, a path");
    const named = namedSource(String(source));
    return { named: named.kind === "url" ? { ...named, cache } : named, pieces: null };
  }
  if (source instanceof Blob) {
    const name = (source as File).name || "model";
    return { named: { kind: "blob", blob: source, name }, pieces: null };
  }
  if (source instanceof ArrayBuffer) source = new Uint8Array(source);
  if (source instanceof Uint8Array)
    return { named: { kind: "pieces", bytes: source.length, name: "model" }, pieces: ofBytes(source) };
  if (source instanceof Response) return ofResponse(source);
  if (source instanceof ReadableStream)
    return { named: { kind: "pieces", name: "model" }, pieces: ofReader(readerOf(source)) };
  if (typeof source?.read === "function")
    return { named: { kind: "pieces", name: "model" }, pieces: ofReader(source) };
  throw new QuipError(
    "argument",
    "the source of a model must be a URL, a File or Blob, a Response, a ReadableStream or its reader, a Uint8Array or an ArrayBuffer",
  );
}

/** A stream has one reader at a time. */
function readerOf(stream: ReadableStream<Uint8Array>): ReadableStreamDefaultReader<Uint8Array> {
  if (stream.locked) throw new QuipError("argument", "the stream is being read elsewhere, or was read already");
  return stream.getReader();
}

function ofResponse(response: Response): { named: Source; pieces: Pieces } {
  if (response.type === "opaque")
    throw new QuipError("argument", "the response cannot be read; fetch it without the mode 'no-cors'");
  if (response.bodyUsed) throw new QuipError("argument", `the response${response.url && ` of ${response.url}`} was read already`);
  if (!response.ok) throw new QuipError("io", `Failed to fetch model: ${response.url} (${response.status})`);
  if (!response.body) throw new QuipError("io", `Failed to fetch model: ${response.url} (no body)`);
  const isPlain = /^(identity)?$/.test(response.headers.get("content-encoding") ?? "");
  const bytes = isPlain ? Number(response.headers.get("content-length") ?? 0) || undefined : undefined;
  return { named: { kind: "pieces", bytes, name: response.url || "model" }, pieces: ofReader(readerOf(response.body)) };
}
