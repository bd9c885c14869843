/** consumer.ts: a program that is compiled with the strictest options of TypeScript, and never run. An option
 * that is undefined is absent. */
import { cache, FilesetResolver, LlmInference, Model, QuipError, type Fit, type SessionOptions } from "../dist/types/index.js";

export async function talk(url: URL, topK: number | undefined, signal: AbortSignal | undefined): Promise<string> {
  const fit: Fit = await Model.check(url, { signal, nContext: undefined });
  if (!fit.fits) throw new Error(fit.reason ?? "it does not fit");
  const model = await Model.open(url, { signal, sha256: undefined, onprogress: ({ phase, loaded }) => console.log(phase, loaded) });
  const options: SessionOptions = { system: "Be brief.", topK, seed: undefined };
  const chat = model.session(options);
  await chat.append("One more thing.", { role: undefined, signal });
  for await (const text of chat.say("Why?", { signal })) console.log(text.length);
  const { finishReason } = await chat.answer().result();
  try {
    await model.close();
  } catch (error) {
    if (error instanceof QuipError && error.status === "memory") await cache.clear();
  }
  return finishReason;
}

export async function moved(topK: number | undefined): Promise<string[]> {
  const genai = await FilesetResolver.forGenAiTasks();
  const llm = await LlmInference.createFromOptions(genai, { baseOptions: { modelAssetPath: "gemma.bin" }, topK });
  await llm.setOptions({ temperature: undefined });
  const lora = await llm.loadLoraModel("pirate.bin");
  const one: string = await llm.generateResponse("Why?", lora, (piece, done) => console.log(piece.length, done));
  const all = await llm.generateResponses(["Why", "?"], (pieces) => console.log(pieces.length));
  return [one, ...all, String(llm.sizeInTokens("Why?"))];
}
