/* jinja.c (test): templates as Jinja2 and transformers render them: what is easy to get
 * wrong, one by one, hostile templates, and allocations that fail. tests/templates.py has the
 * templates of published models. */
#include "jinja/jinja.h"
#include "support/alloc_fault.h"
#include "support/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VARIABLES                                                                                  \
    "{\"a\": 1, \"f\": 1.0, \"n\": null, \"s\": \"Hello, World\", \"e\": \"\", \"l\": [3, 1, 2], " \
    "\"d\": {\"x\": 1, \"items\": \"I\"}, \"u\": \"Z\xc3\xbcrich \xe6\x97\xa5\", "                 \
    "\"big\": 123456789012345678901234567890, \"m\": [{\"role\": \"user\", \"content\": \"hi\"}, " \
    "{\"role\": \"tool\"}], \"messages\": [{\"role\": \"user\", \"content\": null, "               \
    "\"thinking\": \"t\"}]}"

static const struct jinja_time noon = { 2026, 3, 14, 9, 26, 53 };

static quip_status render(const char *template, const char *variables, struct bytes *text,
                          quip_error *error)
{
    const struct jinja_options options = { .now = &noon };
    struct jinja *jinja;
    quip_status status = qp_jinja_open(&jinja, template, strlen(template), error);
    if (!status)
        status = qp_jinja_render(jinja, variables, strlen(variables), &options, text, error);
    qp_jinja_close(jinja);
    return status;
}

struct example {
    const char *template;
    const char *text;  // NULL: it fails
    const char *error; // then a part of the message
};

static void check_examples(const struct example *examples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct bytes text = { 0 };
        quip_error error = { 0 };
        const quip_status status = render(examples[i].template, VARIABLES, &text, &error);
        assert_true(qp_bytes_append(&text, "", 1));
        if (examples[i].text && (status || strcmp((char *)text.data, examples[i].text) != 0))
            fail_msg("%s gives \"%s\" (%s), expected \"%s\"", examples[i].template,
                     (char *)text.data, error.message, examples[i].text);
        if (!examples[i].text && (!status || !strstr(error.message, examples[i].error)))
            fail_msg("%s gives \"%s\" (%s), expected the error \"%s\"", examples[i].template,
                     (char *)text.data, error.message, examples[i].error);
        qp_bytes_close(&text);
    }
}

/* ---- what is in shared/data/templates/README.md ---- */

static void test_white_space(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "x\n\n", "x\n", NULL }, // one newline at the end is dropped
        { "{% if a %}\n b\n{% endif %}\nc", " b\nc", NULL },
        { "{{ a }}\nb", "1\nb", NULL }, // not after }}
        { "  {% if a %}b{% endif %}", "b", NULL },
        { "  {{ a }}", "  1", NULL },
        { "a \n {%- if a -%} \n b{% endif %}", "ab", NULL },
        { "  {%+ if a +%}\nb{% endif %}", "  \nb", NULL },
        { "a\r\n{# c #}\r\nb\r\n", "a\nb", NULL },
        { "{{ 'a\r\nb' }}", "a\nb", NULL },
        { "{% raw %}{{ x }}{% endraw %}", "{{ x }}", NULL },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_numbers_keep_their_kind(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{{ a }} {{ f }} {{ big }} {{ -big }}",
          "1 1.0 123456789012345678901234567890 -123456789012345678901234567890", NULL },
        { "{{ [1e16, 1e15, 1e-5, 1e-4, -0.0, 0.1 + 0.2, 5e-324, 1.7976931348623157e308] }}",
          "[1e+16, 1000000000000000.0, 1e-05, 0.0001, -0.0, 0.30000000000000004, 5e-324, "
          "1.7976931348623157e+308]",
          NULL },
        { "{{ true }} {{ none ~ true }} {{ [true, none] | tojson }}", "True NoneTrue [true, null]",
          NULL },
        { "{{ true == 1 }} {{ '' == false }} {{ '' != false }}", "True False True", NULL },
        { "{{ 7 % -3 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }} {{ -5.5 // 2 }}",
          "-2 -4 3.5 64 -3.0", NULL },
        { "{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.675 | round(2) }}",
          "2.0 4.0 2.57 2.67", NULL },
        { "{{ 0 ** 0 }} {{ 0 ** 3 }} {{ (-1) ** 3 }} {{ 0 // -2.5 }} {{ 0 // 2.5 }}",
          "1 0 -1 -0.0 0.0", NULL },
        { "{{ 1e200 ** 2 }}", NULL, "too large" },
        { "{{ '\xd9\xa1\xd9\xa2' | float }}", NULL, "beyond ASCII" }, // 12.0 in Python
        { "{{ '\xd9\xa1\xd9\xa2' | int }}", NULL, "beyond ASCII" },
        { "{{ '\xc3\xa9t\xc3\xa9' | int(7) }}", "7", NULL },
        { "{{ 9223372036854775807 + 1 }}", NULL, "beyond 64 bits" },
        { "{{ 1 / 0 }}", NULL, "division by zero" },
        { "{{ 1 + 'a' }}", NULL, "int and str" },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_python_prints(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{{ [{'type': 'text', 'n': 1.0, 'x': none}] }}",
          "[{'type': 'text', 'n': 1.0, 'x': None}]", NULL },
        { "{{ [\"it's\", \"'\\\"\", '\\n\\\\', '\\x7f\\u200b\xc3\xa9'] }}",
          "[\"it's\", '\\'\"', '\\n\\\\', '\\x7f\\u200b\xc3\xa9']", NULL },
        { "{{ (1,) }}{{ d.items() }}{{ range(3) }}",
          "(1,)dict_items([('x', 1), ('items', 'I')])range(0, 3)", NULL },
        { "{{ [undefined_name] }}|{{ undefined_name }}|{{ n }}", "[Undefined]||None", NULL },
        { "{{ {'a': 1, 'b': [1.0, none]} | tojson }}", "{\"a\": 1, \"b\": [1.0, null]}", NULL },
        { "{{ \"<&'\\x7f\\\"\\x01\" | tojson }}", "\"<&'\x7f\\\"\\u0001\"", NULL },
        { "{{ u | tojson(ensure_ascii=true) }}", "\"Z\\u00fcrich \\u65e5\"", NULL },
        { "{{ {'b': [1], 'a': {}} | tojson(indent=1, sort_keys=true) }}",
          "{\n \"a\": {},\n \"b\": [\n  1\n ]\n}", NULL },
        { "{{ l | tojson(separators=(',', ':')) }}", "[3,1,2]", NULL },
        { "{{ undefined_name | tojson }}", NULL, "Undefined" },
        { "{{ l | map('string') }}", NULL, "generator" }, // Python prints an address
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_attributes_and_keys(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{{ d['items'] }} {% for k, v in d.items() %}{{ k }}{% endfor %}", "I xitems", NULL },
        { "{{ d.y }}|{{ d['y'] }}|{{ l[7] }}|{{ s.nosuch }}|{{ n.x }}", "||||", NULL },
        { "{{ d.y.z }}", NULL, "'y'" },
        { "{{ x.y }}", NULL, "'x' is not defined" },
        { "{{ u[1] }}{{ u[-1] }}{{ u[::-1] }}{{ u | length }}",
          "\xc3\xbc\xe6\x97\xa5\xe6\x97\xa5 hcir\xc3\xbcZ8", NULL },
        { "{{ l.append(4) }}", NULL, "not allowed" },
        { "{{ s.__class__ }}", "", NULL },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_undefined(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{% for x in y %}a{% else %}b{% endfor %}{{ y | length }}{{ not y }}{{ 1 in y }}",
          "b0TrueFalse", NULL },
        { "{{ y is iterable }}{{ y is sequence }}{{ y is string }}{{ y is mapping }}",
          "TrueTrueFalseFalse", NULL },
        { "{{ 'a' ~ y }}{{ y | trim }}{{ y | join(',') }}{{ y | list }}{{ y | map('upper') | list "
          "}}",
          "a[][]", NULL },
        { "{{ y + 'a' }}", NULL, "'y'" },
        { "{{ y < 1 }}", NULL, "'y'" },
        { "{{ y() }}", NULL, "'y'" },
        { "{{ y[0] }}", NULL, "'y'" },
        { "{{ y[1:] }}", NULL, "'y'" },
        { "{{ y | dictsort }}", NULL, "'y'" },
        { "{% for x in n %}{% endfor %}", NULL, "NoneType" },
        { "{{ n | length }}", NULL, "NoneType" },
        { "{{ n | map('upper') | list }}{{ n | selectattr('a') | list }}", "[][]", NULL },
        { "{{ tools is defined }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue",
          NULL },
        { "{{ messages[0].content is defined }}{{ messages[0].reasoning_content }}", "Falset",
          NULL },
        { "{% for t in tools %}{{ t }}{% endfor %}none", "none", NULL }, // the second try
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_texts(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{{ '\\u00a0\\u3000\\x85a\\x1c' | trim }}|{{ 'xxaxy'.strip('xy') }}|{{ ' a '.rstrip() "
          "}}|",
          "a|a| a|", NULL },
        { "{{ ' a b  c '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ ''.split(',') }}",
          "['a', 'b', 'c']['a', 'b,c']['']", NULL },
        { "{{ '\xc3\x9f'.upper() }}{{ '\xc7\x86'.title() }}{{ \"they're bill's\".title() }}{{ "
          "\"they're\" | title }}",
          "SS\xc7\x85They'Re Bill'SThey're", NULL },
        { "{{ '\\d\\101\\n' 'b' }}", "\\dA\nb", NULL },
        { "{{ '%05.2f|%x|%s' % (3.14159, 255, [1]) }}{{ '{} {x!r}'.format(1, x='b') }}",
          "03.14|ff|[1]1 'b'", NULL },
        { "{{ '{:<+06.1f}|{:^05}|{:#.0f}'.format(2, 7, 3) }}{{ '%#.0f' % 4 }}", "+2.000|00700|3.4.",
          NULL },
        { "{{ '{!s:-5}'.format(1) }}", NULL, "format specification" },
        { "{{ '{:,x}'.format(1) }}", NULL, "format of a number" },
        { "{{ '%5%' % () }}", NULL, "format" },
        { "{{ '\xc7\x85\xe1\xbe\xa8\xe1\xba\x9e'.swapcase() }}", "\xc7\x85\xe1\xbe\xa8\xc3\x9f",
          NULL }, // titlecase letters stay
        { "{{ 'ab'.endswith('', 0, -4) }}{{ 'ab'.endswith('', 1, -4) }}", "TrueFalse", NULL },
        { "{{ ('<' | safe) + '<' }}{{ ('<' | safe) ~ '<' }}", "<&lt;<<", NULL },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_scopes(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{% endfor %}{{ y }}", "0", NULL },
        { "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ "
          "ns.n }}",
          "6", NULL },
        { "{% if a %}{% set y = 2 %}{% endif %}{{ y }}", "2", NULL },
        { "{% macro g() %}{{ y }}{% endmacro %}{% set y = 3 %}{{ g() }}", "3", NULL },
        { "{% macro g() %}{{ a }}{% endmacro %}{{ g() }}{% set a = 3 %}{{ g() }}", "3", NULL },
        { "{% macro even(x) %}{{ 'T' if x == 0 else odd(x - 1) }}{% endmacro %}"
          "{% macro odd(x) %}{{ 'F' if x == 0 else even(x - 1) }}{% endmacro %}{{ even(5) }}",
          "F", NULL },
        { "{{ g() }}{% macro g() %}{% endmacro %}", NULL, "'g' is not defined" },
        { "{% macro g(x, y=x) %}{{ x }}{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ g(1, 2, 3, "
          "q=4) }}",
          "12(3,){'q': 4}", NULL },
        { "{% macro g() %}[{{ caller(2) }}]{% endmacro %}{% call(v) g() %}{{ v }}{% endcall %}",
          "[2]", NULL },
        { "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}", "1False",
          NULL },
        { "{% set x | upper %}ab{% endset %}{{ x }}{% filter trim | upper %} c {% endfilter %}",
          "ABC", NULL },
        { "{% with x = 1, y = a %}{{ x + y }}{% endwith %}{{ x is defined }}", "2False", NULL },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_loops(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
          "<3>1 3<1>2 1<2> ", NULL },
        { "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }}{% endfor %}",
          "13False22True", NULL },
        { "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "32",
          NULL },
        { "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "3", NULL },
        { "{% for x in l %}{{ loop.length }}{{ loop.revindex }}{{ loop.cycle('a', 'b') }} {% "
          "endfor %}",
          "33a 32b 31a ", NULL },
        { "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123", NULL },
        { "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{{ "
          "loop.depth }} {% endfor %}",
          "11 22 33 2 1 ", NULL },
        { "{% for loop in l %}{% endfor %}", NULL, "loop" },
        { "{% break %}", NULL, "loop" },
        { "{% set g = l | map('string') %}{{ g | list }}{{ g | list }}", "['3', '1', '2'][]",
          NULL },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_functions(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{{ raise_exception('no ' ~ a) }}", NULL, "no 1" },
        { "{{ strftime_now('%d %b %Y|%B %d, %Y %H:%M:%S %A %j %p %I %y %%') }}",
          "14 Mar 2026|March 14, 2026 09:26:53 Saturday 073 AM 09 26 %", NULL },
        { "{{ strftime_now('%Q') }}", NULL, "%Q" },
        { "{{ {'b': 1, 'A': 2, 'a': 3} | dictsort }}", "[('A', 2), ('a', 3), ('b', 1)]", NULL },
        { "{{ m | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}",
          "['hi']", NULL },
        { "{{ 'a' | nosuch }}", NULL, "filter" },
        { "{% if false %}{{ 'a' | nosuch }}{% endif %}b", "b", NULL },
        { "{% include 'x' %}", NULL, "no other templates" },
        { "a\n{{ b c }}", NULL, "line 2" },
        { "{% if a %}", NULL, "end of the template" },
        { "{% block x %}{% endblock %}", NULL, "'block'" },
    };
    check_examples(examples, QP_COUNT(examples));
}

/* ---- conversations as apply_chat_template prepares them ---- */

static void test_continue_final_message(void **state)
{
    (void)state;
    static const char *const whole = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
    static const char *const trimmed =
        "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}";
    static const char *const variables = "{\"messages\": [{\"content\": \"a\"}, {\"content\": \"b "
                                         "\"}], \"continue_final_message\": true}";
    const struct {
        const char *template, *text;
    } cases[] = { { whole, "[a][b " }, { trimmed, "[a][b" }, { "no content", NULL } };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes text = { 0 };
        quip_error error = { 0 };
        const quip_status status = render(cases[i].template, variables, &text, &error);
        assert_int_equal(!status, cases[i].text != NULL);
        assert_int_equal(text.n, cases[i].text ? strlen(cases[i].text) : 0);
        if (cases[i].text)
            assert_memory_equal(text.data, cases[i].text, text.n);
        qp_bytes_close(&text);
    }
}

static void test_json_is_read_as_python_does(void **state)
{
    (void)state;
    static const struct {
        const char *variables, *text; // text NULL: an error
    } cases[] = {
        { "{\"v\": {\"b\": 1, \"a\": 2, \"b\": 3}}", "{'b': 3, 'a': 2}" },
        { "{\"v\": [1.0, 1, 1e2, -0, -0.0, 10000000000000000000000]}",
          "[1.0, 1, 100.0, 0, -0.0, 10000000000000000000000]" },
        { "{\"v\": \"\\ud83d\\ude00\\n\\/\"}", "\xf0\x9f\x98\x80\n/" },
        { " { \"v\" : [ true , null ] } \n", "[True, None]" },
        { "{\"v\": \"\\ud83d\"}", NULL },
        { "{\"v\": 01}", NULL },
        { "{\"v\": 1} x", NULL },
        { "[1]", NULL },
        { "{\"v\": \"\x01\"}", NULL },
        { "", NULL },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes text = { 0 };
        quip_error error = { 0 };
        const quip_status status = render("{{ v }}", cases[i].variables, &text, &error);
        if (!cases[i].text)
            assert_int_equal(status, QUIP_E_ARGUMENT);
        else {
            check(status, &error);
            assert_int_equal(text.n, strlen(cases[i].text));
            assert_memory_equal(text.data, cases[i].text, text.n);
        }
        qp_bytes_close(&text);
    }
}

/* ---- hostile templates ---- */

static void test_hostile_templates_end_in_a_sentence(void **state)
{
    (void)state;
    static const struct example examples[] = {
        { "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", NULL,
          "steps" },
        { "{% macro g() %}{{ g() }}{% endmacro %}{{ g() }}", NULL, "nested too deeply" },
        { "{% set ns = namespace(s='x' * 1000000) %}{% for a in range(99) %}{% set ns.s = ns.s ~ "
          "ns.s %}{% endfor %}",
          NULL, "MiB" },
        { "{% set ns = namespace(l=[1]) %}{% for a in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
          "endfor %}{{ ns.l }}",
          NULL, "line 1" },
        { "{% set ns = namespace(l=[1]) %}{% for a in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
          "endfor %}{{ ns.l == ns.l }}",
          NULL, "steps" },
        { "{% set ns = namespace() %}{% set ns.n = ns %}{{ ns }}", NULL, "nested too deeply" },
        { "{% set ns = namespace(g=l) %}{% for a in range(9999) %}{% set ns.g = ns.g | "
          "map('string') %}{% endfor %}{{ ns.g | list }}",
          NULL, "nested too deeply" },
        { "{{ 'a' * 999999999 }}", NULL, "MiB" },
        { "{{ [1] * 999999999 }}", NULL, "" },
        { "{{ '%999999999d' % 1 }}", NULL, "MiB" },
        { "{{ 'a'.ljust(999999999) }}", NULL, "MiB" },
        { "{{ 10 ** 99999999 }}", NULL, "64 bits" },
        { "{{ range(100000000) | length }}", NULL, "100000" },
    };
    check_examples(examples, QP_COUNT(examples));
}

static void test_deep_sources_end_in_a_sentence(void **state)
{
    (void)state;
    static const char *const parts[][3] = {
        { "(", "1", ")" },   { "[", "", "]" },     { "not ", "1", "" },
        { "-", "1", "" },    { "1 if ", "1", "" }, { "a[", "0", "]" },
        { "1 + ", "1", "" }, { "1 ** ", "1", "" }, { "a.", "b", "" },
    };
    for (size_t i = 0; i < QP_COUNT(parts); i++) {
        struct bytes source = { 0 }, text = { 0 };
        quip_error error = { 0 };
        bool ok = qp_bytes_append_text(&source, "{{ ");
        for (int k = 0; k < 20000; k++)
            ok = ok && qp_bytes_append_text(&source, parts[i][0]);
        ok = ok && qp_bytes_append_text(&source, parts[i][1]);
        for (int k = 0; k < 20000; k++)
            ok = ok && qp_bytes_append_text(&source, parts[i][2]);
        assert_true(ok && qp_bytes_append(&source, " }}", 4));
        assert_true(render((char *)source.data, "{\"a\": [0]}", &text, &error) != QUIP_OK);
        assert_true(strlen(error.message) > 10);
        qp_bytes_close(&source);
        qp_bytes_close(&text);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    static const char template[] = "{% macro g(x) %}{% for k, v in x | dictsort %}{{ k }}={{ v | "
                                   "tojson(indent=2) }}{% endfor %}{% endmacro %}"
                                   "{% set ns = namespace(l=[]) %}{% for x in l | map('string') "
                                   "%}{% set ns.l = ns.l + [x * 9000] %}{% endfor %}"
                                   "{{ g({'b': ns.l, 'a': u.upper()}) }}{{ messages }}";
    if (!alloc_fault_is_here())
        skip();
    for (int n = 0;; n++) {
        struct bytes text = { 0 };
        quip_error error = { 0 };
        const int before = alloc_fault_live();
        alloc_fault_set(n);
        const quip_status status = render(template, VARIABLES, &text, &error);
        const bool has_failed = alloc_fault_clear();
        qp_bytes_close(&text);
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed) {
            check(status, &error);
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, QUIP_E_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_numbers_keep_their_kind),
        cmocka_unit_test(test_python_prints),
        cmocka_unit_test(test_attributes_and_keys),
        cmocka_unit_test(test_undefined),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_loops),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_continue_final_message),
        cmocka_unit_test(test_json_is_read_as_python_does),
        cmocka_unit_test(test_hostile_templates_end_in_a_sentence),
        cmocka_unit_test(test_deep_sources_end_in_a_sentence),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
