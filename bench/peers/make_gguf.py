"""Writes a GGUF with the shape of Gemma 1 2B and random weights, every matrix of one type, to measure speed only.
usage: make_gguf.py OUT.gguf {q8_0|q4_0} VOCABULARY_FROM.gguf LAYERS VOCABULARY
needs: pip install gguf numpy"""

import sys

import gguf
import numpy

D_MODEL, D_FF, HEADS, HEAD_DIM = 2048, 16384, 8, 256
TYPES = {  # type, bytes of a block of 32, largest quantized value
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, 34, 127),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, 18, 8),
}


def matrix(writer, random, kind, name, rows, columns):
    """Blocks of noise, with scales that make the weights about 1 / sqrt(columns)."""
    dtype, block_bytes, largest = TYPES[kind]
    blocks = numpy.frombuffer(random.bytes(rows * columns // 32 * block_bytes), numpy.uint8).reshape(-1, block_bytes).copy()
    scales = random.uniform(0.8, 1.2, len(blocks)) * 1.7 / largest / columns**0.5
    blocks[:, :2] = scales.astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
    writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=dtype)


def vocabulary(writer, path, n):
    fields = gguf.GGUFReader(path).fields
    column = lambda key: [fields[key].parts[i] for i in fields[key].data[:n]]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([bytes(x) for x in column("tokenizer.ggml.tokens")])
    writer.add_token_scores([float(x[0]) for x in column("tokenizer.ggml.scores")])
    writer.add_token_types([int(x[0]) for x in column("tokenizer.ggml.token_type")])
    for add, value in ((writer.add_bos_token_id, 2), (writer.add_eos_token_id, 1), (writer.add_unk_token_id, 3)):
        add(value)


def main(out, kind, source, n_layers, n_vocabulary):
    writer, random = gguf.GGUFWriter(out, "gemma"), numpy.random.default_rng(1)
    writer.add_context_length(8192)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    vocabulary(writer, source, n_vocabulary)
    matrix(writer, random, kind, "token_embd.weight", n_vocabulary, D_MODEL)
    for layer in range(n_layers):
        shapes = {"attn_q": (HEADS * HEAD_DIM, D_MODEL), "attn_k": (HEAD_DIM, D_MODEL), "attn_v": (HEAD_DIM, D_MODEL),
                  "attn_output": (D_MODEL, HEADS * HEAD_DIM), "ffn_gate": (D_FF, D_MODEL), "ffn_up": (D_FF, D_MODEL),
                  "ffn_down": (D_MODEL, D_FF)}
        for name, (rows, columns) in shapes.items():
            matrix(writer, random, kind, f"blk.{layer}.{name}.weight", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(D_MODEL, numpy.float32))
    writer.add_tensor("output_norm.weight", numpy.ones(D_MODEL, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
