"""Print one answer while it is generated.   python generate.py MODEL PROMPT"""

import sys

import quip

if len(sys.argv) != 3:
    sys.exit(__doc__)
path, prompt = sys.argv[1:]
with quip.Model(path) as model, model.session(max_output_tokens=64) as session:
    answer = session.say(prompt)
    for piece in answer:
        print(piece, end="", flush=True)
    result = answer.result
print(f"\n{result.n_output_tokens} tokens in {result.decode_ns / 1e9:.2f} s", file=sys.stderr)
