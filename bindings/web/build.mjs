/** build.mjs: builds dist/: the modules (native/build), the scripts for browsers (dist) and Node (dist/node),
 * and their types. Prints the sizes that a visitor downloads. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const run = (program, ...args) => execFileSync(program, args, { cwd: here, stdio: ["ignore", "ignore", "inherit"] });

const wasm = join(here, "build/wasm");
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
copyFileSync(join(here, "../../LICENSE"), join(here, "LICENSE")); // npm packs it with the package
run(join(here, "tools/abi.py"), join(here, "src/engine/abi.ts"));
run(join(here, "native/build"), wasm);
for (const name of readdirSync(wasm).filter((n) => n.endsWith(".wasm"))) copyFileSync(join(wasm, name), join(dist, name));

const hash = createHash("sha256");
for (const name of readdirSync(join(here, "src"), { recursive: true }).sort())
  if (name.endsWith(".ts")) hash.update(readFileSync(join(here, "src", name)));
const release = hash.digest("hex").slice(0, 12);

const bundle = (platform, folder) =>
  build({
    absWorkingDir: here,
    entryPoints: { index: "src/index.ts", worker: "src/engine/worker.ts", thread: "src/engine/thread.ts" },
    outdir: join(dist, folder),
    alias: { "#page": `./src/platform/page_${platform}.ts`, "#worker": `./src/platform/worker_${platform}.ts` },
    define: { QUIP_RELEASE: JSON.stringify(release) },
    platform: platform === "node" ? "node" : "browser",
    format: "esm",
    target: "es2022",
    bundle: true,
    loader: { ".wgsl": "text" },
    minify: platform === "browser",
    sourcemap: false,
    logLevel: "warning",
  });
await Promise.all([bundle("browser", "."), bundle("node", "node")]);
run(process.execPath, join(here, "node_modules/typescript/bin/tsc"), "-p", here);

const bytes = (name) => gzipSync(readFileSync(join(dist, name)), { level: 9 }).length;
const scripts = ["index.js", "worker.js", "thread.js"].reduce((sum, name) => sum + bytes(name), 0);
const modules = readdirSync(dist).filter((name) => name.endsWith(".wasm"));
const largest = Math.max(...modules.map(bytes));
const kb = (n) => `${(n / 1000).toFixed(1)} KB`;
for (const name of modules) console.log(`${name}: ${kb(bytes(name))} compressed`);
console.log(`scripts: ${kb(scripts)}; a visitor downloads the scripts and one module: ${kb(scripts + largest)} compressed`);
