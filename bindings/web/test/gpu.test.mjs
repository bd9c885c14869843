/** gpu.test.mjs: the GPU backend in Chromium, on SwiftShader: WebGPU that computes on the CPU. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { answer, failure, fixtures, folder, openPage, useBrowser } from "./browser.mjs";
import { DIST, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

/* Most of the time goes into compiling shaders. Half of it is for the loops before each one that set the memory
 * of a workgroup to zero. The shaders do not need them. */
const FLAGS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-dawn-features=disable_workgroup_init"];
useBrowser(FLAGS);

/** A page whose worker script is changed: [text, other text] pairs, and lines before it. */
async function openChanged(pairs, before = "") {
  const copy = mkdtempSync(join(tmpdir(), "quip-gpu-"));
  cpSync(DIST, copy, { recursive: true });
  const script = join(copy, "worker.js");
  let code = readFileSync(script, "utf8");
  for (const [from, to] of pairs) {
    assert.ok(code.includes(from), from);
    code = code.replaceAll(from, to);
  }
  writeFileSync(script, before + code);
  const changed = await startServer({ dist: copy, test: join(ROOT, "bindings/web/test"), fixtures: folder });
  for (const kind of ["gemma3", "llama"]) changed.put(`/models/${kind}.bin`, fixtures.bytes(kind));
  const page = await openPage({ origin: changed.origin });
  const end = async () => {
    await page.context().close();
    changed.end();
    rmSync(copy, { recursive: true });
  };
  return { page, end };
}

const floats = (words) => new Float32Array(new Uint32Array(words).buffer);

describe("on the GPU", () => {
  let page;
  /* The shaders of each open model are compiled, which takes seconds here: several tests use this one. */
  before(async () => {
    page = await openPage();
    await page.evaluate(async () => (window.llama = await quip.Model.open("/models/llama.bin", { backend: "gpu" })));
  });
  after(() => page.context().close());

  /* Float weights are compared number by number. Integer weights have binary16 keys on the GPU, and int8 ones
   * on the CPU: docs/notes/gpu.md has the tolerance. */
  test("logits are those of the CPU, for every family that the GPU runs", async (t) => {
    let n = 0;
    for (const { kind, ids, logits } of fixtures.golden) {
      const found = await page.evaluate(
        async ([kind, ids]) => {
          const model = await quip.Model.open(`/models/${kind}.bin`, { backend: "gpu" }).catch((e) => e);
          if (model instanceof Error) return `${model.status}: ${model.message}`;
          const session = model.session({ nContext: 64 });
          await session.prefill(ids);
          const logits = [...(await session.logits())];
          const { weights } = model.info;
          await model.close();
          return { logits, weights };
        },
        [kind, ids],
      );
      if (typeof found === "string") {
        assert.match(found, /^unsupported: .*gpu/, kind);
        t.diagnostic(`${kind}: ${found}`);
        continue;
      }
      const want = floats(logits);
      const rms = Math.sqrt(want.reduce((sum, x) => sum + x * x, 0) / want.length);
      const most = Math.max(...want.map((x, i) => Math.abs(x - found.logits[i])));
      assert.ok(most <= (found.weights === "f32" ? 2e-4 : rms / 2), `${kind}: ${most} of ${rms}`);
      n++;
    }
    assert.ok(n >= 6 || !fixtures.golden.length, `${n} families`);
  });

  test("two sessions at once, a clone, a rewind and an adapter", async () => {
    const found = await page.evaluate(async (prompt) => {
      const options = { nContext: 64, maxOutputTokens: 4, greedy: true };
      const [a, b] = [llama.session(options), llama.session(options)];
      const both = await Promise.all([a.say(prompt).text(), b.say(prompt).text()]);
      await a.rewind(0);
      const again = await a.say(prompt).text();
      const sampled = llama.session({ ...options, greedy: false, temperature: 1.1, topK: 40, topP: 0.9, seed: 7 });
      const draws = await sampled.say(prompt).text();
      const copy = await b.clone();
      const ends = await Promise.all([b.say(prompt).text(), copy.say(prompt).text()]);
      for (const session of [a, b, copy, sampled]) await session.close();
      const { backend, backendReason } = llama.info;
      return { both, again, draws, ends, backend, backendReason };
    }, fixtures.prompt);
    assert.deepEqual([found.backend, found.backendReason], ["gpu", ""]);
    assert.equal(found.both[0], found.both[1]);
    assert.equal(found.again, found.both[0]);
    assert.equal(found.ends[0], found.ends[1]);
    assert.ok(fixtures.expected.llama.greedy.startsWith(found.both[0]), found.both[0]);
    assert.ok(found.draws.length > 0);
  });

  test("cancel during the prompt and during the answer; the session goes on", async () => {
    const found = await page.evaluate(async (prompt) => {
      const session = llama.session({ nContext: 2048, greedy: true });
      const stop = new AbortController();
      const long = session.append(prompt.repeat(40), { signal: stop.signal });
      setTimeout(() => stop.abort(), 20);
      const name = await long.then(() => "", (e) => e.name);
      const position = await session.position();
      const reply = session.say(prompt);
      for await (const piece of reply) break;
      const { finishReason } = await reply.result();
      await session.close();
      return { name, position, finishReason };
    }, fixtures.prompt);
    assert.deepEqual(found, { name: "AbortError", position: 0, finishReason: "cancelled" });
  });

  test("three models, one on the CPU", async () => {
    const texts = await page.evaluate(async (prompt) => {
      const others = await Promise.all(["gpu", "cpu"].map((backend) => quip.Model.open("/models/llama.bin", { backend })));
      const models = [llama, ...others];
      const sessions = models.map((model) => model.session({ nContext: 64, maxOutputTokens: 4, greedy: true }));
      const texts = await Promise.all(sessions.map((session) => session.say(prompt).text()));
      await Promise.all(others.map((model) => model.close()));
      return texts;
    }, fixtures.prompt);
    assert.deepEqual(texts, Array(3).fill(texts[2]));
  });

  test("embeddings are those of the CPU", async () => {
    const found = await page.evaluate(async (prompt) => [...(await llama.embed([prompt], { pooling: "last" }))[0]], fixtures.prompt);
    assert.deepEqual(found, fixtures.expected.llama.embedding);
  });

  test("a backend that does not exist", async () => {
    assert.match(await failure(page, "/models/gemma3.bin", { backend: "tpu" }), /^argument: backend is 'tpu'; must be one of auto, cpu, gpu/);
  });

  test("auto does not choose WebGPU that computes on the CPU", async () => {
    const info = await page.evaluate(() => quip.Model.open("/models/llama.bin").then((model) => model.close().then(() => model.info)));
    assert.equal(info.backend, "cpu");
    assert.match(info.backendReason, /swiftshader.* computes on the CPU$/i);
  });
});

test("auto measures a GPU once, and remembers", async () => {
  const { page, end } = await openChanged([["swiftshader|", ""], ["isFallbackAdapter", "isNoAdapter"]]);
  const open = () => page.evaluate(() => quip.Model.open("/models/llama.bin").then((model) => model.close().then(() => model.info)));
  const first = await open();
  assert.equal(first.backend, "cpu"); // it is slower here, by far
  assert.match(first.backendReason, /^the GPU \(.*\) takes [\d.e+]+ ms for a token of a prompt and .* the CPU [\d.]+ ms /);
  assert.deepEqual(await open(), first);
  await end();
});

/** Lines before a worker script: `change` makes the text of a shader another one. */
const changeShaders = (change) => `{
    const open = GPUDevice.prototype.createShaderModule;
    GPUDevice.prototype.createShaderModule = function ({ code }) {
      return open.call(this, { code: (${change})(code) });
    };
  }\n`;

test("a GPU that computes wrongly is refused", async () => {
  const wrong = changeShaders((code) => code.replaceAll("dot4I8Packed(", "-dot4I8Packed("));
  const { page, end } = await openChanged([["swiftshader|", ""], ["isFallbackAdapter", "isNoAdapter"]], wrong);
  assert.match(await failure(page, "/models/gemma3.bin", { backend: "gpu" }), /^unsupported: the gpu or its driver computes wrongly: after \d layers, logits of .* differ /);
  const found = await page.evaluate(() => quip.Model.open("/models/gemma3.bin").then((model) => model.close().then(() => model.info)));
  assert.equal(found.backend, "cpu");
  assert.match(found.backendReason, /computes wrongly/);
  await end();
});

test("a GPU that multiplies only long prompts wrongly is refused", async () => {
  const wrong = changeShaders((code) => (code.includes("fn load_x(") ? code.replaceAll("dot4I8Packed(", "-dot4I8Packed(") : code));
  const { page, end } = await openChanged([], wrong);
  assert.match(await failure(page, "/models/llama.bin", { backend: "gpu" }), /^unsupported: the gpu or its driver computes wrongly: after \d layers, logits of a prompt differ /);
  await end();
});

/* SwiftShader has subgroups of 4 threads, and the shaders want 8 or more. Here it says that it has 32. */
test("the browser compiles the shaders with subgroups, and a GPU that says the wrong size is refused", async () => {
  const says32 = `for (const name of ["subgroupMinSize", "subgroupMaxSize"])
    Object.defineProperty(GPUAdapterInfo.prototype, name, { get: () => 32 });\n`;
  const { page, end } = await openChanged([], says32 + changeShaders((code) => code.replace("select(0u, size, are_neighbours)", "32u")));
  assert.match(await failure(page, "/models/llama.bin", { backend: "gpu" }), /^unsupported: the gpu or its driver computes wrongly/);
  await end();
  const other = await openChanged([], says32); // the threads themselves say 4
  assert.ok((await answer(other.page, "/models/llama.bin", { backend: "gpu" })).text); // the check has compared its logits
  await other.end();
});

test("a browser without the products that the shaders need", async () => {
  const { page, end } = await openChanged([], `Object.defineProperty(GPU.prototype, "wgslLanguageFeatures", { get: () => new Set() });\n`);
  const why = /^the WebGPU of this browser has no packed_4x8_integer_dot_product, which the shaders need; use a newer browser$/;
  const error = await failure(page, "/models/llama.bin", { backend: "gpu" });
  assert.match(error.replace("unsupported: ", ""), why);
  const info = await page.evaluate(() => quip.Model.open("/models/llama.bin").then((model) => model.close().then(() => model.info)));
  assert.equal(info.backend, "cpu");
  assert.match(info.backendReason, why);
  await end();
});

test("a shader that does not compile, and a GPU that is lost while shaders are compiled", async () => {
  const broken = await openChanged([], changeShaders((code) => code.replace("fn load_x(", "fn load_x(,")));
  assert.match(await failure(broken.page, "/models/llama.bin", { backend: "gpu" }), /^device: the GPU \(.*\) refused a (call|shader): /);
  await broken.end();
  const lost = await openChanged([], `const compile = GPUDevice.prototype.createComputePipelineAsync;
    GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
      const compiled = compile.call(this, descriptor);
      this.destroy();
      return compiled;
    };\n`);
  assert.match(await failure(lost.page, "/models/llama.bin", { backend: "gpu" }), /^device: the GPU \(.*\) was lost/);
  await lost.end();
});

test("a lost GPU is an error, and everything can be closed", async () => {
  const keep = `const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (options) {
      return (self.device = await request.call(this, options));
    };\n`;
  const { page, end } = await openChanged([], keep);
  await page.evaluate(async (prompt) => {
    window.model = await quip.Model.open("/models/llama.bin", { backend: "gpu" });
    window.chat = model.session({ nContext: 2048, greedy: true }); // an answer that takes longer than this page
    window.reply = chat.say(prompt).text().catch((e) => `${e.status}: ${e.message}`);
  }, fixtures.prompt);
  await page.workers()[0].evaluate(() => self.device.destroy());
  assert.match(await page.evaluate(() => reply), /^device: the GPU \(.*\) was lost.*; open the model again$/);
  assert.match(await page.evaluate(() => chat.append("the").catch((e) => `${e.status}: ${e.message}`)), /^device: .*was lost/);
  await page.evaluate(async () => {
    await chat.close();
    await model.close();
  });
  await end();
});
