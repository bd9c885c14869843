"""One measurement of llama.cpp's wheel, as one JSON line: tokens per second, as its server reports them.
usage: xllamacpp_bench.py MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS
needs: pip install xllamacpp"""

import json
import sys

import xllamacpp

model, threads, prompt, output = sys.argv[1], *(int(word) for word in sys.argv[2:])


def server():
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = prompt + output + 64, 1, prompt, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.warmup = True
    params.verbosity = -1
    return xllamacpp.Server(params)


def timings(engine, n_prompt, n_output):
    ids = [1000 + 37 * i % 5000 for i in range(n_prompt)]
    request = {"prompt": ids, "n_predict": n_output, "cache_prompt": False, "temperature": 0, "ignore_eos": True}
    return engine.handle_completions(request)["timings"]


engine = server()
timings(engine, 16, 2)
deep, empty = timings(engine, prompt, output), timings(engine, 16, output)
print(json.dumps({"prefill": deep["prompt_per_second"], "decode": empty["predicted_per_second"], "decode_deep": deep["predicted_per_second"]}))
