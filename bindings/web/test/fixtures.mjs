/** fixtures.mjs: tiny models, and the answers of the native program, for all test programs.
 * The environment variable QUIP_BUILD names the native build folder; default: build/ of the repository. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
export const DIST = join(ROOT, "bindings/web/dist");
const BUILD = process.env.QUIP_BUILD ?? join(ROOT, "build");

const run = (program, ...args) => execFileSync(join(BUILD, program), args);

const SHARED = process.env.QUIP_SHARED ?? join(ROOT, "../shared");
const GOLDEN = join(SHARED, "data/golden");
const GOLDEN_2 = join(SHARED, "data/golden-2");

/** Tiny models of real architectures, if their checkpoints are there: [{ kind, ids, logits }], computed by
 * the native program. */
function makeGolden(path) {
  if (!existsSync(GOLDEN)) {
    if (process.env.CI === "true") throw new Error(`${GOLDEN} is missing`);
    return [];
  }
  const families = readdirSync(GOLDEN).filter((name) => existsSync(join(GOLDEN, name, "model.safetensors")));
  return families.map((family, i) => {
    const kind = `golden-${family}`;
    run("quip", "convert", join(GOLDEN, family), path(kind), "--weights", ["int8", "int4", "mixed", "f32"][i % 4]);
    const ids = Array.from({ length: 40 }, (_, j) => 3 + ((j * 7) % 90));
    run("quip", "logits", path(kind), "--ids", ids.join(), "--out", path("logits"));
    return { kind, ids, logits: words(readFileSync(path("logits"))) };
  });
}

/** Tiny embedding models, if their checkpoints are there: [{ kind, texts, plain, cut }], where the lists have
 * the embeddings of the native program: without options, and of 8 numbers with a prefix. */
function makeEmbeddings(path) {
  if (!existsSync(GOLDEN_2)) return [];
  const texts = ["the letters", "of the weather here and now", "x"];
  return ["bert", "gemma3-embedding", "qwen3-embedding"].map((family) => {
    const kind = `golden-${family}`;
    run("quip", "convert", join(GOLDEN_2, family), path(kind), "--weights", "int8");
    const embed = (...options) => texts.map((text) => JSON.parse(run("quip", "embed", path(kind), text, ...options)).embedding.map(Math.fround));
    return { kind, texts, plain: embed(), cut: embed("--dimensions", "8", "--prefix", "query: ") };
  });
}

/** The bytes of a file as 32-bit words. */
const words = (bytes) => [...new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))];

/** Models and expected answers; `end` removes them. */
export function makeFixtures() {
  const folder = mkdtempSync(join(tmpdir(), "quip-web-"));
  const path = (kind) => join(folder, `${kind}.bin`);
  const kinds = ["gemma3", "llama", "slow"];
  for (const kind of kinds) run("tests/tiny_model_file", kind, path(kind));

  const prompt = "the letters of the weather here";
  const expected = {};
  for (const kind of ["gemma3", "llama"]) {
    const ask = (...options) =>
      JSON.parse(run("quip", "run", path(kind), prompt, "--json", "--max-output-tokens", "60", ...options)).text;
    const ids = run("quip", "tokenize", path(kind), "--no-special", prompt).toString().trim().split(/\s+/).map(Number);
    run("quip", "logits", path(kind), "--ids", ids.join(), "--out", join(folder, "logits.f32"));
    expected[kind] = {
      greedy: ask("--greedy"),
      plain: ask("--seed", "7"),
      sampled: ask("--temperature", "1.1", "--top-k", "40", "--top-p", "0.9", "--seed", "7"),
      turns: ask("--greedy", "--chat-template", "gemma", "--system", "Be brief."),
      ids,
      embedding: JSON.parse(run("quip", "embed", path(kind), prompt, "--pooling", "last")).embedding.map(Math.fround),
      logits: words(readFileSync(join(folder, "logits.f32"))),
    };
  }
  const adapter = join(folder, "adapter");
  run("tests/tiny_model_file", "adapter", path("gemma3"), adapter);
  expected.adapter = JSON.parse(
    run("quip", "run", path("gemma3"), prompt, "--json", "--max-output-tokens", "60", "--greedy", "--adapter", adapter),
  ).text;
  const golden = makeGolden(path);
  const embeddings = makeEmbeddings(path);
  const others = { adapter: join(adapter, "adapter_model.safetensors"), gguf: join(ROOT, "tests/data/blocks.gguf") };
  const cases = readFileSync(join(ROOT, "tests/conformance.txt"), "utf8")
    .split("\n")
    .filter((line) => line && line[0] !== "#")
    .map((line) => line.split("\t"));
  return {
    golden,
    embeddings,
    cases,
    path,
    prompt,
    expected,
    bytes: (kind) => readFileSync(others[kind] ?? path(kind)),
    end: () => rmSync(folder, { recursive: true }),
  };
}
