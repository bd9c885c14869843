/* chat.js: a conversation on the page: the messages, the streaming answer and its measurements. */
const rate = (n, ms) => (ms > 0 && n > 0 ? Math.round((n / ms) * 1000) : 0);

/** "120 prompt tokens at 2100/s · first word after 80 ms · 45 tokens at 90/s" */
function describe(r) {
  const figures = [];
  if (r.promptTokens) figures.push(`${r.promptTokens} prompt tokens at ${rate(r.promptTokens, r.prefillMs)}/s`);
  if (r.firstTokenMs) figures.push(`first word after ${Math.round(r.firstTokenMs)} ms`);
  if (r.outputTokens > 1) figures.push(`${r.outputTokens} tokens at ${rate(r.outputTokens - 1, r.decodeMs)}/s`);
  if (r.finishReason === "length") figures.push("longest answer reached");
  if (r.finishReason === "context") figures.push("context full, begin a new conversation");
  return figures.join(" · ");
}

export class Chat {
  #session = null;
  #adapter = null;
  #log;
  #figures;

  /** Add a pane to `parent` for conversations with `model` and `settings`. */
  constructor(parent, model, settings) {
    this.model = model;
    this.settings = settings;
    const copy = document.getElementById("pane-template").content.cloneNode(true);
    this.element = copy.querySelector(".pane");
    this.#log = copy.querySelector(".log");
    this.#figures = copy.querySelector(".figures");
    copy.querySelector(".pane-title").textContent = settings.name;
    this.#log.setAttribute("aria-label", `Conversation: ${settings.name}`);
    parent.append(this.element);
  }

  /** `author` is for screen readers; others see it from the side of the message. */
  #add(className, text, author) {
    const message = document.createElement("div");
    message.className = className;
    if (author) {
      message.role = "article";
      message.ariaLabel = author;
    }
    message.textContent = text;
    this.#log.append(message);
    this.#log.scrollTop = this.#log.scrollHeight;
    return message;
  }

  async #open() {
    const options = this.settings.options();
    const file = this.settings.adapterFile;
    if (file) {
      this.#adapter = await this.model.loadAdapter(file);
      options.adapter = this.#adapter;
    }
    this.#session = this.model.session(options);
  }

  /** Ask, and show the answer while it is generated. Aborting keeps the text so far. */
  async say(text, signal) {
    this.#add("mine", text, "You");
    const message = this.#add("theirs is-running", "", "Answer");
    const started = performance.now();
    this.#figures.textContent = "reading…";
    this.#log.setAttribute("aria-busy", true); // a screen reader reads whole answers, not pieces
    let n = 0;
    try {
      if (!this.#session) await this.#open();
      const reply = this.#session.say(text);
      signal.addEventListener("abort", () => reply.cancel(), { once: true });
      if (signal.aborted) reply.cancel();
      for await (const piece of reply) {
        const isAtEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
        message.append(piece);
        if (isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
        if (++n % 8 === 0) this.#figures.textContent = `${n} pieces in ${((performance.now() - started) / 1000).toFixed(1)} s`;
      }
      const result = await reply.result();
      this.#figures.textContent = describe(result);
      if (result.finishReason === "cancelled") this.#add("note", "stopped");
      return result;
    } catch (error) {
      this.#figures.textContent = "";
      this.#add("note", error.message);
      if (!(await this.#session?.nContext().catch(() => 0))) await this.close(); // it failed to open: try again with the next message
      return null;
    } finally {
      this.#log.setAttribute("aria-busy", false);
      message.classList.remove("is-running");
      if (!message.textContent) message.remove(); // stopped before the first word
    }
  }

  /** Remove all messages. The next message begins a conversation with the current settings. */
  async reset() {
    this.#log.replaceChildren();
    this.#figures.textContent = "";
    await this.close();
  }

  async close() {
    const session = this.#session;
    const adapter = this.#adapter;
    this.#session = this.#adapter = null;
    await session?.close();
    await adapter?.close();
  }

  remove() {
    this.element.remove();
    return this.close();
  }
}
