"""One measurement of LiteRT-LM, as one JSON line. The first round fills its weight cache and is not counted.
usage: litert_bench.py MODEL.litertlm THREADS PROMPT_TOKENS OUTPUT_TOKENS CACHE_FOLDER
needs: pip install litert-lm-api"""

import json
import sys

import litert_lm
from litert_lm import interfaces

model, threads, prompt, output, cache = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
for _ in range(2):
    result = litert_lm.Benchmark(model, backend=interfaces.CPU(thread_count=threads), prefill_tokens=prompt, decode_tokens=output,
                                 max_num_tokens=prompt + output + 64, cache_dir=cache).run()
print(json.dumps({"prefill": result.last_prefill_tokens_per_second, "decode": result.last_decode_tokens_per_second}))
