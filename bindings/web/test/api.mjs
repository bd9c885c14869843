/** api.mjs: tests of the package that run both in Node and in a page.
 * env: { quip: the package, source(kind): a URL or path, bytes(kind), expected, prompt, build } */

function ok(value, what) {
  if (!value) throw new Error(`${what ?? "assertion"}: ${String(value)}`);
}

function equal(found, expected, what = "value") {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: found ${a?.slice(0, 300)}, expected ${b?.slice(0, 300)}`);
}

/** The error that a promise rejects with. */
async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

async function fails(promise, status, pattern = /./) {
  const error = await failure(promise);
  equal(error.status ?? `${error.name}: ${error.message}`, status, "status");
  ok(pattern.test(error.message), `message '${error.message}' does not match ${pattern}`);
}

/** Run f with an open model. */
async function withModel({ quip, source, build }, kind, f) {
  const model = await quip.Model.open(source(kind), { build });
  try {
    await f(model);
  } finally {
    await model.close();
  }
}

const ticks = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const bits = (floats) => [...new Uint32Array(floats.buffer, floats.byteOffset, floats.length)];
const greedy = { maxOutputTokens: 60, greedy: true };
const sampled = { maxOutputTokens: 60, temperature: 1.1, topK: 40, topP: 0.9, seed: 7 };
const long = "the letters of the weather ".repeat(60); // most of a context

const unescape = (text) => text.replace(/\\u([0-9a-f]{4})/g, (_, code) => String.fromCharCode(parseInt(code, 16)));

/** Options of a case of tests/conformance.txt, whose names are those of quip.h. */
function optionsOf(text) {
  const options = {};
  for (const option of text.split(" ").filter(Boolean)) {
    const [name, value] = unescape(option).split(/=(.*)/s);
    const ours = name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
    if (name === "greedy" || name === "no_template") options[ours] = true;
    else if (name === "system" || name === "chat_template") options[ours] = value;
    else options[ours] = name === "stop" ? [value] : Number(value);
  }
  return options;
}

export const tests = {
  "the list that every binding runs": async (env) => {
    for (const [kind, name, options, text, expected] of env.cases)
      await withModel(env, name, async (model) => {
        const prompt = unescape(text);
        if (kind === "tokens") return equal([...(await model.tokenize(prompt))].join(" "), expected, prompt);
        let found;
        try {
          const reply = model.session(optionsOf(options)).say(prompt);
          const answer = await reply.text();
          const { finishReason, promptTokens, outputTokens } = await reply.result();
          found = `${finishReason} ${promptTokens} ${outputTokens} ${answer}`;
        } catch (error) {
          found = error.message;
        }
        equal(found, unescape(expected), `${name} ${options} ${prompt}`);
      });
  },

  "a model has properties": (env) =>
    withModel(env, "gemma3", async (model) => {
      equal(model.info.architecture, "gemma3");
      equal(model.info.weights, "mixed");
      equal(model.info.vocabSize, 300);
      equal(model.info.fileBytes, (await env.bytes("gemma3")).length);
      if (env.build) equal(model.build, env.build);
    }),

  "texts and logits have the bits of the native program": async (env) => {
    for (const kind of ["gemma3", "llama"])
      await withModel(env, kind, async (model) => {
        const e = env.expected[kind];
        equal(await model.session(greedy).say(env.prompt).text(), e.greedy, `${kind} greedy`);
        equal(await model.session(sampled).say(env.prompt).text(), e.sampled, `${kind} sampled`);
        const turns = model.session({ ...greedy, chatTemplate: "gemma", system: "Be brief." });
        equal(await turns.say(env.prompt).text(), e.turns, `${kind} turns`);
        equal([...(await model.tokenize(env.prompt))], e.ids, `${kind} ids`);
        equal(await model.countTokens(env.prompt), e.ids.length);
        equal((await model.tokenCounter())(env.prompt), e.ids.length);
        equal(await model.detokenize(e.ids), env.prompt);
        equal(model.info.isEmbedding, false);
        const [ofText, ofIds] = await model.embed([env.prompt, e.ids], { pooling: "last" });
        equal([...ofText], e.embedding, `${kind} embedding`);
        equal(ofIds.length, model.info.embeddingSize);
        for (const nThreads of [1, 2]) {
          const s = model.session({ nThreads });
          await s.prefill(e.ids);
          equal(bits(await s.logits()), e.logits, `${kind} logits, ${nThreads} threads`);
          await s.close();
        }
      });
  },

  "real architectures have the logits of the native program, bit for bit": async (env) => {
    for (const { kind, ids, logits } of env.golden)
      await withModel(env, kind, async (model) => {
        const s = model.session();
        await s.prefill(ids);
        equal(bits(await s.logits()), logits, kind);
      });
  },

  "embedding models make the embeddings of the native program, bit for bit": async (env) => {
    for (const { kind, texts, plain, cut } of env.embeddings)
      await withModel(env, kind, async (model) => {
        equal([model.info.isEmbedding, model.info.embeddingSize], [true, plain[0].length], kind);
        const embed = async (options) => (await model.embed(texts, options)).map((e) => [...e]);
        equal(await embed(), plain, kind);
        equal(await embed({ dimensions: 8, prefix: "query: " }), cut, `${kind}, cut`);
        equal((await failure(model.embed(texts, { signal: AbortSignal.abort() }))).name, "AbortError");
        await fails(model.embed(texts, { pooling: "all" }), "argument", /pooling is 'all'/);
        await fails(model.session().say("x").text(), "unsupported", /embedding model/);
      });
  },

  "adapters: in a session, switched, removed, and loaded by MediaPipe's call": (env) =>
    withModel(env, "gemma3", async (model) => {
      const { FilesetResolver, LlmInference } = env.quip;
      const bytes = await env.bytes("adapter");
      const adapter = await model.loadAdapter(bytes);
      const tuned = model.session({ ...greedy, adapter });
      equal(await tuned.say(env.prompt).text(), env.expected.adapter);
      const plain = model.session(greedy);
      equal(await plain.say(env.prompt).text(), env.expected.gemma3.greedy);
      await plain.rewind(0);
      await plain.setAdapter(adapter);
      equal(await plain.say(env.prompt).text(), env.expected.adapter);
      await plain.rewind(0);
      await plain.setAdapter(null);
      equal(await plain.say(env.prompt).text(), env.expected.gemma3.greedy);
      const off = model.session({ ...greedy, adapter, adapterScale: 0 });
      equal(await off.say(env.prompt).text(), env.expected.gemma3.greedy, "a scale of 0");
      await off.rewind(0);
      await off.setAdapter(adapter);
      equal(await off.say(env.prompt).text(), env.expected.adapter);
      await off.rewind(0);
      await off.setAdapter(adapter, 0);
      equal(await off.say(env.prompt).text(), env.expected.gemma3.greedy, "switched to a scale of 0");
      await adapter.close();
      await fails(model.session({ adapter }).say("x").text(), "argument", /closed/);
      await fails(model.loadAdapter(new Uint8Array(200)), "format");
      const llm = await LlmInference.createFromOptions(await FilesetResolver.forGenAiTasks(), {
        baseOptions: { modelAssetPath: env.source("gemma3") },
        topK: 1,
        maxTokens: 60,
      });
      const without = await llm.generateResponse(env.prompt);
      const lora = await llm.loadLoraModel(bytes);
      let heard = "";
      const text = await llm.generateResponse(env.prompt, lora, (piece) => (heard += piece));
      equal(heard, text);
      ok(text !== without && env.expected.adapter.startsWith(text.slice(0, 10)), text);
      llm.close();
    }),

  "how tokens are drawn: what is absent is the default, and 0 counts": (env) =>
    withModel(env, "gemma3", async (model) => {
      const draw = (options) => model.session({ maxOutputTokens: 60, seed: 7, ...options }).say(env.prompt).text();
      const { isOfModel, ...defaults } = model.info.sampling;
      equal(isOfModel, false);
      ok(defaults.temperature > 0, "not greedy");
      equal(await draw({}), env.expected.gemma3.plain, "the native program's defaults");
      equal(await draw(defaults), env.expected.gemma3.plain, "the defaults, said");
      equal(await draw({ temperature: 0 }), env.expected.gemma3.greedy, "temperature 0");
      equal(await draw({ greedy: true, topK: 5 }), env.expected.gemma3.greedy, "greedy");
      const none = { topK: 0, topP: 0, minP: 0, repeatPenalty: 0, noRepeatNgram: 0 };
      ok((await draw({ temperature: 1, ...none })) !== (await draw({ temperature: 1 })), "0 is not the default");
    }),

  "an answer streams and has a result": (env) =>
    withModel(env, "gemma3", async (model) => {
      const reply = model.session(sampled).say(env.prompt);
      const pieces = [];
      for await (const text of reply) pieces.push(text);
      ok(pieces.length > 5, "pieces");
      equal(pieces.join(""), env.expected.gemma3.sampled);
      equal(await reply.text(), pieces.join(""));
      const result = await reply.result();
      equal([result.finishReason, result.outputTokens, result.seed], ["length", 60, 7]);
      ok(result.promptTokens > 5 && result.firstTokenMs > 0 && result.decodeMs > 0, "figures");
    }),

  "the prompt's tokens are all that was fed": (env) =>
    withModel(env, "gemma3", async (model) => {
      const chat = model.session({ maxOutputTokens: 10, nContext: 200, seed: 7 });
      let before = 0;
      for (const prompt of ["one", "two"]) {
        const { promptTokens, outputTokens, finishReason } = await chat.say(prompt).result();
        const after = await chat.position();
        equal(promptTokens + outputTokens - (finishReason === "stop" ? 1 : 0), after - before);
        before = after;
      }
    }),

  "a seed gives the same text, also 0": (env) =>
    withModel(env, "gemma3", async (model) => {
      const text = (seed) => model.session({ ...sampled, seed }).say(env.prompt).text();
      equal(await text(0), await text(0));
      ok((await text(0)) !== (await text(1)), "another seed, another text");
    }),

  "a conversation continues; clone and rewind": (env) =>
    withModel(env, "gemma3", async (model) => {
      const chat = model.session({ maxOutputTokens: 10, nContext: 200, greedy: true });
      equal(await chat.nContext(), 200);
      await chat.say("one").text();
      const position = await chat.position();
      const twin = chat.clone();
      const second = await chat.say("two").text();
      equal(await twin.say("two").text(), second, "clone");
      await chat.rewind(position);
      equal(await chat.position(), position);
      await chat.append("and ", { role: "none" });
      ok((await chat.answer().text()).length > 0);
    }),

  "options change between turns": (env) =>
    withModel(env, "gemma3", async (model) => {
      const chat = model.session(greedy);
      await chat.setOptions(sampled);
      equal(await chat.say(env.prompt).text(), env.expected.gemma3.sampled);
      await chat.rewind(0);
      await chat.setOptions({ maxOutputTokens: 3, greedy: true });
      const result = await chat.say(env.prompt).result();
      equal([result.finishReason, result.outputTokens], ["length", 3]);
      await fails(chat.setOptions({ nContext: 100 }), "argument", /n_context/);
      await fails((async () => chat.setOptions({ adapterScale: 2 }))(), "argument", /setAdapter/);
    }),

  "a model in the background gives the same answer": async (env) => {
    const model = await env.quip.Model.open(env.source("gemma3"), { build: env.build, background: true, nThreads: 2 });
    equal(await model.session(greedy).say(env.prompt).text(), env.expected.gemma3.greedy);
    await model.close();
  },

  "leaving the loop ends the answer": (env) =>
    withModel(env, "slow", async (model) => {
      const chat = model.session({ maxOutputTokens: 400, greedy: true });
      let n = 0;
      for await (const _ of chat.say("the")) if (++n === 3) break;
      const position = await chat.position(); // runs after the answer has ended
      ok(position < 200, `position ${position}`);
    }),

  "cancel() keeps the text so far": (env) =>
    withModel(env, "slow", async (model) => {
      const reply = model.session({ maxOutputTokens: 400, greedy: true }).say("the");
      for await (const _ of reply) {
        reply.cancel();
        break;
      }
      equal((await reply.result()).finishReason, "cancelled");
      ok((await reply.text()).length > 0);
    }),

  "close() stops calls that run or wait": (env) =>
    withModel(env, "slow", async (model) => {
      const chat = model.session({ nContext: 4096, maxOutputTokens: 400, greedy: true });
      const replies = ["one", "two", "three"].map((text) => chat.say(text));
      const appending = failure(chat.append(long));
      for await (const _ of replies[0]) break;
      const start = performance.now();
      await chat.close();
      for (const reply of replies) equal((await reply.result()).finishReason, "cancelled");
      equal((await appending).message, "the session is closed");
      ok(performance.now() - start < 20000, "at once");
    }),

  "a signal aborts prefill and decode, and the session continues": (env) =>
    withModel(env, "slow", async (model) => {
      const chat = model.session();
      const start = performance.now();
      const prefill = chat.say(long, { signal: AbortSignal.timeout(30) });
      equal((await failure(prefill.text())).name, "TimeoutError");
      const tookMs = performance.now() - start;
      equal(await chat.position(), 0, "the prompt is undone");
      const stop = new AbortController();
      const decode = chat.say("the", { signal: stop.signal });
      const seen = failure((async () => {
        for await (const _ of decode) stop.abort(new Error("enough"));
      })());
      equal((await seen).message, "enough");
      ok((await chat.position()) > 0, "the text so far stays");
      equal((await failure(chat.say("x", { signal: AbortSignal.abort() }).text())).name, "AbortError");
      ok(tookMs < 20000, `${tookMs} ms`);
    }),

  "a signal aborts prefill of token ids, and close() does": (env) =>
    withModel(env, "slow", async (model) => {
      const chat = model.session();
      const ids = await model.tokenize(long);
      await chat.prefill(ids.subarray(0, 3));
      const start = performance.now();
      equal((await failure(chat.prefill(ids, { signal: AbortSignal.timeout(30) }))).name, "TimeoutError");
      ok(performance.now() - start < 20000, "at once");
      equal(await chat.position(), 3, "the tokens are undone");
      equal((await failure(chat.prefill(ids, { signal: AbortSignal.abort() }))).name, "AbortError");
      await fails((async () => chat.prefill(ids, { signl: null }))(), "argument", /signl/);
      await chat.prefill(ids.subarray(0, 2));
      equal(await chat.position(), 5);
      const running = failure(chat.prefill(ids));
      await chat.close();
      equal((await running).message, "the session is closed");
    }),

  "errors name the wrong thing": (env) =>
    withModel(env, "gemma3", async (model) => {
      const short = model.session({ nContext: 16 });
      await fails(short.say(long).text(), "context_full", /16/);
      equal(await short.position(), 0);
      const thrown = (f) => failure((async () => f())());
      for (const options of [{ temprature: 1 }, { nContext: 2 ** 32 }, { topK: 1.5 }, { topP: NaN }, { minP: -1 }, { logitBias: [[1.5, 1]] }, { presencePenalty: NaN }, { seed: -1 }, { seed: 2 ** 60 }, { stop: "x" }])
        equal((await thrown(() => model.session(options))).status, "argument", JSON.stringify(options));
      equal((await thrown(() => model.session().append("x", { role: "wizard" }))).status, "argument");
      ok(/temprature/.test((await thrown(() => model.session({ temprature: 1 }))).message));
      ok(/topK/.test((await thrown(() => model.session({ topK: -1 }))).message));
      await fails(model.session({ chatTemplate: "nonsense" }).say("x").text(), "argument", /nonsense/);
      await fails(model.session().prefill([100000]), "argument");
      for (const tokens of ["12", [1.5], ["7"], [-1], [2 ** 32], null, new BigInt64Array(2)]) {
        equal((await thrown(() => model.session().prefill(tokens))).status, "argument", String(tokens));
        equal((await thrown(() => model.detokenize(tokens))).status, "argument", String(tokens));
      }
      await fails(model.embed("one text"), "argument", /array of texts/);
      await fails(model.embed(["one", 2]), "argument", /^texts\[1\] must be/);
      await fails(model.session().rewind(5), "argument", /5/);
      const closed = model.session();
      await closed.close();
      await fails(closed.say("x").text(), "argument", /closed/);
      await fails(env.quip.Model.open(42), "argument");
      for (const options of [{ nothing: 1 }, { build: "fast" }, { cache: "never" }, { sha256: "abc" }]) {
        const [[name, value]] = Object.entries(options);
        await fails(env.quip.Model.open(env.source("gemma3"), options), "argument", new RegExp(`${name}.*${name === "nothing" ? "" : value}`));
      }
      await fails(env.quip.Model.check(env.source("gemma3"), { nContext: 2 ** 32 }), "argument", /4294967296/);
    }),

  "when memory runs out a session fails, and the others continue": (env) =>
    withModel(env, "slow", async (model) => {
      const chat = model.session({ maxOutputTokens: 4, greedy: true });
      const before = await chat.say("the").text();
      const error = await failure(model.session({ nContext: 2 ** 30 }).position());
      ok(["memory", "argument", "unsupported"].includes(error.status), `${error.status}: ${error.message}`);
      const many = [];
      let last = null;
      for (let i = 0; i < 100 && !last; i++) {
        many.push(model.session({ nContext: 300000 })); // gigabytes in all
        last = await many[i].position().then(() => null, (e) => e);
      }
      equal(last?.status, "memory", last?.message ?? "no error");
      ok(/sessions are open; call close\(\)/.test(last.message), last.message);
      await Promise.all(many.map((s) => s.close()));
      await chat.rewind(0);
      equal(await chat.say("the").text(), before);
    }),

  "two sessions take turns": (env) =>
    withModel(env, "slow", async (model) => {
      const order = [];
      const read = async (name) => {
        for await (const _ of model.session({ maxOutputTokens: 100, greedy: true }).say("the")) order.push(name);
      };
      await Promise.all([read("a"), read("b")]);
      const first = order.indexOf("b");
      ok(first >= 0 && first < order.lastIndexOf("a"), order.join(""));
    }),

  "200 sessions come and go without growth": (env) =>
    withModel(env, "gemma3", async (model) => {
      const one = async () => {
        const s = model.session({ maxOutputTokens: 2, nContext: 512, nThreads: 2 });
        await s.say("the").text();
        await s.close();
      };
      for (let i = 0; i < 5; i++) await one();
      const before = await model.memory();
      for (let i = 0; i < 200; i++) await one();
      equal(await model.memory(), before);
    }),

  "a model comes from bytes, blobs, responses and streams": async (env) => {
    const { Model } = env.quip;
    const bytes = await env.bytes("gemma3");
    const stream = () => new Blob([bytes]).stream();
    const copy = bytes.slice();
    for (const [what, source] of [
      ["bytes", copy],
      ["buffer", bytes.slice().buffer],
      ["blob", new Blob([bytes])],
      ["response", new Response(bytes)],
      ["stream", stream()],
      ["reader", stream().getReader()],
    ]) {
      const model = await Model.open(source, { build: env.build });
      equal(await model.session(greedy).say(env.prompt).text(), env.expected.gemma3.greedy, what);
      await model.close();
    }
    equal(copy.length, bytes.length, "the caller keeps its bytes");
  },

  "a file that is not a model is an error": async (env) => {
    const { Model } = env.quip;
    const bytes = await env.bytes("gemma3");
    await fails(Model.open(new Uint8Array(100)), "format");
    await fails(Model.open(bytes.subarray(0, 100000)), "format");
    await fails(Model.open(new Uint8Array(0)), "format");
    const named = (text) => new File([text], "my.bin");
    await fails(Model.open(named("<!doctype html><title>Sign in</title>")), "format", /^my\.bin: is a web page/);
    await fails(Model.open(new File([await env.bytes("gguf")], "my.gguf")), "unsupported", /^my\.gguf is a GGUF checkpoint.*quip convert my\.gguf/);
    await fails(Model.open(new Response("no", { status: 404 })), "io", /404/);
    const broken = new ReadableStream({ pull: (c) => c.error(new Error("the cable is cut")) });
    equal((await failure(Model.open(broken))).message, "the cable is cut");
    await fails(Model.open(bytes, { sha256: "00".repeat(32) }), "io", /SHA-256/);
  },

  "a source that cannot be read is an error": async (env) => {
    const { Model } = env.quip;
    await fails(Model.open(""), "argument", /empty text/);
    await fails(Model.check(" "), "argument", /empty text/);
    const used = new Response("x", { headers: { "Content-Type": "text/plain" } });
    await used.text();
    await fails(Model.open(used), "argument", /was read already/);
    const locked = new Response("x");
    locked.body.getReader();
    await fails(Model.open(locked), "argument", /is being read elsewhere/);
    await fails(Model.open(locked.body), "argument", /is being read elsewhere/);
  },

  "an open is cancelled, and reports progress": async (env) => {
    const { Model } = env.quip;
    let sent = 0;
    const endless = new ReadableStream({
      async pull(c) {
        await ticks(5);
        sent++;
        c.enqueue(new Uint8Array(1000));
      },
    });
    const stop = new AbortController();
    const seen = [];
    const onprogress = (p) => seen.push(p.loaded) === 3 && stop.abort(new Error("no more"));
    equal((await failure(Model.open(endless, { signal: stop.signal, onprogress }))).message, "no more");
    ok(seen.length >= 3 && seen[2] > seen[0], String(seen));
    const after = sent;
    await ticks(100);
    ok(sent <= after + 1, "reading has stopped");
  },

  "check() computes before the download whether a model fits": async (env) => {
    const { Model } = env.quip;
    const fit = await Model.check(env.source("slow"), { nContext: 1000 });
    equal([fit.fits, fit.reason, fit.nContext], [true, undefined, 1000]);
    equal(fit.fileBytes, (await env.bytes("slow")).length);
    ok(fit.sessionBytes > 1e6 && fit.memoryBytes > fit.fileBytes + fit.sessionBytes, JSON.stringify(fit));
    const big = await Model.check(env.source("slow"), { nContext: 1048576 });
    ok(!big.fits && /GB/.test(big.reason), JSON.stringify(big));
  },

  /* ---- MediaPipe's calls ---- */

  "MediaPipe's four lines": async (env) => {
    const { FilesetResolver, LlmInference } = env.quip;
    const genai = await FilesetResolver.forGenAiTasks("https://cdn.jsdelivr.net/npm/@mediapipe/tasks-genai/wasm");
    const llm = await LlmInference.createFromOptions(genai, {
      baseOptions: { modelAssetPath: env.source("gemma3") },
      maxTokens: 100,
    });
    const pieces = [];
    const text = await llm.generateResponse(env.prompt, (piece, done) => pieces.push([piece, done]));
    ok(text.length > 0);
    equal(pieces.map(([piece]) => piece).join(""), text);
    equal(pieces.at(-1), ["", true]);
    ok(pieces.slice(0, -1).every(([, done]) => !done));
    equal(await llm.generateResponse(env.prompt), text, "each prompt begins a new conversation");
    equal(llm.sizeInTokens(env.prompt), env.expected.gemma3.ids.length);
    equal(llm.sizeInTokens([env.prompt, ""]), env.expected.gemma3.ids.length);
    llm.close();
  },

  "MediaPipe's options": async (env) => {
    const { FilesetResolver, LlmInference } = env.quip;
    const genai = await FilesetResolver.forGenAiTasks();
    const llm = await LlmInference.createFromModelBuffer(genai, await env.bytes("gemma3"));
    await llm.setOptions({ topK: 1, maxTokens: 70 });
    const greedyText = await llm.generateResponse(env.prompt);
    ok(env.expected.gemma3.greedy.startsWith(greedyText) || greedyText.startsWith(env.expected.gemma3.greedy));
    await llm.setOptions({ topK: undefined, temperature: 1, randomSeed: 5, numResponses: 3, maxTokens: 40 });
    const seen = [];
    const texts = await llm.generateResponses(env.prompt, (pieces, done) => seen.push([pieces, done]));
    equal(texts.length, 3);
    ok(new Set(texts).size > 1, "different answers");
    texts.forEach((text, i) => equal(seen.map(([pieces]) => pieces[i]).join(""), text));
    equal(seen.at(-1), [["", "", ""], true]);
    equal(await llm.generateResponses(env.prompt), texts, "the same seed");
    await fails(llm.setOptions({ numResponses: 0 }), "argument", /'numResponses' must be at least 1\./);
    await fails(LlmInference.createFromOptions(genai, {}), "argument", /No model asset provided\./);
    const both = { modelAssetPath: "a", modelAssetBuffer: new Uint8Array(1) };
    await fails(LlmInference.createFromOptions(genai, { baseOptions: both }), "argument", /Cannot set both/);
    equal((await failure((async () => llm.generateResponse({ imageSource: "x" }))())).status, "unsupported");
    llm.close();
  },

  "MediaPipe's close, while a model loads": async (env) => {
    const { FilesetResolver, LlmInference } = env.quip;
    const genai = await FilesetResolver.forGenAiTasks();
    const llm = await LlmInference.createFromModelBuffer(genai, await env.bytes("gemma3"));
    let isCancelled = false;
    const endless = new ReadableStream({
      pull: (c) => ticks(5).then(() => c.enqueue(new Uint8Array(1000))),
      cancel: () => void (isCancelled = true),
    });
    const loading = llm.setOptions({ baseOptions: { modelAssetBuffer: endless.getReader() } });
    await ticks(100);
    equal(llm.isIdle, false);
    llm.close();
    await fails(loading, "cancelled", /closed/);
    equal([llm.isIdle, isCancelled], [true, true]);
    equal((await failure((async () => llm.generateResponse("x"))())).status, "argument");
    await fails(llm.setOptions({ baseOptions: { modelAssetBuffer: new Uint8Array(100) } }), "format");
    await llm.setOptions({ topK: 1, baseOptions: { modelAssetPath: env.source("gemma3") } });
    ok((await llm.generateResponse(env.prompt)).length > 0, "another model after a failure");
    llm.close();
  },

  "MediaPipe's cancel, and its errors while it is busy": async (env) => {
    const { FilesetResolver, LlmInference } = env.quip;
    const genai = await FilesetResolver.forGenAiTasks();
    const llm = await LlmInference.createFromOptions(genai, {
      baseOptions: { modelAssetPath: env.source("slow") },
      maxTokens: 2000,
    });
    equal(llm.isIdle, true);
    let last;
    const decoding = llm.generateResponse("the", (piece, done) => {
      last = [piece, done];
      llm.cancelProcessing();
    });
    equal(llm.isIdle, false);
    let thrown;
    try {
      llm.generateResponse("again");
    } catch (error) {
      thrown = error.message;
    }
    equal(thrown, "Previous invocation or loading is still ongoing.");
    await fails(llm.setOptions({ topK: 2 }), "argument", /Cannot set options while loading or processing\./);
    ok((await decoding).length > 0);
    equal(last, ["", true]);
    const prefilling = llm.generateResponse(long);
    await ticks(20);
    llm.cancelProcessing();
    equal(await prefilling, "");
    equal(llm.isIdle, true);
    const closing = llm.generateResponse("the");
    llm.close();
    ok(["string", "object"].includes(typeof (await closing.catch((error) => error))));
  },
};
