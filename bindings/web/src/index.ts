/// <reference lib="esnext.disposable" preserve="true" />
/** Language models in the page, on the CPU of any browser, or its GPU.
 *
 *     const model = await Model.open("gemma3.bin", { onprogress: (p) => show(p.loaded / p.total) });
 *     const chat = model.session({ system: "Answer briefly." });
 *     for await (const text of chat.say("Why is the sky blue?")) show(text);
 *     await chat.close(); // frees the memory of the conversation
 *     await model.close();
 *
 * Code that was written for MediaPipe's LLM Inference API uses LlmInference instead. */
export { QuipError, type Status } from "./errors.js";
export { Adapter, Model, type AdapterOptions, type CheckOptions, type EmbedOptions, type OpenOptions } from "./model.js";
export { Session, type AppendOptions, type PrefillOptions, type SayOptions, type SessionOptions } from "./session.js";
export { Reply } from "./reply.js";
export type { ModelSource } from "./sources.js";
export type { Backend, Build, CacheMode, FinishReason, Fit, ModelInfo, Progress, Result, Role, Sampling } from "./protocol.js";
export { cache, type StoredModel } from "./cache.js";
export {
  FilesetResolver,
  LlmInference,
  LoraModel,
  type Audio,
  type BaseOptions,
  type Image,
  type LlmInferenceOptions,
  type MultiResponseProgressListener,
  type ProgressListener,
  type Prompt,
  type WasmFileset,
} from "./llm_inference.js";
