/* app.js: the page: choose a model, load it, talk to it. */
import { cache, Model } from "./quip/index.js";
import { Chat } from "./chat.js";
import { Settings } from "./settings.js";

const DEMO = "models/smollm2-135m-int8.bin";
const $ = (id) => document.getElementById(id);
const show = (id, isShown) => ($(id).hidden = !isShown);

let model = null;
let settings = [];
let chats = [];
let running = null; // AbortController of the answers that are generated
let loading = null; // AbortController of the model that is loaded

const size = (n) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(0)} MB` : `${(n / 1e3).toFixed(0)} KB`;

function showProblem(text) {
  $("problem").textContent = text;
  show("problem", text);
}

/* ---- opening ---- */

const PHASES = {
  waiting: "Another tab is downloading it",
  download: "Downloading",
  cache: "Reading from this browser's storage",
  open: "Opening",
};

function showProgress(name, started, { phase, loaded, total }) {
  $("phase").textContent = `${PHASES[phase] ?? phase}: ${name}`;
  const bar = $("progress");
  if (total) {
    bar.max = total;
    bar.value = loaded;
  } else {
    bar.removeAttribute("value");
  }
  const seconds = (performance.now() - started) / 1000;
  const speed = phase === "download" && seconds > 0.5 ? `, ${size(loaded / seconds)}/s` : "";
  $("amount").textContent = loaded ? `${size(loaded)}${total ? ` of ${size(total)}` : ""}${speed}` : "";
}

async function open(source, name) {
  loading = new AbortController();
  const started = performance.now();
  const chosen = document.activeElement; // gets the focus back if opening fails
  showProblem("");
  show("open", false);
  show("loading", true);
  $("stop-loading").focus();
  showProgress(name, started, { phase: "open", loaded: 0, total: 0 });
  try {
    if (typeof source === "string") {
      const fit = await Model.check(source, { signal: loading.signal }).catch((error) => {
        if (error.status !== "io") throw error; // not a model: download nothing
      });
      if (fit && !fit.fits) throw new Error(fit.reason); // offline there is no fit: the store may have the file
    }
    model = await Model.open(source, { signal: loading.signal, onprogress: (p) => showProgress(name, started, p) });
    await begin(name, performance.now() - started);
  } catch (error) {
    show("open", true);
    if (!loading.signal.aborted) showProblem(error.message);
    await listStored();
    if (chosen.isConnected) chosen.focus();
    else $("open-demo").focus(); // it was in the list, which is new now
  } finally {
    loading = null;
    show("loading", false);
  }
}

async function listStored() {
  const stored = await cache.list().catch(() => []);
  show("stored", stored.length);
  $("stored-list").replaceChildren(
    ...stored.map((m) => {
      const item = document.createElement("li");
      const use = document.createElement("button");
      const name = decodeURIComponent(new URL(m.url).pathname.split("/").pop());
      use.type = "button";
      use.textContent = `${name}, ${size(m.bytes)}${m.isComplete ? "" : ` of ${size(m.totalBytes)}`}`;
      use.addEventListener("click", () => open(m.url, name));
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Remove";
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.addEventListener("click", async () => {
        await cache.remove(m.sha256 ? { sha256: m.sha256 } : m.url);
        await listStored();
      });
      item.append(use, remove);
      return item;
    }),
  );
}

/* ---- talking ---- */

async function begin(name, ms) {
  const { info, build } = model;
  $("model-name").textContent = `${name} · ${info.weights}`;
  const facts = {
    Model: `${info.architecture}, ${Math.round(info.parameters / 1e6)} million parameters`,
    Weights: `${info.weights}, ${size(info.fileBytes)}`,
    "Ready after": `${(ms / 1000).toFixed(2)} s`,
    Engine: build.replace("-mt", ", threads").replace("relaxed", "relaxed SIMD").replace("simd", "SIMD"),
    Memory: size(await model.memory()),
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([key, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = key;
      dd.textContent = value;
      if (key === "Memory") dd.id = "memory";
      return [dt, dd];
    }),
  );
  for (const id of ["compare", "new-chat", "other-model"]) $(id).disabled = false;
  for (const s of settings) s.element.querySelector(".adapter").hidden = !model.loadAdapter;
  arrange(false);
  for (const id of ["panes", "composer", "ideas"]) show(id, true);
  $("prompt").focus();
  const keep = new URL(`quip/quip-${build}.wasm`, location).href; // loaded before the service worker started
  navigator.serviceWorker?.ready.then(({ active }) => active.postMessage({ keep }));
}

/** One conversation, or two side by side. */
function arrange(isComparing) {
  const kinds = isComparing ? [["First", {}], ["Second", { temperature: 0.8 }]] : [["Settings", {}]];
  for (const old of [...chats, ...settings]) old.remove();
  settings = kinds.map(([name, defaults]) => new Settings($("settings-panes"), name, defaults));
  for (const s of settings) s.element.querySelector(".adapter").hidden = !model?.loadAdapter;
  chats = model ? settings.map((s) => new Chat($("panes"), model, s)) : [];
  $("panes").classList.toggle("is-comparing", isComparing);
  $("compare").setAttribute("aria-pressed", isComparing);
}

async function say() {
  const text = $("prompt").value.trim();
  if (!text || running || !settings.every((s) => s.isValid())) return;
  running = new AbortController();
  $("prompt").value = "";
  show("ideas", false);
  show("send", false);
  show("stop", true);
  for (const id of ["compare", "new-chat", "other-model"]) $(id).disabled = true;
  try {
    // one after the other: each has the whole machine, so their speeds can be compared
    for (const chat of chats) if (!running.signal.aborted) await chat.say(text, running.signal);
    if (model) $("memory").textContent = size(await model.memory());
  } finally {
    running = null;
    show("send", true);
    show("stop", false);
    for (const id of ["compare", "new-chat", "other-model"]) $(id).disabled = false;
    $("prompt").focus();
  }
}

async function leave() {
  for (const chat of chats.splice(0)) await chat.remove();
  await model?.close();
  model = null;
  $("model-name").textContent = "no model yet";
  $("facts").replaceChildren();
  for (const id of ["compare", "new-chat", "other-model"]) $(id).disabled = true;
  for (const id of ["panes", "composer", "ideas"]) show(id, false);
  show("open", true);
  await listStored();
}

/* ---- events ---- */

function showSettings(isShown) {
  show("settings", isShown);
  $("settings-button").setAttribute("aria-expanded", isShown);
  if (isShown) $("settings").querySelector("input").focus();
  else $("settings-button").focus();
}

$("open-demo").addEventListener("click", () => open(DEMO, "SmolLM2 135M"));
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) open(file, file.name);
});
$("url-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("url").value.trim();
  if (text) open(new URL(text, location).href, text.split("/").pop());
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("is-over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, () => document.body.classList.remove("is-over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (!file || loading) return;
  running?.abort();
  if (model) await leave();
  open(file, file.name);
});
$("stop-loading").addEventListener("click", () => loading?.abort());
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});
$("ideas").addEventListener("click", (event) => {
  if (event.target.type !== "button") return;
  $("prompt").value = event.target.textContent;
  say();
});
$("stop").addEventListener("click", () => running?.abort());
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running ?? loading) (running ?? loading).abort();
  else if (!$("settings").hidden) showSettings(false);
});
$("compare").addEventListener("click", () => arrange(chats.length === 1));
$("new-chat").addEventListener("click", async () => {
  for (const chat of chats) await chat.reset();
  show("ideas", true);
  $("prompt").focus();
});
$("other-model").addEventListener("click", leave);
$("settings-button").addEventListener("click", () => showSettings($("settings").hidden));
$("settings-close").addEventListener("click", () => showSettings(false));

arrange(false);
listStored();
navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it the page works online only
