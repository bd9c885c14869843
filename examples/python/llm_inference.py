"""The calls of MediaPipe's LLM Inference.   python llm_inference.py MODEL PROMPT"""

import sys

from quip.genai import LlmInference, LlmInferenceOptions, LlmInferenceSession

path, prompt = sys.argv[1:]
options = LlmInferenceOptions(model_path=path, max_tokens=128)
with LlmInference.create_from_options(options) as llm:
    print(llm.size_in_tokens(prompt), "tokens")
    session = LlmInferenceSession.create_from_options(llm)
    session.add_query_chunk(prompt)
    future = session.generate_response_async(lambda partial, done: print(partial, end="\n" * done))
    future.result()
    session.close()
