"""Decodes several sequences of llama.cpp together, as its llama-batched-bench does: no sampling, logits of all rows.
usage: llama_batch.py FOLDER MODEL.gguf SEQUENCES PROMPT_TOKENS OUTPUT_TOKENS [ROUNDS]
       FOLDER has the libraries of a npm package @node-llama-cpp/linux-x64-...; with a GPU's library there, all layers are on it
needs: only Python; for CUDA also libcudart and libcublas in LD_LIBRARY_PATH, and FOLDER"""

import ctypes
import json
import os
import sys
import time

from llama_bench import ContextParams, ModelParams, load


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class Engine:
    def __init__(self, folder, model, n_sequences, n_context):
        self.llama = load(folder, None)
        self.llama.llama_batch_init.restype = Batch
        handle = self.llama.llama_model_load_from_file(model.encode(), self.llama.llama_model_default_params())
        params = self.llama.llama_context_default_params()
        n_seq_max = ctypes.c_uint32.from_buffer(params, 12)
        assert (params.n_ctx, params.n_batch, params.n_ubatch, n_seq_max.value) == (512, 2048, 512, 1), "llama_context_params has changed"
        params.n_ctx = n_sequences * n_context
        n_seq_max.value = n_sequences
        self.context = ctypes.c_void_p(self.llama.llama_init_from_model(ctypes.c_void_p(handle), params))
        if not self.context:
            sys.exit(f"{model}: llama.cpp cannot open it")
        self.batch = self.llama.llama_batch_init(2048, 0, 1)

    def clear(self):
        self.llama.llama_memory_clear(ctypes.c_void_p(self.llama.llama_get_memory(self.context)), ctypes.c_bool(True))

    def decode(self, rows, has_logits):
        """Runs rows of (token, position, sequence)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, has_logits
            batch.seq_id[i][0] = sequence
        if self.llama.llama_decode(self.context, batch):
            sys.exit("llama_decode failed")
        self.llama.llama_synchronize(self.context)


def main(folder, model, n_sequences, n_prompt, n_output, n_rounds=3):
    n_sequences, n_prompt, n_output, n_rounds = int(n_sequences), int(n_prompt), int(n_output), int(n_rounds)
    engine = Engine(os.path.abspath(folder), model, n_sequences, max(256, (n_prompt + n_output + 255) // 256 * 256))
    token = lambda i: 1000 + 37 * i % 5000
    rates = []
    for _ in range(n_rounds + 1):  # the first one warms up
        engine.clear()
        for s in range(n_sequences):
            for begin in range(0, n_prompt, 512):
                engine.decode([(token(s + i), i, s) for i in range(begin, min(begin + 512, n_prompt))], False)
        begin = time.perf_counter()
        for i in range(n_prompt, n_prompt + n_output):
            engine.decode([(token(s + i), i, s) for s in range(n_sequences)], True)
        rates.append(n_sequences * n_output / (time.perf_counter() - begin))
    print(json.dumps({"sequences": n_sequences, "at": n_prompt, "tokens_per_s": sorted(rates[1:])}))


if len(sys.argv) not in (6, 7):
    sys.exit(__doc__)
main(*sys.argv[1:])
