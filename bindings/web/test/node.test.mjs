/** node.test.mjs: the package in Node: api.mjs with each build that runs here, and files over HTTP. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import * as quip from "../dist/node/index.js";
import { tests } from "./api.mjs";
import { DIST, makeFixtures, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

const fixtures = makeFixtures();
after(() => fixtures.end());
const env = (build) => ({
  ...fixtures,
  quip,
  build,
  source: fixtures.path,
  bytes: async (kind) => new Uint8Array(fixtures.bytes(kind)),
});

/* The builds that this Node runs correctly. */
const builds = [];
for (const build of ["simd", "relaxed", "simd-mt", "relaxed-mt", "simd-64", "relaxed-64", "simd-mt-64", "relaxed-mt-64"]) {
  const model = await quip.Model.open(fixtures.path("gemma3"), { build }).catch((error) => {
    assert.equal(error.status, "unsupported");
    return null;
  });
  if (model) builds.push(build);
  await model?.close();
}

for (const build of builds)
  describe(build, () => {
    for (const [name, run] of Object.entries(tests)) test(name, () => run(env(build)));
  });

describe("over HTTP", () => {
  const open = (url, options) => quip.Model.open(url, options);
  let server;
  before(async () => (server = await startServer({})));
  after(() => server.end());
  test("a download continues after its connection broke", async () => {
    const body = fixtures.bytes("gemma3");
    server.put("/m.bin", body, { cuts: [100000, 1, 300000] });
    const model = await open(`${server.origin}/m.bin`);
    assert.equal(await model.session({ maxOutputTokens: 60 }).say(fixtures.prompt).text(), fixtures.expected.gemma3.greedy);
    await model.close();
    const ranges = server.log.map(({ range }) => range);
    assert.deepEqual(ranges, [undefined, "bytes=100000-", "bytes=100001-", "bytes=400001-"]);
  });
  test("also if the server does not support ranges", async () => {
    server.put("/plain.bin", fixtures.bytes("gemma3"), { cuts: [100000], noRanges: true });
    await (await open(`${server.origin}/plain.bin`)).close();
  });
  test("also if the server does not send the length of the file", async () => {
    server.put("/unknown.bin", fixtures.bytes("gemma3"), { noLength: true });
    await (await open(`${server.origin}/unknown.bin`)).close();
  });
  test("but not with another version", async () => {
    const body = fixtures.bytes("gemma3");
    server.put("/changes.bin", body, { cuts: [100000] });
    const opening = open(`${server.origin}/changes.bin`);
    const timer = setInterval(() => {
      if (server.log.some(({ path }) => path === "/changes.bin")) server.models.get("/changes.bin").etag = '"other"';
    }, 10);
    await assert.rejects(opening, { status: "io", message: /changed/ });
    clearInterval(timer);
  });
  test("a connection that sends nothing more is replaced", async () => {
    server.put("/stalls.bin", fixtures.bytes("gemma3"), { stalls: [100000] });
    await (await open(`${server.origin}/stalls.bin`)).close();
    const ranges = server.log.filter(({ path }) => path === "/stalls.bin").map(({ range }) => range);
    assert.deepEqual(ranges, [undefined, "bytes=100000-"]);
  });
  test("a missing file is an error that names it", async () => {
    await assert.rejects(open(`${server.origin}/absent.bin`), { status: "io", message: /absent\.bin \(404\)/ });
    await assert.rejects(open("no/such/file.bin"), { status: "io", message: /file\.bin/ });
  });
  test("a download is cancelled", async () => {
    server.put("/slow.bin", fixtures.bytes("gemma3"), { pauseMs: 20 });
    const signal = AbortSignal.timeout(100);
    await assert.rejects(open(`${server.origin}/slow.bin`, { signal }), { name: "TimeoutError" });
  });
  test("check() reads only the beginning", async () => {
    server.log.length = 0;
    server.put("/large.bin", fixtures.bytes("slow"));
    const fit = await quip.Model.check(`${server.origin}/large.bin`);
    assert.equal(fit.fits, true);
    assert.deepEqual(server.log.map(({ range }) => range), ["bytes=0-0", "bytes=0-1048575"]);
  });
});

test("files that are too large for 32-bit memory use 64-bit memory, if there is any", async () => {
  const path = fixtures.path("sparse");
  copyFileSync(fixtures.path("gemma3"), path);
  const check = (bytes, build) => (truncateSync(path, bytes), quip.Model.check(path, { nContext: 100, build }));
  const has64 = builds.includes("simd-64");
  assert.equal((await check(5e9)).fits, has64);
  assert.match((await check(5e9, "simd")).reason, /needs 5\.\d+ GB of memory; a page can use only 4 GB/);
  assert.match((await check(20e9)).reason, has64 ? /a page can use only 16 GB/ : /a page can use only 4 GB/);
  await assert.rejects(quip.Model.open(path), {
    status: "unsupported",
    message: has64 ? /sparse\.bin has 20\.00 GB, but a page can use only 16 GB/ : /only 4 GB/,
  });
});

test("a bundler finds every file by its name", () => {
  for (const script of ["index.js", "worker.js"]) {
    const urls = readFileSync(join(DIST, script), "utf8").matchAll(/new URL\(([^()]*),\s*import\.meta\.url\)/g);
    for (const [, name] of urls) assert.ok(existsSync(join(DIST, JSON.parse(name))), name);
  }
});

test("the types fit a strict program", () => {
  const compiler = join(ROOT, "bindings/web/node_modules/typescript/bin/tsc");
  execFileSync(process.execPath, [compiler, "-p", join(ROOT, "bindings/web/test")], { stdio: ["ignore", 2, "inherit"] });
});

test("a page downloads less than 300 KB", () => {
  const bytes = (name) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length;
  const modules = readdirSync(DIST).filter((name) => name.endsWith(".wasm")).map(bytes);
  const scripts = ["index.js", "worker.js", "thread.js"].map(bytes).reduce((a, b) => a + b);
  assert.ok(scripts + Math.max(...modules) < 300000);
});
