/* serve.mjs: a static server for the demo, with ranges, validators and the two headers that isolate the
 * page, so that it has threads. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `usage: node serve.mjs [--port N] [--models FOLDER] [--mount /PREFIX/=FOLDER]... [--no-isolation]
  --port N                  port on this machine, 0 to 65535; default: 8080; 0: any free one
  --models FOLDER           model files, served below /models/; default: models/ beside this file
  --mount /PREFIX/=FOLDER   another folder
  --no-isolation            without the two headers that give the page threads
`;

function fail(sentence) {
  console.error(`serve.mjs: ${sentence}`);
  process.exit(1);
}

const isFolder = (path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

function readArguments() {
  const options = {
    port: { type: "string", default: "8080" },
    models: { type: "string" },
    mount: { type: "string", multiple: true, default: [] },
    "no-isolation": { type: "boolean", default: false },
    help: { type: "boolean", short: "h" },
  };
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    return fail(`${error.message.split(/[.\n]/)[0].replace(/^./, (c) => c.toLowerCase())}; see --help`);
  }
}

/** [prefix, folder] of --mount. */
function readMount(text) {
  const [, prefix, folder] = /^(\/.+\/)=(.+)$/.exec(text) ?? fail(`--mount is "${text}"; must be /PREFIX/=FOLDER`);
  return isFolder(folder) ? [prefix, resolve(folder)] : fail(`--mount: the folder ${folder} does not exist`);
}

const values = readArguments();
if (values.help) {
  console.log(USAGE.trimEnd());
  process.exit();
}
const port = Number(values.port);
if (!/^\d+$/.test(values.port) || port > 65535) fail(`--port is "${values.port}"; must be 0 to 65535`);
if (values.models !== undefined && !isFolder(values.models)) fail(`--models: the folder ${values.models} does not exist`);

const here = fileURLToPath(new URL(".", import.meta.url));
const web = resolve(here, "../../bindings/web");
const LIBRARIES = [
  ["/lib/marked/", join(web, "node_modules/marked/lib")],
  ["/lib/dompurify/", join(web, "node_modules/dompurify/dist")],
].filter(([prefix]) => !existsSync(join(here, prefix))); // a copy of this folder may have its own
const FOLDERS = [
  ...values.mount.map(readMount),
  ...LIBRARIES,
  ["/quip/", join(web, "dist")],
  ["/models/", resolve(values.models ?? join(here, "models"))],
  ["/", here],
];
for (const [prefix, folder] of [...LIBRARIES, ["/quip/", join(web, "dist")]])
  if (!isFolder(folder)) console.error(`serve.mjs: ${prefix} has no files: ${folder} does not exist; run npm ci && npm run build in ${web}`);
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

/** The first free port after this one, or null. */
async function findFree(taken) {
  for (let next = taken + 1; next <= Math.min(taken + 50, 65535); next++) {
    const probe = createServer();
    const isFree = await new Promise((done) => probe.once("error", () => done(false)).listen(next, "127.0.0.1", () => done(true)));
    probe.close();
    if (isFree) return next;
  }
  return null;
}

server.on("error", async (error) => {
  if (error.code !== "EADDRINUSE" && error.code !== "EACCES") fail(`cannot listen on port ${port}: ${error.message}`);
  const free = await findFree(error.code === "EACCES" ? 8079 : port);
  const why = error.code === "EACCES" ? "is reserved for the administrator" : "is used by another program";
  fail(`port ${port} ${why}${free ? `; try --port ${free}` : "; try another one with --port"}`);
});
server.listen(port, "127.0.0.1", () => {
  console.log(`http://localhost:${server.address().port}/   press Ctrl-C to stop`);
});
