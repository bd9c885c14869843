/* prompt_tokens.c: the tokens around a prompt.
 * In:  tokenizer.json's post_processor, tokenizer_config.json, a GGUF file's metadata, and how
 * chats begin.
 * Out: whether a text begins with bos; sentences about what a session does otherwise. */
#include "convert/prompt_tokens.h"
#include "convert/json.h"

#include <string.h>

/* Whether the reference makes a tokenizer without any tokens around a text, whatever the files say.
 */
static bool is_gpt_neox(const struct prompt_tokens *p)
{
    const char *name = qp_json_text(p->checkpoint->tokenizer_config, "tokenizer_class");
    return p->imported->has_json && !p->options->tokenizer &&
           strncmp(name, "GPTNeoXTokenizer", 16) == 0;
}

static bool is_own_gguf(const struct prompt_tokens *p)
{
    return p->checkpoint->is_gguf && !p->options->tokenizer;
}

/* A post_processor counts before tokenizer_config.json. */
void qp_settle_bos(struct hparams *h, const struct prompt_tokens *p)
{
    const struct imported_tokenizer *t = p->imported;
    const struct checkpoint *c = p->checkpoint;
    if (is_own_gguf(p))
        return; // its metadata said it
    if (is_gpt_neox(p))
        h->has_bos = false;
    else if (t->has_frame) {
        h->has_bos = t->frame.n_begin > 0;
        if (t->frame.n_begin > 0)
            h->bos = t->frame.begin[0];
    } else if (!cJSON_HasObjectItem(c->tokenizer_config, "add_bos_token") &&
               !(t->is_copy && c->is_gguf))
        h->has_bos = t->is_copy && h->bos >= 0;
}

/* ---- what a session does otherwise ---- */

static bool is_switch_on(const struct prompt_tokens *p, const char *key)
{
    return qp_json_flag(p->checkpoint->tokenizer_config, key, false);
}

/* transformers does not obey these switches of tokenizer_config.json beside a post_processor. */
static void note_switch(const struct prompt_tokens *p, const char *key, bool is_on)
{
    if (qp_json_flag(p->checkpoint->tokenizer_config, key, is_on) != is_on)
        qp_convert_note(
            p->options,
            "%s: tokenizer_config.json says %s %s, and the post_processor of tokenizer.json the "
            "contrary; the latter counts",
            p->in, key, is_on ? "false" : "true");
}

static void note_frame(const struct prompt_tokens *p, const struct text_frame *f)
{
    if (f->n_end > 0)
        qp_convert_note(
            p->options,
            "%s: its tokenizer puts token %d behind every text, but a prompt is continued, and "
            "goes without it",
            p->in, f->end[0]);
    note_switch(p, "add_bos_token", f->n_begin > 0);
    if (f->n_end == 0)
        note_switch(p, "add_eos_token", false);
}

static void note_gpt_neox(const struct prompt_tokens *p)
{
    const struct text_frame *f = &p->imported->frame;
    if (f->n_begin + f->n_end > 0 || is_switch_on(p, "add_bos_token") ||
        is_switch_on(p, "add_eos_token"))
        qp_convert_note(
            p->options,
            "%s: a prompt has no tokens around it, whatever add_bos_token, add_eos_token and the "
            "post_processor of tokenizer.json say, because its tokenizer_class is %.40s",
            p->in, qp_json_text(p->checkpoint->tokenizer_config, "tokenizer_class"));
}

static void note_without_frame(const struct hparams *h, const struct prompt_tokens *p)
{
    const struct metadata *m = is_own_gguf(p)
                                   ? qp_format_find_metadata(&p->checkpoint->shards[0].format,
                                                             "tokenizer.ggml.add_eos_token")
                                   : NULL;
    if (h->has_bos && p->imported->has_json)
        qp_convert_note(p->options,
                        "%s: a text begins with bos, token %d, although its tokenizer.json has no "
                        "post_processor; transformers 5 would leave bos out",
                        p->in, h->bos);
    if (m ? m->type == METADATA_INT && m->i != 0 : is_switch_on(p, "add_eos_token"))
        qp_convert_note(
            p->options,
            "%s: says add_eos_token, but a prompt is continued, and goes without eos at its end",
            p->in);
}

/* Every context of a session begins with bos, as in llama.cpp. In transformers a template spells
 * all of a chat. */
static void note_bos_of_chat(const struct hparams *h, const struct prompt_tokens *p)
{
    size_t n = 0;
    const char *begin = p->spelling->begin;
    const char *bos = h->has_bos ? qp_tokenizer_piece(p->tokenizer, h->bos, &n) : NULL;
    if (bos && *begin && n < sizeof p->spelling->begin && strncmp(begin, bos, n) != 0)
        qp_convert_note(
            p->options,
            "%s: a chat begins with token %d, \"%.*s\", as every text does, although the chat "
            "template does not spell it",
            p->in, h->bos, (int)n, bos);
}

quip_status qp_check_prompt(const struct hparams *h, const struct prompt_tokens *p,
                            quip_error *error)
{
    const struct imported_tokenizer *t = p->imported;
    if (is_gpt_neox(p))
        note_gpt_neox(p);
    else if (t->has_frame && t->frame.n_begin > 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: the post_processor of its tokenizer puts %d tokens before every text, "
                       "and a model file has one, bos; leave one in tokenizer.json, and write the "
                       "others in the prompt",
                       p->options->tokenizer ? p->options->tokenizer : p->in, t->frame.n_begin);
    else if (t->has_frame)
        note_frame(p, &t->frame);
    else
        note_without_frame(h, p);
    note_bos_of_chat(h, p);
    return QUIP_OK;
}

void qp_note_special_tokens(const struct prompt_tokens *p)
{
    if (is_switch_on(p, "split_special_tokens"))
        qp_convert_note(
            p->options,
            "%s: tokenizer_config.json says split_special_tokens, but a special token that is "
            "spelled in a text is that token all the same, unless the caller says otherwise",
            p->in);
}
