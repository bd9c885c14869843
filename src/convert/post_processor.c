/* post_processor.c: the tokens that a tokenizer.json puts around every text.
 * In:  its post_processor: TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, or a
 *      Sequence of them.
 * Out: the ids before and behind a text. */
#include "convert/json.h"
#include "convert/tokenizer_import.h"

static bool add_id(int *ids, int *n, const cJSON *id)
{
    if (!cJSON_IsNumber(id) || id->valueint < 0 || id->valuedouble != id->valueint ||
        *n == MAX_TEXT_FRAME)
        return false;
    ids[(*n)++] = id->valueint;
    return true;
}

/* The template of one text: special tokens, the text, special tokens. */
static bool read_template(struct text_frame *f, const cJSON *post)
{
    const cJSON *tokens = qp_json_item(post, "special_tokens");
    int n_texts = 0;
    for (const cJSON *i = qp_json_item(post, "single")->child; i; i = i->next) {
        const cJSON *special = qp_json_item(i, "SpecialToken");
        n_texts += !special;
        const cJSON *ids = qp_json_item(qp_json_item(tokens, qp_json_text(special, "id")), "ids");
        if (special && (!ids || !ids->child))
            return false;
        for (const cJSON *id = special ? ids->child : NULL; id; id = id->next)
            if (!(n_texts ? add_id(f->end, &f->n_end, id) : add_id(f->begin, &f->n_begin, id)))
                return false;
    }
    return n_texts == 1;
}

/* One step. A second one that adds tokens takes those of the first for a pair of texts. */
static bool read_step(struct text_frame *f, const cJSON *post)
{
    if (qp_json_has_type(post, "ByteLevel")) // changes offsets only
        return true;
    if (f->n_begin + f->n_end > 0)
        return false;
    if (qp_json_has_type(post, "TemplateProcessing") && qp_json_item(post, "single"))
        return read_template(f, post);
    return (qp_json_has_type(post, "BertProcessing") ||
            qp_json_has_type(post, "RobertaProcessing")) &&
           add_id(f->begin, &f->n_begin, cJSON_GetArrayItem(qp_json_item(post, "cls"), 1)) &&
           add_id(f->end, &f->n_end, cJSON_GetArrayItem(qp_json_item(post, "sep"), 1));
}

bool qp_json_frame(struct text_frame *f, const cJSON *post)
{
    const cJSON *list = qp_json_item(post, "processors");
    *f = (struct text_frame){ .n_begin = 0 };
    if (!qp_json_has_type(post, "Sequence"))
        return read_step(f, post);
    for (const cJSON *i = list ? list->child : NULL; i; i = i->next)
        if (!read_step(f, i))
            return false;
    return list != NULL;
}

quip_status qp_refuse_post(const cJSON *post, const char *path, quip_error *error)
{
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: the post_processor \"%.40s\" of its tokenizer is not supported; must be "
                   "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel, or a "
                   "Sequence in which one of them adds tokens",
                   path, qp_json_text(post, "type"));
}
