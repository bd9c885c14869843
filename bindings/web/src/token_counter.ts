/** token_counter.ts: counts tokens in the page itself, at once. The original's sizeInTokens() is
 * synchronous, and an answer from the worker never is: so a second, small module holds the model's
 * header and vocabulary (no weights), a few megabytes. */
import { QuipError } from "./errors.js";
import { Module } from "./engine/module.js";
import type { TokenizerParts } from "./protocol.js";

export class TokenCounter {
  private constructor(
    private readonly module: Module,
    private readonly model: number,
  ) {}

  static async open({ module, build, header, fileBytes }: TokenizerParts): Promise<TokenCounter> {
    const m = await Module.start(module, build);
    if (!m) throw new QuipError("memory", "the page has no shared memory for a second module");
    return new TokenCounter(m, m.openHeader(header, fileBytes));
  }

  count(text: string): number {
    return this.module.scoped((a) =>
      this.module.check(this.module.x.encode(this.model, ...a.text(text), 0, 0, 0)),
    );
  }
}
