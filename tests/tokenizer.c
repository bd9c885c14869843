/* tokenizer.c (test): the tokenizer with small vocabularies made here: each rule, merging compared
 * with a naive implementation, hostile text and files, failing allocations. QUIP_TEST_SEED=N
 * repeats a random case. */
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "support/alloc_fault.h"

/* ---- vocabularies ---- */

/* A vocabulary and its tokenizer. */
struct fixture {
    struct bytes spm, blob;
    struct tokenizer *t;
    int n_pieces;
};

static quip_token put(struct fixture *f, const char *piece, float score, enum piece_type type)
{
    assert_true(qp_spm_write_piece(&f->spm, piece, strlen(piece), score, type));
    return f->n_pieces++;
}

static void open_fixture(struct fixture *f)
{
    quip_error error = { 0 };
    if (qp_tokenizer_open(&f->t, f->spm.data, f->spm.n, f->blob.data, f->blob.n, &error))
        fail_msg("%s", error.message);
}

static void close_fixture(struct fixture *f)
{
    qp_tokenizer_close(f->t);
    qp_bytes_close(&f->spm);
    qp_bytes_close(&f->blob);
    *f = (struct fixture){ 0 };
}

enum {
    UNK,
    BOS,
    EOS,
    BYTES,
    LETTERS = BYTES + 256
};

/* <unk> <s> </s>, 256 bytes, then the given pieces with falling scores. */
static void spm_fixture(struct fixture *f, const struct spm_options *options,
                        const char *const *pieces)
{
    put(f, "<unk>", 0, PIECE_UNKNOWN);
    put(f, "<s>", 0, PIECE_CONTROL);
    put(f, "</s>", 0, PIECE_CONTROL);
    for (int b = 0; b < 256; b++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)b);
        put(f, piece, 0, PIECE_BYTE);
    }
    for (int i = 0; pieces[i]; i++)
        put(f, pieces[i], (float)-i, pieces[i][0] == '[' ? PIECE_USER_DEFINED : PIECE_NORMAL);
    assert_true(qp_spm_write_options(&f->spm, options));
    open_fixture(f);
}

static const struct spm_options gemma_options = {
    .is_bpe = true,
    .byte_fallback = true,
    .escape_whitespaces = true,
    .bos_id = BOS,
    .eos_id = EOS,
    .pad_id = -1,
};
static const char *const few_pieces[] = { "he",  "ll",       "hell", "hello", "\xe2\x96\x81hello",
                                          "h",   "e",        "l",    "o",     "\xe2\x96\x81",
                                          "[x]", "\xc3\xa9", NULL };
enum {
    HE = LETTERS,
    LL,
    HELL,
    HELLO,
    _HELLO,
    H,
    E,
    L,
    O,
    _,
    X,
    EACUTE
};

/* The 256 bytes in GPT-2's alphabet, some merges, two added tokens. */
enum {
    GH = 256,
    GE,
    GHELLO,
    GEND,
    GTWO
};
static void byte_level_fixture(struct fixture *f)
{
    int n = 0;
    for (int b = 0; b < 256; b++) { // ids are the bytes
        bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        char piece[8] = { 0 };
        qp_utf8_encode(itself ? b : 256 + n++, piece);
        put(f, piece, 0, PIECE_NORMAL);
    }
    put(f, "\xc4\xa0h", 0, PIECE_NORMAL);
    put(f, "el", 0, PIECE_NORMAL);
    put(f, "\xc4\xa0hel", 0, PIECE_NORMAL);
    put(f, "<|end|>", 0, PIECE_CONTROL);
    put(f, "  ", 0, PIECE_USER_DEFINED);
    struct bpe_merge merges[] = { { ' ', 'h', GH }, { 'e', 'l', GE }, { GH, GE, GHELLO } };
    struct bpe_added added[] = { { .id = GEND, .is_special = true },
                                 { .id = GTWO, .normalized = true } };
    struct bpe_spec spec = {
        .nfc = true, .pre = PRE_GPT2, .merges = merges, .n_merges = 3, .added = added, .n_added = 2
    };
    assert_true(qp_bpe_blob_write(&spec, &f->blob));
    open_fixture(f);
}

/* ---- comparing ---- */

static void check_ids(const struct fixture *f, const char *text, size_t n, bool with_special,
                      const quip_token *want, int n_want)
{
    struct tokens ids = { 0 };
    assert_int_equal(qp_tokenizer_encode(f->t, text, n, with_special, &ids, NULL), QUIP_OK);
    assert_int_equal(ids.n, n_want);
    for (int i = 0; i < n_want; i++)
        assert_int_equal(ids.ids[i], want[i]);
    qp_tokens_close(&ids);
}
#define CHECK_IDS(fixture, text, with_special, ...)                                                \
    check_ids(fixture, text, sizeof(text) - 1, with_special, (const quip_token[]){ __VA_ARGS__ },  \
              (int)(sizeof((quip_token[]){ __VA_ARGS__ }) / sizeof(quip_token)))

static void decode(const struct fixture *f, const quip_token *ids, int n, struct bytes *out)
{
    struct detokenizer d = { 0 };
    for (int i = 0; i < n; i++) {
        assert_true(qp_detokenize(f->t, &d, ids[i], out));
        assert_int_equal(qp_utf8_complete((const char *)out->data, out->n), out->n);
    }
    assert_true(qp_detokenize_end(f->t, &d, out));
    assert_true(qp_bytes_append(out, "", 1));
}

static void check_text(const struct fixture *f, const quip_token *ids, int n, const char *want)
{
    struct bytes text = { 0 };
    decode(f, ids, n, &text);
    assert_string_equal((const char *)text.data, want);
    qp_bytes_close(&text);
}
#define CHECK_TEXT(fixture, want, ...)                                                             \
    check_text(fixture, (const quip_token[]){ __VA_ARGS__ },                                       \
               (int)(sizeof((quip_token[]){ __VA_ARGS__ }) / sizeof(quip_token)), want)

/* decode(encode(text)) is the text. */
static void check_round_trip(const struct fixture *f, const char *text, size_t n)
{
    struct tokens ids = { 0 };
    struct bytes back = { 0 };
    assert_int_equal(qp_tokenizer_encode(f->t, text, n, false, &ids, NULL), QUIP_OK);
    decode(f, ids.ids, ids.n, &back);
    assert_int_equal(back.n, n + 1);
    assert_memory_equal(back.data, text, n);
    qp_bytes_close(&back);
    qp_tokens_close(&ids);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static uint64_t test_seed(void)
{
    const char *given = getenv("QUIP_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("QUIP_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* ---- SentencePiece ---- */

static void test_merging(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    CHECK_IDS(&f, "hello", false, HELLO);
    CHECK_IDS(&f, "hello hello", false, HELLO, _HELLO);
    CHECK_IDS(&f, "hell hel", false, HELL, _, HE, L);
    CHECK_IDS(&f, "he[x]ll", false, HE, X, LL);
    CHECK_IDS(&f, "hel[x]lo", false, HE, L, X, L, O); // no merge across it
    CHECK_IDS(&f, "h\xc3\xa9z", false, H, EACUTE, BYTES + 'z');
    close_fixture(&f);
}

static void test_reserved_pieces(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    CHECK_IDS(&f, "<s>", false, BYTES + '<', BYTES + 's', BYTES + '>');
    CHECK_IDS(&f, "<s>", true, BOS);
    CHECK_IDS(&f, "he</s>llo", true, HE, EOS, LL, O);
    CHECK_IDS(&f, "<0x41>", true, BYTES + '<', BYTES + '0', BYTES + 'x', BYTES + '4', BYTES + '1',
              BYTES + '>');
    assert_int_equal(qp_tokenizer_find(f.t, "<s>", 3), BOS);
    assert_int_equal(qp_tokenizer_find(f.t, "hello", 5), HELLO);
    assert_int_equal(qp_tokenizer_find(f.t, "hella", 5), -1);
    assert_int_equal(qp_tokenizer_bos(f.t), BOS);
    assert_int_equal(qp_tokenizer_eos(f.t), EOS);
    assert_true(qp_tokenizer_is_control(f.t, BOS));
    assert_false(qp_tokenizer_is_control(f.t, HE));
    assert_false(qp_tokenizer_is_control(f.t, -1));
    size_t n;
    assert_null(qp_tokenizer_piece(f.t, f.n_pieces, &n));
    assert_memory_equal(qp_tokenizer_piece(f.t, HELL, &n), "hell", 4);
    assert_int_equal(n, 4);
    assert_int_equal(qp_tokenizer_n_tokens(f.t), f.n_pieces);
    assert_true(qp_tokenizer_memory(f.t) > 0);
    close_fixture(&f);
}

static void test_malformed_text(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
#define SPM_BAD BYTES + 0xef, BYTES + 0xbf, BYTES + 0xbd // U+FFFD
    CHECK_IDS(&f,
              "h\xff"
              "e",
              false, H, SPM_BAD, E);
    CHECK_IDS(&f,
              "h\xe2\x96"
              "e",
              false, H, SPM_BAD, SPM_BAD, E); // one per byte
    CHECK_IDS(&f, "h\0e", false, H, BYTES, E);
    close_fixture(&f);

    byte_level_fixture(&f);
#define BPE_BAD 0xef, 0xbf, 0xbd
    CHECK_IDS(&f,
              "h\xff"
              "e",
              false, 'h', BPE_BAD, 'e');
    CHECK_IDS(&f,
              "h\xe2\x96"
              "e",
              false, 'h', BPE_BAD, 'e'); // one for the incomplete character
    CHECK_IDS(&f, "h\0e", false, 'h', 0, 'e');
    close_fixture(&f);
}

static void test_dummy_prefix(void **state)
{
    (void)state;
    struct spm_options options = gemma_options;
    options.add_dummy_prefix = true;
    struct fixture f = { 0 };
    spm_fixture(&f, &options, few_pieces);
    CHECK_IDS(&f, "hello", false, _HELLO);
    CHECK_IDS(&f, "</s>hello", true, EOS, _HELLO); // each section is a separate text
    CHECK_TEXT(&f, "hello hello", _HELLO, _HELLO);
    CHECK_TEXT(&f, "hello", BOS, _HELLO, EOS);
    CHECK_TEXT(&f, " hello", _, _HELLO);
    close_fixture(&f);

    options.remove_extra_whitespaces = true;
    spm_fixture(&f, &options, few_pieces);
    CHECK_IDS(&f, "  hello   hello ", false, _HELLO, _HELLO);
    check_ids(&f, "   ", 3, false, NULL, 0);
    CHECK_TEXT(&f, "hello hello", _, _HELLO, _HELLO);
    close_fixture(&f);
}

static void test_decoding(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    CHECK_TEXT(&f, " hello", BOS, _HELLO, EOS, -1, 1000000);
    CHECK_TEXT(&f, "\xf0\x9f\x98\x80", BYTES + 0xf0, BYTES + 0x9f, BYTES + 0x98, BYTES + 0x80);
    CHECK_TEXT(&f, "\xef\xbf\xbd\xef\xbf\xbdh", BYTES + 0xf0, BYTES + 0x9f, H);
    CHECK_TEXT(&f, "h\xef\xbf\xbd", H, BYTES + 0xf0);
    CHECK_TEXT(&f, "h \xe2\x81\x87 ", H, UNK);
    close_fixture(&f);

    byte_level_fixture(&f);
    CHECK_TEXT(&f, "\xf0\x9f\x98\x80", 0xf0, 0x9f, 0x98, 0x80);
    CHECK_TEXT(&f, "\xef\xbf\xbdh", 0xf0, 0x9f, 'h');
    CHECK_TEXT(&f, " hel  ", GHELLO, GEND, GTWO);
    close_fixture(&f);
}

/* ---- merging, compared with a naive implementation ---- */

enum {
    NAIVE_MAX = 200
};

/* Merge by the definition: the best piece that two neighbours form, the leftmost of equal ones.
 */
static int naive_merges(const struct fixture *f, const float *scores, const char *text, int n,
                        quip_token *out)
{
    int begin[NAIVE_MAX + 1], n_parts = n;
    for (int i = 0; i <= n; i++)
        begin[i] = i;
    for (;;) {
        int best = -1;
        float best_score = 0;
        for (int i = 0; i + 2 <= n_parts; i++) {
            quip_token id =
                qp_tokenizer_find(f->t, text + begin[i], (size_t)(begin[i + 2] - begin[i]));
            if (id >= 0 && (best < 0 || scores[id] > best_score)) {
                best = i;
                best_score = scores[id];
            }
        }
        if (best < 0)
            break;
        memmove(&begin[best + 1], &begin[best + 2], (size_t)(n_parts - best - 1) * sizeof *begin);
        n_parts--;
    }
    for (int i = 0; i < n_parts; i++)
        out[i] = qp_tokenizer_find(f->t, text + begin[i], (size_t)(begin[i + 1] - begin[i]));
    return n_parts;
}

/* Random words of two letters, with few scores so that ties occur; short texts for the scan, long
 * ones for the heap. */
static void test_merging_against_naive(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    for (int round = 0; round < 50; round++) {
        struct fixture f = { 0 };
        float scores[64];
        put(&f, "<unk>", 0, PIECE_UNKNOWN);
        put(&f, "a", -100, PIECE_NORMAL);
        put(&f, "b", -100, PIECE_NORMAL);
        while (f.n_pieces < 40) {
            char piece[8] = { 0 };
            int n = 2 + (int)(next_random(&random) % 5);
            for (int i = 0; i < n; i++)
                piece[i] = (char)('a' + next_random(&random) % 2);
            scores[f.n_pieces] = -(float)(next_random(&random) % 8);
            put(&f, piece, scores[f.n_pieces], PIECE_NORMAL);
        }
        struct spm_options options = gemma_options;
        options.byte_fallback = false;
        assert_true(qp_spm_write_options(&f.spm, &options));
        open_fixture(&f);
        for (int n = 1; n <= NAIVE_MAX; n += 7) {
            char text[NAIVE_MAX];
            quip_token want[NAIVE_MAX];
            for (int i = 0; i < n; i++)
                text[i] = (char)('a' + next_random(&random) % 2);
            int n_want = naive_merges(&f, scores, text, n, want);
            check_ids(&f, text, (size_t)n, false, want, n_want);
        }
        close_fixture(&f);
    }
}

/* ---- byte-level ---- */

static void test_byte_level(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    byte_level_fixture(&f);
    CHECK_IDS(&f, "x hel", false, 'x', GHELLO);
    CHECK_IDS(&f, "x<|end|>", true, 'x', GEND);
    CHECK_IDS(&f, "<|end|>", false, '<', '|', 'e', 'n', 'd', '|', '>');
    CHECK_IDS(&f, "x   hel", false, 'x', GTWO, GHELLO);
    close_fixture(&f);
}

/* The words of each expression, divided by hand: a bar ends a word. Without merges, words have an
 * effect only with ignore_merges, so the test calls the scanner. */
static void test_pre_tokenizers(void **state)
{
    (void)state;
    static const struct {
        enum pre_tokenizer pre;
        const char *words;
    } cases[] = {
        { PRE_GPT2, "I|'m| 23| years|  | old|!!|\n\n|\n|x|\t|y| |" },
        { PRE_GPT2, "a|   |" },
        { PRE_GPT2, "he|'|S| \xe2\x85\xa3|e|\xcc\x81|" }, // a mark is not a letter
        { PRE_DIGITS_GPT2, "v|1|2| |3| x|  |4|" },
        { PRE_LLAMA3, "I|'M| |123|45| years| | old|!!\n\n|x|\ty|  \n| z|'\xc5\xbf|" },
        { PRE_QWEN2, "a| |1|2|.\r\n|b|" },
        { PRE_FALCON, "I|'|m| 2345| years|  |(|o|_),-|b|  | c|  |.|" },
        { PRE_NONE, "a 1  b|" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        char text[128];
        size_t n = 0, begin = 0;
        for (const char *p = cases[i].words; *p; p++)
            if (*p != '|')
                text[n++] = *p;
        for (const char *p = cases[i].words; *p;) {
            size_t want = strcspn(p, "|");
            assert_int_equal(qp_pre_token(cases[i].pre, text + begin, n - begin), want);
            begin += want;
            p += want + 1;
        }
        assert_int_equal(begin, n);
    }
}

/* ---- NFC ---- */

static void check_nfc(const char *text, const char *want)
{
    struct bytes out = { 0 };
    assert_true(qp_unicode_form(text, strlen(text), FORM_C, &out));
    assert_true(qp_bytes_append(&out, "", 1));
    assert_string_equal((const char *)out.data, want);
    qp_bytes_close(&out);
}

static void test_nfc(void **state)
{
    (void)state;
    check_nfc("plain, \xc3\xa9", "plain, \xc3\xa9");
    check_nfc("e\xcc\x81", "\xc3\xa9");                                // e, acute
    check_nfc("\xe2\x84\xab", "\xc3\x85");                             // angstrom sign
    check_nfc("a\xcc\x8a\xcc\x81", "\xc7\xbb");                        // a, ring, acute
    check_nfc("q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");               // marks in order
    check_nfc("d\xcc\x87\xcc\xa3", "\xe1\xb8\x8d\xcc\x87");            // the lower mark joins first
    check_nfc("\xcc\x81\xcc\x81", "\xcc\x81\xcc\x81");                 // no starter
    check_nfc("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"); // Hangul
    check_nfc("\xed\x95\x98\xe1\x86\xab", "\xed\x95\x9c");
    check_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); // excluded from composition
}

static void check_form(enum unicode_form form, const char *text, const char *want)
{
    struct bytes out = { 0 };
    assert_true(qp_unicode_form(text, strlen(text), form, &out) && qp_bytes_append(&out, "", 1));
    assert_string_equal((const char *)out.data, want);
    qp_bytes_close(&out);
}

static void test_other_forms(void **state)
{
    (void)state;
    check_form(FORM_D, "\xc3\xa9", "e\xcc\x81");
    check_form(FORM_D, "\xed\x95\x9c", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab");
    check_form(FORM_KC, "\xef\xac\x81\xc2\xbd\xef\xbc\xa1",
               "fi1\xe2\x81\x84"
               "2A"); // fi, 1/2, A
    check_form(FORM_KC, "e\xcc\x81", "\xc3\xa9");
    struct bytes out = { 0 };
    const char text[] =
        "aZ\xc3\x80\xc4\xb0\xce\xa3\xf0\x90\x90\x80"; // A grave, I dot, Sigma, Deseret
    assert_true(qp_lower_case(text, sizeof text, &out));
    assert_string_equal((const char *)out.data, "az\xc3\xa0i\xcc\x87\xcf\x83\xf0\x90\x90\xa8");
    qp_bytes_close(&out);
}

/* ---- rules of a blob, over text ---- */

enum {
    T_UNK,
    T_SPACE,
    T_A,
    T_B,
    T_SPACE_A,
    T_AB,
    T_MORE_B,
    T_B_END,
    T_MASK
};

static void text_fixture(struct fixture *f, struct bpe_spec spec)
{
    struct bpe_merge merges[] = { { T_SPACE, T_A, T_SPACE_A }, { T_A, T_MORE_B, T_AB } };
    struct bpe_added added[] = { { .id = T_MASK, .is_special = true, .lstrip = true } };
    spec.is_text = true;
    spec.merges = merges;
    spec.n_merges = 2;
    spec.added = added;
    spec.n_added = 1;
    put(f, "<unk>", 0, PIECE_UNKNOWN);
    put(f, SPACE_SYMBOL, 0, PIECE_NORMAL);
    put(f, "a", 0, PIECE_NORMAL);
    put(f, "b", 0, PIECE_NORMAL);
    put(f, SPACE_SYMBOL "a", 0, PIECE_NORMAL);
    put(f, "ab", 0, PIECE_NORMAL);
    put(f, "##b", 0, PIECE_NORMAL);
    put(f, "b</w>", 0, PIECE_NORMAL);
    put(f, "<mask>", 0, PIECE_CONTROL);
    assert_true(qp_spm_write_options(&f->spm, &(struct spm_options){ .is_bpe = true }));
    assert_true(qp_bpe_blob_write(&spec, &f->blob));
    open_fixture(f);
}

static void test_text_rules(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    struct bpe_spec metaspace = { .pre = PRE_METASPACE,
                                  .space_symbols = true,
                                  .prefix = PREFIX_ALWAYS,
                                  .joining = JOIN_DROP_IN_FIRST };
    text_fixture(&f, metaspace);
    CHECK_IDS(&f, "a b", false, T_SPACE_A, T_SPACE, T_B);
    CHECK_IDS(&f, "a <mask>a", true, T_SPACE_A, T_MASK, T_SPACE_A);
    CHECK_IDS(&f, "zz", false, T_SPACE, T_UNK, T_UNK);
    CHECK_TEXT(&f, "a b", T_SPACE_A, T_SPACE, T_B);
    close_fixture(&f);

    metaspace.prefix = PREFIX_FIRST;
    metaspace.fuse_unknown = true;
    text_fixture(&f, metaspace);
    CHECK_IDS(&f, "a<mask>a", true, T_SPACE_A, T_MASK, T_A);
    CHECK_IDS(&f, "zz", false, T_SPACE, T_UNK);
    close_fixture(&f);

    text_fixture(&f, (struct bpe_spec){ .pre = PRE_PUNCTUATION,
                                        .steps = { STEP_NFD, STEP_STRIP_ACCENTS },
                                        .n_steps = 2,
                                        .continues = "##",
                                        .joining = JOIN_SPACED });
    CHECK_IDS(&f,
              "\xc3\xa1"
              "b  a b",
              false, T_AB, T_A, T_B);
    CHECK_TEXT(&f, "ab a b", T_AB, T_A, T_B);
    close_fixture(&f);

    text_fixture(&f, (struct bpe_spec){ .pre = PRE_CLIP,
                                        .steps = { STEP_SQUEEZE_WHITE, STEP_LOWER_CASE },
                                        .n_steps = 2,
                                        .ends = "</w>" });
    CHECK_IDS(&f, "AB\t\tb", false, T_A, T_B_END, T_B_END);
    close_fixture(&f);
}

/* Text that continues another has no dummy prefix; markers end at the last control token. */
static void test_more_text(void **state)
{
    (void)state;
    struct spm_options options = gemma_options;
    options.add_dummy_prefix = true;
    struct fixture f = { 0 };
    spm_fixture(&f, &options, few_pieces);
    struct tokens ids = { 0 };
    assert_int_equal(qp_tokenizer_encode_more(f.t, " hello", 6, false, &ids, NULL), QUIP_OK);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.ids[0], _HELLO);
    qp_tokens_close(&ids);
    assert_int_equal(qp_tokenizer_special_end(f.t, "he</s>l<s>lo", 12), 10);
    assert_int_equal(qp_tokenizer_special_end(f.t, "<unk>", 5), 0);
    close_fixture(&f);
}

/* Pieces in GPT-2's spelling without merges: scores decide, also across words. */
static void test_spelled_bytes(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "\xc4\xa0h", "i\xc4\x8a", "\xc4\xa0", "\xc4\x8a", "h", "i"
    };
    struct fixture f = { 0 };
    put(&f, "<|endoftext|>", 0, PIECE_UNKNOWN);
    for (int i = 0; i < (int)QP_COUNT(pieces); i++)
        put(&f, pieces[i], (float)-i, PIECE_NORMAL);
    assert_true(qp_spm_write_options(&f.spm, &(struct spm_options){ .is_bpe = true }));
    open_fixture(&f);
    qp_tokenizer_spell_bytes(f.t);
    CHECK_IDS(&f, " hi\n", false, 1, 2);
    CHECK_IDS(&f, "h  h", false, 5, 3, 1);
    CHECK_IDS(&f, "h<|endoftext|>", true, 5, 0);
    CHECK_TEXT(&f, " hi\n", 1, 2, 0);
    close_fixture(&f);
}

/* ---- hostile text ---- */

static void check_hostile_texts(const struct fixture *f)
{
    enum {
        N = 1 << 20
    };
    char *text = malloc(N);
    assert_non_null(text);
    uint64_t random = test_seed();
    for (int kind = 0; kind < 5; kind++) {
        for (int i = 0; i < N; i++)
            text[i] = kind == 0   ? 'l'
                      : kind == 1 ? ' '
                      : kind == 2 ? '\0'
                      : kind == 3 ? "he"[i % 2]
                                  : (char)next_random(&random);
        struct tokens ids = { 0 };
        clock_t begin = clock();
        assert_int_equal(qp_tokenizer_encode(f->t, text, N, true, &ids, NULL), QUIP_OK);
        assert_true((double)(clock() - begin) / CLOCKS_PER_SEC <
                    20); // quadratic time would be hours
        for (int i = 0; i < ids.n; i++)
            assert_in_range(ids.ids[i], 0, f->n_pieces - 1);
        qp_tokens_close(&ids);
        if (kind < 4)
            check_round_trip(f, text, N);
    }
    free(text);
    check_ids(f, "", 0, true, NULL, 0);
}

static void test_hostile_text(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    check_hostile_texts(&f);
    close_fixture(&f);
    byte_level_fixture(&f);
    check_hostile_texts(&f);
    close_fixture(&f);
    struct spm_options unigram = gemma_options;
    unigram.is_bpe = false;
    spm_fixture(&f, &unigram, few_pieces);
    check_hostile_texts(&f);
    close_fixture(&f);
}

/* ---- hostile files ---- */

static void open_damaged(const struct bytes *spm, const struct bytes *blob)
{
    struct tokenizer *t;
    quip_error error = { 0 };
    if (qp_tokenizer_open(&t, spm->data, spm->n, blob->data, blob->n, &error)) {
        assert_null(t);
        assert_true(error.message[0]);
        return;
    }
    struct fixture f = { .t = t, .n_pieces = qp_tokenizer_n_tokens(t) };
    struct tokens ids = { 0 };
    struct bytes text = { 0 };
    assert_int_equal(qp_tokenizer_encode(t, "hello hel\xff<s>", 13, true, &ids, NULL), QUIP_OK);
    decode(&f, ids.ids, ids.n, &text);
    qp_bytes_close(&text);
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
}

/* Each file cut short at every byte, and with random bits flipped. */
static void check_damaged(const struct fixture *f, struct bytes *damaged, uint64_t random)
{
    size_t n = damaged->n;
    uint8_t *copy = malloc(n);
    assert_non_null(copy);
    for (damaged->n = 0; damaged->n < n; damaged->n++)
        open_damaged(&f->spm, &f->blob);
    damaged->n = n;
    memcpy(copy, damaged->data, n);
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < 3; i++)
            damaged->data[next_random(&random) % n] ^= (uint8_t)(1u << next_random(&random) % 8);
        open_damaged(&f->spm, &f->blob);
        memcpy(damaged->data, copy, n);
    }
    free(copy);
}

static void test_damaged_files(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    check_damaged(&f, &f.spm, seed);
    close_fixture(&f);
    byte_level_fixture(&f);
    check_damaged(&f, &f.blob, seed);
    check_damaged(&f, &f.spm, seed);
    close_fixture(&f);
}

/* ---- failing allocations ---- */

static quip_status use_everything(const struct fixture *f, quip_error *error)
{
    struct tokenizer *t;
    quip_status status =
        qp_tokenizer_open(&t, f->spm.data, f->spm.n, f->blob.data, f->blob.n, error);
    if (status)
        return status;
    char text[600];
    memset(text, 'l', sizeof text); // long enough to use the heap
    struct tokens ids = { 0 };
    struct bytes out = { 0 };
    struct detokenizer d = { 0 };
    status = qp_tokenizer_encode(t, "hello\xff</s>", 10, true, &ids, error);
    if (!status)
        status = qp_tokenizer_encode(t, text, sizeof text, true, &ids, error);
    for (int i = 0; i < ids.n && !status; i++)
        status = qp_detokenize(t, &d, ids.ids[i], &out) ? QUIP_OK : QUIP_E_MEMORY;
    qp_bytes_close(&out);
    qp_tokens_close(&ids);
    qp_tokenizer_close(t);
    return status;
}

static void check_failing_memory(const struct fixture *f)
{
    int before = alloc_fault_live();
    for (int n = 0;; n++) {
        quip_error error = { 0 };
        alloc_fault_set(n);
        quip_status status = use_everything(f, &error);
        bool has_failed = alloc_fault_clear();
        assert_int_equal(status, has_failed ? QUIP_E_MEMORY : QUIP_OK);
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed)
            break;
    }
}

static void test_failing_memory(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    struct fixture f = { 0 };
    spm_fixture(&f, &gemma_options, few_pieces);
    check_failing_memory(&f);
    close_fixture(&f);
    byte_level_fixture(&f);
    check_failing_memory(&f);
    close_fixture(&f);
    text_fixture(&f, (struct bpe_spec){ .pre = PRE_METASPACE,
                                        .steps = { STEP_NFKC, STEP_LOWER_CASE, STEP_SPACE_SYMBOLS },
                                        .n_steps = 3,
                                        .space_symbols = true });
    check_failing_memory(&f);
    close_fixture(&f);
    struct spm_options unigram = gemma_options;
    unigram.is_bpe = false;
    spm_fixture(&f, &unigram, few_pieces);
    check_failing_memory(&f);
    close_fixture(&f);
}

/* ---- chat ---- */

static void test_chat(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma",  "smollm2", "qwen2",  "qwen2.5", "chatml",
                                         "llama2", "llama3",  "zephyr", "phi2",    "none" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        const struct chat_template *c = qp_chat_find(names[i]);
        assert_non_null(c);
        assert_string_equal(c->name, names[i]);
        const struct turn_text *turns[] = { &c->user, &c->model, &c->system };
        for (size_t j = 0; j < QP_COUNT(turns); j++)
            assert_true(turns[j]->prefix && turns[j]->suffix);
    }
    assert_null(qp_chat_find("klingon"));
    for (int i = 0; i < (int)QP_COUNT(names); i++)
        assert_string_equal(qp_chat_name(i), names[i]);
    assert_null(qp_chat_name(QP_COUNT(names)));
    assert_string_equal(qp_chat_recognise("{{ '<start_of_turn>' + role }}"), "gemma");
    assert_string_equal(qp_chat_recognise("<|im_start|> ... named SmolLM, ..."), "smollm2");
    assert_string_equal(qp_chat_recognise("<|im_start|>"), "chatml");
    assert_string_equal(qp_chat_recognise("<|start_header_id|>"), "llama3");
    assert_string_equal(qp_chat_recognise("[INST] <<SYS>>"), "llama2");
    assert_string_equal(qp_chat_recognise("<|im_start|> created by Alibaba Cloud"), "qwen2.5");
    assert_string_equal(qp_chat_recognise("<|im_start|> You are a helpful assistant"), "qwen2");
    assert_string_equal(qp_chat_recognise("<|user|> <|assistant|> + eos_token"), "zephyr");
    assert_string_equal(qp_chat_recognise("<|user|> <|assistant|> <|end|>"), "none"); // Phi-3
    assert_string_equal(qp_chat_recognise("Instruct: Output:"), "phi2");
    assert_string_equal(qp_chat_recognise("[INST]"), "none");
    assert_string_equal(qp_chat_recognise(""), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging),
        cmocka_unit_test(test_reserved_pieces),
        cmocka_unit_test(test_malformed_text),
        cmocka_unit_test(test_dummy_prefix),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_merging_against_naive),
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_other_forms),
        cmocka_unit_test(test_text_rules),
        cmocka_unit_test(test_more_text),
        cmocka_unit_test(test_spelled_bytes),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_failing_memory),
        cmocka_unit_test(test_chat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
