/** sha256.ts: SHA-256 (FIPS 180-4) of a file in memory. WebCrypto would copy the whole file first. */

const K = Uint32Array.from(primes(64), (p) => Math.floor((Math.cbrt(p) % 1) * 2 ** 32));
const H = Uint32Array.from(primes(8), (p) => Math.floor((Math.sqrt(p) % 1) * 2 ** 32));

function primes(n: number): number[] {
  const found: number[] = [];
  for (let i = 2; found.length < n; i++) if (found.every((p) => i % p)) found.push(i);
  return found;
}

/** Add the block of 64 bytes at `at`. */
function compress(h: Uint32Array, w: Uint32Array, data: DataView, at: number): void {
  for (let i = 0; i < 16; i++) w[i] = data.getUint32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15];
    const y = w[i - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
  }
  let [a, b, c, d, e, f, g, k] = h;
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    k = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  h[0] += a;
  h[1] += b;
  h[2] += c;
  h[3] += d;
  h[4] += e;
  h[5] += f;
  h[6] += g;
  h[7] += k;
}

/** The hash in lower-case hexadecimal. */
export function sha256(bytes: Uint8Array): string {
  const h = H.slice();
  const w = new Uint32Array(64);
  const whole = bytes.length - (bytes.length % 64);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < whole; at += 64) compress(h, w, data, at);
  const tail = new Uint8Array(bytes.length - whole < 56 ? 64 : 128); // the remaining bytes, a 1 bit, zeros and the length
  tail.set(bytes.subarray(whole));
  tail[bytes.length - whole] = 0x80;
  const end = new DataView(tail.buffer);
  end.setBigUint64(tail.length - 8, BigInt(bytes.length) * 8n);
  for (let at = 0; at < tail.length; at += 64) compress(h, w, end, at);
  return Array.from(h, (x) => x.toString(16).padStart(8, "0")).join("");
}
