"""One measurement of llama.cpp, as one JSON line: what `quip bench --json` prints of itself.
usage: llama_cpp_bench.py MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS
       llama_cpp_bench.py --requantize IN.gguf OUT.gguf {q8_0|q4_0}"""

import ctypes
import json
import sys
import time

import llama_cpp


def silence():
    callback = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    return callback  # must stay alive


def requantize(source, target, kind):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[kind]
    params.allow_requantize = True
    params.nthread = 2
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        sys.exit(f"{source} could not be requantized")


def measure(path, n_threads, n_prompt, n_output):
    start = time.perf_counter()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = n_prompt + n_output + 32
    params.n_batch = n_prompt
    params.n_threads = params.n_threads_batch = n_threads
    context = llama_cpp.llama_init_from_model(model, params)
    opened = time.perf_counter()
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))):
            sys.exit("llama_decode failed")
        return llama_cpp.llama_get_logits_ith(context, -1)  # waits for the result

    memory = llama_cpp.llama_get_memory(context)
    decode([1, 2, 3])  # warm up: pages, threads
    llama_cpp.llama_memory_clear(memory, True)
    prompt = [(i * 7919 + 13) % min(n_vocab, 32000) for i in range(n_prompt)]
    begin = time.perf_counter()
    decode(prompt)
    prefilled = time.perf_counter()
    for i in range(n_output):
        decode([prompt[i % n_prompt]])
    decoded = time.perf_counter()
    return {
        "open_ms": 1e3 * (opened - start),
        "prefill_tokens_per_s": n_prompt / (prefilled - begin),
        "decode_tokens_per_s": n_output / (decoded - prefilled),
    }


if __name__ == "__main__":
    keep = silence()
    if sys.argv[1] == "--requantize":
        requantize(*sys.argv[2:5])
    else:
        print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:5]))))
