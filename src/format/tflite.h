/* tflite.h: numbers that the reader and the writer of MediaPipe's model file share. The layout is
 * that of TFLite's schema.fbs, version 3; see docs/model-format.md. */
#ifndef QP_TFLITE_H
#define QP_TFLITE_H

#include "format/format.h"

/* MediaPipe maps this many bytes as the flatbuffer: the whole flatbuffer must be inside, and it
 * refuses a shorter file. */
#define TFLITE_HEADER_BYTES (1u << 20)

#define TFLITE_VERSION 3

/* Fields by number, in the order of the schema. */
enum {
    MODEL_VERSION = 0,
    MODEL_OPERATOR_CODES = 1,
    MODEL_SUBGRAPHS = 2,
    MODEL_BUFFERS = 4,
    MODEL_METADATA = 6,
    SUBGRAPH_TENSORS = 0,
    SUBGRAPH_OPERATORS = 3,
    SUBGRAPH_NAME = 4,
    TENSOR_SHAPE = 0,
    TENSOR_TYPE = 1,
    TENSOR_BUFFER = 2,
    TENSOR_NAME = 3,
    TENSOR_HAS_RANK = 8,
    BUFFER_DATA = 0,
    BUFFER_OFFSET = 1,
    BUFFER_SIZE = 2,
    METADATA_NAME = 0,
    METADATA_BUFFER = 1
};

/* TensorType of a dtype; -1 if it has none. */
int qp_tflite_type(enum dtype dtype);

#endif
