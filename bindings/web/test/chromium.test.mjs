/** chromium.test.mjs: the package in a browser: api.mjs with and without isolation, several servers, and pages
 * with strict policies. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { tests } from "./api.mjs";
import { answer, failure, fixtures, folder, openPage, requests, server, useBrowser } from "./browser.mjs";
import { DIST, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

useBrowser();

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

test("without WebGPU: gpu is an error, auto is the CPU", async () => {
  const page = await openPage();
  await page.route("**/worker.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `delete WorkerNavigator.prototype.gpu;\n${await response.text()}` });
  });
  assert.match(await failure(page, "/models/gemma3.bin", { backend: "gpu" }), /^unsupported: this browser has no WebGPU$/);
  const info = await page.evaluate(() => quip.Model.open("/models/gemma3.bin").then((model) => model.close().then(() => model.info)));
  assert.deepEqual([info.backend, info.backendReason], ["cpu", "this browser has no WebGPU"]);
  await page.context().close();
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

  test("that hides Content-Range: a download continues where Last-Modified says that the file is the same", async () => {
    const path = "/models/hidden.bin";
    server.put(path, fixtures.bytes("gemma3"), { isHidden: true, cuts: [300000], pauseMs: 5, modified: "Mon, 02 Mar 2026 10:00:00 GMT" });
    assert.equal((await answer(page, server.origin + path)).text, fixtures.expected.gemma3.greedy);
    assert.match(requests(path).join(), /^all,bytes=\d+-$/);
    const changing = "/models/changing.bin"; // without Last-Modified it begins again
    server.put(changing, fixtures.bytes("gemma3"), { isHidden: true, cuts: [300000], pauseMs: 5 });
    assert.equal((await answer(page, server.origin + changing)).text, fixtures.expected.gemma3.greedy);
    assert.deepEqual(requests(changing), ["all", "all"]);
  });

  test("that compresses files: the length that it announces is not that of the file", async () => {
    const path = "/models/compressed.bin";
    for (const origin of [server.origin, other.origin]) {
      const there = origin === server.origin ? server : other;
      there.put(path, fixtures.bytes("gemma3"), { gzip: true });
      assert.deepEqual(await answer(page, origin + path), { text: fixtures.expected.gemma3.greedy, phases: ["download"] });
      assert.deepEqual(await answer(page, origin + path), { text: fixtures.expected.gemma3.greedy, phases: ["cache"] });
    }
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
    (prompt) => model.session({ maxOutputTokens: 60, greedy: true }).say(prompt).text(),
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

describe("scripts that cannot run a model", () => {
  let page;
  before(async () => (page = await openPage()));
  after(() => page.context().close());

  test("a shared worker and a service worker: the error says what to do", async () => {
    const shared = await page.evaluate(
      () =>
        new Promise((resolve) => {
          const worker = new SharedWorker("/test/scope.mjs", { type: "module" });
          worker.port.onmessage = (e) => resolve(e.data);
        }),
    );
    assert.match(shared, /^QuipError: unsupported: a shared worker cannot start a worker.*open the model in a page/);
    const service = await page.evaluate(async () => {
      const registration = await navigator.serviceWorker.register("/test/scope.mjs", { type: "module" });
      await navigator.serviceWorker.ready;
      return new Promise((resolve) => {
        navigator.serviceWorker.onmessage = (e) => resolve(e.data);
        registration.active.postMessage("ask");
      });
    });
    assert.match(service, /^QuipError: unsupported: a service worker cannot start a worker.*offscreen document/);
  });

  test("a browser that refuses the worker", async () => {
    const message = await page.evaluate(async () => {
      const { Worker } = window;
      window.Worker = function () {
        throw new DOMException("Access to the script is denied", "SecurityError");
      };
      const error = await quip.Model.open("/models/gemma3.bin").catch((e) => e);
      window.Worker = Worker;
      return `${error.name}: ${error.status}: ${error.message}`;
    });
    assert.match(message, /^QuipError: io: the worker .*worker\.js was not allowed to start: Access to the script is denied$/);
  });

  test("names that are not URLs", async () => {
    assert.match(await failure(page, "C:\\models\\gemma.bin"), /^argument: 'C:.*' is a path, which a browser cannot open/);
    assert.match(await failure(page, "http://"), /^argument: 'http:\/\/' is not a URL$/);
    assert.match(await failure(page, ""), /^argument: .*empty text/);
  });
});

test("threads that do not start are missing, and the model runs", async () => {
  const copy = mkdtempSync(join(tmpdir(), "quip-threads-"));
  cpSync(DIST, copy, { recursive: true });
  const script = join(copy, "thread.js");
  writeFileSync(script, readFileSync(script, "utf8").replace("quip_web_thread_enter(", "quip_web_thread_nowhere("));
  const other = await startServer({ dist: copy, test: join(ROOT, "bindings/web/test"), fixtures: folder });
  const page = await openPage({ isolated: true, origin: other.origin });
  assert.equal((await answer(page, `${server.origin}/models/gemma3.bin`, { build: "simd-mt" })).text, fixtures.expected.gemma3.greedy);
  await page.context().close();
  other.end();
  rmSync(copy, { recursive: true });
});

describe("memory", () => {
  test("sessions and models that were dropped are freed", async () => {
    const page = await openPage();
    await page.evaluate(async () => {
      const tidy = async () => {
        for (let i = 0; i < 3; i++) {
          gc();
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      const talk = async () => {
        const model = await quip.Model.open("/models/slow.bin");
        const before = await model.memory();
        for (let i = 0; i < 60; i++) {
          await model.session({ nContext: 20000, maxOutputTokens: 1 }).say("the").text(); // 90 MB; a module has at most 4 GB
          await tidy();
        }
        return (await model.memory()) - before;
      };
      const grown = await talk();
      if (grown > 1.5e9) throw new Error(`${grown} bytes`);
      await tidy();
    });
    for (let i = 0; i < 50 && page.workers().length; i++) await page.evaluate(() => (gc(), new Promise((resolve) => setTimeout(resolve, 100))));
    assert.deepEqual(page.workers(), []);
    await page.context().close();
  });

  test("an allocation that fails in the browser is an error of memory", async () => {
    const page = await openPage();
    await page.evaluate(async () => {
      window.model = await quip.Model.open("/models/gemma3.bin");
      window.chat = model.session();
      await chat.append("the");
    });
    await page.workers()[0].evaluate(() => {
      self.Float32Array = function () {
        throw new RangeError("Array buffer allocation failed");
      };
    });
    const message = await page.evaluate(() => chat.logits().catch((e) => `${e.status}: ${e.message}`));
    assert.match(message, /^memory: Array buffer allocation failed; close models and sessions/);
    await page.context().close();
  });
});
