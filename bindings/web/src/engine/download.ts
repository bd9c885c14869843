/** download.ts: downloads a file, also over connections that break.
 * In:  a URL, and the number of bytes that are stored already.
 * Out: the following bytes in order, in pieces, or an error that names the URL. Bytes of two versions of the file
 *      are never joined.
 * The only header that it sends is `Range`, which browsers allow for other origins without a preflight. */
import { QuipError } from "../errors.js";
import { gib } from "./file_memory.js";

/** Identifies a version of a file. */
export interface Version {
  bytes: number; // 0: unknown
  etag?: string;
  modified?: string;
}

const RETRIES = 5; // in a row, without a byte between them
const FIRST_WAIT_MS = 300; // doubled each time
const STALL_MS = 20000; // a connection that sends nothing for so long is broken

/** The last bytes of a part come again. After a crash of the system they may be zeros. */
const OVERLAP = 4096;

const isWeak = (etag: string) => etag.startsWith("W/");

/** Are both the same version, as far as the server tells? Without ETag and Last-Modified, a file of
 * the same size counts as the same one. */
export function isSameVersion(a: Version, b: Version): boolean {
  if (a.bytes && b.bytes && a.bytes !== b.bytes) return false;
  if (a.etag !== undefined && b.etag !== undefined) return a.etag.replace(/^W\//, "") === b.etag.replace(/^W\//, "");
  if (a.modified !== undefined && b.modified !== undefined) return a.modified === b.modified;
  const isUnnamed = ({ etag, modified }: Version) => etag === undefined && modified === undefined;
  return isUnnamed(a) && isUnnamed(b) && isSameSize(a, b);
}

/** May bytes of `b` follow bytes of `a`? Only if the server says that both are the same, byte for byte. */
export function canContinue(a: Version, b: Version): boolean {
  if (!isSameSize(a, b)) return false;
  const haveEtags = a.etag !== undefined && b.etag !== undefined;
  if (haveEtags && (a.etag !== b.etag || !isWeak(a.etag!))) return a.etag === b.etag;
  return a.modified !== undefined && a.modified === b.modified;
}

const isSameSize = (a: Version, b: Version) => a.bytes > 0 && a.bytes === b.bytes;

/** No connection, a broken connection or a busy server: another attempt may succeed. */
class Broken extends Error {}

async function request(url: string, from: number, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {
      headers: from ? { Range: `bytes=${from}-` } : {},
      cache: "no-store", // models have a store of their own
      signal,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw new Broken(`${(error as Error).message}; check the network, and that the server allows this page (CORS)`);
  }
  if (response.status >= 500 || response.status === 429 || response.status === 408)
    throw new Broken(`status ${response.status}`);
  if (!response.ok && !(from && response.status === 416))
    throw new QuipError("io", `Failed to fetch model: ${url} (${response.status})`);
  return response;
}

/** The version of the file in a response, and the offset where its body begins. A server of another origin may
 * hide Content-Range; then the part begins where it was `requested`, and Content-Length says where it ends. */
export function describe(response: Response, requested?: number): { version: Version; from: number } {
  const h = response.headers;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(h.get("content-range") ?? "");
  const isPart = response.status === 206;
  const isEncoded = !/^(identity)?$/.test(h.get("content-encoding") ?? "");
  const length = isEncoded ? 0 : Number(h.get("content-length") ?? 0);
  const hidden = requested !== undefined && length ? { from: requested, bytes: requested + length } : { from: NaN, bytes: 0 };
  const part = range ? { from: Number(range[1]), bytes: Number(range[2]) } : hidden;
  return {
    version: {
      bytes: isPart ? part.bytes : length,
      etag: h.get("etag") ?? undefined,
      modified: h.get("last-modified") ?? undefined,
    },
    from: isPart ? part.from : 0,
  };
}

const sleep = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(done, ms);
    function done() {
      signal.removeEventListener("abort", stop);
      resolve();
    }
    function stop() {
      clearTimeout(timer);
      reject(signal.reason);
    }
    signal.addEventListener("abort", stop, { once: true });
  });

/** Bytes of the file that begin at `at`. */
export interface Piece {
  at: number;
  bytes: Uint8Array;
}

export class Download {
  #restarts = 0;

  private constructor(
    readonly url: string,
    public version: Version,
    /** The offset of the first piece: OVERLAP before the end of what is there, or 0 if the server can only send the whole file or
     * may have another one. */
    readonly from: number,
    private body: ReadableStream<Uint8Array>,
    private mayBeEncoded: boolean,
    private readonly isChecked: boolean,
    private readonly signal: AbortSignal,
    private readonly closer: AbortController,
  ) {}

  /** Connect. With `have`, request only its last bytes and those that follow, if the server says that its file is
   * the same, or if a hash of the whole is checked at the end. */
  static async start(url: string, signal: AbortSignal, isChecked: boolean, have: { version: Version; bytes: number } | null = null): Promise<Download> {
    const closer = new AbortController();
    const both = closer.signal;
    signal.throwIfAborted();
    signal.addEventListener("abort", () => closer.abort(signal.reason), { once: true });
    const isSame = (version: Version) => (isChecked ? isSameSize : canContinue)(have!.version, version);
    const wanted = have && isSame(have.version) ? Math.max(0, Math.min(have.bytes, have.version.bytes) - OVERLAP) : 0;
    try {
      let response = await request(url, wanted, both);
      let { version, from } = describe(response, wanted);
      if (wanted && response.status !== 200 && !(from === wanted && isSame(version))) {
        await response.body?.cancel();
        response = await request(url, 0, both);
        ({ version, from } = describe(response));
      }
      if (!response.body) throw new QuipError("io", `Failed to fetch model: ${url} (no body)`);
      const mayBeEncoded = response.type === "cors" && !response.headers.has("content-encoding");
      return new Download(url, version, from, response.body, mayBeEncoded, isChecked, both, closer);
    } catch (error) {
      if (error instanceof Broken)
        throw new QuipError("io", `Failed to fetch model: ${url} (${error.message})`);
      throw error;
    }
  }

  /** Close the connection. */
  stop(): void {
    this.closer.abort();
  }

  /** The pieces in order. If the connection breaks, and the server does not say that its file is still the
   * same, they begin again at 0. */
  async *pieces(): AsyncGenerator<Piece> {
    let at = this.from;
    let failures = 0;
    for (;;) {
      const before = at;
      try {
        for await (const bytes of read(this.body, this.signal)) {
          this.#checkEnd(at + bytes.length);
          yield { at, bytes };
          at += bytes.length;
        }
        if (!this.version.bytes || at >= this.version.bytes) return;
        throw new Broken("the connection ended early");
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        failures = at > before ? 1 : failures + 1;
        at = await this.#reconnect(at, failures, error.message);
      }
    }
  }

  /** The file may be longer than the server announced only if it is compressed. A server of another origin
   * does not show that. */
  #checkEnd(end: number): void {
    const { bytes } = this.version;
    if (!bytes || end <= bytes) return;
    if (!this.mayBeEncoded)
      throw new QuipError("io", `${this.url} is longer than the ${gib(bytes)} that the server announced`);
    this.version = { ...this.version, bytes: 0 };
  }

  /** Connect again for the bytes from `at` on. Returns where the new body begins: there, or at 0. */
  async #reconnect(at: number, failures: number, why: string): Promise<number> {
    const broke = `the download of ${this.url} broke after ${at} of ${this.version.bytes || "?"} bytes`;
    if (failures + this.#restarts > RETRIES || !this.version.bytes) throw new QuipError("io", `${broke}: ${why}`);
    await sleep(FIRST_WAIT_MS * 2 ** (failures - 1), this.signal);
    const isSame = (version: Version) => (this.isChecked ? isSameSize : canContinue)(this.version, version);
    const wanted = isSame(this.version) ? at : 0;
    let response: Response;
    try {
      response = await request(this.url, wanted, this.signal);
    } catch (error) {
      if (error instanceof Broken) return this.#reconnect(at, failures + 1, error.message);
      throw error;
    }
    const { version, from } = describe(response, wanted);
    if (!response.body || !(wanted ? isSame(version) : isSameSize(this.version, version)))
      throw new QuipError("io", `${broke}, and the file on the server has changed since; try again`);
    if (from !== wanted && from !== 0) throw new QuipError("io", `${broke}, and the server sent another part than requested`);
    this.body = from === wanted ? response.body : skip(response.body, wanted);
    if (!wanted && at) this.#restarts++;
    return wanted;
  }
}

/** The chunks of a body. Not every browser can iterate over a stream. */
async function* read(body: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    for (;;) {
      const stalled = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no bytes came for ${STALL_MS / 1000} seconds`)), STALL_MS);
      });
      let piece;
      try {
        piece = await Promise.race([reader.read(), stalled]);
      } catch (error) {
        signal.throwIfAborted();
        throw new Broken((error as Error).message);
      } finally {
        clearTimeout(timer);
      }
      if (piece.done) return;
      yield piece.value;
    }
  } finally {
    void reader.cancel().catch(() => {}); // after an error or an end it does nothing
  }
}

/** The body without its first n bytes, for servers that cannot send a part of a file. */
function skip(body: ReadableStream<Uint8Array>, n: number): ReadableStream<Uint8Array> {
  let left = n;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(piece, out) {
        const cut = Math.min(left, piece.length);
        left -= cut;
        if (cut < piece.length) out.enqueue(piece.subarray(cut));
      },
    }),
  );
}
