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
