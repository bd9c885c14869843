"""The API of MediaPipe's LLM Inference.   python llm_inference.py MODEL PROMPT"""

import sys

from quip.genai import LlmInference, LlmInferenceOptions, LlmInferenceSession

if len(sys.argv) != 3:
    sys.exit(__doc__)
path, prompt = sys.argv[1:]
options = LlmInferenceOptions(model_path=path, max_tokens=128)
with LlmInference.create_from_options(options) as llm:
    print(llm.size_in_tokens(prompt), "tokens")
    with LlmInferenceSession.create_from_options(llm) as session:
        session.add_query_chunk(prompt)
        session.generate_response_async(
            lambda partial, done: print(partial, end="\n" * done, flush=True)
        ).result()
