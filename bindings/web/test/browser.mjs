/** browser.mjs: a browser and a web server for the tests of one file. CHROMIUM names the browser; default:
 * Debian's. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { DIST, makeFixtures, ROOT } from "./fixtures.mjs";
import { startServer } from "./server.mjs";

const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; script-src-elem 'self' 'unsafe-inline'";

export let browser, server, folder, fixtures;

/** Start them before the tests of a file, and end them after. `args` are for the browser. */
export function useBrowser(args = []) {
  before(async () => {
    fixtures = makeFixtures();
    folder = mkdtempSync(join(tmpdir(), "quip-web-"));
    writeFileSync(join(folder, "expected.json"), JSON.stringify({ ...fixtures }));
    const test = join(ROOT, "bindings/web/test");
    server = await startServer({ dist: DIST, test, fixtures: folder }, { "Content-Security-Policy": POLICY });
    const others = [...fixtures.golden, ...fixtures.embeddings].map(({ kind }) => kind);
    for (const kind of ["gemma3", "llama", "slow", "adapter", "gguf", ...others]) server.put(`/models/${kind}.bin`, fixtures.bytes(kind));
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--js-flags=--expose-gc", ...args],
    });
  });
  after(async () => {
    await browser?.close();
    server?.end();
    fixtures?.end();
    if (folder) rmSync(folder, { recursive: true });
  });
}

/** A page in `context`, or in a new one. */
export async function openPage({ isolated = false, context, origin = server.origin } = {}) {
  context ??= await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.on("pageerror", (error) => console.error("page:", error.message));
  await page.goto(`${origin}${isolated ? "/isolated" : ""}/test/page.html`);
  await page.waitForFunction(() => window.ready);
  return page;
}

/** In the page: open a model, answer a prompt and close it. Returns the text and the phases of progress, which
 * are in window.phases until then. */
export const answer = (page, url, options = {}) =>
  page.evaluate(
    async ([url, options, prompt]) => {
      const phases = (window.phases = []);
      const onprogress = ({ phase }) => phases.at(-1) === phase || phases.push(phase);
      const model = await quip.Model.open(url, { ...options, onprogress });
      const text = await model.session({ maxOutputTokens: 60, greedy: true }).say(prompt).text();
      await model.close();
      return { text, phases };
    },
    [url, options, fixtures.prompt],
  );

/** The ranges that were requested of a path. */
export const requests = (path) => server.log.filter((entry) => entry.path === path).map(({ range }) => range ?? "all");

/** The error of an open as `status: message`. */
export const failure = (page, url, options = {}) =>
  page.evaluate(
    ([url, options]) => quip.Model.open(url, options).then(() => "opened", (e) => `${e.status}: ${e.message}`),
    [url, options],
  );
