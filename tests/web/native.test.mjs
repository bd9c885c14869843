// native.test.mjs: every module computes the bits of the native program and fails like it.
// The tiny checkpoints of every family are in shared/data/golden (QUIP_SHARED, default ../shared). Without
// them their tests are skipped; with CI=true they fail.
// Environment: QUIP_WASM, the folder of the modules; QUIP, the native program; QUIP_FUZZ, mutations of each
// model (default 300); QUIP_SEED, the seed of the first one.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, describe, test } from 'node:test';
import { abi, builds, Finish, noGpu, Quip, Role, Status } from './module.mjs';

const { QUIP: program, QUIP_WASM: wasm } = process.env;
const work = mkdtempSync(`${tmpdir()}/quip-web-`);
const corpus = new URL('../fuzz/corpus/fuzz_model/', import.meta.url);
const models = Object.fromEntries(['gemma3_mixed', 'llama_f32'].map((m) => [m, new URL(`${m}.bin`, corpus).pathname]));
const native = (...args) => execFileSync(program, args, { encoding: 'utf8', env: { ...process.env, XDG_CACHE_HOME: work } });
after(() => rmSync(work, { recursive: true }));

function random(seed) {
  let s = BigInt(seed) | 1n; // xorshift64*, Vigna 2016
  return (n) => {
    s ^= s >> 12n;
    s = BigInt.asUintN(64, s ^ (s << 25n));
    s ^= s >> 27n;
    return Number(BigInt.asUintN(64, s * 2685821657736338717n) >> 32n) % n;
  };
}

const ids = (n, vocabSize) => Array.from({ length: n }, (_, i) => (i * 7919 + 11) % vocabSize);

function nativeLogits(path, tokens) {
  native('logits', path, '--ids', tokens.join(), '--out', `${work}/logits`);
  return new Uint8Array(readFileSync(`${work}/logits`));
}

/** A LoRA file of rank 1 for the queries of the first layer. Every number in it is `value`. */
function adapterFile({ d_model, n_heads, head_dim }, value) {
  const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_';
  const tensors = [
    [`${name}A.weight`, [1, d_model]],
    [`${name}B.weight`, [n_heads * head_dim, 1]],
  ];
  let end = 0;
  const entries = tensors.map(([n, shape]) => {
    const begin = end;
    end += 4 * shape[0] * shape[1];
    return [n, { dtype: 'F32', shape, data_offsets: [begin, end] }];
  });
  const header = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const file = new Uint8Array(8 + header.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  file.set(new Uint8Array(new Float32Array(end / 4).fill(value).buffer), 8 + header.length);
  return file;
}

const expected = Object.fromEntries(
  Object.entries(models).map(([name, path]) => {
    const tokens = ids(40, 250);
    const text = native('run', path, 'hello', '--seed', '7', '--temperature', '1', '-n', '20', '-c', '64', '-t', '1');
    return [name, { path, file: readFileSync(path), tokens, logits: nativeLogits(path, tokens), text }];
  }),
);

/** The converted checkpoint of each family: [{ name, file, tokens, logits }]. */
function convertFamilies() {
  const golden = `${process.env.QUIP_SHARED ?? new URL('../../../shared', import.meta.url).pathname}/data/golden`;
  if (!existsSync(golden) && process.env.CI !== 'true') return [];
  const kinds = { gemma: 'int8', gemma2: 'mixed', gemma3: 'int4', smollm2: 'int4', 'falcon-rw': 'int8', phi2: 'f32' };
  return Object.entries(kinds).map(([family, kind]) => {
    const path = `${work}/${family}.bin`;
    const tokens = JSON.parse(readFileSync(`${golden}/${family}/ids.json`)).main;
    native('convert', `${golden}/${family}`, path, '--weights', kind, '--quiet');
    return { name: `${family}, ${kind}`, file: readFileSync(path), tokens, logits: nativeLogits(path, tokens) };
  });
}
const families = convertFamilies();

/* The tests of the package (bindings/web/test) cover the rest of these builds. */
for (const name of ['simd-64', 'relaxed-64']) {
  const bytes = readFileSync(`${wasm}/quip-${name}.wasm`);
  test(`${name}: a model above 4 GiB`, { skip: !WebAssembly.validate(bytes) }, () => {
    const env = { now: () => performance.now(), random: () => {} };
    const module = new WebAssembly.Module(bytes);
    const { exports: x } = new WebAssembly.Instance(module, { env, gpu: noGpu(module) });
    const put = (at, data) => new Uint8Array(x.memory.buffer, Number(at), data.length).set(data);
    assert.ok(x.quip_memory_alloc(0x120000000n), 'address space, never used');
    const handle = x.quip_web_malloc(8n);
    const load = () => new DataView(x.memory.buffer).getBigUint64(Number(handle), true);
    for (const { file, tokens, logits } of Object.values(expected)) {
      const pages = x.quip_memory_alloc(BigInt(file.length));
      assert.ok(pages > 0x100000000n);
      put(pages, file);
      assert.equal(x.quip_web_model_open(handle, pages, BigInt(file.length), 0n, 0n), Status.QUIP_OK);
      const model = load();
      assert.equal(x.quip_session_open(handle, model, 0n, 0n), Status.QUIP_OK);
      const session = load();
      const ids = x.quip_web_malloc(BigInt(4 * tokens.length));
      put(ids, new Uint8Array(Int32Array.from(tokens).buffer));
      assert.equal(x.quip_session_prefill(session, ids, tokens.length, 0n), Status.QUIP_OK);
      const at = Number(x.quip_session_logits(session));
      assert.ok(at > 2 ** 32);
      assert.deepEqual(new Uint8Array(x.memory.buffer, at, logits.length).slice(), new Uint8Array(logits));
      x.quip_session_close(session);
      x.quip_model_close(model);
    }
    assert.equal(x.quip_memory_alloc(1n << 34n), 0n, 'more than the maximum');
  });
}

for (const file of readdirSync(wasm).filter((name) => /^quip-.*\.wasm$/.test(name)))
  test(`${file}: exports what the headers declare, and imports nothing but a clock, random numbers, memory and a GPU`, (t) => {
    const bytes = readFileSync(`${wasm}/${file}`);
    if (!WebAssembly.validate(bytes)) return t.skip('this Node cannot run it');
    const module = new WebAssembly.Module(bytes);
    const isThreaded = file.includes('-mt');
    const names = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
    const declared = Object.keys(abi.functions).filter((name) => isThreaded || name !== 'quip_web_thread_enter');
    const others = isThreaded ? ['__wasm_call_ctors'] : ['__wasm_call_ctors', 'memory'];
    assert.deepEqual([...names].sort(), [...declared, ...others].sort());
    const imports = WebAssembly.Module.imports(module).map((i) => `${i.module}.${i.name}`).filter((name) => !/^gpu\./.test(name));
    assert.deepEqual(imports.sort(), isThreaded ? ['env.memory', 'env.now', 'env.random'] : ['env.now', 'env.random']);
  });

for (const [build, module] of Object.entries(builds(wasm))) {
  if (!new Quip(module).isRight) {
    test(`${build}: this Node computes relaxed dot products wrongly`, { skip: true }, () => {});
    continue;
  }
  describe(build, () => {
    const q = new Quip(module);
    after(() => q.close());
    const nThreads = q.isThreaded ? 3 : 1;

    test('threads', { skip: !q.isThreaded }, async () => {
      await q.startThreads(2);
      const model = q.openModel(expected.gemma3_mixed.file, { n_threads: 3 });
      const session = q.openSession(model, { n_threads: 0 });
      assert.equal(q.x.quip_session_n_threads(session), 3);
      assert.equal(q.x.quip_web_threads_idle(), 0);
      const limited = q.openSession(model, { n_threads: 1 });
      assert.equal(q.x.quip_session_n_threads(limited), 1);
      const other = q.openModel(expected.gemma3_mixed.file, { n_threads: 3 });
      const alone = q.openSession(other, { n_threads: 0 });
      assert.equal(q.x.quip_session_n_threads(alone), 1, 'no worker is left');
      for (const s of [session, limited, alone]) q.x.quip_session_close(s);
      for (const m of [model, other]) q.closeModel(m);
      assert.equal(q.x.quip_web_threads_idle(), 2);
    });

    for (const [name, want] of Object.entries(expected)) {
      test(`${name}: logits, bit for bit`, () => {
        const model = q.openModel(want.file);
        const { vocab_size: vocabSize, file_bytes: fileBytes } = q.info(model);
        assert.equal(fileBytes, want.file.length);
        const session = q.openSession(model, { n_context: 64, n_threads: nThreads });
        q.prefill(session, want.tokens);
        assert.deepEqual(q.logits(session, vocabSize), want.logits);
        q.call('quip_session_rewind', session, 0);
        for (const id of want.tokens) q.prefill(session, [id]);
        assert.deepEqual(q.logits(session, vocabSize), want.logits, 'one token at a time');
        q.x.quip_session_close(session);
        q.closeModel(model);
      });

      test(`${name}: an answer, at once and in steps`, () => {
        const model = q.openModel(want.file);
        q.x.quip_model_close(0);
        const options = { n_context: 64, n_threads: nThreads, seed: 7, temperature: 1, max_output_tokens: 20 };
        const session = q.openSession(model, options);
        q.x.quip_model_close(model); // the session keeps what it needs
        const copy = q.handle('quip_session_clone', session);
        q.append(session, Role.QUIP_ROLE_USER, 'hello');
        const answer = q.answer(session);
        assert.equal(`${answer.text}\n`, want.text);
        let left = q.withText('hello', (at, n) => q.count('quip_session_begin_append', copy, Role.QUIP_ROLE_USER, at, n));
        for (let steps = 0; left > 0; steps++) {
          const before = left;
          left = q.count('quip_session_run', copy, 2);
          assert.equal(left, Math.max(before - 2, 0));
        }
        assert.deepEqual(q.answer(copy), answer);
        const { n_prompt_tokens, n_output_tokens, seed } = q.result(copy);
        assert.ok(n_prompt_tokens > 0 && n_output_tokens > 0 && n_output_tokens <= 20);
        assert.equal(n_output_tokens, answer.ids.length);
        assert.equal(seed, 7);
        for (const s of [session, copy]) q.x.quip_session_close(s);
      });
    }

    test('every family: logits, bit for bit', { skip: !families.length }, () => {
      for (const { name, file, tokens, logits } of families) {
        const model = q.openModel(file);
        const session = q.openSession(model, { n_context: 128, n_threads: nThreads });
        q.prefill(session, tokens);
        assert.deepEqual(q.logits(session, q.info(model).vocab_size), logits, name);
        q.x.quip_session_close(session);
        q.closeModel(model);
      }
    });

    test('text to tokens and back', () => {
      const model = q.openModel(expected.llama_f32.file);
      const out = q.x.quip_web_malloc(400) >>> 0;
      const n = q.withText('hello', (at, length) => q.count('quip_tokenize', model, at, length, 0, out, 100));
      assert.ok(n > 0);
      const tokens = native('tokenize', models.llama_f32, 'hello').match(/\d+/g).map(Number);
      assert.deepEqual([...new Int32Array(q.memory.buffer, out, n)], tokens.slice(-n));
      const bytes = q.x.quip_web_malloc(100) >>> 0;
      const length = q.count('quip_detokenize', model, out, n, bytes, 100);
      assert.equal(q.text(bytes, length).trim(), 'hello');
      for (const p of [out, bytes]) q.x.quip_web_free(p);
      q.closeModel(model);
    });

    test('an adapter changes the answer, and one of zeros does not', () => {
      const model = q.openModel(expected.gemma3_mixed.file);
      const info = q.info(model);
      const openAdapter = (at, n) => q.withText('lora.bin\0', (name) => q.handle('quip_web_adapter_open', model, at, n, name));
      const open = (value) => q.with(adapterFile(info, value), (at, n) => openAdapter(at, n));
      const [zeros, some] = [open(0), open(0.5)];
      const logits = (adapter) => {
        const session = q.openSession(model, { n_context: 64, n_threads: nThreads });
        q.call('quip_session_set_adapter', session, adapter, 1);
        q.prefill(session, expected.gemma3_mixed.tokens);
        const all = [q.logits(session, info.vocab_size)];
        for (const other of [some, 0]) {
          q.call('quip_session_set_adapter', session, other, 1);
          q.call('quip_session_rewind', session, 0);
          q.prefill(session, expected.gemma3_mixed.tokens);
          all.push(q.logits(session, info.vocab_size));
        }
        q.x.quip_session_close(session);
        return all;
      };
      const [same, changed, dropped] = logits(zeros);
      assert.deepEqual(same, expected.gemma3_mixed.logits);
      assert.notDeepEqual(changed, expected.gemma3_mixed.logits);
      assert.deepEqual(dropped, expected.gemma3_mixed.logits);
      assert.deepEqual(logits(some)[0], changed);
      for (const adapter of [zeros, some]) q.x.quip_adapter_close(adapter);
      assert.throws(() => q.with(new Uint8Array(200), openAdapter), { message: /^lora\.bin: / });
      q.closeModel(model);
    });

    test('cancelled by its flag', () => {
      const model = q.openModel(expected.gemma3_mixed.file);
      const session = q.openSession(model, { n_context: 64, n_threads: nThreads });
      const flag = q.x.quip_session_cancel_flag(session) >>> 0;
      q.withText('hello', (at, n) => q.count('quip_session_begin_append', session, Role.QUIP_ROLE_USER, at, n));
      Atomics.store(new Int8Array(q.memory.buffer), flag, 1);
      assert.throws(() => q.count('quip_session_run', session, 2), { status: Status.QUIP_E_CANCELLED });
      assert.equal(q.x.quip_session_position(session), 0, 'as before');
      q.append(session, Role.QUIP_ROLE_USER, 'hello');
      const before = q.x.quip_session_position(session);
      q.call('quip_session_undo', session);
      assert.ok(before > 0 && q.x.quip_session_position(session) === 0);
      q.append(session, Role.QUIP_ROLE_USER, 'hello');
      Atomics.store(new Int8Array(q.memory.buffer), flag, 1);
      assert.equal(q.answer(session).reason, Finish.QUIP_FINISH_CANCELLED);
      q.x.quip_session_close(session);
      q.closeModel(model);
    });

    test('errors say what and why', () => {
      const { file } = expected.gemma3_mixed;
      assert.throws(() => q.openModel(file.subarray(0, 5000)), { status: Status.QUIP_E_FORMAT, message: /^test\.bin: / });
      assert.throws(() => q.openModel(new Uint8Array(64)), { status: Status.QUIP_E_FORMAT });
      const model = q.openModel(file);
      assert.throws(() => q.openSession(model, { temperature: -1.5 }), {
        status: Status.QUIP_E_ARGUMENT,
        message: /^temperature is -1\.5; /,
      });
      const session = q.openSession(model, { n_context: 8 });
      assert.throws(() => q.append(session, Role.QUIP_ROLE_USER, 'hello '.repeat(50)), { status: Status.QUIP_E_CONTEXT_FULL });
      assert.throws(() => q.prefill(session, [1 << 30]), { status: Status.QUIP_E_ARGUMENT });
      q.x.quip_session_close(session);
      q.closeModel(model);
    });

    test('a plan needs only the head of the file', () => {
      const { file } = expected.gemma3_mixed;
      const open = (n) => q.with(file.subarray(0, n), (at) => q.handle('quip_web_model_open_head', at, n, file.length, 0));
      const model = open(file.length);
      q.withStruct('quip_plan', {}, (at) => {
        q.call('quip_model_plan', model, 0, at);
        const get = (name) => Number(q.get('quip_plan', at, name));
        assert.equal(get('file_bytes'), file.length);
        for (const name of ['kv_bytes', 'scratch_bytes', 'model_bytes', 'n_context']) assert.ok(get(name) > 0, name);
      });
      assert.throws(() => q.openSession(model), { status: Status.QUIP_E_ARGUMENT });
      q.x.quip_model_close(model);
      assert.throws(() => open(100), { status: Status.QUIP_E_IO }, 'more bytes are needed');
    });

    test('200 sessions need the memory of one', () => {
      let size = 0;
      for (let i = 0; i < 200; i++) {
        const model = q.openModel(expected.gemma3_mixed.file);
        const session = q.openSession(model, { n_context: 64, n_threads: nThreads });
        q.append(session, Role.QUIP_ROLE_USER, 'hello');
        q.next(session);
        q.x.quip_session_close(session);
        q.closeModel(model);
        if (i === 1) size = q.memory.buffer.byteLength;
      }
      assert.equal(q.memory.buffer.byteLength, size);
    });

    test('above 2 GiB', () => {
      const high = new Quip(module);
      assert.ok(high.x.quip_memory_alloc(0x90000000) >>> 0 > 0);
      const want = expected.gemma3_mixed;
      const model = high.openModel(want.file);
      assert.ok(model > 0);
      const session = high.openSession(model, { n_context: 64, seed: 7, temperature: 1, max_output_tokens: 20 });
      high.append(session, Role.QUIP_ROLE_USER, 'hello');
      assert.equal(`${high.answer(session).text}\n`, want.text);
      assert.ok(high.x.quip_session_cancel_flag(session) >>> 0 > 0);
      high.x.quip_session_close(session);
      const pages = high.x.quip_memory_alloc(want.file.length) >>> 0;
      assert.ok(pages > 0x80000000);
    });

    test('when memory runs out a session fails, and the others continue', () => {
      const model = q.openModel(expected.gemma3_mixed.file);
      const session = q.openSession(model, { n_context: 64, n_threads: nThreads });
      const allocated = [];
      for (let size = 1 << 30; size >= 1 << 16; size /= 2)
        for (let at; (at = q.x.quip_memory_alloc(size) >>> 0); ) allocated.push([at, size]);
      assert.throws(() => q.openSession(model, { n_context: 2048 }), { status: Status.QUIP_E_MEMORY, message: /out of memory/ });
      q.append(session, Role.QUIP_ROLE_USER, 'hello');
      q.next(session);
      for (const [at, size] of allocated) q.x.quip_memory_free(at, size);
      q.x.quip_session_close(q.openSession(model, { n_context: 64 }));
      q.x.quip_session_close(session);
      q.closeModel(model);
    });

    test('a damaged file never traps', () => {
      const seed = Number(process.env.QUIP_SEED ?? 1), n = Number(process.env.QUIP_FUZZ ?? 300);
      for (const { file } of Object.values(expected))
        for (let i = seed; i < seed + n; i++) {
          const pick = random(i * 2 + 1), broken = new Uint8Array(file);
          for (let k = pick(4) === 0 ? 64 : 1 + pick(4); k > 0; k--) broken[pick(pick(2) ? broken.length : 4096)] = pick(256);
          try {
            const model = q.openModel(broken.subarray(0, pick(5) ? broken.length : pick(broken.length)));
            try {
              const session = q.openSession(model, { n_context: 8, max_output_tokens: 3 });
              try {
                q.append(session, Role.QUIP_ROLE_USER, 'he');
                q.answer(session);
              } finally {
                q.x.quip_session_close(session);
              }
            } finally {
              q.closeModel(model);
            }
          } catch (error) {
            assert.ok(error.status < 0 && error.message.length > 8, `seed ${i}: ${error.stack}`);
          }
        }
    });
  });
}
