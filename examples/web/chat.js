/* chat.js: a conversation on the page: its messages, the answer that is generated, and what went wrong. */
import { Markdown } from "./markdown.js";

const MARKERS = 8; // about as many tokens mark a turn
const rate = (n, ms) => (ms > 0 && n > 0 ? Math.round((n / ms) * 1000) : 0);

/** "120 prompt tokens at 2100/s · first word after 80 ms · 45 tokens at 90/s" */
function describe(r) {
  const figures = [];
  if (r.promptTokens) figures.push(`${r.promptTokens} prompt tokens at ${rate(r.promptTokens, r.prefillMs)}/s`);
  if (r.firstTokenMs) figures.push(`first word after ${Math.round(r.firstTokenMs)} ms`);
  if (r.outputTokens > 1) figures.push(`${r.outputTokens} tokens at ${rate(r.outputTokens - 1, r.decodeMs)}/s`);
  return figures.join(" · ");
}

/** Why an answer ended before its end. */
const ENDS = {
  cancelled: "Stopped",
  length: "Cut at the longest answer that the settings allow",
};

export class Chat {
  #session = null;
  #adapter = null;
  #version = 0; // of the settings that the session has
  #nContext = 0;
  #log;
  #figures;
  #said; // read by screen readers

  /** [{ role: "user" or "model", text, end, isForgotten }]: `end` says why an answer was cut; what
   * isForgotten is no longer in the context of the model. */
  messages = [];
  /** A message that was not sent. */
  unsent = null;

  /** Add a pane to `parent` for conversations with `settings`. `page` has the actions that the buttons of a
   * notice call, and `changed`, which is called when there is something to keep. */
  constructor(parent, settings, page) {
    this.settings = settings;
    this.page = page;
    this.model = null;
    const copy = document.getElementById("pane-template").content.cloneNode(true);
    this.element = copy.querySelector(".pane");
    this.#log = copy.querySelector(".log");
    this.#figures = copy.querySelector(".figures");
    this.#said = copy.querySelector(".said");
    copy.querySelector(".pane-title").textContent = settings.name;
    this.#log.setAttribute("aria-label", `Conversation: ${settings.name}`);
    parent.append(this.element);
  }

  /** Is there nothing to see, not even a notice? */
  get isEmpty() {
    return !this.#log.childElementCount;
  }

  /** Show these messages. They are fed to the model with the next one. */
  async show(messages) {
    this.messages = messages;
    this.unsent = null;
    this.#figures.textContent = this.#said.textContent = "";
    this.#log.replaceChildren();
    messages.forEach((message, i) => {
      if (i && messages[i - 1].isForgotten && !message.isForgotten) this.#add("divider", "The model no longer reads what is above");
      this.#addMessage(message);
    });
    if (messages.at(-1)?.isForgotten) this.#add("divider", "The model no longer reads what is above");
    await this.close();
  }

  #add(className, text = "") {
    const element = document.createElement("div");
    element.className = className;
    element.textContent = text;
    this.#log.append(element);
    this.scrollToEnd();
    return element;
  }

  scrollToEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #addMessage({ role, text, end, isForgotten }) {
    const isUser = role === "user";
    const element = this.#add(isUser ? "mine" : "theirs", isUser ? text : "");
    element.setAttribute("role", "article");
    element.setAttribute("aria-label", isUser ? "You" : "Answer"); // others see it from the side of the message
    element.classList.toggle("is-forgotten", !!isForgotten);
    if (!isUser) new Markdown(element).update(text, true);
    if (end) this.#add("note", end);
    this.scrollToEnd();
    return element;
  }

  /** A sentence on what went wrong, and ways on: [[label, action], …]. */
  #notice(sentence, ways = []) {
    const notice = this.#add("notice", sentence);
    notice.setAttribute("role", "alert");
    const row = document.createElement("div");
    for (const [label, action] of ways) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => {
        notice.remove();
        action();
      });
      row.append(button);
    }
    if (ways.length) notice.append(row);
    this.scrollToEnd();
    return notice;
  }

  /** Open a session with the current settings, and feed it the messages so far. */
  async #open(signal) {
    await this.close();
    this.#version = this.settings.version;
    const options = this.settings.options();
    const file = this.settings.adapterFile;
    if (file) options.adapter = this.#adapter = await this.model.loadAdapter(file, { signal });
    this.#session = this.model.session(options);
    this.#nContext = await this.#session.nContext();
    for (const { role, text, isForgotten } of this.messages) if (!isForgotten) await this.#session.append(text, { role, signal });
  }

  /** Ask, and show the answer while it is generated. Aborting keeps the text so far. False: nothing was
   * answered, and the message is not part of the conversation. */
  async say(text, signal) {
    for (const notice of this.#log.querySelectorAll(".notice")) notice.remove();
    this.unsent = null;
    this.#said.textContent = "";
    this.#figures.textContent = "Reading…";
    this.#log.setAttribute("aria-busy", true);
    const asked = { role: "user", text };
    const answer = { role: "model", text: "" };
    const elements = [this.#addMessage(asked), this.#addMessage(answer)];
    elements[1].classList.add("is-running");
    let isSent = false;
    try {
      if (!this.#session || this.#version !== this.settings.version) await this.#open(signal);
      const reply = this.#session.say(text);
      signal.addEventListener("abort", () => reply.cancel(), { once: true });
      if (signal.aborted) reply.cancel();
      const result = await this.#stream(reply, elements[1], answer, () => {
        if (!isSent) this.messages.push(asked, answer);
        isSent = true;
        this.page.changed();
      });
      if (isSent) this.#finish(answer, result);
      else if (result.finishReason === "context") await this.#explainFull(text);
      else if (result.finishReason !== "cancelled") this.#notice("The model gave an empty answer. Ask again, or in other words.");
    } catch (error) {
      if (isSent) this.#end(answer, "The answer broke off: " + error.message);
      else await this.#explain(error, text);
      await this.close(); // the next message begins with a new session
    } finally {
      this.#log.setAttribute("aria-busy", false);
      elements[1].classList.remove("is-running");
      if (!isSent) this.#withdraw(text, elements);
    }
    this.page.changed();
    return isSent;
  }

  /** Nothing was answered: the message goes back to the box. */
  #withdraw(text, elements) {
    this.unsent = text;
    this.#figures.textContent = "";
    for (const element of elements) element.remove();
    void this.close(); // its context may have the message
  }

  /** Show the pieces of an answer, at most once per frame. `onpiece` is called when there is more text. */
  async #stream(reply, element, answer, onpiece) {
    const view = new Markdown(element);
    const started = performance.now();
    let n = 0;
    let nSaid = 0;
    let frame = 0;
    const update = (isWhole) => {
      const isAtEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 60;
      const finished = view.update(answer.text, isWhole);
      for (const block of finished.slice(nSaid)) this.#announce(block);
      nSaid = finished.length;
      if (isAtEnd) this.scrollToEnd();
      if (n > 1 && !isWhole) this.#figures.textContent = `${n} pieces in ${((performance.now() - started) / 1000).toFixed(1)} s`;
      frame = 0;
    };
    try {
      for await (const piece of reply) {
        answer.text += piece;
        n++;
        onpiece();
        frame ||= requestAnimationFrame(() => update(false));
      }
      return await reply.result();
    } finally {
      cancelAnimationFrame(frame);
      if (answer.text) update(true);
    }
  }

  /** A finished block of the answer, for screen readers: a paragraph at a time, not every piece. */
  #announce(block) {
    const line = document.createElement("p");
    line.textContent = block.querySelector("pre") ? "Code. " + block.querySelector("pre").textContent : block.textContent;
    this.#said.append(line);
  }

  #finish(answer, result) {
    this.#figures.textContent = describe(result);
    if (result.finishReason === "context")
      this.#notice("The answer ends here, because the chat is now as long as the model can follow.", [
        ["Forget the oldest", () => this.page.forget(this)],
        ["New chat", this.page.newChat],
      ]);
    else if (ENDS[result.finishReason]) this.#end(answer, ENDS[result.finishReason]);
  }

  #end(answer, sentence) {
    answer.end = sentence;
    this.#add("note", sentence);
  }

  /** Say why a message was not answered. */
  async #explain(error, text) {
    if (error.status === "context_full") await this.#explainFull(text);
    else if (error.name !== "AbortError") this.#notice(error.message).classList.add("is-error");
  }

  /** The context has no space for the text. */
  async #explainFull(text) {
    const tokens = await this.#countTokens(text);
    const capacity = await this.#capacity();
    if (tokens < capacity && this.messages.some(({ isForgotten }) => !isForgotten))
      return this.#notice("The chat is now as long as the model can follow. Your message is still in the box.", [
        ["Forget the oldest and send", () => this.page.forget(this)],
        ["New chat", this.page.newChat],
      ]);
    const words = text.split(/\s+/).length;
    const nFit = Math.max(0, Math.floor(words * 0.9 * Math.min(1, capacity / tokens)));
    this.#notice(
      `This message is longer than the model can follow: of its ${words} words, about ${nFit} fit. It is still in the box. ` +
        "Make it shorter, or allow a longer context in the settings.",
      [["Settings", this.page.showSettings]],
    );
  }

  /** Tokens of the context that messages and answers share. */
  async #capacity() {
    const { system } = this.settings.options();
    return this.#nContext - (system ? await this.#countTokens(system) : 0);
  }

  async #countTokens(text) {
    return (await this.model.countTokens(text)) + MARKERS;
  }

  /** Take the oldest turns out of the context of the model, so that half of it is free after `text`. They
   * stay on the page. */
  async forgetOldest(text) {
    let left = (await this.#capacity()) / 2 - (await this.#countTokens(text));
    let first = this.messages.length; // that is kept
    for (let i = first - 1; i >= 0 && !this.messages[i].isForgotten; i--) {
      left -= await this.#countTokens(this.messages[i].text);
      if (left < 0) break;
      if (this.messages[i].role === "user") first = i;
    }
    await this.show(this.messages.map((message, i) => ({ ...message, isForgotten: i < first })));
    this.page.changed();
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
