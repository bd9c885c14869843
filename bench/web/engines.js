/* engines.js: the two engines, in the page. Each opens a model with a number of threads. For a prompt of
 * about n tokens it then returns { promptTokens, prefill, decode } in tokens per second. */
const OUTPUT = 24;

/** n words in an order that does not repeat, so that no engine can draft tokens. */
function words(n) {
  const syllables = ["ba", "co", "du", "fe", "gi", "ho", "ka", "lu", "me", "ni", "po", "ru", "sa", "te", "vi", "wo"];
  let seed = 12345;
  const next = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 16;
  return Array.from({ length: n }, () => syllables[next() % 16] + syllables[next() % 16]).join(" ");
}

async function openQuip(url, threads) {
  const { Model } = await import("/quip/index.js");
  const started = performance.now();
  const model = await Model.open(url, { cache: "no-store", nThreads: threads });
  const openMs = performance.now() - started;
  return {
    openMs,
    build: model.build,
    async measure(n) {
      const ids = (await model.tokenize(words(n))).slice(0, n);
      const session = model.session({ nContext: n + OUTPUT + 8, maxOutputTokens: OUTPUT, noTemplate: true });
      await session.append("", { role: "none" }); // opens it: allocating its memory is not measured
      const begin = performance.now();
      await session.prefill(ids);
      const prefillMs = performance.now() - begin;
      const result = await session.answer().result();
      await session.close();
      return {
        promptTokens: ids.length,
        prefill: (ids.length / prefillMs) * 1000,
        decode: ((result.outputTokens - 1) / result.decodeMs) * 1000,
      };
    },
    close: () => model.close(),
  };
}

async function openWllama(url, threads) {
  const { Wllama, LoggerWithoutDebug } = await import("/wllama/index.js");
  const wllama = new Wllama({ default: "/wllama/wasm/wllama.wasm" }, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  const blob = await (await fetch(url)).blob();
  const started = performance.now();
  await wllama.loadModel([blob], { n_threads: threads, n_ctx: 1024 + OUTPUT + 64, n_batch: 512, n_gpu_layers: 0 });
  return {
    openMs: performance.now() - started,
    build: wllama.isMultithread() ? `${wllama.getNumThreads()} threads` : "1 thread",
    async measure(n) {
      const prompt = words(Math.floor(n / 2.2)); // a word is a little more than two tokens
      const options = { prompt, max_tokens: OUTPUT, temperature: 0, ignore_eos: true, cache_prompt: false };
      const { timings } = await wllama.createCompletion(options);
      return { promptTokens: timings.prompt_n, prefill: timings.prompt_per_second, decode: timings.predicted_per_second };
    },
    close: () => wllama.exit(),
  };
}

window.engines = { quip: openQuip, wllama: openWllama };
