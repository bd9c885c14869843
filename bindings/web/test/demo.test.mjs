/** demo.test.mjs: the demo page of examples/web as a visitor uses it, with a tiny model instead of a real one. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { makeFixtures, ROOT } from "./fixtures.mjs";

let browser, server, folder, fixtures, origin;
const SERVE = join(ROOT, "examples/web/serve.mjs");
const serve = (...options) =>
  new Promise((resolve, reject) => {
    const program = spawn(process.execPath, [SERVE, "--port", "0", "--models", folder, ...options]);
    program.stdout.once("data", (text) => resolve([program, String(text).match(/http:\S+:\d+/)[0]]));
    program.once("exit", () => reject(new Error("the server ended")));
  });

before(async () => {
  fixtures = makeFixtures();
  folder = mkdtempSync(join(tmpdir(), "quip-demo-"));
  writeFileSync(join(folder, "smollm2-135m-int8.bin"), fixtures.bytes("gemma3"));
  writeFileSync(join(folder, "slow.bin"), fixtures.bytes("slow"));
  writeFileSync(join(folder, "broken.bin"), fixtures.bytes("gemma3").subarray(0, 5000));
  writeFileSync(join(folder, "page.bin"), "<!doctype html><title>Sign in</title>");
  writeFileSync(join(folder, "blocks.gguf"), fixtures.bytes("gguf"));
  [server, origin] = await serve();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  server?.kill();
  fixtures?.end();
  if (folder) rmSync(folder, { recursive: true });
});

/** A page with empty storage. Errors of its scripts are collected in page.errors. */
async function openPage(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  await page.goto(origin);
  return page;
}

async function say(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
  await page.waitForSelector("#stop", { state: "hidden" });
}

describe("the demo page", () => {
  test("a model, an answer, its measurements, a second turn, another model", async () => {
    const page = await openPage();
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".mine").textContent(), fixtures.prompt);
    assert.match(await page.locator(".figures").textContent(), /prompt tokens at \d+\/s/);
    await say(page, "and more");
    assert.equal(await page.locator(".theirs").count(), 2);
    await page.click("#settings-button");
    assert.match(await page.locator("#facts").textContent(), /gemma3/);
    await page.click("#other-model");
    await page.waitForSelector("#open:not([hidden])");
    assert.match(await page.locator("#stored-list").textContent(), /smollm2-135m-int8\.bin/);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("two settings side by side; the greedy answer is that of the native program", async () => {
    const page = await openPage();
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await page.click("#compare");
    await page.click("#settings-button");
    for (const field of await page.locator("input[name=maxOutputTokens]").all()) await field.fill("60");
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".pane").count(), 2);
    assert.equal(await page.locator(".theirs").first().textContent(), fixtures.expected.gemma3.greedy);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("stop keeps the text so far", async () => {
    const page = await openPage();
    await page.fill("#url", "models/slow.bin");
    await page.click("#url-form button");
    await page.waitForSelector("#composer:not([hidden])");
    await page.click("#settings-button");
    await page.fill("input[name=nContext]", "16384");
    await page.fill("input[name=maxOutputTokens]", "16000");
    await page.fill("#prompt", "the letters");
    await page.press("#prompt", "Enter");
    await page.click("#stop", { timeout: 5000 }).catch(() => {}); // or the model has ended by itself
    await page.waitForSelector("#send:not([hidden])");
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("a file that is not a model: the form shows the error", async () => {
    const page = await openPage();
    for (const [name, message] of [
      ["models/broken.bin", /broken\.bin: the flatbuffer is damaged/],
      ["models/nothing.bin", /nothing\.bin \(404\)/],
      ["models/page.bin", /page\.bin: is a web page/],
      ["models/blocks.gguf", /blocks\.gguf is a GGUF checkpoint.*quip convert/],
    ]) {
      await page.fill("#url", name);
      await page.click("#url-form button");
      await page.waitForFunction((text) => document.querySelector("#open:not([hidden]) #problem:not([hidden])")?.textContent.includes(text), name);
      assert.match(await page.locator("#problem").textContent(), message);
    }
    assert.deepEqual(await page.evaluate(async () => (await import("./quip/index.js")).cache.list()), []);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("with the keyboard only", async () => {
    const page = await openPage();
    const focused = () => page.evaluate(() => document.activeElement.id);
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    await page.focus("#url");
    await page.keyboard.type("models/nothing.bin");
    await press("Enter");
    await page.waitForSelector("#problem:not([hidden])");
    await page.waitForFunction(() => document.activeElement.id === "url");
    await press("Shift+Tab", "Shift+Tab");
    assert.equal(await focused(), "open-demo");
    await press("Enter");
    await page.waitForSelector("#composer:not([hidden])");
    await page.waitForFunction(() => document.activeElement.id === "prompt");
    await page.keyboard.type(fixtures.prompt);
    await press("Enter");
    await page.waitForSelector("#stop", { state: "hidden" });
    assert.equal(await page.getByRole("article", { name: "You" }).textContent(), fixtures.prompt);
    assert.equal(await page.getByRole("article", { name: "Answer" }).count(), 1);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("settings that fail are reported, and others then work", async () => {
    const page = await openPage();
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await page.click("#settings-button");
    await page.fill("input[name=nContext]", "2000000000");
    await say(page, fixtures.prompt);
    assert.match(await page.locator(".note").textContent(), /memory|context/);
    await page.fill("input[name=nContext]", "512");
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".theirs").count(), 1);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("offline after the first visit", async () => {
    const page = await openPage();
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await page.waitForFunction(async () => {
      const kept = await caches.keys().then((names) => Promise.all(names.map(async (name) => (await caches.open(name)).keys())));
      return kept.flat().some(({ url }) => url.endsWith(".wasm"));
    });
    await page.context().setOffline(true);
    await page.reload();
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await page.click("#ideas button");
    await page.waitForSelector("#stop", { state: "hidden" });
    assert.equal(await page.locator(".theirs").count(), 1);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("fits a phone, and works without the headers for threads", async () => {
    const [plain, address] = await serve("--no-isolation");
    const context = await browser.newContext({ viewport: { width: 360, height: 640 }, colorScheme: "dark" });
    const page = await context.newPage();
    await page.goto(address);
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    await say(page, fixtures.prompt);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    assert.equal(await page.locator(".theirs").count(), 1);
    await page.goto(`${address}/minimal/?model=/models/smollm2-135m-int8.bin`);
    await page.click("#ask");
    await page.waitForSelector("#ask:not([disabled])");
    assert.notEqual(await page.locator("#answer").textContent(), "");
    await context.close();
    plain.kill();
  });
});

describe("serve.mjs", () => {
  /** What it prints and its exit code. */
  const run = (...options) =>
    new Promise((resolve) => {
      const program = spawn(process.execPath, [SERVE, ...options]);
      let text = "";
      for (const stream of [program.stdout, program.stderr]) stream.on("data", (piece) => (text += piece));
      program.once("exit", (code) => resolve({ text, code }));
    });

  test("a port that is taken: one sentence, and a port that is free", async () => {
    const taken = new URL(origin).port;
    const { text, code } = await run("--port", taken);
    assert.match(text, new RegExp(`^serve\\.mjs: port ${taken} is used by another program; try --port \\d+\n$`));
    assert.equal(code, 1);
  });

  test("arguments that are wrong: one sentence", async () => {
    for (const [options, sentence] of [
      [["--port", "x"], '--port is "x"; must be 0 to 65535'],
      [["--port", "70000"], '--port is "70000"; must be 0 to 65535'],
      [["--port"], "option '--port <value>' argument missing; see --help"],
      [["--prot", "1"], "unknown option '--prot'; see --help"],
      [["8080"], "unexpected argument '8080'; see --help"],
      [["--models", "/no/such"], "--models: the folder /no/such does not exist"],
      [["--mount", "/a"], '--mount is "/a"; must be /PREFIX/=FOLDER'],
      [["--mount", "/a/=/no/such"], "--mount: the folder /no/such does not exist"],
    ])
      assert.deepEqual(await run(...options), { text: `serve.mjs: ${sentence}\n`, code: 1 });
    const help = await run("--help");
    assert.match(help.text, /^usage: node serve\.mjs/);
    assert.equal(help.code, 0);
  });
});
