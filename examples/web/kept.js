/* kept.js: the chat, kept over a reload, and what runs models. Each tab has its own chat; a new tab begins
 * with the last one. */
const KEY = "quip-chat";

const isMessage = (m) => (m?.role === "user" || m?.role === "model") && typeof m.text === "string";
const isChat = (c) => Array.isArray(c?.panes) && c.panes.length > 0 && c.panes.every((p) => Array.isArray(p) && p.every(isMessage));

/** { model: { name, url }, isOpen, isOpening, panes: [[message, …], …], draft }, or null. */
export function load() {
  for (const store of ["sessionStorage", "localStorage"])
    try {
      const chat = JSON.parse(window[store].getItem(KEY));
      if (isChat(chat)) return chat;
    } catch {} // no storage, or not ours
  return null;
}

export function save(chat) {
  for (const store of ["sessionStorage", "localStorage"])
    try {
      window[store].setItem(KEY, JSON.stringify(chat));
    } catch {} // no storage, or it is full: the chat is lost with the page
}

const BACKEND = "quip-backend";

/** What runs models: the visitor's choice, for all tabs. */
export function loadBackend() {
  try {
    const kept = localStorage.getItem(BACKEND);
    return ["cpu", "gpu"].includes(kept) ? kept : "auto";
  } catch {
    return "auto"; // no storage
  }
}

export function saveBackend(backend) {
  try {
    localStorage.setItem(BACKEND, backend);
  } catch {} // no storage: the choice is lost with the page
}
