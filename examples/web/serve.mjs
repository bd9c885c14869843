/* serve.mjs: a static server for the demo, with ranges, validators and the two headers that isolate the
 * page, so that it has threads.
 *   node serve.mjs [--port N] [--models FOLDER] [--mount /PREFIX/=FOLDER]... [--no-isolation]
 *   /          this folder          /quip/     the package's dist
 *   /models/   model files of FOLDER */
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = fileURLToPath(new URL(".", import.meta.url));
const { values } = parseArgs({
  options: {
    port: { type: "string", default: "8080" },
    models: { type: "string", default: join(here, "models") },
    mount: { type: "string", multiple: true, default: [] },
    "no-isolation": { type: "boolean", default: false },
  },
});
const FOLDERS = [
  ...values.mount.map((text) => text.split("=")).map(([prefix, folder]) => [prefix, resolve(folder)]),
  ["/quip/", resolve(here, "../../bindings/web/dist")],
  ["/models/", resolve(values.models)],
  ["/", here],
];
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};
const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

function find(path) {
  const [prefix, folder] = FOLDERS.find(([p]) => path.startsWith(p));
  const name = normalize(decodeURIComponent(path.slice(prefix.length))) || ".";
  if (name.startsWith("..") || name.includes("\0")) return null;
  const file = join(folder, name === "." || path.endsWith("/") ? join(name, "index.html") : name);
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat?.isFile() ? { file, stat } : null;
}

/** [first, last] of "bytes=first-last"; null: no range, or one that is not valid. */
function rangeOf(header, size) {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(header ?? "") ?? [];
  if (first === undefined || +first >= size) return null;
  return [+first, last ? Math.min(+last, size - 1) : size - 1];
}

const server = createServer((request, response) => {
  let found = null;
  try {
    found = find(new URL(request.url, "http://localhost").pathname);
  } catch {} // a path that cannot be decoded
  if (!found || !["GET", "HEAD"].includes(request.method)) {
    response.writeHead(found ? 405 : 404, { "content-type": "text/plain" });
    return response.end(found ? "GET only\n" : "not found\n");
  }
  const { file, stat } = found;
  const etag = `"${stat.size.toString(36)}-${Math.round(stat.mtimeMs).toString(36)}"`;
  const headers = {
    "content-type": TYPES[extname(file)] ?? "application/octet-stream",
    "accept-ranges": "bytes",
    "cache-control": "no-cache",
    etag,
    ...(values["no-isolation"] ? {} : ISOLATION),
  };
  if (request.headers["if-none-match"] === etag) return response.writeHead(304, headers).end();
  const isSame = !request.headers["if-range"] || request.headers["if-range"] === etag;
  const range = isSame ? rangeOf(request.headers.range, stat.size) : null;
  const [first, last] = range ?? [0, stat.size - 1];
  if (range) headers["content-range"] = `bytes ${first}-${last}/${stat.size}`;
  response.writeHead(range ? 206 : 200, { ...headers, "content-length": last - first + 1 });
  if (request.method === "HEAD" || stat.size === 0) return response.end();
  createReadStream(file, { start: first, end: last }).on("error", () => response.destroy()).pipe(response);
});

server.listen(+values.port, "127.0.0.1", () => {
  console.log(`http://localhost:${server.address().port}/   press Ctrl-C to stop`);
});
