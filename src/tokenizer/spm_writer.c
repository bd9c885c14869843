/* spm_writer.c: writes a SentencePiece ModelProto.
 * In:  pieces in the order of their ids, then the options once.
 * Out: the bytes of a proto that SentencePiece can read. */
#include "tokenizer/tokenizer_impl.h"

#include "format/protobuf.h"

#include <assert.h>

bool qp_spm_write_piece(struct bytes *out, const char *piece, size_t n, float score,
                        enum piece_type type)
{
    assert(type >= PIECE_NORMAL && type <= PIECE_BYTE);
    struct bytes message = { 0 };
    bool ok = qp_proto_put_bytes(&message, 1, piece, n) && qp_proto_put_float(&message, 2, score) &&
              (type == PIECE_NORMAL || qp_proto_put_varint(&message, 3, type)) &&
              qp_proto_put_bytes(out, 1, message.data, message.n);
    qp_bytes_close(&message);
    return ok;
}

static bool append_id(struct bytes *message, int number, int id)
{
    return qp_proto_put_varint(message, number, (uint64_t)(int64_t)id); // -1 is ten bytes
}

static bool append_trainer_spec(struct bytes *message, const struct spm_options *o)
{
    return qp_proto_put_varint(message, 3, o->is_bpe ? SPM_BPE : SPM_UNIGRAM) &&
           qp_proto_put_varint(message, 4, (uint64_t)o->vocab_size) &&
           qp_proto_put_varint(message, 35, o->byte_fallback) &&
           append_id(message, 40, o->unk_id) && append_id(message, 41, o->bos_id) &&
           append_id(message, 42, o->eos_id) && append_id(message, 43, o->pad_id);
}

static bool append_normalizer_spec(struct bytes *message, const struct spm_options *o)
{
    const char *name = o->n_charsmap ? "user_defined" : "identity";
    return qp_proto_put_bytes(message, 1, name, strlen(name)) &&
           (!o->n_charsmap || qp_proto_put_bytes(message, 2, o->charsmap, o->n_charsmap)) &&
           qp_proto_put_varint(message, 3, o->add_dummy_prefix) &&
           qp_proto_put_varint(message, 4, o->remove_extra_whitespaces) &&
           qp_proto_put_varint(message, 5, o->escape_whitespaces);
}

bool qp_spm_write_options(struct bytes *out, const struct spm_options *options)
{
    struct bytes trainer = { 0 }, normalizer = { 0 };
    bool ok = append_trainer_spec(&trainer, options) &&
              append_normalizer_spec(&normalizer, options) &&
              qp_proto_put_bytes(out, 2, trainer.data, trainer.n) &&
              qp_proto_put_bytes(out, 3, normalizer.data, normalizer.n);
    qp_bytes_close(&trainer);
    qp_bytes_close(&normalizer);
    return ok;
}
