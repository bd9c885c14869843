/* app.js: the page: choose a model, load it, talk to it. */
import { cache, Model } from "./quip/index.js";
import { nameOf, readAddress } from "./address.js";
import { Chat } from "./chat.js";
import { load, loadBackend, save, saveBackend } from "./kept.js";
import { copyCode } from "./markdown.js";
import { Progress, size } from "./progress.js";
import { Settings } from "./settings.js";

const DEMO = { name: "SmolLM2 135M", url: new URL("models/smollm2-135m-int8.bin", location).href };
const CHAT = "A small model is best at short, simple requests. It makes mistakes: check what matters.";
const BASE = "This is a base model: it does not answer, it continues your text.";
const $ = (id) => document.getElementById(id);
const show = (id, isShown) => ($(id).hidden = !isShown);

let model = null;
let opened = null; // the address or file that is open
let source = null; // { name, url } of the model that is open, or that the kept chat was with; url null: a file
let settings = [];
let chats = [];
let removed = null; // the messages that "New chat" removed
let running = null; // AbortController of the answers that are generated
let loading = null; // AbortController of the model that is loaded
let isChoosing = false; // the visitor wants another model for the chat

const isTouched = matchMedia("(pointer: coarse)"); // focusing the text box would open the keyboard
const isNarrow = matchMedia("(max-width: 60rem)");

/* ---- what is visible ---- */

function update() {
  const isEmpty = chats.every((chat) => chat.isEmpty) && !running;
  const isResuming = !model && !isEmpty && !isChoosing;
  show("open", !model && !loading && !isResuming);
  show("loading", loading);
  show("resume", isResuming && !loading);
  const werePanesHidden = $("panes").hidden;
  show("panes", model || isResuming);
  show("ideas", model && isEmpty);
  show("composer", model);
  show("send", !running);
  show("stop", running);
  show("new-chat", !isEmpty && !isChoosing);
  show("undo", removed);
  show("suggestions", model?.info.hasTemplate);
  $("advice").textContent = model && !model.info.hasTemplate ? BASE : CHAT;
  show("with-chat", !isEmpty);
  show("other-model", model);
  $("panes").classList.toggle("is-comparing", chats.length > 1);
  $("panes").classList.toggle("is-empty", isEmpty);
  if (werePanesHidden) for (const chat of chats) chat.scrollToEnd();
  $("compare").checked = chats.length > 1;
  for (const id of ["compare", "new-chat", "other-model", "backend"]) $(id).disabled = !!running || !!loading;
  $("model-name").textContent = model ? source.name : "";
  for (const element of document.querySelectorAll(".source-name")) element.textContent = source?.name ?? "the model";
  $("resume-open").textContent = source?.url ? `Open ${source.name}` : `Pick ${source?.name ?? "a model"} again`;
}

function showProblem(text) {
  $("problem").textContent = text;
  show("problem", text);
}

function focusPrompt() {
  if (!isTouched.matches) $("prompt").focus();
}

/* ---- opening a model ---- */

/** A sentence on an error of loading. */
function explain(error, url) {
  if (error.status === "io" && url && !navigator.onLine)
    return `You are offline, and ${nameOf(url)} is not stored in this browser; connect once to download it`;
  if (url && error.message.endsWith("(404)")) return `There is no file at ${url} (404)`;
  return error.message;
}

/** `what` is an address or a file. */
async function open(what, name) {
  if (loading) return;
  const url = typeof what === "string" ? what : null;
  const { signal } = (loading = new AbortController());
  const progress = new Progress(name);
  const chosen = document.activeElement; // gets the focus back if opening fails
  showProblem("");
  update();
  keep();
  $("stop-loading").focus();
  try {
    if (url) {
      const fit = await Model.check(url, { signal }).catch((error) => {
        if (error.status !== "io") throw error; // not a model: download nothing
      });
      if (fit && !fit.fits) throw new Error(fit.reason); // offline there is no fit: the store may have the file
    }
    model = await Model.open(what, { signal, backend: $("backend").value, onprogress: (p) => progress.show(p) });
    if (model.info.isEmbedding) throw new Error(`${name} makes embeddings; it cannot chat`);
    opened = what;
    source = { name, url };
    isChoosing = false;
    useModel();
    await showFacts(progress.seconds);
  } catch (error) {
    await model?.close();
    model = null;
    if (!signal.aborted) showProblem(explain(error, url));
    await listStored();
  } finally {
    loading = null;
    update();
    if (model) focusPrompt();
    else if (chosen.isConnected && chosen.getClientRects().length) chosen.focus();
    else $(isChoosing || !$("open").hidden ? "open-demo" : "resume-open").focus(); // it was in the list, which is new now
    changed();
  }
}

async function listStored() {
  const stored = await cache.list().catch(() => []);
  const isHere = stored.some((m) => m.url === DEMO.url && m.isComplete);
  $("demo-hint").textContent = isHere ? "stored in this browser: opens at once" : "small and fast, 137 MB to download once";
  show("stored", stored.length);
  $("stored-list").replaceChildren(
    ...stored.map((m) => {
      const item = document.createElement("li");
      const name = nameOf(m.url);
      const use = document.createElement("button");
      use.type = "button";
      use.append(name);
      const amount = document.createElement("span");
      amount.className = "quiet";
      amount.textContent = m.isComplete ? size(m.bytes) : `${size(m.bytes)} of ${size(m.totalBytes)}, goes on from there`;
      use.append(amount);
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
  return stored;
}

async function showFacts(seconds) {
  const { info, build } = model;
  const facts = {
    Model: `${info.architecture}, ${Math.round(info.parameters / 1e6)} million parameters`,
    Weights: `${info.weights}, ${size(info.fileBytes)}`,
    "Ready after": `${seconds.toFixed(2)} s`,
    "Runs on": [info.backend === "gpu" ? "the GPU" : "the CPU", info.backendReason].filter(Boolean).join(": "),
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
  const keep = new URL(`quip/quip-${build}.wasm`, location).href; // loaded before the service worker started
  navigator.serviceWorker?.ready.then(({ active }) => active.postMessage({ keep }));
}

/** Close the model to choose another one. The chat stays. */
async function leave() {
  running?.abort();
  const old = model;
  model = null;
  isChoosing = true;
  showSettings(false);
  update();
  for (const chat of chats) await chat.close();
  await old?.close();
  $("facts").replaceChildren();
  await listStored();
  $("open-demo").focus();
}

/* ---- talking ---- */

const page = { changed, newChat, forget, showSettings: () => showSettings(true) };

/** One conversation, or two side by side, with these messages. */
async function arrange(panes) {
  const names = panes.length > 1 ? ["First", "Second"] : ["Settings"];
  for (const old of [...chats, ...settings]) void old.remove();
  settings = names.map((name) => new Settings($("settings-panes"), name));
  chats = settings.map((s) => new Chat($("panes"), s, page));
  useModel();
  await Promise.all(chats.map((chat, i) => chat.show(panes[i])));
  update();
}

function useModel() {
  for (const chat of chats) chat.model = model;
  if (model) for (const s of settings) s.showDefaults(model.info);
}

async function say(targets = chats) {
  const text = $("prompt").value.trim();
  if (!text || running || !model) return;
  const wrong = settings.find((s) => !s.isValid());
  if (wrong) {
    showSettings(true);
    return wrong.report();
  }
  running = new AbortController();
  removed = null;
  setPrompt("");
  update();
  try {
    let nSent = 0;
    // one after the other: each has the whole machine, so their speeds can be compared
    for (const chat of targets) if (!running.signal.aborted) nSent += await chat.say(text, running.signal);
    if (!nSent) setPrompt([text, $("prompt").value].filter(Boolean).join("\n")); // with what was typed since then
    if (model) $("memory").textContent = size(await model.memory());
  } finally {
    running = null;
    update();
    focusPrompt();
    changed();
  }
}

/** Continue a conversation whose context is full, and send the message that did not fit. */
async function forget(chat) {
  const { unsent } = chat;
  if (unsent && !$("prompt").value.trim()) setPrompt(unsent);
  await chat.forgetOldest(unsent ? $("prompt").value.trim() : "");
  const hasAnswer = (other) => other !== chat && !other.unsent;
  if (unsent) await say(chats.some(hasAnswer) ? [chat] : chats);
  else focusPrompt();
}

async function newChat() {
  if (running) return;
  removed = chats.some((chat) => chat.messages.length) ? chats.map((chat) => chat.messages) : null;
  for (const chat of chats) await chat.show([]);
  isChoosing = false;
  showProblem("");
  update();
  focusPrompt();
  changed();
}

function setPrompt(text) {
  $("prompt").value = text;
  fitPrompt();
}

/** As high as its text, where CSS cannot do that. */
function fitPrompt() {
  if (CSS.supports("field-sizing", "content")) return;
  $("prompt").style.height = "auto";
  $("prompt").style.height = `${$("prompt").scrollHeight + 2}px`;
}

let timer = 0;
/** Keep the chat soon. */
function changed() {
  timer ||= setTimeout(keep, 300);
}

function keep() {
  clearTimeout(timer);
  timer = 0;
  const panes = chats.map((chat) => chat.messages);
  save({ model: source, isOpen: !!model, isOpening: !!loading, panes, draft: $("prompt").value });
}

/* ---- settings: beside the chat, or over it on a narrow screen ---- */

function showSettings(isShown) {
  const panel = $("settings");
  if (isShown === panel.open) return;
  if (!isShown) panel.close();
  else if (isNarrow.matches) panel.showModal();
  else panel.show();
  $("settings-button").setAttribute("aria-expanded", isShown);
}

/* ---- events ---- */

/** Open the model again, on what was chosen, or on what it ran on if that fails. The chat and the settings stay. */
$("backend").addEventListener("change", async () => {
  const [before, wereSettingsShown] = [loadBackend(), $("settings").open];
  saveBackend($("backend").value);
  if (!model) return;
  await leave();
  await open(opened, source.name);
  const problem = $("problem").textContent;
  if (!model && problem) {
    saveBackend(($("backend").value = before));
    await open(opened, source.name);
    showProblem(problem);
  }
  if (model && wereSettingsShown) showSettings(true);
});
$("open-demo").addEventListener("click", () => open(DEMO.url, DEMO.name));
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) open(file, file.name);
});
$("url-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("url").value.trim();
  if (!text) return;
  try {
    const { url, name } = readAddress(text);
    open(url, name);
  } catch (error) {
    showProblem(error.message);
  }
});
$("resume-open").addEventListener("click", () => (source?.url ? open(source.url, source.name) : $("file").click()));
$("resume-other").addEventListener("click", leave);
$("stop-loading").addEventListener("click", () => loading?.abort());

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("is-over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, () => document.body.classList.remove("is-over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (!file || loading) return;
  if (model) await leave();
  open(file, file.name);
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});
$("prompt").addEventListener("input", () => {
  fitPrompt();
  changed();
});
$("suggestions").addEventListener("click", (event) => {
  if (event.target.type !== "button") return;
  setPrompt(event.target.textContent);
  say();
});
$("panes").addEventListener("click", (event) => {
  if (event.target.className === "copy") copyCode(event.target);
});
$("stop").addEventListener("click", () => running?.abort());
$("new-chat").addEventListener("click", newChat);
$("undo").addEventListener("click", async () => {
  const panes = removed;
  removed = null;
  await arrange(panes);
  changed();
});

$("settings-button").addEventListener("click", () => showSettings(!$("settings").open));
$("settings-close").addEventListener("click", () => showSettings(false));
$("settings").addEventListener("close", () => $("settings-button").setAttribute("aria-expanded", false));
$("settings").addEventListener("click", (event) => {
  if (event.target === $("settings")) showSettings(false); // beside the panel
});
isNarrow.addEventListener("change", () => showSettings(false));
$("compare").addEventListener("change", async () => {
  const { messages } = chats[0];
  await arrange($("compare").checked ? [messages, messages.map((message) => ({ ...message }))] : [messages]);
  changed();
});
$("other-model").addEventListener("click", leave);

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if ($("settings").open) showSettings(false);
  else (running ?? loading)?.abort();
});
addEventListener("pagehide", keep);
for (const name of ["online", "offline"]) addEventListener(name, () => show("offline", !navigator.onLine));

/* ---- start ---- */

$("backend").value = loadBackend();
const kept = load();
source = kept?.model ?? null;
show("offline", !navigator.onLine);
await arrange(kept?.panes ?? [[]]);
setPrompt(kept?.draft ?? "");
const stored = await listStored();
const isStored = stored.some((m) => m.url === source?.url && m.isComplete);
// a model that ended the page while it was opened is not opened again without being asked for
if (isStored && !kept.isOpening && (kept.isOpen || !$("resume").hidden)) open(source.url, source.name);
navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it the page works online only
