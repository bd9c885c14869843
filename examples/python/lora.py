"""One model with and without a LoRA adapter, on one copy of the weights.
python lora.py MODEL ADAPTER PROMPT"""

import sys

import quip

if len(sys.argv) != 4:
    sys.exit(__doc__)
path, adapter_path, prompt = sys.argv[1:]
with quip.Model(path) as model, model.adapter(adapter_path) as adapter:
    plain = model.session(max_output_tokens=24)
    tuned = model.session(max_output_tokens=24, adapter=adapter)
    print("without:", plain.ask(prompt))
    print("with:   ", tuned.ask(prompt))
    tuned.set_adapter(adapter, 0.5)  # the conversation stays
    print("at half:", tuned.ask(prompt))
