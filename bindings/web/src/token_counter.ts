/** token_counter.ts: counts tokens in the page itself. MediaPipe's sizeInTokens() is synchronous, but a
 * call to the worker never is. So a second, small module has the header and the vocabulary of the model,
 * without weights: a few megabytes. */
import { QuipError } from "./errors.js";
import { Module } from "./engine/module.js";
import type { TokenizerParts } from "./protocol.js";

export class TokenCounter {
  private constructor(
    private readonly module: Module,
    private readonly model: number,
  ) {}

  static async open({ module, build, head, fileBytes }: TokenizerParts): Promise<TokenCounter> {
    const m = await Module.start(module, build);
    if (!m) throw new QuipError("memory", "this device grants the page no shared memory for a second module");
    return new TokenCounter(m, m.openHead("the model", head, fileBytes));
  }

  count(text: string): number {
    return this.module.scoped((a) => this.module.count("quip_tokenize", this.model, ...a.text(text), 0, 0, 0));
  }
}
