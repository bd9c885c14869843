"""One measurement of ik_llama.cpp's wheel, which is built for AVX2, as one JSON line of tokens per second, without sampling.
usage: ik_bench.py MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS
needs: pip install ik-llama-cpp-python"""

import ctypes
import json
import sys
import time

from ik_llama_cpp import _ctypes_api as api

model, threads, prompt, output = sys.argv[1], *(int(word) for word in sys.argv[2:])
IDS = [1000 + 37 * i % 5000 for i in range(prompt + output)]


def open_context():
    api.llama_backend_init()
    handle = api.llama_model_load_from_file(model.encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = prompt + output + 64, prompt, 512
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn = True
    context = api.llama_init_from_model(handle, params)
    if not context:
        sys.exit(f"{model}: ik_llama.cpp cannot open it")
    return context


def decode(context, ids, position):
    """Runs the tokens at a position and asks for the logits of the last one; returns the seconds that it took."""
    batch = api.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position + i, 1, 0, i + 1 == len(ids)
    begin = time.perf_counter()
    if api.llama_decode(context, batch):
        sys.exit("llama_decode failed")
    api.llama_get_logits_ith(context, len(ids) - 1)
    seconds = time.perf_counter() - begin
    api.llama_batch_free(batch)
    return seconds


def main():
    context = open_context()
    decode(context, IDS[:32], 0)
    decode(context, IDS[:1], 32)
    api.llama_kv_cache_clear(context)
    prefill = decode(context, IDS[:prompt], 0)
    deep = sum(decode(context, [IDS[i]], i) for i in range(prompt, prompt + output))
    api.llama_kv_cache_clear(context)
    decode(context, IDS[:1], 0)
    empty = sum(decode(context, [IDS[i]], i) for i in range(1, output + 1))
    print(json.dumps({"prefill": prompt / prefill, "decode": output / empty, "decode_deep": output / deep}))


main()
