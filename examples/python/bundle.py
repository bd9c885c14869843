"""Write a model, its tokenizer and its prompt settings to one .task file, like a script for MediaPipe's
bundler.   python bundle.py MODEL TOKENIZER OUT.task"""

import sys

from quip.genai import bundler

if len(sys.argv) != 4:
    sys.exit(__doc__)
model, tokenizer, out = sys.argv[1:]
config = bundler.BundleConfig(
    tflite_model=model,
    tokenizer_model=tokenizer,
    start_token="<s>",
    stop_tokens=["</s>"],
    output_filename=out,
    prompt_prefix_user="User: ",
    prompt_suffix_user="\n",
    prompt_prefix_model="Model: ",
    prompt_suffix_model="\n",
)
bundler.create_bundle(config)
