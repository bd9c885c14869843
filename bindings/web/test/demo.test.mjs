/** demo.test.mjs: the demo page of examples/web as a visitor uses it, with a tiny model instead of a real one. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { makeFixtures, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

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

/** A context whose pages draw every answer with the seed 1. Of other seeds some draw an empty answer, which
 * the page takes back. */
async function newContext(options = {}) {
  const context = await browser.newContext(options);
  await context.addInitScript(() => (Crypto.prototype.getRandomValues = (array) => array.fill(1)));
  return context;
}

/** A page with empty storage. Errors of its scripts are collected in page.errors. */
async function openPage(options) {
  const context = await newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  await page.goto(origin);
  return page;
}

/** Begin with this in the storage, as if the tab was here before. */
async function openKept(kept, options = {}) {
  const page = await openPage(options);
  await page.goto(origin + "/icon.svg");
  await page.evaluate((text) => (localStorage["quip-chat"] = sessionStorage["quip-chat"] = text), typeof kept === "string" ? kept : JSON.stringify(kept));
  await page.goto(origin);
  return page;
}

/** A page with the demo model open. */
async function openChat(options) {
  const page = await openPage(options);
  await page.click("#open-demo");
  await page.waitForSelector("#composer:not([hidden])");
  return page;
}

async function end(page) {
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

async function say(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
  await page.waitForSelector("#stop", { state: "hidden" });
}

/** Fill in fields of the settings. */
async function set(page, values) {
  if (!(await page.locator("#settings").isVisible())) await page.click("#settings-button");
  const closed = page.locator("details:not([open]) summary");
  while (await closed.count()) await closed.first().click();
  for (const [name, value] of Object.entries(values))
    for (const field of await page.locator(`[name=${name}]`).all()) await field.fill(value);
}

/** The messages of the first conversation, as they are kept for a reload. */
const messages = (page) => page.evaluate(() => {
  dispatchEvent(new Event("pagehide"));
  return JSON.parse(sessionStorage["quip-chat"]).panes[0];
});

describe("the demo page", () => {
  test("what runs the model: a choice opens it again, and is kept; without a GPU there is a sentence", async () => {
    const page = await openChat();
    await say(page, fixtures.prompt);
    await page.click("#settings-button");
    assert.match(await page.locator("#facts").textContent(), /Runs onthe CPU: /);
    await page.selectOption("#backend", "cpu");
    await page.waitForSelector("#composer:not([hidden])");
    await page.waitForFunction(() => /Runs onthe CPUEngine/.test(document.querySelector("#facts").textContent));
    assert.equal(await page.locator(".theirs").count(), 1, "the chat goes on");
    await page.reload();
    await page.waitForSelector("#composer:not([hidden])");
    assert.equal(await page.inputValue("#backend"), "cpu");
    await page.click("#settings-button");
    await page.selectOption("#backend", "gpu");
    await page.waitForFunction(() => { // it runs on what it ran on before, and says why
      const [problem, settings, backend] = ["problem", "settings", "backend"].map((id) => document.getElementById(id));
      return !problem.hidden && /GPU/.test(problem.textContent) && settings.open && backend.value === "cpu";
    });
    assert.match(await page.locator("#facts").textContent(), /Runs onthe CPU/);
    await end(page);
  });

  test("a model, an answer, its measurements, a second turn, another model", async () => {
    const page = await openChat();
    await set(page, { maxOutputTokens: "30" });
    await page.click("#settings-close");
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".mine").textContent(), fixtures.prompt);
    assert.match(await page.locator(".figures").textContent(), /prompt tokens at \d+\/s/);
    await say(page, "and more");
    assert.equal(await page.locator(".theirs").count(), 2);
    await page.click("#settings-button");
    assert.match(await page.locator("#facts").textContent(), /gemma3/);
    await page.click("#other-model");
    await page.waitForSelector("#open:not([hidden])");
    await page.locator("#stored-list", { hasText: "smollm2-135m-int8.bin" }).waitFor(); // is read from the store
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    assert.equal(await page.locator(".theirs").count(), 2, "the chat goes on");
    await end(page);
  });

  test("two settings side by side; the greedy answer is that of the native program", async () => {
    const page = await openChat();
    await page.click("#settings-button");
    await page.check("#compare");
    await set(page, { maxOutputTokens: "60", temperature: "0" });
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".pane").count(), 2);
    assert.equal((await messages(page))[1].text, fixtures.expected.gemma3.greedy);
    await page.uncheck("#compare");
    assert.equal(await page.locator(".theirs").count(), 1, "the first conversation stays");
    await end(page);
  });

  test("stop keeps the text so far", async () => {
    const page = await openPage();
    await page.fill("#url", "models/slow.bin");
    await page.click("#url-form button");
    await page.waitForSelector("#composer:not([hidden])");
    await set(page, { nContext: "16384", maxOutputTokens: "16000" });
    await page.fill("#prompt", "the letters");
    await page.press("#prompt", "Enter");
    await page.click("#stop", { timeout: 5000 }).catch(() => {}); // or the model has ended by itself
    await page.waitForSelector("#send:not([hidden])");
    await end(page);
  });

  test("an engine that stops during an answer: the text stays, and the next message opens it again", async () => {
    const context = await newContext();
    await context.addInitScript(() => {
      const { Worker } = window;
      window.Worker = class extends Worker {
        constructor(...args) {
          super(...args);
          window.engine = this;
        }
      };
    });
    const page = await context.newPage();
    page.setDefaultTimeout(60000);
    await page.goto(origin);
    await page.fill("#url", "models/slow.bin");
    await page.click("#url-form button");
    await page.waitForSelector("#composer:not([hidden])");
    await set(page, { nContext: "16384", temperature: "0" });
    await page.fill("#prompt", "the letters");
    await page.press("#prompt", "Enter");
    await page.waitForSelector(".theirs p");
    await page.evaluate(() => window.engine.dispatchEvent(new ErrorEvent("error", { message: "out of luck" })));
    await page.waitForSelector("#stop", { state: "hidden" });
    assert.match(await page.locator(".note").textContent(), /^The answer broke off: .*out of luck/);
    assert.notEqual((await messages(page))[1].text, "");
    await set(page, { maxOutputTokens: "5" });
    await say(page, "and more");
    assert.equal(await page.locator(".theirs").count(), 2);
    await context.close();
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
      await page.waitForFunction((text) => document.querySelector("#open:not([hidden]) ~ #problem:not([hidden])")?.textContent.includes(text), name);
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
    const words = (text) => text.replaceAll(/\s+/g, "");
    const said = await page.locator(".said[aria-live]").textContent();
    assert.equal(words(said), words(await page.locator(".theirs").textContent()), "a screen reader gets the whole answer");
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("settings that fail are reported, and others then work", async () => {
    const page = await openChat();
    await set(page, { nContext: "2000000000" });
    await say(page, fixtures.prompt);
    assert.match(await (await page.waitForSelector(".notice")).textContent(), /memory|context/);
    assert.equal(await page.inputValue("#prompt"), fixtures.prompt);
    await set(page, { nContext: "512", temperature: "-1" });
    await page.press("#prompt", "Enter");
    assert.equal(await page.evaluate(() => document.activeElement.name), "temperature", "it is shown");
    await page.click(".reset");
    await set(page, { nContext: "512" });
    await say(page, fixtures.prompt);
    assert.equal(await page.locator(".theirs").count(), 1);
    await end(page);
  });

  test("no setting of the page replaces a default of the model", async () => {
    const page = await openPage();
    const options = await page.evaluate(async () => {
      const { Settings } = await import("./settings.js");
      return new Settings(document.body, "test").options();
    });
    assert.deepEqual(options, {});
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    const { sampling } = await page.evaluate(async () => {
      const { Model } = await import("./quip/index.js");
      const model = await Model.open("models/smollm2-135m-int8.bin");
      await model.close();
      return model.info;
    });
    for (const name of ["temperature", "topK", "topP", "repeatPenalty"])
      assert.equal(await page.getAttribute(`#settings [name=${name}]`, "placeholder"), String(sampling?.[name] ?? "default"));
    await end(page);
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
    await page.waitForSelector("#composer:not([hidden])");
    await page.locator("#suggestions button").first().evaluate((button) => button.click()); // hidden: a base model
    await page.waitForSelector(".theirs:not(.is-running)");
    assert.deepEqual(page.errors, []);
    await page.context().close();
  });

  test("a phone: the chat is in front, the settings are a drawer", async () => {
    const page = await openChat({ viewport: { width: 360, height: 640 }, hasTouch: true });
    await say(page, fixtures.prompt);
    for (const id of ["#prompt", "#send", "#new-chat", ".theirs"]) await page.locator(id).isVisible().then(assert.ok);
    await page.click("#settings-button");
    const drawer = await page.locator("#settings").boundingBox();
    assert.ok(drawer.x >= 40 && drawer.x + drawer.width <= 360, "the chat stays visible beside it");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#settings", { state: "hidden" });
    await page.click("#settings-button");
    await page.mouse.click(10, 300);
    await page.waitForSelector("#settings", { state: "hidden" });
    assert.equal(await page.getAttribute("#settings-button", "aria-expanded"), "false");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await end(page);
  });

  test("Markdown: growing text changes nothing that is finished, and ends as the whole text", async () => {
    const page = await openPage();
    const text = "# One\n\nText with **bold**, `code` and\n- a\n- b\n\n```js\nlet x = 1; // **no**\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. x\n2. y\n";
    const found = await page.evaluate(async (text) => {
      const { Markdown } = await import("./markdown.js");
      const [grown, whole] = [document.createElement("div"), document.createElement("div")];
      const view = new Markdown(grown);
      const seen = new Set();
      let first;
      for (let n = 1; n < text.length; n++) {
        view.update(text.slice(0, n), false);
        first ??= grown.querySelector("h3");
        for (const { localName } of grown.querySelectorAll("*")) seen.add(localName);
        if (/[*`]{2}/.test(grown.querySelectorAll("p")[0]?.textContent)) seen.add("marks");
      }
      view.update(text, true);
      new Markdown(whole).update(text, true);
      return { isSame: grown.innerHTML === whole.innerHTML, isKept: grown.querySelector("h3") === first, seen: [...seen], html: whole.innerHTML };
    }, text);
    assert.ok(found.isSame && found.isKept);
    assert.ok(!found.seen.includes("marks"), "marks of bold and code are never shown");
    assert.ok(!found.seen.includes("h4"), "a list is not taken for a heading");
    assert.match(found.html, /<h3>One<\/h3>.*<strong>bold<\/strong>.*<li>a<\/li>.*<pre.*let x = 1; \/\/ \*\*no\*\*.*<table>.*<ol>/s);
    await end(page);
  });

  test("Markdown: nothing in an answer runs, loads or leads astray", async () => {
    const page = await openPage();
    const text = [
      "<img src=x onerror=alert(1)> <script>alert(1)</script> a <b onclick=alert(1)>tag</b>",
      "<div style='position:fixed'>\n<iframe src='https://example.com'></iframe>\n</div>",
      "![picture](https://example.com/p.png) [bad](javascript:alert(1)) [bad](data:text/html,x) [good](https://example.com/)",
      "<https://example.com/a> <javascript:alert(1)>",
      "```html\n<img src=x onerror=alert(1)>\n```",
      "[ref]: javascript:alert(1)\n\n[ref]",
    ].join("\n\n");
    const found = await page.evaluate(async (text) => {
      const { Markdown } = await import("./markdown.js");
      const into = document.createElement("div");
      document.body.append(into);
      new Markdown(into).update(text, true);
      return {
        text: into.textContent,
        elements: [...new Set([...into.querySelectorAll("*")].map((e) => e.localName))],
        attributes: [...new Set([...into.querySelectorAll("*")].flatMap((e) => e.getAttributeNames()))],
        links: [...into.querySelectorAll("a[href]")].map((a) => [a.href, a.target, a.rel].join(" ")),
      };
    }, text);
    for (const name of ["img", "script", "iframe", "b"]) assert.ok(!found.elements.includes(name), name);
    assert.deepEqual(found.attributes.filter((name) => !["class", "href", "target", "rel", "tabindex", "type"].includes(name)), []);
    assert.deepEqual(new Set(found.links), new Set(["https://example.com/ _blank noopener noreferrer", "https://example.com/a _blank noopener noreferrer"]));
    assert.match(found.text, /<script>alert\(1\)<\/script> a <b onclick=alert\(1\)>tag<\/b>/, "tags are shown as text");
    await end(page);
  });

  test("a reload keeps the chat and opens the model again; New chat ends it", async () => {
    const panes = [[{ role: "user", text: "Add two numbers" }, { role: "model", text: "So:\n\n```python\nprint(1 + 2)\n```" }]];
    const page = await openKept({ model: null, panes, draft: "half a mess" }, { permissions: ["clipboard-read", "clipboard-write"] });
    assert.equal(await page.locator(".theirs pre").textContent(), "print(1 + 2)\n");
    await page.click(".copy");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "print(1 + 2)");
    await page.click("#resume-other");
    await page.click("#open-demo");
    await page.waitForSelector("#composer:not([hidden])");
    assert.equal(await page.inputValue("#prompt"), "half a mess");
    await say(page, fixtures.prompt);
    const before = await messages(page);
    assert.equal(before.length, 4);
    assert.ok(Number((await page.locator(".figures").textContent()).match(/^(\d+) prompt/)[1]) > 0);
    await page.reload();
    await page.waitForSelector("#composer:not([hidden])");
    assert.deepEqual(await messages(page), before);
    assert.equal(await page.locator(".mine").count(), 2);
    await page.click("#new-chat");
    assert.equal(await page.locator(".mine").count(), 0);
    await page.click("#undo");
    assert.equal(await page.locator(".mine").count(), 2);
    await page.click("#new-chat");
    await page.reload();
    await page.waitForSelector("#composer:not([hidden])");
    assert.deepEqual(await messages(page), []);
    await end(page);
  });

  test("a kept chat with a file, and storage with something else in it", async () => {
    const panes = [[{ role: "user", text: "Hello" }]];
    const page = await openKept({ model: { name: "my.bin", url: null }, panes });
    assert.equal(await page.locator("#resume-open").textContent(), "Pick my.bin again");
    await page.setInputFiles("#file", fixtures.path("gemma3"));
    await page.waitForSelector("#composer:not([hidden])");
    assert.equal(await page.locator(".mine").count(), 1);
    await end(page);
    for (const other of ["{", "null", '{"panes":[[{"role":"x"}]]}', '{"panes":3}']) {
      const fresh = await openKept(other);
      await fresh.waitForSelector("#open:not([hidden])");
      await end(fresh);
    }
  });

  test("a full context: a sentence, the message stays in the box, and there are ways on", async () => {
    const page = await openChat();
    await set(page, { nContext: "96", maxOutputTokens: "12" });
    let text;
    for (let i = 0; i < 20 && !(await page.locator(".notice").count()); i++) await say(page, (text = `${fixtures.prompt} ${i}`));
    assert.match(await page.locator(".notice").textContent(), /^The chat is now as long as the model can follow\. Your message is still in the box\./);
    assert.equal(await page.inputValue("#prompt"), text);
    const n = await page.locator(".mine").count();
    await page.click(".notice button:has-text('Forget')");
    await page.waitForFunction((n) => document.querySelectorAll(".mine").length === n && document.querySelector("#stop").hidden, n + 1);
    assert.equal(await page.inputValue("#prompt"), "");
    assert.equal(await page.locator(".divider").count(), 1);
    assert.ok((await page.locator(".is-forgotten").count()) > 0);
    await page.reload();
    await page.waitForSelector("#composer:not([hidden])");
    assert.equal(await page.locator(".divider").count(), 1, "also after a reload");
    await say(page, `${fixtures.prompt} `.repeat(100));
    assert.match(await page.locator(".notice").textContent(), /longer than the model can follow: of its 600 words, about \d+ fit/);
    await page.fill("#prompt", "short");
    await page.click("#new-chat");
    await page.press("#prompt", "Enter");
    await page.waitForSelector(".theirs");
    await end(page);
  });

  test("a model of another http server; what a page of https cannot load", async () => {
    const other = await startServer({});
    other.put("/m.bin", fixtures.bytes("gemma3"));
    const page = await openPage();
    await page.fill("#url", other.origin + "/m.bin");
    await page.click("#url-form button");
    await page.waitForSelector("#composer:not([hidden])");
    // some browsers apply the policy of the page to its workers, too
    assert.equal(await page.evaluate(async (url) => (await fetch(url)).status, other.origin + "/m.bin"), 200);
    await end(page);
    other.end();

    const secure = await (await newContext({ serviceWorkers: "block" })).newPage();
    secure.errors = [];
    await secure.route("https://quip.test/**", async (route) => {
      const { pathname } = new URL(route.request().url());
      await route.fulfill({ response: await route.fetch({ url: origin + pathname }) });
    });
    await secure.goto("https://quip.test/");
    for (const [text, sentence] of [
      ["http://example.com/m.bin", /this page came over https, and from such a page http is blocked; use an https:/],
      ["file:///models/m.bin", /cannot open a file by its path; pick the file/],
      ["C:\\models\\m.bin", /cannot open a file by its path/],
      ["ftp://example.com/m.bin", /ftp: address; use one that begins with https/],
      ["http://", /is not an address/],
    ]) {
      await secure.fill("#url", text);
      await secure.click("#url-form button");
      assert.match(await secure.locator("#problem").textContent(), sentence);
    }
    await end(secure);
  });

  test("a download: its size and speed, and it can be stopped", async () => {
    const other = await startServer({});
    other.put("/m.bin", fixtures.bytes("gemma3"), { pauseMs: 60 });
    const page = await openPage();
    await page.fill("#url", other.origin + "/m.bin");
    await page.click("#url-form button");
    await page.waitForFunction(() => /\/s, \d+ s left/.test(document.getElementById("speed").textContent));
    assert.match(await page.locator("#amount").textContent(), /^[\d.]+ [KM]B of [\d.]+ [KM]B$/);
    await page.click("#stop-loading");
    await page.waitForSelector("#open:not([hidden])");
    assert.match(await page.locator("#stored-list").textContent(), /m\.bin.* of .*goes on from there/);
    await end(page);
    other.end();
  });

  test("offline, a model that is not stored: the page says so", async () => {
    const page = await openPage();
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    await page.context().setOffline(true);
    await page.waitForSelector("#offline:not([hidden])");
    await page.fill("#url", "models/never.bin");
    await page.click("#url-form button");
    await page.waitForFunction(() => /^You are offline, and never\.bin is not stored/.test(document.getElementById("problem").textContent));
    await end(page);
  });

  test("fits a phone, and works without the headers for threads", async () => {
    const [plain, address] = await serve("--no-isolation");
    const context = await newContext({ viewport: { width: 360, height: 640 }, colorScheme: "dark" });
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
