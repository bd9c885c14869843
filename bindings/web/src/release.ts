/** release.ts: which build of this package a script belongs to. index.js and worker.js are loaded one after the
 * other, and caches may have one of them from another build. */
declare const QUIP_RELEASE: string; // build.mjs: a hash of the sources

export const release = QUIP_RELEASE;
