/** server.mjs: a web server that can be slow, break connections, change files and stop. */
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** `folders` maps the first part of a path to a folder; `put` adds models. Paths below /isolated/ are served
 * with the headers that isolate a page, so that it has threads. */
export async function startServer(folders, headers = {}) {
  const models = new Map();
  const log = []; // { path, range, status }
  let isDown = false;

  function put(path, body, how = {}) {
    models.set(path, { body, etag: `"${createHash("md5").update(body).digest("hex")}"`, cuts: [], ...how });
  }

  /** Send a model, with ranges and an ETag. `cuts`: the next responses end after these numbers of bytes;
   * `stalls`: the next responses send this many bytes and then nothing; `pauseMs`: the time between chunks;
   * `trickles`: the next responses send this many bytes, and then one every 60 ms, so that progress is reported;
   * `until`: a promise, for which the second half of the file waits;
   * `hangs`: never respond; `status`: respond with this status only; `etag`: another one, or null for none;
   * `modified`: a Last-Modified; `isHidden`: pages of other origins cannot read ETag and Content-Range;
   * `noRanges`, `noLength`: without these; `gzip`: compressed, as a whole. */
  async function sendModel(request, response, path) {
    const model = models.get(path);
    const body = model.gzip ? gzipSync(model.body) : model.body;
    const noRanges = model.noRanges || model.gzip;
    const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const total = body.length;
    const from = match && !noRanges ? Number(match[1]) : 0;
    const to = match && !noRanges && match[2] ? Math.min(Number(match[2]) + 1, total) : total;
    const isPart = match && !noRanges;
    const status = from >= total ? 416 : isPart ? 206 : 200;
    log.push({ path, range: request.headers.range, status });
    if (model.hangs) return;
    if (model.status) return response.writeHead(model.status, { "Access-Control-Allow-Origin": "*" }).end();
    response.writeHead(status, {
      "Content-Type": "application/octet-stream",
      ...(model.etag ? { ETag: model.etag } : {}),
      ...(model.modified ? { "Last-Modified": model.modified } : {}),
      ...(model.gzip ? { "Content-Encoding": "gzip" } : {}),
      "Access-Control-Allow-Origin": "*",
      ...(model.isHidden ? {} : { "Access-Control-Expose-Headers": "ETag, Content-Range" }),
      "Cross-Origin-Resource-Policy": "cross-origin",
      ...(model.noLength ? {} : { "Content-Length": to - from }),
      ...(isPart ? { "Content-Range": `bytes ${from}-${to - 1}/${total}` } : {}),
    });
    const stall = model.stalls?.shift();
    const trickle = model.trickles?.shift();
    const end = Math.min(to, from + (model.cuts.shift() ?? stall ?? trickle ?? Infinity));
    const step = model.pauseMs || model.until ? 16384 : 1 << 20;
    for (let at = from; at < end && !response.destroyed; at += step) {
      if (at >= total / 2) await model.until;
      response.write(body.subarray(at, Math.min(at + step, end)));
      if (model.pauseMs) await new Promise((resolve) => setTimeout(resolve, model.pauseMs));
    }
    if (stall) return;
    for (let at = end; trickle && at < to && !response.destroyed; at++) {
      response.write(body.subarray(at, at + 1));
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    if (end < to) response.socket?.end();
    else response.end();
  }

  function sendFile(response, path) {
    const isIsolated = path.startsWith("/isolated/");
    const [, name, ...rest] = (isIsolated ? path.slice("/isolated".length) : path).split("/");
    const file = folders[name] && join(folders[name], ...rest);
    let body;
    try {
      body = readFileSync(file);
    } catch {
      response.writeHead(404);
      return response.end();
    }
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Access-Control-Allow-Origin": "*",
      "Cross-Origin-Resource-Policy": "cross-origin",
      ...headers,
      ...(isIsolated ? ISOLATED : {}),
    });
    response.end(body);
  }

  const server = createServer((request, response) => {
    if (isDown) return request.socket.destroy();
    const { pathname } = new URL(request.url, "http://x");
    if (models.has(pathname)) return sendModel(request, response, pathname);
    sendFile(response, pathname);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref(); // a test that fails does not close it
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    put,
    models,
    log,
    down: (value) => {
      isDown = value;
      if (value) server.closeAllConnections();
    },
    end: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
