/** chromium.test.mjs: the package in a browser: api.mjs with and without isolation, the store of models,
 * several tabs, and pages with strict policies. CHROMIUM names the browser; default: Debian's. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { tests } from "./api.mjs";
import { DIST, makeFixtures, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; script-src-elem 'self' 'unsafe-inline'";

let browser, server, folder, fixtures;
before(async () => {
  fixtures = makeFixtures();
  folder = mkdtempSync(join(tmpdir(), "quip-web-"));
  writeFileSync(join(folder, "expected.json"), JSON.stringify({ ...fixtures }));
  const test = join(ROOT, "bindings/web/test");
  server = await startServer({ dist: DIST, test, fixtures: folder }, { "Content-Security-Policy": POLICY });
  const golden = fixtures.golden.map(({ kind }) => kind);
  for (const kind of ["gemma3", "llama", "slow", "adapter", "gguf", ...golden]) server.put(`/models/${kind}.bin`, fixtures.bytes(kind));
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
});
after(async () => {
  await browser?.close();
  server?.end();
  fixtures?.end();
  if (folder) rmSync(folder, { recursive: true });
});

/** A page in `context`, or in a new one. */
async function openPage({ isolated = false, context, origin = server.origin } = {}) {
  context ??= await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.on("pageerror", (error) => console.error("page:", error.message));
  await page.goto(`${origin}${isolated ? "/isolated" : ""}/test/page.html`);
  await page.waitForFunction(() => window.ready);
  return page;
}

/** In the page: open a model, answer a prompt and close it. Returns the text and the phases of progress. */
const answer = (page, url, options = {}) =>
  page.evaluate(
    async ([url, options, prompt]) => {
      const phases = [];
      const onprogress = ({ phase }) => phases.at(-1) === phase || phases.push(phase);
      const model = await quip.Model.open(url, { ...options, onprogress });
      const text = await model.session({ maxOutputTokens: 60 }).say(prompt).text();
      await model.close();
      return { text, phases };
    },
    [url, options, fixtures.prompt],
  );

const requests = (path) => server.log.filter((entry) => entry.path === path).map(({ range }) => range ?? "all");

/** An error of the page as `status: message`. */
const failure = (page, url, options = {}) =>
  page.evaluate(
    ([url, options]) => quip.Model.open(url, options).then(() => "opened", (e) => `${e.status}: ${e.message}`),
    [url, options],
  );

for (const [where, isolated, builds] of [
  ["a plain page", false, ["relaxed", "simd", "relaxed-64"]],
  ["an isolated page", true, ["relaxed-mt", "relaxed-mt-64"]],
])
  for (const build of builds)
    describe(`${where}, ${build}`, () => {
      let page;
      before(async () => {
        page = await openPage({ isolated });
        assert.equal(await page.evaluate("crossOriginIsolated"), isolated);
      });
      after(() => page.context().close());
      for (const name of Object.keys(tests))
        test(name, () => page.evaluate(([name, build]) => run(name, build), [name, build]));
    });

describe("the best build is chosen", () => {
  for (const [isolated, build] of [[false, "relaxed"], [true, "relaxed-mt"]])
    test(build, async () => {
      const page = await openPage({ isolated });
      const found = await page.evaluate(async () => {
        const model = await quip.Model.open("/models/gemma3.bin");
        await model.close();
        return model.build;
      });
      assert.equal(found, build);
      await page.context().close();
    });
});

describe("the store", () => {
  let page;
  let n = 0;
  /** A model with a new name; `how` says how the server sends it. */
  function fresh(how) {
    const path = `/models/stored-${n++}.bin`;
    server.put(path, fixtures.bytes("gemma3"), how);
    return path;
  }
  before(async () => (page = await openPage()));
  after(() => page.context().close());
  const text = () => fixtures.expected.gemma3.greedy;

  test("the second visit uses the store, also offline", async () => {
    const path = fresh();
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["download"] });
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["cache"] });
    assert.deepEqual(await answer(page, path, { cache: "force-cache" }), { text: text(), phases: ["cache"] });
    assert.deepEqual(requests(path), ["all", "all"], "the second connection is closed early");
    await page.route(`**${path}`, (route) => route.abort());
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["cache"] });
    await page.unroute(`**${path}`);
  });

  test("a file that changed on the server is downloaded again", async () => {
    const path = fresh();
    await answer(page, path);
    server.put(path, fixtures.bytes("gemma3"), { etag: '"new"' });
    assert.deepEqual((await answer(page, path)).phases, ["download"]);
    assert.deepEqual((await answer(page, path)).phases, ["cache"]);
  });

  test("a broken connection is resumed", async () => {
    const path = fresh({ cuts: [300000, 200000], pauseMs: 5 });
    assert.equal((await answer(page, path)).text, text());
    const [whole, ...rest] = requests(path);
    assert.equal(whole, "all");
    assert.equal(rest.length, 2);
    for (const range of rest) assert.match(range, /^bytes=\d{6,}-$/);
  });

  test("a download that ended with its page continues in another", async () => {
    const path = fresh({ pauseMs: 10 });
    const first = await openPage({ context: page.context() });
    await first.evaluate((path) => {
      window.loaded = 0;
      void quip.Model.open(path, { onprogress: (p) => (window.loaded = p.loaded) });
    }, path);
    await first.waitForFunction(() => window.loaded > 200000);
    await first.close();
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["download"] });
    const [whole, rest] = requests(path);
    assert.equal(whole, "all");
    assert.match(rest, /^bytes=\d{6,}-$/);
  });

  test("two tabs download once", async () => {
    const path = fresh({ pauseMs: 5 });
    const other = await openPage({ context: page.context() });
    const [a, b] = await Promise.all([answer(page, path, { cache: "force-cache" }), answer(other, path, { cache: "force-cache" })]);
    assert.deepEqual([a.text, b.text], [text(), text()]);
    assert.deepEqual(requests(path), ["all"]);
    assert.deepEqual([a.phases[0], b.phases[0]].sort(), ["download", "waiting"]);
    await other.close();
  });

  test("a damaged download is an error and is not stored", async () => {
    const path = fresh();
    const sha256 = createHash("sha256").update(fixtures.bytes("gemma3")).digest("hex");
    const damaged = Buffer.from(fixtures.bytes("gemma3"));
    damaged[300000] ^= 1;
    server.put(path, damaged);
    assert.match(await failure(page, path, { sha256 }), /^io: .*damaged.*SHA-256/);
    server.put(path, fixtures.bytes("gemma3"));
    assert.deepEqual((await answer(page, path, { sha256 })).phases, ["download"]);
    assert.deepEqual((await answer(page, path, { sha256 })).phases, ["cache"]);
    assert.equal(requests(path).length, 2, "a file with a hash needs no request");
  });

  test("a file that is not a model is not stored", async () => {
    const path = fresh();
    server.put(path, Buffer.alloc(2000000, 7));
    assert.match(await failure(page, path), /^format: /);
    server.put(path, fixtures.bytes("gemma3"));
    assert.deepEqual((await answer(page, path)).phases, ["download"]);
  });

  test("a stored model is listed and removed", async () => {
    const path = fresh();
    await answer(page, path);
    const url = server.origin + path;
    const list = () => page.evaluate(() => quip.cache.list());
    const entry = (await list()).find((e) => e.url === url);
    assert.equal(entry.isComplete, true);
    assert.equal(entry.bytes, fixtures.bytes("gemma3").length);
    assert.equal(await page.evaluate(async (p) => (await quip.Model.check(p)).cached, path), true);
    assert.equal(await page.evaluate((u) => quip.cache.remove(u), path), true);
    assert.ok(!(await list()).some((e) => e.url === url));
    const quota = await page.evaluate(() => quip.cache.quota());
    assert.ok(quota.totalBytes > 0);
    await page.evaluate(() => quip.cache.clear());
    assert.deepEqual(await list(), []);
  });

  test("a stored model does not wait for a server that does not answer", async () => {
    const path = fresh();
    await answer(page, path);
    server.models.get(path).hangs = true;
    assert.deepEqual((await answer(page, path)).phases, ["cache"]);
  });

  test("a full device runs the model and stores nothing", async () => {
    const path = fresh();
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: server.origin, quotaSize: 300000 });
    assert.equal((await answer(page, path)).text, text());
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: server.origin });
    assert.ok(!(await page.evaluate(() => quip.cache.list())).some((e) => e.url === server.origin + path));
  });

  test("a cancelled download stops, and continues with the next open", async () => {
    const path = fresh({ pauseMs: 5 });
    const names = [];
    for (let i = 0; i < 3; i++)
      names.push(
        await page.evaluate(async (path) => {
          const stop = new AbortController();
          const begin = (await quip.cache.list()).find(({ url }) => url.endsWith(path))?.bytes ?? 0;
          const onprogress = ({ loaded }) => loaded > begin + 100000 && stop.abort();
          return quip.Model.open(path, { signal: stop.signal, onprogress }).catch((e) => e.name);
        }, path),
      );
    assert.deepEqual(names, ["AbortError", "AbortError", "AbortError"]);
    assert.equal((await answer(page, path)).text, text());
    const [whole, ...rest] = requests(path);
    assert.deepEqual([whole, rest.length], ["all", 3]);
    const begins = rest.map((range) => Number(range.match(/^bytes=(\d+)-$/)[1]));
    assert.ok(begins[0] > 100000 && begins[1] > begins[0] && begins[2] > begins[1], String(begins));
  });
});

describe("a server", () => {
  let page, other;
  before(async () => {
    page = await openPage({ origin: (other = await startServer({ dist: DIST, test: join(ROOT, "bindings/web/test"), fixtures: folder })).origin });
  });
  after(() => {
    other.end();
    return page.context().close();
  });
  const url = () => `${server.origin}/models/served.bin`;

  test("that hides headers from other origins: check, open, resume from the beginning", async () => {
    server.put("/models/served.bin", fixtures.bytes("gemma3"), { isHidden: true, cuts: [] });
    const fit = await page.evaluate((url) => quip.Model.check(url), url());
    assert.deepEqual([fit.fits, fit.fileBytes], [true, fixtures.bytes("gemma3").length]);
    server.put("/models/served.bin", fixtures.bytes("gemma3"), { isHidden: true, cuts: [300000], noRanges: true });
    assert.equal((await answer(page, url())).text, fixtures.expected.gemma3.greedy);
  });

  test("that is busy or has no such file: the error has its status; without a connection it mentions CORS", async () => {
    server.put("/models/busy.bin", Buffer.alloc(10), { status: 503 });
    assert.equal(await failure(page, `${server.origin}/models/busy.bin`), `io: Failed to fetch model: ${server.origin}/models/busy.bin (status 503)`);
    assert.match(await failure(page, "/absent.bin"), /^io: .*absent\.bin \(404\)$/);
    assert.match(await failure(page, "http://127.0.0.1:9/model.bin"), /^io: .*CORS/);
  });

  test("that sends its home page for every name", async () => {
    const html = Buffer.from("<!doctype html><title>Welcome</title>".repeat(100));
    server.put("/models/page.bin", html);
    const message = `${server.origin}/models/page.bin: is a web page`;
    assert.ok((await failure(page, `${server.origin}/models/page.bin`)).startsWith(`format: ${message}`));
    const checked = (url) => quip.Model.check(url).catch((e) => e.message);
    assert.ok((await page.evaluate(checked, `${server.origin}/models/page.bin`)).startsWith(message));
    await page.route("**/quip-*.wasm", (route) => route.fulfill({ contentType: "text/html", body: html }));
    assert.match(await failure(page, url()), /^io: .*quip-relaxed\.wasm \(text\/html\) cannot be compiled/);
    await page.unroute("**/quip-*.wasm");
  });

  test("that never sends the module: an open can be aborted", async () => {
    await page.route("**/quip-*.wasm", () => {});
    const [name, ms] = await page.evaluate(async (url) => {
      const start = performance.now();
      const error = await quip.Model.open(url, { signal: AbortSignal.timeout(100) }).catch((e) => e);
      return [error.name, performance.now() - start];
    }, url());
    assert.equal(name, "TimeoutError");
    assert.ok(ms < 5000, `${ms} ms`);
    await page.unroute("**/quip-*.wasm");
  });

  test("used by a sandboxed frame, which has no origin", async () => {
    await page.evaluate(() => {
      const frame = document.createElement("iframe");
      frame.sandbox = "allow-scripts";
      frame.src = "page.html";
      document.body.append(frame);
    });
    const frame = page.frames().at(-1);
    await frame.waitForFunction(() => window.ready);
    assert.equal(await frame.evaluate("origin"), "null");
    assert.equal((await answer(frame, url())).text, fixtures.expected.gemma3.greedy);
  });
});

test("an engine that stops is replaced", async () => {
  const page = await openPage();
  await page.evaluate(async () => {
    window.model = await quip.Model.open("/models/gemma3.bin");
    window.chat = model.session({ maxOutputTokens: 5 });
    await chat.say("the").text();
  });
  await page.workers()[0].evaluate(() => void setTimeout(() => { throw new WebAssembly.RuntimeError("unreachable"); }));
  await page.waitForFunction(() => chat.position().then(() => false, (e) => e.status === "internal"));
  const text = await page.evaluate(
    (prompt) => model.session({ maxOutputTokens: 60 }).say(prompt).text(),
    fixtures.prompt,
  );
  assert.equal(text, fixtures.expected.gemma3.greedy);
  await page.context().close();
});

test("from a folder, and from another origin", async () => {
  const cdn = await startServer({ dist: DIST });
  const plain = await startServer({ dist: DIST, test: join(ROOT, "bindings/web/test"), fixtures: folder });
  const page = await openPage({ origin: plain.origin });
  for (const baseUrl of ["/dist/", "../dist", `${cdn.origin}/dist`])
    assert.equal(
      (await answer(page, `${server.origin}/models/gemma3.bin`, { baseUrl })).text,
      fixtures.expected.gemma3.greedy,
    );
  assert.match(await failure(page, `${server.origin}/models/gemma3.bin`, { baseUrl: "/nowhere" }), /^io: .*worker\.js.*baseUrl/);
  await page.context().close();
  plain.end();
  cdn.end();
});
