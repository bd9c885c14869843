/** backend.ts: chooses what runs a model: the CPU or a GPU.
 * `auto` never chooses a GPU that computes on the CPU, that computes wrongly, or that was measured to be
 * slower than the CPU for this model. The measurement is remembered beside the stored models. */
import { QuipError } from "../errors.js";
import type { ModelParams, SessionParams } from "../protocol.js";
import { openStoreFolder } from "../store_files.js";
import { writeText } from "./stored.js";
import { release } from "../release.js";
import type { Engine } from "./engine.js";
import type { FileMemory } from "./file_memory.js";
import { Gpu } from "./gpu.js";

export interface Choice {
  model: number;
  reason: string;
}

/** The GPU to try, or why there is none. Throws if it was requested and there is none. */
export async function findGpu(backend: ModelParams["backend"]): Promise<{ gpu: Gpu | null; reason: string }> {
  if (backend === "cpu") return { gpu: null, reason: "" };
  try {
    const gpu = await Gpu.open();
    if (backend === "gpu" || !gpu.isSoftware) return { gpu, reason: "" };
    gpu.close();
    return { gpu: null, reason: `${gpu.name} computes on the CPU` };
  } catch (error) {
    if (backend === "gpu" || !(error instanceof QuipError)) throw error;
    return { gpu: null, reason: error.message };
  }
}

/** Replace a model that is open on the CPU by one on the GPU, if that is what should run it. */
export async function chooseBackend(engine: Engine, cpu: number, file: FileMemory, params: ModelParams): Promise<Choice> {
  const key = keyOf(engine, cpu, params);
  const known = params.backend === "auto" ? await recall(key) : null;
  if (known?.backend === "cpu") return { model: cpu, reason: known.reason };
  let gpu = 0;
  try {
    gpu = engine.openModel(file, params, "gpu");
    await inSession(engine, gpu, (session) => engine.check(session));
    const isMeasured = params.backend === "auto" && !known;
    const found = isMeasured ? await compare(engine, cpu, gpu) : { backend: "gpu" as const, reason: known?.reason ?? "" };
    if (isMeasured) await remember(key, found);
    engine.closeModel(found.backend === "gpu" ? cpu : gpu);
    return { model: found.backend === "gpu" ? gpu : cpu, reason: found.reason };
  } catch (error) {
    if (params.backend === "gpu" || !(error instanceof QuipError)) throw error;
    if (gpu) engine.closeModel(gpu);
    return { model: cpu, reason: error.message };
  }
}

/* ---- measuring ---- */

const PROMPT_TOKENS = 32;
const ANSWER_TOKENS = 6;

/** Of a token. */
interface Figures {
  promptMs: number;
  answerMs: number;
}

const SESSION: SessionParams = {
  nContext: PROMPT_TOKENS + ANSWER_TOKENS + 1,
  nThreads: 0,
  maxOutputTokens: 0,
  temperature: 0,
  greedy: true,
  topK: 0,
  topP: 0,
  minP: 0,
  logitBias: [],
  penaltyWindow: 0,
  repeatPenalty: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  dryMultiplier: 0,
  dryBase: 0,
  dryAllowedLength: 0,
  noRepeatNgram: 0,
  stop: [],
  noTemplate: true,
  noSpeculation: true,
  adapter: 0,
  adapterScale: 1,
};

async function inSession<T>(engine: Engine, model: number, use: (session: number) => Promise<T>): Promise<T> {
  const session = engine.openSession(model, SESSION);
  try {
    return await use(session);
  } finally {
    engine.closeSession(session);
  }
}

async function prefill(engine: Engine, session: number, n: number, vocabSize: number): Promise<void> {
  const tokens = Int32Array.from({ length: n }, (_, i) => (7 * i + 3) % vocabSize);
  for (let left = engine.beginPrefill(session, tokens); left > 0; ) left = await engine.run(session, left);
}

async function compare(engine: Engine, cpu: number, gpu: number): Promise<Known> {
  const [ofCpu, ofGpu] = [await measure(engine, cpu, 1), await measure(engine, gpu, 2)];
  const isFaster = ofGpu.promptMs <= ofCpu.promptMs && ofGpu.answerMs <= ofCpu.answerMs;
  const ms = ({ promptMs, answerMs }: Figures) => `${promptMs.toPrecision(3)} ms for a token of a prompt and ${answerMs.toPrecision(3)} ms for one of an answer`;
  return { backend: isFaster ? "gpu" : "cpu", reason: `the GPU (${engine.gpu!.name}) takes ${ms(ofGpu)}, the CPU ${ms(ofCpu)}` };
}

/** The figures of the last round. The CPU has run the check; the GPU compiles more shaders in the first. */
function measure(engine: Engine, model: number, nRounds: number): Promise<Figures> {
  const { vocabSize } = engine.modelInfo(model);
  return inSession(engine, model, async (session) => {
    let figures!: Figures;
    for (let round = 0; round < nRounds; round++) {
      engine.rewind(session, 0);
      const promptMs = (await time(() => prefill(engine, session, PROMPT_TOKENS, vocabSize))) / PROMPT_TOKENS;
      let n = 0; // tokens; one that ends an answer is not in the context
      const answerMs = await time(async () => {
        const position = () => engine.module.x.quip_session_position(session);
        for (const begin = position(); n < ANSWER_TOKENS; n = Math.max(n + 1, position() - begin)) await engine.next(session);
      });
      figures = { promptMs, answerMs: answerMs / n };
    }
    return figures;
  });
}

async function time(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/* ---- remembering ---- */

interface Known {
  backend: "cpu" | "gpu";
  reason: string;
}
const FILE = "backends.json";

/** Everything that the figures depend on. */
function keyOf(engine: Engine, model: number, { nThreads, background }: ModelParams): string {
  const { architecture, weights, parameters, fileBytes } = engine.modelInfo(model);
  return [release, engine.build, engine.gpu!.name, nThreads, background, architecture, weights, parameters, fileBytes].join(" ");
}

async function readAll(): Promise<Record<string, Known>> {
  const folder = await openStoreFolder();
  try {
    return folder ? JSON.parse(await (await (await folder.getFileHandle(FILE)).getFile()).text()) : {};
  } catch {
    return {}; // there is none yet, or writing it was interrupted
  }
}

const recall = async (key: string): Promise<Known | null> => (await readAll())[key] ?? null;

/** If nothing can be stored, the next visit measures again. */
async function remember(key: string, known: Known): Promise<void> {
  const folder = await openStoreFolder();
  if (folder) await writeText(folder, FILE, JSON.stringify({ ...(await readAll()), [key]: known })).catch(() => {});
}
