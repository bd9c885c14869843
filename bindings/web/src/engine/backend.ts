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
    await check(engine, cpu, gpu);
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

/* ---- checking and measuring ---- */

/** Tokens that run one after the other, each time with other shaders: a prompt, whose keys are in several
 * parts of attention; a short prompt; a token. src/engine/self_test.c does the same natively. */
const CHECK_TOKENS = [72, 12, 1];
const PROMPT_TOKENS = 32;
const ANSWER_TOKENS = 6;

/** How far the logits of the GPU may be from those of the CPU: the root mean square of the difference, of that
 * of the CPU's. Both round in their own ways; a wrong shader gives about 1. As in src/engine/self_test.c. */
const MOST_DIFFERENCE = { float: 0.001, integer: 0.5 };

/** Of a token. */
interface Figures {
  promptMs: number;
  answerMs: number;
}

const SESSION: SessionParams = {
  nContext: CHECK_TOKENS.reduce((sum, n) => sum + n) + 1,
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

/** Does the GPU compute what the CPU computes? */
async function check(engine: Engine, cpu: number, gpu: number): Promise<void> {
  const { vocabSize, contextMax, weights } = engine.modelInfo(cpu);
  const [prompt, ...others] = CHECK_TOKENS as [number, ...number[]];
  const most = contextMax ? contextMax - others.reduce((sum, n) => sum + n) : prompt;
  const logits = (model: number) =>
    inSession(engine, model, async (session) => {
      const all = [];
      for (const n of [Math.max(1, Math.min(prompt, most)), ...others]) {
        await prefill(engine, session, n, vocabSize);
        const found = await engine.logits(session, vocabSize);
        if (!found) throw new QuipError("memory", "out of memory for logits");
        all.push(found);
      }
      return all;
    });
  const [ofGpu, ofCpu] = [await logits(gpu), await logits(cpu)];
  for (const [i, want] of ofCpu.entries()) {
    const difference = differenceOf(want, ofGpu[i]!);
    if (difference <= MOST_DIFFERENCE[weights === "f32" ? "float" : "integer"]) continue;
    const percent = Number.isNaN(difference) ? "are not numbers" : `differ by ${(100 * difference).toFixed(0)} % from those of the CPU`;
    throw new QuipError("unsupported", `the GPU (${engine.gpu!.name}) computes wrongly: its logits ${percent}`);
  }
}

async function compare(engine: Engine, cpu: number, gpu: number): Promise<Known> {
  const [ofCpu, ofGpu] = [await measure(engine, cpu, 1), await measure(engine, gpu, 2)];
  const isFaster = ofGpu.promptMs <= ofCpu.promptMs && ofGpu.answerMs <= ofCpu.answerMs;
  const ms = ({ promptMs, answerMs }: Figures) => `${promptMs.toPrecision(3)} ms for a token of a prompt and ${answerMs.toPrecision(3)} ms for one of an answer`;
  return { backend: isFaster ? "gpu" : "cpu", reason: `the GPU (${engine.gpu!.name}) takes ${ms(ofGpu)}, the CPU ${ms(ofCpu)}` };
}

/** The figures of the last round. The CPU is warm from the check; the GPU compiles more shaders in the first. */
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

function differenceOf(a: Float32Array, b: Float32Array): number {
  let [difference, sum] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    sum += a[i]! ** 2;
  }
  return Math.sqrt(difference / sum);
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
