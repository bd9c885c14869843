/* run.mjs: measures Quip and wllama (llama.cpp for browsers) in Chromium, in turn, on the same models.
 *   npm ci && node run.mjs [--rounds N] [--models smollm2,gemma3] [--threads 1,2] [--engines quip,wllama] [--depths 64,256,1024] [--json FILE]
 * Needs bindings/web built, the demo models of scripts/fetch-model, build/quip, and Debian's Chromium. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    models: { type: "string", default: "smollm2,gemma3" },
    threads: { type: "string", default: "1,2" },
    engines: { type: "string", default: "quip,wllama" },
    weights: { type: "string", default: "int8,mixed" },
    depths: { type: "string", default: "64,256,1024" },
    json: { type: "string" },
  },
});
const NAMES = { smollm2: "smollm2-135m", gemma3: "gemma3-270m" };
const DEPTHS = values.depths.split(",").map(Number);
const PORT = 8517;

const fetchModel = (name) => execFileSync(join(root, "scripts/fetch-model"), [NAMES[name]], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();

function convert(checkpoint, weights) {
  const model = checkpoint.replace(/\.gguf$/, `-${weights}.bin`);
  if (!existsSync(model)) execFileSync(join(root, "build/quip"), ["convert", checkpoint, model, "--weights", weights]);
  return model;
}

/** [label, engine, file] of everything to measure with a model. */
function cases(name) {
  const checkpoint = fetchModel(name);
  const ours = values.weights.split(",").map((w) => [`quip ${w}`, "quip", convert(checkpoint, w)]);
  return [...ours, ["wllama", "wllama", checkpoint]].filter(([, engine]) => values.engines.split(",").includes(engine));
}

async function measure(browser, [, engine, file], threads) {
  const page = await browser.newPage();
  await page.goto(`http://localhost:${PORT}/bench/bench.html`);
  await page.waitForFunction("window.engines");
  try {
    return await page.evaluate(
      async ([engine, url, threads, depths]) => {
        const opened = await window.engines[engine](url, threads);
        const figures = { openMs: opened.openMs, build: opened.build };
        await opened.measure(32); // compiled and warm
        for (const n of depths) figures[n] = await opened.measure(n);
        await opened.close();
        return figures;
      },
      [engine, `/models/${basename(file)}`, threads, DEPTHS],
    );
  } finally {
    await page.close();
  }
}

const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];

const models = values.models.split(",");
const folder = dirname(fetchModel(models[0]));
const server = spawn(process.execPath, [
  join(root, "examples/web/serve.mjs"),
  ...["--port", PORT, "--models", folder, "--mount", `/bench/=${here}`, "--mount", `/wllama/=${join(here, "node_modules/@wllama/wllama/esm")}`],
]);
await new Promise((resolve) => server.stdout.once("data", resolve));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const all = [];
try {
  for (const name of models)
    for (const threads of values.threads.split(",").map(Number)) {
      const rounds = new Map(cases(name).map((c) => [c, []]));
      for (let i = 0; i < +values.rounds; i++) for (const [c, figures] of rounds) figures.push(await measure(browser, c, threads));
      console.log(`\n${NAMES[name]}, ${threads} thread${threads > 1 ? "s" : ""}: prefill of ${DEPTHS.slice(1).join(" | ")}, decode after ${DEPTHS.join(" / ")} tokens, tokens/s`);
      for (const [[label], figures] of rounds) {
        const of = (n, key) => median(figures.map((f) => f[n][key]));
        const row = { model: name, threads, label, build: figures[0].build, openMs: median(figures.map((f) => f.openMs)) };
        row.prefill = DEPTHS.slice(1).map((n) => of(n, "prefill"));
        row.decode = DEPTHS.map((n) => of(n, "decode"));
        all.push(row);
        const numbers = (list) => list.map((x) => x.toFixed(1).padStart(7));
        console.log(`  ${label.padEnd(12)} ${numbers(row.prefill).join(" |")}   ${numbers(row.decode).join(" /")}   open ${row.openMs.toFixed(0)} ms, ${row.build}`);
      }
      if (values.json) writeFileSync(values.json, JSON.stringify(all, null, 1));
    }
} finally {
  await browser.close();
  server.kill();
}
