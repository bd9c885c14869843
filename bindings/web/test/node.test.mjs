/** node.test.mjs: the package in Node: api.mjs with each build that runs here, and files over HTTP. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
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
    assert.equal(await model.session({ maxOutputTokens: 60, greedy: true }).say(fixtures.prompt).text(), fixtures.expected.gemma3.greedy);
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
    server.put("/large.bin", fixtures.bytes("slow"));
    const fit = await quip.Model.check(`${server.origin}/large.bin`);
    assert.equal(fit.fits, true);
    const ranges = server.log.filter(({ path }) => path === "/large.bin").map(({ range }) => range);
    assert.deepEqual(ranges, ["bytes=0-0", "bytes=0-1048575"]);
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

/* Without the GPU backend it was 292.5 KB (docs/notes/gpu.md); at most 60 KB are for that. */
test("a page downloads less than 353 KB", () => {
  const bytes = (name) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length;
  const modules = readdirSync(DIST).filter((name) => name.endsWith(".wasm")).map(bytes);
  const scripts = ["index.js", "worker.js", "thread.js"].map(bytes).reduce((a, b) => a + b);
  assert.ok(scripts + Math.max(...modules) < 353000);
});

test("a folder, a device and a URL of no file are errors that name them", async () => {
  const error = (status, message) => ({ name: "QuipError", status, message });
  for (const call of ["open", "check"]) {
    await assert.rejects(quip.Model[call](fixtures.path("gemma3") + "/x"), error("io", /cannot be opened/));
    await assert.rejects(quip.Model[call](ROOT), error("io", /is a folder; expected a model file$/));
    await assert.rejects(quip.Model[call]("/dev/null"), error("io", /^\/dev\/null is not a file; expected a model file$/));
    await assert.rejects(quip.Model[call](""), error("argument", /empty text/));
    await assert.rejects(quip.Model[call]("file://elsewhere/model.bin"), error("argument", /is not the URL of a file/));
  }
});

/** Run a program that imports the package. Returns what it prints. */
const runProgram = (source, options = {}) =>
  execFileSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8", timeout: 60000, ...options });
const PACKAGE = JSON.stringify(join(DIST, "node/index.js"));

test("a program that closes nothing ends by itself", () => {
  for (const build of builds.filter((name) => /^simd(-mt)?$/.test(name))) {
    const open = `const { Model } = await import(${PACKAGE}); const model = await Model.open(${JSON.stringify(fixtures.path("gemma3"))}, { build: "${build}" });`;
    assert.equal(runProgram(`${open} console.log((await model.session({ maxOutputTokens: 5, greedy: true }).say("the").text()).length > 0);`), "true\n");
    // a call that runs keeps the program alive, also if the program does not wait for it
    assert.equal(runProgram(`${open} void model.session({ maxOutputTokens: 5 }).say("the").text().then(() => console.log("end"));`), "end\n");
  }
});

test("a program without a browser's objects: there is no store", () => {
  const source = `delete globalThis.navigator; const { cache } = await import(${PACKAGE});
    console.log(JSON.stringify([await cache.list(), await cache.remove("x"), await cache.clear(), await cache.quota(), await cache.persist()]));`;
  assert.equal(runProgram(source).trim(), '[[],false,null,{"usedBytes":0,"totalBytes":0},false]');
});

test("sessions that were dropped are freed", async () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  const model = await quip.Model.open(fixtures.path("slow"), { build: "simd" });
  for (let i = 0; i < 60; i++) {
    await model.session({ nContext: 20000, maxOutputTokens: 1 }).say("the").text(); // 90 MB; a module has at most 4 GB
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  gc(); // not the one that still runs
  const [text] = await Promise.all([model.session({ maxOutputTokens: 60, greedy: true }).say("the").text(), new Promise((resolve) => setTimeout(() => resolve(gc()), 20))]);
  assert.ok(text.length > 0);
  await model.close();
});

test("scripts and modules of two releases do not run together", async () => {
  const folder = mkdtempSync(join(tmpdir(), "quip-release-"));
  cpSync(DIST, folder, { recursive: true });
  const open = (build) => quip.Model.open(fixtures.path("gemma3"), { baseUrl: join(folder, "node"), build });
  await (await open("simd")).close();
  const module = join(folder, "quip-simd.wasm");
  writeFileSync(module, readFileSync(module, "latin1").replace("quip_web_abi", "quip_web_old"), "latin1");
  await assert.rejects(open("simd"), { name: "QuipError", status: "io", message: /quip-simd\.wasm is of another release/ });
  const script = join(folder, "node/worker.js");
  const release = /release = "(\w{12})"/.exec(readFileSync(script, "utf8"))[1];
  writeFileSync(script, readFileSync(script, "utf8").replace(release, "0123456789ab"));
  await assert.rejects(open("simd"), { name: "QuipError", status: "io", message: /worker\.js and index\.js are of two releases/ });
  rmSync(folder, { recursive: true });
});

test("a package that was built is installed in an app", () => {
  const app = mkdtempSync(join(tmpdir(), "quip-app-"));
  const npm = (...args) => execFileSync("npm", args, { cwd: app, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  writeFileSync(join(app, "package.json"), '{ "name": "app", "private": true }');
  const file = npm("pack", "--silent", "--ignore-scripts", join(ROOT, "bindings/web")).trim();
  npm("install", "--silent", "--offline", "--no-audit", "--no-fund", `./${file}`);
  const source = `import { Model } from "quip-llm"; const model = await Model.open(${JSON.stringify(fixtures.path("gemma3"))}); console.log(model.info.architecture);`;
  assert.equal(runProgram(source, { cwd: app }), "gemma3\n");
  rmSync(app, { recursive: true });
});
