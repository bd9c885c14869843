/* unicode.c (test): normalization forms, lower case, accents and classes of every code point, and
 * of random sequences of marks and letters, are those of Hugging Face's tokenizers. The expected
 * values are hashes that tests/tools/unicode_reference.py prints. */
#include "tokenizer/unicode.h"
#include "tokenizer/tokenizer_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define FNV_START 14695981039346656037u

/* FNV-1a */
static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)data)[i]) * 1099511628211u;
    return h;
}

static bool is_surrogate(int32_t c)
{
    return c >= 0xd800 && c < 0xe000;
}

/* ---- forms ---- */

static const struct form_case {
    const char *name;
    enum text_step step;
    uint64_t alone, in_sequences;
} forms[] = {
    { "NFC", STEP_NFC, 0x3ce40516aab8cae9u, 0xe45b7a8c99ad5b9du },
    { "NFD", STEP_NFD, 0x48d57d1249dc8005u, 0xf719c2fed0e60220u },
    { "NFKC", STEP_NFKC, 0x18d6bf9910c68f61u, 0x5f854cb0989f6d77u },
    { "lower case", STEP_LOWER_CASE, 0xc1ebfce7ddd214bcu, 0x0c0be01373ca9f66u },
    { "accents", STEP_STRIP_ACCENTS, 0xe5779cebbe0de51eu, 0x0dacd5ccdbf245ceu },
};

/* The hash of the text after the step, and a newline. */
static uint64_t hash_step(uint64_t h, enum text_step step, struct bytes *text)
{
    struct rules rules = { .steps = { (uint8_t)step } };
    const struct tokenizer t = { .rules = &rules };
    assert_true(qp_text_steps(&t, false, text));
    h = hash_bytes(h, text->data, text->n);
    return hash_bytes(h, "\n", 1);
}

static void test_every_code_point(void **state)
{
    (void)state;
    struct bytes text = { 0 };
    for (size_t i = 0; i < QP_COUNT(forms); i++) {
        uint64_t h = FNV_START;
        for (int32_t c = 0; c < 0x110000; c++) {
            char encoded[4];
            if (is_surrogate(c))
                continue;
            text.n = 0;
            assert_true(qp_bytes_append(&text, encoded, (size_t)qp_utf8_encode(c, encoded)));
            h = hash_step(h, forms[i].step, &text);
        }
        if (h != forms[i].alone)
            fail_msg("%s differs from the reference", forms[i].name);
    }
    qp_bytes_close(&text);
}

static uint32_t draw(uint64_t *random, uint32_t n)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % n;
}

/* Half of the characters are from ranges where most of what composes and reorders is. */
static void draw_sequence(uint64_t *random, struct bytes *text)
{
    static const int32_t ranges[][2] = {
        { 0x41, 0x5a },       { 0x300, 0x36f },     { 0x483, 0x489 },   { 0x591, 0x5bd },
        { 0x610, 0x65f },     { 0x898, 0x8ff },     { 0x900, 0xd7f },   { 0xf71, 0xf84 },
        { 0x1100, 0x11ff },   { 0x1ab0, 0x1ace },   { 0x1dc0, 0x1dff }, { 0x1e00, 0x1fff },
        { 0x3041, 0x309f },   { 0xac00, 0xac40 },   { 0xfe20, 0xfe2f }, { 0x10f46, 0x10f50 },
        { 0x11930, 0x11943 }, { 0x1d15e, 0x1d172 },
    };
    static const int32_t all[2] = { 0x20, 0x1ffff };
    text->n = 0;
    for (int i = 0; i < 8; i++) {
        char encoded[4];
        const int32_t *range = draw(random, 2) ? ranges[draw(random, QP_COUNT(ranges))] : all;
        const int32_t c = range[0] + (int32_t)draw(random, (uint32_t)(range[1] - range[0] + 1));
        if (!is_surrogate(c))
            assert_true(qp_bytes_append(text, encoded, (size_t)qp_utf8_encode(c, encoded)));
    }
}

static void test_sequences(void **state)
{
    (void)state;
    struct bytes text = { 0 };
    for (size_t i = 0; i < QP_COUNT(forms); i++) {
        uint64_t h = FNV_START, random = 1;
        for (int k = 0; k < 100000; k++) {
            draw_sequence(&random, &text);
            h = hash_step(h, forms[i].step, &text);
        }
        if (h != forms[i].in_sequences)
            fail_msg("%s of sequences differs from the reference", forms[i].name);
    }
    qp_bytes_close(&text);
}

/* A letter of Unicode 14 keeps its spelling: the reference's forms end at Unicode 9. */
static void test_newer_than_the_forms(void **state)
{
    (void)state;
    struct bytes text = { 0 };
    assert_true(qp_unicode_form("\xf0\x90\x9e\x84", 4, FORM_KC, &text)); // U+10784
    assert_int_equal(text.n, 4);
    assert_memory_equal(text.data, "\xf0\x90\x9e\x84", 4);
    qp_bytes_close(&text);
}

/* ---- classes ---- */

static const struct {
    const char *regex;
    uint64_t hash;
    unsigned classes; // bits of enum char_class
} classes[] = {
    { "\\p{L}", 0xdb2fd99ff89daf79u, 1u << CHAR_LETTER },
    { "\\p{N}", 0x5615fcac3337624au, 1u << CHAR_DIGIT | 1u << CHAR_NUMERIC },
    { "\\p{M}", 0xc0ef8a0d56baa0a2u, 1u << CHAR_MARK },
    { "\\s", 0x9de127b70571abccu, 1u << CHAR_SPACE },
    { "\\p{Pc}", 0x6342be320a2f2321u, 1u << CHAR_CONNECTOR },
};

static void test_classes(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(classes); i++) {
        uint64_t h = FNV_START;
        for (int32_t c = 0; c < 0x110000; c++) {
            char encoded[4];
            size_t length;
            if (is_surrogate(c))
                continue;
            const size_t n = (size_t)qp_utf8_encode(c, encoded);
            const unsigned bit = 1u << qp_char_class(encoded, n, &length);
            h = hash_bytes(h, classes[i].classes & bit ? "1" : "0", 1);
        }
        if (h != classes[i].hash)
            fail_msg("%s differs from the reference", classes[i].regex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_newer_than_the_forms),
        cmocka_unit_test(test_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
