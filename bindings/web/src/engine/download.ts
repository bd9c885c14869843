/** download.ts: downloads a file, also over connections that break.
 * In:  a URL, and the number of bytes that are stored already.
 * Out: the following bytes in order, in pieces, or an error that names the URL.
 * The only header that it sends is `Range`, which browsers allow for other origins without a preflight. */
import { QuipError } from "../errors.js";

/** Identifies a version of a file. */
export interface Version {
  bytes: number; // 0: unknown
  etag?: string;
  modified?: string;
}

const RETRIES = 5; // in a row, without a byte between them
const FIRST_WAIT_MS = 300; // doubled each time

export function isSameVersion(a: Version, b: Version): boolean {
  if (a.bytes !== b.bytes || !a.bytes) return false;
  if (a.etag !== undefined && b.etag !== undefined) return a.etag === b.etag;
  return a.modified === b.modified;
}

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
  if (!response.ok && response.status !== 416)
    throw new QuipError("io", `Failed to fetch model: ${url} (${response.status})`);
  return response;
}

/** The version of the file in a response, and the offset where its body begins. */
export function describe(response: Response): { version: Version; from: number } {
  const h = response.headers;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(h.get("content-range") ?? "");
  const isPart = response.status === 206;
  const isEncoded = !/^(identity)?$/.test(h.get("content-encoding") ?? "");
  const bytes = isPart ? Number(range?.[2] ?? 0) : isEncoded ? 0 : Number(h.get("content-length") ?? 0);
  return {
    version: { bytes, etag: h.get("etag") ?? undefined, modified: h.get("last-modified") ?? undefined },
    from: isPart ? Number(range?.[1] ?? NaN) : 0,
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

export class Download {
  private constructor(
    readonly url: string,
    readonly version: Version,
    /** The offset of the first piece: as requested, or 0 if the server can only send the whole file or has
     * another version of it. */
    readonly from: number,
    private body: ReadableStream<Uint8Array>,
    private readonly signal: AbortSignal,
    private readonly closer: AbortController,
  ) {}

  /** Connect. With `have`, request the bytes after those of that version. */
  static async start(url: string, signal: AbortSignal, have?: { version: Version; bytes: number }): Promise<Download> {
    const closer = new AbortController();
    const both = closer.signal;
    signal.throwIfAborted();
    signal.addEventListener("abort", () => closer.abort(signal.reason), { once: true });
    let response: Response;
    try {
      response = await request(url, have?.bytes ?? 0, both);
      let found = describe(response);
      const continues = have && found.from === have.bytes && isSameVersion(found.version, have.version);
      if (have && !continues && response.status !== 200) {
        await response.body?.cancel();
        response = await request(url, 0, both);
        found = describe(response);
      }
      if (!response.body) throw new QuipError("io", `Failed to fetch model: ${url} (no body)`);
      return new Download(url, found.version, found.from, response.body, both, closer);
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

  async *pieces(): AsyncGenerator<Uint8Array> {
    let at = this.from;
    let failures = 0;
    for (;;) {
      const before = at;
      try {
        for await (const piece of read(this.body, this.signal)) {
          at += piece.length;
          yield piece;
        }
        if (!this.version.bytes || at >= this.version.bytes) return;
        throw new Broken("the connection ended early");
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        failures = at > before ? 1 : failures + 1;
        await this.#reconnect(at, failures, error.message);
      }
    }
  }

  /** Connect again for the bytes from `at` on. */
  async #reconnect(at: number, failures: number, why: string): Promise<void> {
    const broke = `the download of ${this.url} broke after ${at} of ${this.version.bytes || "?"} bytes`;
    if (failures > RETRIES || !this.version.bytes) throw new QuipError("io", `${broke}: ${why}`);
    await sleep(FIRST_WAIT_MS * 2 ** (failures - 1), this.signal);
    let response: Response;
    try {
      response = await request(this.url, at, this.signal);
    } catch (error) {
      if (error instanceof Broken) return this.#reconnect(at, failures + 1, error.message);
      throw error;
    }
    const { version, from } = describe(response);
    if (!response.body || !isSameVersion(version, this.version))
      throw new QuipError("io", `${broke}, and the file on the server has changed since; try again`);
    if (from !== at && from !== 0) throw new QuipError("io", `${broke}, and the server sent another part than requested`);
    this.body = from === at ? response.body : skip(response.body, at);
  }
}

/** The chunks of a body. Not every browser can iterate over a stream. */
async function* read(body: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        signal.throwIfAborted();
        throw new Broken((error as Error).message);
      }
      if (piece.done) return;
      yield piece.value;
    }
  } finally {
    reader.releaseLock();
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
