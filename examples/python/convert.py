"""Convert a checkpoint to a model file, like a script for MediaPipe's converter. Only the import
differs.   python convert.py CHECKPOINT MODEL_TYPE TOKENIZER OUT"""

import sys

from quip.genai import converter

if len(sys.argv) != 5:
    sys.exit(__doc__)
checkpoint, model_type, tokenizer, out = sys.argv[1:]
config = converter.ConversionConfig(
    input_ckpt=checkpoint,
    ckpt_format="safetensors",
    model_type=model_type,
    backend="cpu",
    output_dir=".",
    feedforward_quant_bits=4,
    vocab_model_file=tokenizer,
    output_tflite_file=out,
)
converter.convert_checkpoint(config)
