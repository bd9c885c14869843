/** header.ts: what the first bytes of a model file tell: memory, and the tokenizer. In files that
 * Quip or the original wrote, all but the weights lies there. */
import { QuipError } from "../errors.js";
import type { TokenizerParts } from "../protocol.js";
import type { Engine } from "./engine.js";

const FIRST_BYTES = 1 << 20; // the flatbuffer, and small vocabularies; doubled until it is enough
const MOST_BYTES = 256 << 20;

/** Try `use` on more and more of the file's beginning, which `read` brings. */
export async function withHeader<T>(
  fileBytes: number,
  read: (begin: number, end: number) => Promise<Uint8Array>,
  use: (header: Uint8Array) => T,
): Promise<T> {
  const limit = Math.min(fileBytes, MOST_BYTES);
  let header = new Uint8Array(0);
  for (let n = Math.min(FIRST_BYTES, limit); ; n = Math.min(2 * n, limit)) {
    const more = await read(header.length, n);
    const longer = new Uint8Array(header.length + more.length);
    longer.set(header);
    longer.set(more, header.length);
    header = longer;
    try {
      return use(header);
    } catch (error) {
      const isShort = error instanceof QuipError && error.status === "io";
      if (!isShort || n === limit) throw error;
    }
  }
}

/** The tokenizer of the model that lies in `file`, for a module of the page's own. */
export function tokenizerParts(engine: Engine, file: () => Uint8Array): Promise<TokenizerParts> {
  const fileBytes = file().length;
  const read = async (begin: number, end: number) => file().slice(begin, end);
  return withHeader(fileBytes, read, (header) => {
    engine.module.x.model_close(engine.module.openHeader(header, fileBytes));
    return { module: engine.compiled, build: engine.build, header, fileBytes };
  });
}
