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
  /** A promise, and a function that resolves it. */
  function gate() {
    let open;
    const until = new Promise((resolve) => (open = resolve));
    return { until, open };
  }
  /** Run `change` in the page. A file of a download that broke off stays locked for a moment. */
  async function changeFiles(change) {
    for (let tries = 0; ; tries++)
      try {
        return await page.evaluate(change);
      } catch (error) {
        if (tries === 200 || !error.message.includes("NoModificationAllowedError")) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
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
    const path = fresh({ trickles: [400000] });
    await breakOff(path, 200000);
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["download"] });
    const [whole, rest] = requests(path);
    assert.equal(whole, "all");
    assert.match(rest, /^bytes=\d{6,}-$/);
  });

  test("two tabs download once", async () => {
    const { until, open } = gate();
    const path = fresh({ until });
    const other = await openPage({ context: page.context() });
    const answers = [page, other].map((tab) => answer(tab, path, { cache: "force-cache" }));
    while (!(await Promise.all([page, other].map((tab) => tab.evaluate("phases.at(-1)")))).includes("waiting"));
    open();
    const [a, b] = await Promise.all(answers);
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
    const path = fresh({ trickles: [200000, 200000, 200000] });
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

  /* ---- the kept version ---- */

  /** The model with other weights: its last byte differs, and its text may. */
  const changed = (at = -1) => {
    const bytes = Buffer.from(fixtures.bytes("gemma3"));
    bytes[at < 0 ? bytes.length + at : at] ^= 1;
    return bytes;
  };
  const sha = (bytes) => createHash("sha256").update(bytes).digest("hex");

  /** The files of a URL in the store: { name: SHA-256 }. */
  const filesOf = (path) =>
    page.evaluate(async (url) => {
      const hex = async (bytes) => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
      const key = await hex(new TextEncoder().encode(url));
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("quip-models");
      const found = {};
      for await (const [name, handle] of folder.entries())
        if (name.startsWith(key)) found[name.slice(65)] = name.endsWith("bin") ? await hex(await (await handle.getFile()).arrayBuffer()) : "meta";
      return found;
    }, server.origin + path);

  /** Open without a connection. */
  async function offline(path) {
    server.models.get(path).hangs = true;
    await page.route(`**${path}`, (route) => route.abort());
    try {
      return await answer(page, path);
    } finally {
      await page.unroute(`**${path}`);
      server.models.get(path).hangs = false;
    }
  }

  /** A page opens the model and is closed when this many bytes have come. */
  async function breakOff(path, bytes, options = {}) {
    const first = await openPage({ context: page.context() });
    await first.evaluate(
      ([path, options]) => {
        window.loaded = 0;
        const onprogress = (p) => p.phase === "download" && (window.loaded = p.loaded);
        void quip.Model.open(path, { ...options, onprogress }).catch(() => {});
      },
      [path, options],
    );
    await first.waitForFunction((bytes) => window.loaded > bytes, bytes);
    await first.close();
  }

  test("a web page instead of a kept model: the kept one is used, and stays", async () => {
    const path = fresh();
    await answer(page, path);
    const before = await filesOf(path);
    server.put(path, Buffer.from("<!doctype html><title>Sign in</title>"));
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["download", "cache"] });
    assert.deepEqual(await page.evaluate(async (p) => {
      const { fits, cached } = await quip.Model.check(p);
      return [fits, cached];
    }, path), [true, true]);
    assert.match(await failure(page, path, { cache: "reload" }), /^format: .*is a web page/);
    server.put(path, Buffer.alloc(2000000, 7));
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["download", "cache"] });
    assert.deepEqual(await offline(path), { text: text(), phases: ["cache"] });
    assert.deepEqual(Object.keys(await filesOf(path)), Object.keys(before), "nothing else is stored");
  });

  test("a newer version that breaks off: the kept one is used, and the download continues later", async () => {
    const path = fresh();
    await answer(page, path);
    server.put(path, changed(), { trickles: [400000] });
    await breakOff(path, 200000);
    assert.deepEqual(await offline(path), { text: text(), phases: ["cache"] });
    assert.equal((await page.evaluate(() => quip.cache.list())).find(({ url }) => url.endsWith(path)).isComplete, true);
    server.log.length = 0;
    assert.deepEqual((await answer(page, path)).phases, ["download"]);
    assert.match(requests(path).join(), /^bytes=\d{6,}-$/);
    const files = await filesOf(path);
    assert.deepEqual(Object.values(files).sort(), [sha(changed()), "meta"].sort(), "only the newer one is there");
    assert.deepEqual((await offline(path)).phases, ["cache"]);
  });

  test("a web page does not remove the part of a first download", async () => {
    const path = fresh({ trickles: [400000] });
    await breakOff(path, 200000);
    server.put(path, Buffer.from("\n<html><title>Sign in</title>"));
    assert.match(await failure(page, path), /^format: .*is a web page/);
    server.put(path, fixtures.bytes("gemma3"));
    assert.equal((await answer(page, path)).text, text());
    assert.match(requests(path).join(), /^all,bytes=\d{6,}-,all,bytes=\d{6,}-$/); // the page is shorter than the part
  });

  test("a newer version whose server fails: the kept one is used in the same open", async () => {
    const path = fresh();
    await answer(page, path);
    server.put(path, changed(), { cuts: [100000], pauseMs: 5, noRanges: true, etag: null });
    const opening = answer(page, path);
    while (!requests(path)[1]) await new Promise((resolve) => setTimeout(resolve, 20));
    server.models.get(path).status = 404;
    assert.deepEqual(await opening, { text: text(), phases: ["download", "cache"] });
    assert.match(await failure(page, path, { cache: "reload" }), /^io: .*404/);
    assert.deepEqual((await offline(path)).text, text());
  });

  test("a server that does not tell versions apart: a part is not continued", async () => {
    const path = fresh({ trickles: [400000], etag: null });
    await breakOff(path, 300000);
    server.put(path, changed(100000), { etag: null });
    await answer(page, path);
    assert.deepEqual(requests(path), ["all", "all"]);
    assert.deepEqual(Object.values(await filesOf(path)).sort(), [sha(changed(100000)), "meta"].sort());
  });

  test("nor in the same visit", async () => {
    const path = fresh({ cuts: [300000], pauseMs: 5, etag: null });
    const opening = answer(page, path);
    while (!requests(path).length) await new Promise((resolve) => setTimeout(resolve, 5));
    server.models.get(path).body = changed(100000);
    await opening;
    assert.deepEqual(requests(path), ["all", "all"]);
    assert.deepEqual(Object.values(await filesOf(path)).sort(), [sha(changed(100000)), "meta"].sort());
  });

  test("nor with an ETag that is weak", async () => {
    const path = fresh({ trickles: [400000], etag: 'W/"1"' });
    await breakOff(path, 300000);
    await answer(page, path);
    assert.deepEqual(requests(path), ["all", "all"]);
    assert.deepEqual((await answer(page, path)).phases, ["cache"], "but it tells that the file is the same");
  });

  test("with a hash a part is continued, and begun again if it was of another file", async () => {
    const path = fresh({ trickles: [400000], etag: null });
    const sha256 = sha(fixtures.bytes("gemma3"));
    await breakOff(path, 200000, { sha256 });
    assert.equal((await answer(page, path, { sha256 })).text, text());
    assert.match(requests(path).join(), /^all,bytes=\d{6,}-$/);
    const other = fresh({ trickles: [400000], etag: null });
    await page.evaluate((sha256) => quip.cache.remove({ sha256 }), sha256);
    server.models.get(other).body = changed(100000);
    await breakOff(other, 300000, { sha256 });
    server.put(other, fixtures.bytes("gemma3"), { etag: null });
    assert.equal((await answer(page, other, { sha256 })).text, text());
    assert.match(requests(other).join(), /^all,bytes=\d{6,}-,all$/);
  });

  test("a part whose end was lost in a crash is not continued", async () => {
    const path = fresh({ trickles: [400000] });
    await page.evaluate(() => quip.cache.clear());
    await breakOff(path, 300000);
    await changeFiles(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("quip-models");
      for await (const [name, handle] of folder.entries()) {
        if (!name.endsWith(".bin")) continue;
        const { size } = await handle.getFile();
        const file = await handle.createWritable({ keepExistingData: true });
        await file.write({ type: "write", position: size - 5000, data: new Uint8Array(5000) });
        await file.close();
      }
    });
    assert.equal((await answer(page, path)).text, text());
    assert.match(requests(path).join(), /^all,bytes=\d{6,}-,all$/);
    assert.ok(Object.values(await filesOf(path)).includes(sha(fixtures.bytes("gemma3"))));
  });

  test("a page that was closed after the last byte: only the last bytes are requested again", async () => {
    const path = fresh();
    await answer(page, path);
    await changeFiles(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("quip-models");
      for await (const [name, handle] of folder.entries()) {
        if (!name.endsWith(".json")) continue;
        const meta = JSON.parse(await (await handle.getFile()).text());
        const file = await handle.createWritable();
        await file.write(JSON.stringify({ ...meta, isComplete: false }));
        await file.close();
      }
    });
    assert.equal((await answer(page, path)).text, text());
    assert.deepEqual(requests(path), ["all", `bytes=${fixtures.bytes("gemma3").length - 4096}-`]);
  });

  test("what earlier releases stored is used; what interrupted downloads left is removed", async () => {
    const path = fresh();
    await answer(page, path);
    const orphan = "0".repeat(64) + ".bin";
    await page.evaluate(async (orphan) => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("quip-models");
      for (const [name, handle] of await Array.fromAsync(folder.entries())) await handle.move(name.replace(/\.\d+\./, "."));
      await folder.getFileHandle(orphan, { create: true });
    }, orphan);
    assert.deepEqual(Object.keys(await filesOf(path)).sort(), ["bin", "json"]);
    assert.deepEqual(await offline(path), { text: text(), phases: ["cache"] });
    server.put(path, changed());
    await answer(page, path);
    assert.deepEqual(Object.keys(await filesOf(path)).sort(), ["1.bin", "1.json"]);
    const names = await page.evaluate(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("quip-models");
      return Array.fromAsync(folder.keys());
    });
    assert.ok(!names.includes(orphan));
  });

  test("a tab that replaces the kept version slowly does not keep others waiting", async () => {
    const path = fresh();
    await answer(page, path);
    const { until, open } = gate();
    server.put(path, changed(), { until });
    const other = await openPage({ context: page.context() });
    const updating = answer(other, path);
    while (!requests(path)[1]) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(await answer(page, path), { text: text(), phases: ["waiting", "cache"] });
    open();
    assert.deepEqual((await updating).phases, ["download"]);
    assert.ok(Object.values(await filesOf(path)).includes(sha(changed())));
    await other.close();
  });

  test("a device that is full keeps the version that it has, and runs the newer one", async () => {
    const path = fresh();
    await answer(page, path);
    const before = await filesOf(path);
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: server.origin, quotaSize: 100000 });
    server.put(path, changed());
    assert.deepEqual((await answer(page, path)).phases, ["download"]);
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: server.origin });
    assert.deepEqual(await filesOf(path), before);
    assert.deepEqual(await offline(path), { text: text(), phases: ["cache"] });
  });

  test("a model that is being downloaded is not removed", async () => {
    const { until, open } = gate();
    const path = fresh({ until });
    const other = await openPage({ context: page.context() });
    const opening = answer(other, path);
    const remove = () => page.evaluate((p) => quip.cache.remove(p).catch((e) => `${e.status}: ${e.message}`), path);
    await page.evaluate(async (path) => {
      while (!(await quip.cache.list()).some(({ url }) => url.endsWith(path))) await new Promise((resolve) => setTimeout(resolve, 10));
    }, path);
    assert.match(await remove(), /^io: .*is being downloaded or read/);
    open();
    assert.equal((await opening).text, text());
    assert.equal(await remove(), true);
    assert.equal(await remove(), false);
    assert.equal(await page.evaluate(() => quip.cache.remove({ sha256: "0".repeat(64) })), false);
    await other.close();
  });

  test("a download is cancelled and what came of it removed", async () => {
    const path = fresh({ trickles: [200000] });
    const removed = await page.evaluate(async (path) => {
      const stop = new AbortController();
      const onprogress = ({ loaded }) => loaded > 100000 && stop.abort();
      await quip.Model.open(path, { signal: stop.signal, onprogress }).catch(() => {});
      return quip.cache.remove(path).catch((e) => e.message);
    }, path);
    assert.equal(removed, true);
    assert.deepEqual(await filesOf(path), {});
  });

  test("what follows # in a URL is not part of its name", async () => {
    const path = fresh();
    await answer(page, `${path}#one`);
    assert.deepEqual((await answer(page, `${path}#two`)).phases, ["cache"]);
    assert.equal(await page.evaluate((p) => quip.cache.remove(p), `${path}#three`), true);
  });
});

