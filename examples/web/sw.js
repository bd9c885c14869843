/* sw.js: lets the page work without a network after the first visit. It stores the files of the page, and
 * uses them when the network fails. Models are stored elsewhere, by the package. */
const NAME = "quip-page-2";
const SCRIPTS = ["app.js", "address.js", "chat.js", "kept.js", "markdown.js", "progress.js", "settings.js"];
const LIBRARIES = ["lib/marked/marked.esm.js", "lib/dompurify/purify.min.js"];
const PAGE = ["./", "style.css", "icon.svg", "manifest.webmanifest", ...SCRIPTS, ...LIBRARIES];
const PACKAGE = ["index.js", "worker.js", "thread.js"].map((name) => "quip/" + name);

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(NAME).then((kept) => kept.addAll([...PAGE, ...PACKAGE])));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((n) => n !== NAME).map((n) => caches.delete(n))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

async function answer(request) {
  const kept = await caches.open(NAME);
  try {
    const response = await fetch(request);
    if (response.ok) await kept.put(request, response.clone());
    return response;
  } catch (error) {
    const found = await kept.match(request, { ignoreSearch: true });
    if (found) return found;
    throw error;
  }
}

/* A file that the page loaded before this worker started. */
self.addEventListener("message", (event) => {
  if (event.data.keep) event.waitUntil(caches.open(NAME).then((kept) => kept.add(event.data.keep)));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const isOurs = url.origin === location.origin && !url.pathname.includes("/models/");
  if (event.request.method === "GET" && isOurs && !event.request.headers.has("range")) event.respondWith(answer(event.request));
});
