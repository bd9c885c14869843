/** store.test.mjs: the store of models in a browser: visits, tabs, downloads that break, files that change. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { answer, failure, fixtures, openPage, requests, server, useBrowser } from "./browser.mjs";

useBrowser();

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
