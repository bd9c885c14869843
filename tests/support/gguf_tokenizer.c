/* gguf_tokenizer.c: see gguf_tokenizer.h */
#include "support/gguf_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"
#include "tokenizer/tokenizer.h"

struct listed_piece {
    const char *text; // NULL: no piece has this id
    enum piece_type type;
};

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* The pieces by id; *n is their number. */
static struct listed_piece *list_pieces(const cJSON *json, int *n)
{
    const cJSON *vocab = member(member(json, "model"), "vocab"),
                *added = member(json, "added_tokens");
    const cJSON *item;
    const int limit = cJSON_GetArraySize(vocab) + cJSON_GetArraySize(added) + 1024;
    struct listed_piece *pieces = calloc((size_t)limit, sizeof *pieces);
    assert_non_null(pieces);
    *n = 0;
    cJSON_ArrayForEach(item, vocab)
    {
        assert_in_range(item->valueint, 0, limit - 1);
        pieces[item->valueint] = (struct listed_piece){ item->string, PIECE_NORMAL };
        *n = item->valueint >= *n ? item->valueint + 1 : *n;
    }
    cJSON_ArrayForEach(item, added)
    {
        const int id = member(item, "id")->valueint;
        assert_in_range(id, 0, limit - 1);
        pieces[id] =
            (struct listed_piece){ member(item, "content")->valuestring,
                                   cJSON_IsTrue(member(item, "special")) ? PIECE_CONTROL
                                                                         : PIECE_USER_DEFINED };
        *n = id >= *n ? id + 1 : *n;
    }
    return pieces;
}

static void put_merge(struct gguf *g, const cJSON *merge)
{
    char text[2000];
    if (cJSON_IsString(merge)) {
        put_text(&g->metadata, merge->valuestring);
        return;
    }
    snprintf(text, sizeof text, "%s %s", cJSON_GetArrayItem(merge, 0)->valuestring,
             cJSON_GetArrayItem(merge, 1)->valuestring);
    put_text(&g->metadata, text);
}

void gguf_of_tokenizer_json(const cJSON *json, const char *pre, struct bytes *out)
{
    int n;
    struct gguf g = { 0 };
    struct listed_piece *pieces = list_pieces(json, &n);
    const cJSON *merges = member(member(json, "model"), "merges"), *merge;
    gguf_text(&g, "general.architecture", "llama");
    gguf_text(&g, "tokenizer.ggml.model", "gpt2");
    if (pre)
        gguf_text(&g, "tokenizer.ggml.pre", pre);
    gguf_list(&g, "tokenizer.ggml.tokens", GGUF_TYPE_TEXT, n);
    for (int id = 0; id < n; id++) {
        char pad[24];
        snprintf(pad, sizeof pad, "[PAD%d]", id);
        put_text(&g.metadata, pieces[id].text ? pieces[id].text : pad);
    }
    gguf_list(&g, "tokenizer.ggml.token_type", GGUF_TYPE_I32, n);
    for (int id = 0; id < n; id++)
        put_u32(&g.metadata, pieces[id].text ? pieces[id].type : PIECE_UNUSED);
    gguf_list(&g, "tokenizer.ggml.merges", GGUF_TYPE_TEXT, cJSON_GetArraySize(merges));
    cJSON_ArrayForEach(merge, merges) put_merge(&g, merge);
    put_bytes(out, "GGUF", 4);
    put_u32(out, 3);
    put_u64(out, 0);
    put_u64(out, (uint64_t)g.n_metadata);
    put_bytes(out, g.metadata.data, g.metadata.n);
    qp_bytes_close(&g.metadata);
    free(pieces);
}

void gguf_wordpiece(struct gguf *g, const char *vocab)
{
    struct bytes types = { 0 }, pieces = { 0 };
    int n_pieces = 0;
    for (size_t n; *vocab; vocab += n + (vocab[n] != 0), n_pieces++) {
        char piece[100];
        n = strcspn(vocab, "\n");
        const bool is_control = n > 2 && vocab[0] == '[' && vocab[n - 1] == ']';
        const size_t n_mark = n > 2 && memcmp(vocab, "##", 2) == 0 ? 2 : 0;
        snprintf(piece, sizeof piece, "%s%.*s", is_control || n_mark ? "" : "\xe2\x96\x81",
                 (int)(n - n_mark), vocab + n_mark);
        put_text(&pieces, piece);
        put_u32(&types, is_control ? 3 : 1);
    }
    gguf_text(g, "tokenizer.ggml.model", "bert");
    gguf_list(g, "tokenizer.ggml.tokens", GGUF_TYPE_TEXT, n_pieces);
    put_bytes(&g->metadata, pieces.data, pieces.n);
    gguf_list(g, "tokenizer.ggml.token_type", GGUF_TYPE_I32, n_pieces);
    put_bytes(&g->metadata, types.data, types.n);
    gguf_u32(g, "tokenizer.ggml.unknown_token_id", 1);
    gguf_u32(g, "tokenizer.ggml.bos_token_id", 2);
    gguf_u32(g, "tokenizer.ggml.seperator_token_id", 3);
    qp_bytes_close(&types);
    qp_bytes_close(&pieces);
}
