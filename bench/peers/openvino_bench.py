"""One measurement of OpenVINO GenAI, which reads GGUF, as one JSON line of tokens per second.
usage: openvino_bench.py MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS
needs: pip install openvino-genai"""

import json
import sys

import numpy
import openvino
import openvino_genai

model, threads, prompt, output = sys.argv[1], *(int(word) for word in sys.argv[2:])
pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)


def rates(n_prompt, n_output):
    ids = openvino.Tensor(numpy.array([[1000 + 37 * i % 5000 for i in range(n_prompt)]], dtype=numpy.int64))
    inputs = openvino_genai.TokenizedInputs(ids, openvino.Tensor(numpy.ones((1, n_prompt), dtype=numpy.int64)))
    metrics = pipe.generate(inputs, max_new_tokens=n_output, min_new_tokens=n_output, do_sample=False, ignore_eos=True).perf_metrics
    return 1000 * n_prompt / metrics.get_ttft().mean, 1000 / metrics.get_tpot().mean


rates(16, 2)
deep, empty = rates(prompt, output), rates(16, output)
print(json.dumps({"prefill": deep[0], "decode": empty[1], "decode_deep": deep[1]}))
