"""Writes a GGUF file with the matrices of another in Q8_0 or Q4_0, to measure speed; norms and biases become floats. In
Q4_0 files the embedding and the head are Q8_0.
usage: quantize_gguf.py IN.gguf OUT.gguf {q8_0|q4_0}
needs: pip install gguf numpy"""

import sys

import gguf
import numpy
from gguf.quants import dequantize, quantize

TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
FILE_TYPES = {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}
OWN_FIELDS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type")


def copy_fields(reader, writer):
    for name, field in reader.fields.items():
        if name in OWN_FIELDS:
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)


def main(source, out, kind):
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    copy_fields(reader, writer)
    writer.add_file_type(FILE_TYPES[kind])
    for tensor in reader.tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.name.endswith(".weight")
        values = dequantize(tensor.data, tensor.tensor_type)
        if not is_matrix:
            writer.add_tensor(tensor.name, values.astype(numpy.float32))
            continue
        to = TYPES["q8_0" if tensor.name in ("token_embd.weight", "output.weight") else kind]
        writer.add_tensor(tensor.name, quantize(values.astype(numpy.float32), to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(*sys.argv[1:])
