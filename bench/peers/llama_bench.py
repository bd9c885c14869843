"""One measurement of llama.cpp as one JSON line of tokens per second, as its llama-bench measures: no sampling.
usage: llama_bench.py FOLDER MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS [ISA]
       FOLDER has libllama and libggml of the npm package @node-llama-cpp/linux-x64, and libggml-cpu-ISA.so for each ISA;
       without ISA, llama.cpp chooses the best one for this machine
needs: only Python"""

import ctypes
import glob
import json
import os
import sys
import time


class ModelParams(ctypes.Structure):
    """Opaque. The caller of a C function passes such a struct as a copy on the stack, so a larger one does not hurt."""

    _fields_ = [("fields", ctypes.c_uint8 * 1024)]


class ContextParams(ctypes.Structure):
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 1012)]


class Batch(ctypes.Structure):
    """Opaque, with the true size of 56 bytes and some more: llama_decode reads it from the stack."""

    _fields_ = [("n_tokens", ctypes.c_int32), ("rest", ctypes.c_uint8 * 124)]


def load(folder, isa):
    library = lambda name: ctypes.CDLL(glob.glob(os.path.join(folder, name))[0], ctypes.RTLD_GLOBAL)
    ggml, llama = library("libggml.*so*"), library("libllama.*so*")
    if isa:
        ggml.ggml_backend_load.restype = ctypes.c_void_p
        if not ggml.ggml_backend_load(os.path.join(folder, f"libggml-cpu-{isa}.so").encode()):
            sys.exit(f"{folder}: no kernels for {isa}")
    else:
        ggml.ggml_backend_load_all_from_path(folder.encode())
    llama.llama_model_default_params.restype = ModelParams
    llama.llama_context_default_params.restype = ContextParams
    llama.llama_batch_get_one.restype = Batch
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
        getattr(llama, name).restype = ctypes.c_void_p
    return llama


class Engine:
    def __init__(self, folder, model, threads, n_context, isa):
        self.llama = load(folder, isa)
        handle = self.llama.llama_model_load_from_file(model.encode(), self.llama.llama_model_default_params())
        params = self.llama.llama_context_default_params()
        assert (params.n_ctx, params.n_batch, params.n_ubatch) == (512, 2048, 512), "llama_context_params has changed"
        params.n_ctx = n_context
        self.context = ctypes.c_void_p(self.llama.llama_init_from_model(ctypes.c_void_p(handle), params))
        if not self.context:
            sys.exit(f"{model}: llama.cpp cannot open it")
        self.llama.llama_set_n_threads(self.context, threads, threads)

    def clear(self):
        self.llama.llama_memory_clear(ctypes.c_void_p(self.llama.llama_get_memory(self.context)), ctypes.c_bool(True))

    def decode(self, ids):
        """Runs the tokens after those in the context; returns the seconds that it took."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        begin = time.perf_counter()
        if self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(tokens, len(ids))):
            sys.exit("llama_decode failed")
        self.llama.llama_synchronize(self.context)
        return time.perf_counter() - begin


def main(folder, model, threads, prompt, output, isa=None):
    threads, prompt, output = int(threads), int(prompt), int(output)
    ids = [1000 + 37 * i % 5000 for i in range(prompt + output)]
    engine = Engine(os.path.abspath(folder), model, threads, prompt + output + 64, isa)
    engine.decode(ids[:32])
    engine.decode(ids[:1])
    engine.clear()
    prefill = engine.decode(ids[:prompt])
    deep = sum(engine.decode([token]) for token in ids[prompt:])
    engine.clear()
    engine.decode(ids[:1])
    empty = sum(engine.decode([token]) for token in ids[1 : output + 1])
    print(json.dumps({"prefill": prompt / prefill, "decode": output / empty, "decode_deep": output / deep}))


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7):
        sys.exit(__doc__)
    main(*sys.argv[1:])
