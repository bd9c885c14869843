"""Writes a Gemma 3 GGUF as a Hugging Face folder, which LiteRT's exporter needs.
usage: gguf_to_folder.py IN.gguf OUT_FOLDER
needs: pip install gguf numpy safetensors sentencepiece protobuf"""

import json
import os
import sys

import gguf
import numpy
from gguf.quants import dequantize
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2 as spm

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def published(name):
    name = name[: -len(".weight")]
    if name in ("token_embd", "output_norm"):
        return {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[name]
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def tensors(reader):
    out = {}
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        values = dequantize(t.data, t.tensor_type).astype(numpy.float32).reshape(shape)
        out[published(t.name)] = numpy.ascontiguousarray(values - 1 if "norm" in t.name else values)  # GGUF stores Gemma's norms with 1 added
    return out


def tokenizer(reader):
    column = lambda key: [reader.fields[key].parts[i] for i in reader.fields[key].data]
    proto = spm.ModelProto()
    rows = zip(*(column(f"tokenizer.ggml.{name}") for name in ("tokens", "scores", "token_type")))
    for i, (piece, score, kind) in enumerate(rows):
        proto.pieces.add(piece=bytes(piece).decode("utf-8", "replace"), score=float(score[0]), type=2 if i == 3 else int(kind[0]))
    t, n = proto.trainer_spec, proto.normalizer_spec
    t.model_type, t.byte_fallback, t.vocab_size = 2, True, len(proto.pieces)
    t.pad_id, t.eos_id, t.bos_id, t.unk_id = 0, 1, 2, 3
    t.pad_piece, t.eos_piece, t.bos_piece, t.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces = "identity", False, False
    return proto.SerializeToString()


def main(source, folder):
    reader = gguf.GGUFReader(source)
    value = lambda key: reader.fields["gemma3." + key].parts[reader.fields["gemma3." + key].data[0]][0].item()
    config = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"), "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"), "num_key_value_heads": value("attention.head_count_kv"),
        "head_dim": value("attention.key_length"), "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 512, "tie_word_embeddings": True, "bos_token_id": 2,
        "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "float32",
    }
    template = ("{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
                "{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}")
    words = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
             "add_bos_token": True, "add_eos_token": False, "chat_template": template}
    os.makedirs(folder, exist_ok=True)
    for name, content in (("config.json", config), ("tokenizer_config.json", words)):
        with open(os.path.join(folder, name), "w") as target:
            json.dump(content, target)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as target:
        target.write(tokenizer(reader))
    save_file(tensors(reader), os.path.join(folder, "model.safetensors"), {"format": "pt"})


main(*sys.argv[1:])
