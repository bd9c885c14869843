/** head.ts: opening the first bytes of a model file: its configuration and its tokenizer. In files that
 * Quip or MediaPipe wrote, everything but the weights is there. */
import { QuipError } from "../errors.js";
import type { TokenizerParts } from "../protocol.js";
import type { Engine } from "./engine.js";

const FIRST_BYTES = 1 << 20; // enough for the flatbuffer and a small vocabulary; doubled while it is not
const MOST_BYTES = 256 << 20;

/** Call `use` with more and more bytes of the file, which `read` supplies, until it succeeds. */
export async function withHead<T>(
  fileBytes: number,
  read: (begin: number, end: number) => Promise<Uint8Array>,
  use: (head: Uint8Array) => T,
): Promise<T> {
  const limit = Math.min(fileBytes, MOST_BYTES);
  let head = new Uint8Array(0);
  for (let n = Math.min(FIRST_BYTES, limit); ; n = Math.min(2 * n, limit)) {
    const more = await read(head.length, n);
    const longer = new Uint8Array(head.length + more.length);
    longer.set(head);
    longer.set(more, head.length);
    head = longer;
    try {
      return use(head);
    } catch (error) {
      const isShort = error instanceof QuipError && error.status === "io";
      if (!isShort || n === limit) throw error;
    }
  }
}

/** What another module needs to tokenize like the model whose file is `file`. */
export function tokenizerParts(engine: Engine, file: () => Uint8Array): Promise<TokenizerParts> {
  const fileBytes = file().length;
  const read = async (begin: number, end: number) => file().slice(begin, end);
  return withHead(fileBytes, read, (head) => {
    engine.module.x.quip_model_close(engine.module.openHead("the model", head, fileBytes));
    return { module: engine.compiled, build: engine.build, head, fileBytes };
  });
}
