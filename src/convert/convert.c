/* convert.c: one conversion from start to end, in qp_convert.
 * In:  a checkpoint or a model file, and options.
 * Out: a model file, which appears when it is complete.
 *
 *     open and declare -> write -> verify -> commit
 *
 * The other files of this folder:
 *     conversion.c       a checkpoint -> a model file
 *     requantize.c       a model file -> another, with weights of other types
 *     sources.c          a path -> the files of a checkpoint
 *     checkpoint.c       those files -> tensors by name, and JSON; pytorch.c, pickle.c: PyTorch
 * files hparams_*.c        GGUF metadata or config.json -> hyper-parameters; metadata.c writes them
 *     tokenizer_*.c      tokenizer.json or GGUF metadata -> vocabulary.c -> the tokenizer's blobs
 *     prompt_tokens.c    whether a prompt begins with bos; post_processor.c reads what says so
 *     plan.c, rows.c     which tensor becomes which; its rows; lora_merge.c adds an adapter to them
 *     store.c            rows -> bytes of the model file; quantize_block.c: block-wise int4
 *     calibrate.c        a model and a text -> the importance of columns
 *     embedding_*.c      the rest of an embedding model; rounding.c and triangle.c: int8 for what
 *                        its matrices are multiplied by
 *     verify.c           the distance of a model file from its source
 *     adapter_file.c     a PEFT adapter -> a MediaPipe LoRA file
 *     bundle.c           a model file -> a .task bundle, and back; zip_writer.c: the archive */
#include "convert/checkpoint.h"
#include "convert/conversion.h"
#include "convert/requantize.h"
#include "convert/store.h"
#include "convert/verify.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool qp_convert_weights_find(const char *name, enum convert_weights *weights)
{
    static const char *const names[] = { "int8", "mixed", "int4", "f32" };
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (strcmp(names[i], name) == 0) {
            *weights = (enum convert_weights)i;
            return true;
        }
    return false;
}

void qp_convert_note(const struct convert_options *options, const char *format, ...)
{
    char sentence[600];
    va_list args;
    if (!options->on_note)
        return;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    options->on_note(options->user, sentence);
}

/* ---- checks ---- */

/* Whether any matrix becomes block-wise int4. */
static bool makes_block_wise(const struct convert_options *o)
{
    static const enum weight_class classes[] = { CLASS_ATTENTION, CLASS_FEED_FORWARD,
                                                 CLASS_EMBEDDING };
    struct stored s = { 0 };
    for (size_t i = 0; i < QP_COUNT(classes) && s.dtype != DTYPE_I4_BLOCK; i++)
        qp_store_as(&s, o, classes[i]);
    return s.dtype == DTYPE_I4_BLOCK;
}

/* Report options that are invalid or cannot be combined. */
static quip_status check_options(const struct convert_options *o, quip_error *error)
{
    if (o->block_size != 0 && o->block_size != 32 && o->block_size != 128)
        return qp_fail(error, QUIP_E_ARGUMENT, "block_size is %d; must be 0 (off), 32 or 128",
                       o->block_size);
    if (o->is_asymmetric && !o->for_gpu)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "asymmetric weights cannot be stored in files for CPUs, which have no zero points "
            "(MediaPipe's converter drops them); use symmetric weights");
    if (o->is_asymmetric && o->is_mse)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "scales from the mean square are for symmetric weights only");
    if (o->block_size && (o->for_gpu || o->is_original || o->is_mse))
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "block_size is %d; must be 0 in files for MediaPipe, which reads one scale for each "
            "row; int4 for Quip is block-wise without this option",
            o->block_size);
    if (o->calibrate && !makes_block_wise(o))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "a calibration text needs block-wise int4; add --weights int4");
    if (o->format && strcmp(o->format, "safetensors") != 0 && strcmp(o->format, "pytorch") != 0 &&
        strcmp(o->format, "gguf") != 0)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "unknown checkpoint format %s; must be safetensors, pytorch or gguf",
                       o->format);
    if (o->model_type && !qp_model_type_named(o->model_type))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "unknown model type %s; leave it out if there is a config.json",
                       o->model_type);
    return QUIP_OK;
}

/* Report a bad output path now instead of after writing everything. */
static quip_status check_output(const char *in, const char *out, quip_error *error)
{
    if (qp_path_is_folder(out))
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: is a folder; name the file to write", out);
    if (qp_path_is_same(in, out))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is the checkpoint itself; write to another file", out);
    return QUIP_OK;
}

quip_status qp_convert(const char *in, const char *out, const struct convert_options *options,
                       quip_error *error)
{
    static const struct convert_options defaults = { 0 };
    const struct convert_options *o = options ? options : &defaults;
    struct conversion *conversion = NULL;
    struct requantizer *requantizer = NULL;
    struct tflite_writer *writer = NULL;
    quip_status status = check_options(o, error);
    if (!status)
        status = check_output(in, out, error);
    assert(in && out);
    const bool is_model_file = !status && qp_path_is_model_file(in);
    if (!status && !is_model_file && o->calibrate)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: is a checkpoint, which does not run; convert it with --weights f32 "
                         "or int8, and calibrate that file",
                         in);
    if (!status)
        status = is_model_file ? qp_requantize_open(&requantizer, &writer, in, out, o, error)
                               : qp_conversion_open(&conversion, &writer, in, out, o, error);
    if (!status)
        status = qp_verify_declare(writer, o, error);
    if (!status)
        status = qp_tflite_writer_begin(writer, error);
    if (!status)
        status = is_model_file ? qp_requantize_write(requantizer) : qp_conversion_write(conversion);
    if (!status)
        status = qp_verify_written(writer, in, out, o, error);
    if (!status)
        status = qp_tflite_writer_commit(writer, error);
    qp_tflite_writer_close(writer);
    qp_requantize_close(requantizer);
    qp_conversion_close(conversion);
    return status;
}
