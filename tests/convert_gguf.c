/* convert_gguf.c (test): GGUF files as people have them: in parts, beside other files, with entries
 * and tensors that differ from what llama.cpp's converter writes today. */
#include "convert/convert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/alloc_fault.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"

/* ---- conversions ---- */

static quip_status convert_f32(const char *in, const char *out, quip_error *error)
{
    const struct convert_options options = { .weights = CONVERT_F32 };
    *error = (quip_error){ 0 };
    return qp_convert(in_folder(in), in_folder(out), &options, error);
}

/* `in` becomes the same model file as in.gguf of the untied llama sample. */
static void assert_same_model(const char *in)
{
    quip_error error;
    size_t n_a, n_b;
    if (convert_f32(in, "out.bin", &error))
        fail_msg("%s", error.message);
    write_gguf_as(&sample_llama_untied, &(struct gguf_options){ .name = "hf/plain.gguf" });
    if (convert_f32("hf/plain.gguf", "plain.bin", &error))
        fail_msg("%s", error.message);
    char *a = read_whole(in_folder("out.bin"), &n_a), *b = read_whole(in_folder("plain.bin"), &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
    unlink(in_folder("hf/plain.gguf"));
    unlink(in_folder("out.bin"));
    unlink(in_folder("plain.bin"));
}

/* The conversion fails with a message that contains all of `parts`, which end with NULL. */
static void assert_refused(const char *in, const char *const parts[])
{
    quip_error error;
    assert_int_not_equal(convert_f32(in, "out.bin", &error), QUIP_OK);
    for (int i = 0; parts[i]; i++)
        if (!strstr(error.message, parts[i]))
            fail_msg("\"%s\" is not in \"%s\"", parts[i], error.message);
    assert_int_not_equal(access(in_folder("out.bin"), F_OK), 0);
}
#define assert_refused(in, ...) assert_refused(in, (const char *const[]){ __VA_ARGS__, NULL })

/* Where a text begins in bytes; NULL if it is not there. */
static const char *find_bytes(const char *bytes, size_t n, const char *text)
{
    const size_t length = strlen(text);
    for (size_t i = 0; i + length <= n; i++)
        if (memcmp(bytes + i, text, length) == 0)
            return bytes + i;
    return NULL;
}

/* ---- parts ---- */

static void write_part(int part, int n_parts, const char *name, void (*more)(struct gguf *g))
{
    write_gguf_as(
        &sample_llama_untied,
        &(struct gguf_options){ .name = name, .part = part, .n_parts = n_parts, .more = more });
}

enum {
    N_TENSORS = 3 + 9 * N_LAYERS
};

static void count_all(struct gguf *g)
{
    gguf_u32(g, "split.tensors.count", N_TENSORS);
}

static void write_three_parts(void)
{
    write_part(0, 3, "parts/m-00001-of-00003.gguf", count_all);
    write_part(1, 3, "parts/m-00002-of-00003.gguf", NULL);
    write_part(2, 3, "parts/m-00003-of-00003.gguf", NULL);
}

static void test_parts(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("parts"), 0777), 0);
    write_three_parts();
    assert_same_model("parts/m-00001-of-00003.gguf");
    assert_same_model("parts/m-00003-of-00003.gguf");
    assert_same_model("parts");
    assert_same_model("parts/m-*.gguf");

    write_part(1, 3, "parts/m-00002-of-00003.gguf", count_all); // llama.cpp counts in each part
    assert_same_model("parts");
}

static void count_less(struct gguf *g)
{
    gguf_u32(g, "split.tensors.count", N_TENSORS - 1);
}

static void test_false_parts(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("parts"), 0777), 0);
    write_three_parts();
    unlink(in_folder("parts/m-00002-of-00003.gguf"));
    assert_refused("parts/m-00001-of-00003.gguf", "is part 1 of 3",
                   "m-00002-of-00003.gguf is missing");
    assert_refused("parts", "m-00002-of-00003.gguf is missing; put all parts into one folder");
    write_part(1, 3, "parts/renamed.gguf", NULL);
    assert_refused("parts/renamed.gguf", "is part 2 of 3", "does not end in -00002-of-00003.gguf");
    unlink(in_folder("parts/renamed.gguf"));
    write_part(2, 3, "parts/m-00002-of-00003.gguf", NULL); // the third part under this name
    assert_refused("parts/m-00001-of-00003.gguf", "says that it is part 3 of 3");
    write_part(1, 3, "parts/m-00002-of-00003.gguf", NULL);
    write_part(0, 3, "parts/m-00001-of-00003.gguf", count_less);
    assert_refused("parts", "its 3 parts have 21 tensors, expected 20");
}

static void say_part_2_of_1(struct gguf *g)
{
    gguf_u32(g, "split.no", 2);
    gguf_u32(g, "split.count", 1);
}

static void say_many_parts(struct gguf *g)
{
    gguf_u32(g, "split.no", 0);
    gguf_u32(g, "split.count", 0xffffffff);
}

static void say_one_part(struct gguf *g)
{
    gguf_u32(g, "split.no", 0);
    gguf_u32(g, "split.count", 1);
    gguf_u32(g, "split.tensors.count", N_TENSORS);
}

static void say_no_parts(struct gguf *g)
{
    gguf_u32(g, "split.count", 0); // merged files have it (gguf-split --merge)
}

static void write_llama(const char *name, void (*more)(struct gguf *g))
{
    write_gguf_as(&sample_llama_untied, &(struct gguf_options){ .name = name, .more = more });
}

static void test_part_numbers(void **state)
{
    (void)state;
    write_llama("in.gguf", say_part_2_of_1);
    assert_refused("in.gguf", "part 2 of 1");
    write_llama("in.gguf", say_many_parts);
    assert_refused("in.gguf", "part 0 of 4294967295");
    write_llama("in.gguf", say_one_part);
    assert_same_model("in.gguf");
    write_llama("in.gguf", say_no_parts);
    assert_same_model("in.gguf");
}

/* ---- folders ---- */

static void say_mmproj(struct gguf *g)
{
    gguf_text(g, "general.type", "mmproj");
}
static void say_imatrix(struct gguf *g)
{
    gguf_text(g, "general.type", "imatrix");
}
static void say_adapter(struct gguf *g)
{
    gguf_text(g, "general.type", "adapter");
}
static void say_model(struct gguf *g)
{
    gguf_text(g, "general.type", "model");
}

/* Files beside a model are recognised by what they say, not by their names. */
static void test_companions(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("d"), 0777), 0);
    write_llama("d/a-vision.gguf", say_mmproj);
    assert_refused("d", "a-vision.gguf", "(mmproj); convert the GGUF file of the language model");
    write_llama("d/b.gguf", say_imatrix);
    write_llama("d/z.gguf", say_adapter);
    assert_refused("d/b.gguf", "importance matrix");
    assert_refused("d/z.gguf", "LoRA adapter in GGUF form", "--adapter-of");
    write_llama("d/m.gguf", say_model);
    assert_same_model("d");
    write_llama("d/n.gguf", NULL);
    assert_refused("d", "such as m.gguf and n.gguf; give the path of one of them");
    unlink(in_folder("d/n.gguf"));
    write_part(0, 2, "d/n-00001-of-00002.gguf", NULL);
    write_part(1, 2, "d/n-00002-of-00002.gguf", NULL);
    assert_refused("d", "such as m.gguf and n-00001-of-00002.gguf");
    unlink(in_folder("d/m.gguf"));
    assert_same_model("d");
    write_part(0, 1, "d/n-00001-of-00001.gguf", NULL);
    assert_refused("d", "more than one model");
}

/* An old file says only that its architecture is clip. */
static void test_clip(void **state)
{
    (void)state;
    write_gguf_as(&(const struct sample){ "clip", FAMILY_LLAMA, true },
                  &(struct gguf_options){ 0 });
    assert_refused("in.gguf", "(mmproj)");
}

/* ---- values of layers ---- */

static void put_list(struct gguf *g, const char *key, uint32_t type, int n, const int *values)
{
    gguf_list(g, key, type, n);
    for (int i = 0; i < n; i++)
        put_u32(&g->metadata, (uint32_t)values[i]);
}

static void equal_lists(struct gguf *g)
{
    put_list(g, "llama.attention.head_count_kv", GGUF_TYPE_U32, 2, (int[]){ 2, 2 });
    put_list(g, "llama.attention.head_count", GGUF_TYPE_I32, 2, (int[]){ 4, 4 });
    put_list(g, "llama.feed_forward_length", GGUF_TYPE_I32, 3, (int[]){ D_FF, D_FF, 7 });
}

static void unequal_list(struct gguf *g)
{
    put_list(g, "llama.feed_forward_length", GGUF_TYPE_I32, 2, (int[]){ D_FF, 48 });
}

static void short_list(struct gguf *g)
{
    put_list(g, "llama.feed_forward_length", GGUF_TYPE_I32, 1, (int[]){ D_FF });
}

static void real_list(struct gguf *g)
{
    put_list(g, "llama.feed_forward_length", GGUF_TYPE_F32, 2, (int[]){ 0, 0 });
}

static void negative_list(struct gguf *g)
{
    put_list(g, "llama.feed_forward_length", GGUF_TYPE_I32, 2, (int[]){ -5, -5 });
}

static void test_layers(void **state)
{
    (void)state;
    static const struct {
        void (*more)(struct gguf *g);
        const char *part; // of the message; NULL: converted
    } cases[] = {
        { equal_lists, NULL },
        { unequal_list,
          "feed_forward_length differs layer by layer: 40 in layer 0, 48 in layer 1" },
        { short_list, "feed_forward_length has 1 values, expected one for each of 2 layers" },
        { real_list, "feed_forward_length is not an integer" },
        { negative_list, "feed-forward width is -1" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_gguf_as(&sample_llama_untied,
                      &(struct gguf_options){
                          .skip = i ? ",llama.feed_forward_length,"
                                    : ",llama.attention.head_count,llama.attention.head_count_kv,"
                                      "llama.feed_forward_length,",
                          .more = cases[i].more });
        if (cases[i].part)
            assert_refused("in.gguf", cases[i].part);
        else
            assert_same_model("in.gguf");
    }
}

/* ---- types ---- */

static void put_iq2(struct gguf *g)
{
    gguf_zeros(g, "blk.0.ffn_gate.weight", D_FF, 256, 17, 74 * D_FF);
}

static void test_unread_types(void **state)
{
    (void)state;
    write_gguf_as(
        &sample_llama_untied,
        &(struct gguf_options){ .skip_tensor = "blk.0.ffn_gate.weight", .more = put_iq2 });
    assert_refused("in.gguf", "blk.0.ffn_gate.weight is IQ2_XS", "Q4_K_M");
}

/* ---- zeros ---- */

static void put_zero_embedding(struct gguf *g)
{
    gguf_zeros(g, "token_embd.weight", VOCAB, D_MODEL, 0, 4 * VOCAB * D_MODEL);
}

static void put_zero_down(struct gguf *g)
{
    gguf_zeros(g, "blk.0.ffn_down.weight", D_MODEL, D_FF, 0, 4 * D_MODEL * D_FF);
}

/* A download that stopped leaves zeros. One matrix of zeros can be meant: a layer that is off. */
static void test_zeros(void **state)
{
    (void)state;
    quip_error error;
    write_gguf_as(&sample_llama_untied, &(struct gguf_options){ .skip_tensor = "token_embd.weight",
                                                                .more = put_zero_embedding });
    assert_refused("in.gguf", "token_embd.weight (F32) has only zeros", "Download the file again");
    write_gguf_as(&sample_llama_untied, &(struct gguf_options){ .zeroes_layers = true });
    assert_refused("in.gguf", "each matrix of its layers, such as blk.0.attn_q.weight (F32) has");
    write_gguf_as(
        &sample_llama_untied,
        &(struct gguf_options){ .skip_tensor = "blk.0.ffn_down.weight", .more = put_zero_down });
    if (convert_f32("in.gguf", "out.bin", &error))
        fail_msg("%s", error.message);
    unlink(in_folder("out.bin"));
}

/* ---- windows ---- */

static const struct sample sample_qwen2 = { "qwen2", FAMILY_QWEN2, true };

static void say_window_16(struct gguf *g)
{
    gguf_u32(g, "qwen2.attention.sliding_window", 16);
}
static void say_window_of_context(struct gguf *g)
{
    gguf_u32(g, "qwen2.attention.sliding_window", 512);
}
static void say_window_pattern(struct gguf *g)
{
    say_window_16(g);
    put_list(g, "qwen2.attention.sliding_window_pattern", GGUF_TYPE_I32, 2, (int[]){ 0, 1 });
}

/* Some writers copy the window of Qwen2's config, where it is mostly switched off. */
static void test_window_without_pattern(void **state)
{
    (void)state;
    static const struct {
        void (*more)(struct gguf *g);
        bool has_window;
    } cases[] = { { NULL, false }, { say_window_of_context, false }, { say_window_pattern, true } };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error;
        size_t n;
        write_gguf_as(&sample_qwen2, &(struct gguf_options){ .more = cases[i].more });
        if (convert_f32("in.gguf", "out.bin", &error))
            fail_msg("%s", error.message);
        char *out = read_whole(in_folder("out.bin"), &n);
        assert_int_equal(find_bytes(out, n, "window 16\n") != NULL, cases[i].has_window);
        free(out);
        unlink(in_folder("out.bin"));
    }
    write_gguf_as(&sample_qwen2, &(struct gguf_options){ .more = say_window_16 });
    assert_refused("in.gguf", "sliding window of 16 tokens", "which layers slide");
}

static const struct sample sample_olmo2 = { "olmo2", FAMILY_OLMO2, false };

static void say_no_window(struct gguf *g)
{
    gguf_u32(g, "gemma3.attention.sliding_window", 0);
}
/* Two more layers, so that there are four. */
static void say_olmo3_window(struct gguf *g)
{
    enum {
        Q = N_HEADS * HEAD_DIM,
        KV = N_KV_HEADS * HEAD_DIM
    };
    static const struct {
        const char *name;
        int rows, cols;
    } tensors[] = {
        { "attn_q", Q, D_MODEL },
        { "attn_k", KV, D_MODEL },
        { "attn_v", KV, D_MODEL },
        { "attn_output", D_MODEL, Q },
        { "attn_q_norm", Q, 0 },
        { "attn_k_norm", KV, 0 },
        { "post_attention_norm", D_MODEL, 0 },
        { "ffn_gate", D_FF, D_MODEL },
        { "ffn_up", D_FF, D_MODEL },
        { "ffn_down", D_MODEL, D_FF },
        { "post_ffw_norm", D_MODEL, 0 },
    };
    static const float values[MAX_VALUES] = { 1 };
    gguf_u32(g, "olmo2.attention.sliding_window", 16);
    gguf_u32(g, "olmo2.block_count", 4);
    for (size_t i = 0; i < 2 * QP_COUNT(tensors); i++) {
        char name[64];
        const size_t k = i / 2;
        snprintf(name, sizeof name, "blk.%zu.%s.weight", N_LAYERS + i % 2, tensors[k].name);
        gguf_floats(g, name, tensors[k].rows, tensors[k].cols, values);
    }
}

/* As in llama.cpp: Gemma 3's architecture without a window has no layers that slide (rnj-1), and
 * OLMo's with one but without a pattern has a global layer after three that slide. */
static void test_layers_that_slide(void **state)
{
    (void)state;
    static const char window[] = ",gemma3.attention.sliding_window,";
    static const char block_count[] = ",olmo2.block_count,";
    static const struct {
        const struct sample *sample;
        const char *skip;
        void (*more)(struct gguf *g);
        const char *types;
    } cases[] = { { &sample_gemma3, window, NULL, "layer_types GG\n" },
                  { &sample_gemma3, window, say_no_window, "layer_types GG\n" },
                  { &sample_gemma3, NULL, NULL, "layer_types LL\n" },
                  { &sample_olmo2, block_count, say_olmo3_window, "layer_types LLLG\n" } };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error;
        size_t n;
        write_gguf_as(cases[i].sample,
                      &(struct gguf_options){ .skip = cases[i].skip, .more = cases[i].more });
        if (convert_f32("in.gguf", "out.bin", &error))
            fail_msg("%s", error.message);
        char *out = read_whole(in_folder("out.bin"), &n);
        if (!find_bytes(out, n, cases[i].types))
            fail_msg("case %zu: no %s", i, cases[i].types);
        free(out);
        unlink(in_folder("out.bin"));
    }
}

/* ---- embedding models ---- */

static void say_last_token(struct gguf *g)
{
    gguf_u32(g, "llama.pooling_type", 3);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", true);
}
static void say_no_pooling(struct gguf *g)
{
    gguf_u32(g, "llama.pooling_type", 0);
}
static void say_ranks(struct gguf *g)
{
    gguf_u32(g, "llama.pooling_type", 4);
}
static void say_last_token_only(struct gguf *g)
{
    gguf_u32(g, "llama.pooling_type", 3);
}
static void say_not_causal(struct gguf *g)
{
    gguf_bool(g, "llama.attention.causal", false);
}
static void say_not_causal_mean(struct gguf *g)
{
    say_not_causal(g);
    gguf_u32(g, "llama.pooling_type", 1);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", false);
}
static void say_gemma_not_causal(struct gguf *g)
{
    gguf_bool(g, "gemma3.attention.causal", false);
    gguf_u32(g, "gemma3.pooling_type", 1);
}
static void say_pooling_9(struct gguf *g)
{
    gguf_u32(g, "llama.pooling_type", 9);
}

/* Qwen3-Embedding and others: a causal model whose file says how its tokens are pooled. */
static void test_pooling(void **state)
{
    (void)state;
    quip_error error;
    size_t n;
    write_llama("in.gguf", say_last_token);
    if (convert_f32("in.gguf", "out.bin", &error))
        fail_msg("%s", error.message);
    char *out = read_whole(in_folder("out.bin"), &n);
    assert_non_null(find_bytes(out, n, "pooling last\ntext_begin 2\ntext_end 1\n"));
    free(out);
    unlink(in_folder("out.bin"));
    write_llama("in.gguf", say_no_pooling);
    assert_same_model("in.gguf");
    write_llama("in.gguf", say_ranks);
    assert_refused("in.gguf", "is a reranker");
    write_llama("in.gguf", say_pooling_9);
    assert_refused("in.gguf", "llama.pooling_type is 9");
    // whether eos ends a text decides what the last token is
    write_llama("in.gguf", say_last_token_only);
    assert_refused("in.gguf", "tokenizer.ggml.add_eos_token", "as --tokenizer FOLDER");
}

/* An encoder of a family that generates text otherwise. */
static void test_not_causal(void **state)
{
    (void)state;
    quip_error error;
    size_t n;
    write_llama("in.gguf", say_not_causal_mean);
    if (convert_f32("in.gguf", "out.bin", &error))
        fail_msg("%s", error.message);
    char *out = read_whole(in_folder("out.bin"), &n);
    assert_non_null(find_bytes(out, n, "pooling mean\ntext_begin 2\n"));
    assert_non_null(find_bytes(out, n, "is_bidirectional 1\n"));
    free(out);
    unlink(in_folder("out.bin"));
    write_llama("in.gguf", say_not_causal);
    assert_refused("in.gguf", "is an encoder", "needs the pooling_type in its metadata");
    write_gguf_as(&sample_gemma3, &(struct gguf_options){ .more = say_gemma_not_causal });
    assert_refused("in.gguf", "gemma3.attention.causal is false", "sliding windows");
}

/* ---- entries and tensors that some writers leave out or add ---- */

static void write_without(const char *keys)
{
    write_gguf_as(&sample_llama_untied, &(struct gguf_options){ .skip = keys });
}

/* Without the flag, the tokenizer decides as in llama.cpp: SentencePiece puts bos first. */
static void test_without_add_bos(void **state)
{
    (void)state;
    write_without(",tokenizer.ggml.add_bos_token,");
    assert_same_model("in.gguf");
}

/* Files of other exporters: every token would be an ordinary piece. */
static void test_without_token_types(void **state)
{
    (void)state;
    write_without(",tokenizer.ggml.token_type,");
    assert_refused("in.gguf", "which tokens are special", "--tokenizer FOLDER");
    write_without(",tokenizer.ggml.scores,");
    assert_refused("in.gguf", "no scores");
}

static void put_f16_norm(struct gguf *g)
{
    gguf_zeros(g, "output_norm.weight", D_MODEL, 0, 1, 2 * D_MODEL);
}

static void put_f32_norm(struct gguf *g)
{
    gguf_zeros(g, "output_norm.weight", D_MODEL, 0, 0, 4 * D_MODEL);
}

/* llama.cpp stores norms as F32; other writers store them in the type of the matrices. */
static void test_f16_norm(void **state)
{
    (void)state;
    quip_error error;
    size_t n_a, n_b;
    void (*const more[2])(struct gguf * g) = { put_f16_norm, put_f32_norm };
    for (int i = 0; i < 2; i++) {
        write_gguf_as(
            &sample_llama_untied,
            &(struct gguf_options){ .skip_tensor = "output_norm.weight", .more = more[i] });
        if (convert_f32("in.gguf", i ? "b.bin" : "a.bin", &error))
            fail_msg("%s", error.message);
    }
    char *a = read_whole(in_folder("a.bin"), &n_a), *b = read_whole(in_folder("b.bin"), &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
}

static void put_other_tensor(struct gguf *g)
{
    gguf_zeros(g, "blk.0.attn_q.scale", 1, 0, 0, 4);
}

static void put_doubled_tensor(struct gguf *g)
{
    gguf_zeros(g, "output_norm.weight", D_MODEL, 0, 0, 4 * D_MODEL);
}

/* A scale beside a matrix (NVFP4 of some writers) would change the matrix; two tensors of one name
 * are a merge that went wrong. */
static void test_more_tensors(void **state)
{
    (void)state;
    write_llama("in.gguf", put_other_tensor);
    assert_refused("in.gguf", "not known: blk.0.attn_q.scale");
    write_llama("in.gguf", put_doubled_tensor);
    assert_refused("in.gguf", "output_norm.weight");
}

/* Ollama's files have no extension, and are named by their hash. */
static void test_blob_name(void **state)
{
    (void)state;
    write_llama("sha256-0a1b2c3d", NULL);
    assert_same_model("sha256-0a1b2c3d");
}

/* Files that were cut for a download say nothing of it; only their names do. */
static void test_pieces_of_a_file(void **state)
{
    (void)state;
    static const char *const names[] = { "m.gguf-split-a", "m.gguf.part1of2", "m.Q8_0.gguf.part2" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        write_llama(names[i], NULL);
        assert_refused(names[i], "cut for the download", "cat ");
    }
}

static void say_templates(struct gguf *g)
{
    gguf_list(g, "tokenizer.chat_templates", GGUF_TYPE_TEXT, 1);
    put_text(&g->metadata, "rag");
    gguf_text(g, "tokenizer.chat_template.rag", "{{ documents }}");
    gguf_list(g, "general.tags", GGUF_TYPE_TEXT, 0);
}

/* Command R and others have named templates beside the default one. */
static void test_named_templates(void **state)
{
    (void)state;
    static const char key[] = "quip.chat_template.rag", source[] = "{{ documents }}";
    quip_error error;
    size_t n;
    write_llama("in.gguf", say_templates);
    if (convert_f32("in.gguf", "out.bin", &error))
        fail_msg("%s", error.message);
    char *out = read_whole(in_folder("out.bin"), &n);
    assert_non_null(find_bytes(out, n, key));
    assert_non_null(find_bytes(out, n, source));
    free(out);
    unlink(in_folder("out.bin"));
}

static void say_alignment_24(struct gguf *g)
{
    gguf_u32(g, "general.alignment", 24);
}

static void test_alignment(void **state)
{
    (void)state;
    write_llama("in.gguf", say_alignment_24);
    assert_refused("in.gguf", "general.alignment must be a power of two");
}

/* ---- failing allocations ---- */

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    assert_int_equal(mkdir(in_folder("parts"), 0777), 0);
    write_three_parts();
    write_llama("parts/z.gguf", say_mmproj);
    const int before = alloc_fault_live();
    for (int n = 0;; n++) {
        quip_error error;
        alloc_fault_set(n);
        quip_status status = convert_f32("parts", "out.bin", &error);
        const bool has_failed = alloc_fault_clear();
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed) {
            assert_int_equal(status, QUIP_OK);
            break;
        }
        if (status != QUIP_E_MEMORY && status != QUIP_E_FORMAT) // an item that cannot be read
            fail_msg("allocation %d failed, the status was %s: %s", n, quip_status_name(status),
                     error.message);
    }
}

#define TEST(function)                                                                             \
    cmocka_unit_test_setup_teardown(function, make_sample_folder, drop_sample_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_parts),
        TEST(test_false_parts),
        TEST(test_part_numbers),
        TEST(test_companions),
        TEST(test_clip),
        TEST(test_unread_types),
        TEST(test_layers),
        TEST(test_without_add_bos),
        TEST(test_without_token_types),
        TEST(test_zeros),
        TEST(test_pooling),
        TEST(test_not_causal),
        TEST(test_window_without_pattern),
        TEST(test_layers_that_slide),
        TEST(test_f16_norm),
        TEST(test_more_tensors),
        TEST(test_blob_name),
        TEST(test_pieces_of_a_file),
        TEST(test_named_templates),
        TEST(test_alignment),
        TEST(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
