/** host.ts: the page's side of a worker: makes calls, and returns promises and events. */
import { fromRecord, QuipError } from "./errors.js";
import type { CallName, Calls, Port, ToPage } from "./protocol.js";
import { release } from "./release.js";
import { startWorker } from "#page";

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onevent?: (event: never) => unknown;
}

export interface CallOptions<C extends CallName> {
  signal?: AbortSignal;
  /** The value that it returns, or resolves to, is the reply to the event, unless it is undefined. */
  onevent?: (event: Calls[C][2]) => unknown;
}

export class Host {
  #port: Port;
  #pending = new Map<number, Pending>();
  #nextId = 1;
  #dead: QuipError | null = null;

  constructor(base?: string) {
    this.#port = startWorker(base);
    this.#port.onmessage = (message: ToPage) => this.#receive(message);
    this.#port.onerror = (message, status = "internal") => this.#die(new QuipError(status, message));
  }

  /** Why the worker handles no more calls; null while it does. */
  get dead(): QuipError | null {
    return this.#dead;
  }

  /** Make a call. When the signal is aborted, the call is cancelled and rejects with the signal's reason. */
  async call<C extends CallName>(call: C, params: Calls[C][0], options: CallOptions<C> = {}): Promise<Calls[C][1]> {
    const { signal, onevent } = options;
    signal?.throwIfAborted();
    if (this.#dead) throw this.#dead;
    const id = this.#nextId++;
    const cancel = () => this.cancel(id);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await new Promise<Calls[C][1]>((resolve, reject) => {
        this.#port.hold?.(true);
        this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject, onevent });
        this.#port.post({ id, call, params, release });
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      this.#pending.delete(id);
      if (!this.#pending.size) this.#port.hold?.(false);
      signal?.removeEventListener("abort", cancel);
    }
  }

  cancel(id: number): void {
    if (!this.#dead) this.#port.post({ id, cancel: true });
  }

  /** Stop the worker and all its calls. */
  end(why = new QuipError("argument", "the model is closed")): void {
    this.#die(why);
  }

  #receive(message: ToPage): void {
    if ("fatal" in message) return this.#die(fromRecord(message.fatal));
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if ("event" in message) void this.#event(message.id, pending, message.event);
    else if ("error" in message) pending.reject(fromRecord(message.error));
    else pending.resolve(message.value);
  }

  async #event(id: number, pending: Pending, event: unknown): Promise<void> {
    try {
      const reply = await pending.onevent?.(event as never);
      if (reply !== undefined && !this.#dead) this.#port.post({ id, reply });
    } catch (error) {
      pending.reject(error); // the caller's listener failed: so does the call
      this.cancel(id);
    }
  }

  #die(why: QuipError): void {
    if (this.#dead) return;
    this.#dead = why;
    this.#port.end();
    for (const pending of this.#pending.values()) pending.reject(why);
    this.#pending.clear();
  }
}
