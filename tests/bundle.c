/* bundle.c (test): .task bundles. Ours opens like the model inside. MediaPipe's opens and is
 * written again byte for byte. A file that is not a bundle, or is damaged, is reported. */
#include "support/alloc_fault.h"
#include "support/check.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include "convert/convert.h"
#include "format/bundle.h"
#include "format/format.h"
#include "format/little_endian.h"
#include "format/protobuf.h"
#include "format/zip.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], model_path[80], task_path[80];

static const char *in_folder(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct tiny_model tiny = tiny_smallest;
    tiny.config = "layer_types LG\nchat chatml\n";
    snprintf(folder, sizeof folder, "bundle-%d", (int)getpid());
    assert_int_equal(mkdir(folder, 0777), 0);
    strcpy(model_path, in_folder("model.bin"));
    strcpy(task_path, in_folder("model.task"));
    check(tiny_model_write(model_path, &tiny, &error), &error);
    check(qp_bundle_write(model_path, task_path, NULL, &error), &error);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* Write the answer to a prompt to the caller's 512 bytes. */
static void answer_of(quip_model *model, const char *system_text, char *to)
{
    quip_session *s;
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = 128,
                                           .system = system_text,
                                           .greedy = true };
    check(quip_session_open(&s, model, &options, &error), &error);
    check(quip_session_append(s, QUIP_ROLE_USER, "the hen", 7, &error), &error);
    size_t used = 0;
    for (int i = 0; i < 16; i++) {
        quip_piece piece = { .struct_size = sizeof piece };
        check(quip_session_next(s, &piece, &error), &error);
        assert_true(used + piece.n_text < 512);
        memcpy(to + used, piece.text, piece.n_text);
        used += piece.n_text;
    }
    to[used] = 0;
    quip_session_close(s);
}

static bool read_file(void *user, uint64_t offset, void *buffer, size_t n)
{
    FILE *file = user;
    return fseek(file, (long)offset, SEEK_SET) == 0 && fread(buffer, 1, n, file) == n;
}

/* ---- ours ---- */

static void test_opens_like_its_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *models[4];
    size_t n;
    char *bytes = read_whole(task_path, &n);
    FILE *file = fopen(task_path, "rb");
    quip_source source = { .user = file, .size = n, .read_at = read_file, .name = "a source" };
    void *aligned = aligned_alloc(64, qp_round_up(n, 64));
    memcpy(aligned, bytes, n);
    check(quip_model_open(&models[0], model_path, NULL, &error), &error);
    check(quip_model_open(&models[1], task_path, NULL, &error), &error);
    check(quip_model_open_source(&models[2], &source, NULL, &error), &error);
    check(quip_model_open_memory(&models[3], aligned, n, NULL, NULL, NULL, &error), &error);
    char wanted[512], got[512];
    answer_of(models[0], "be brief", wanted);
    assert_true(strlen(wanted) > 0);
    for (int i = 1; i < 4; i++) {
        answer_of(models[i], "be brief", got);
        assert_string_equal(got, wanted);
        quip_model_info a = { .struct_size = sizeof a }, b = a;
        quip_model_get_info(models[0], &a, NULL);
        quip_model_get_info(models[i], &b, NULL);
        assert_int_equal(a.bos, b.bos);
        assert_string_equal(models[i]->chat->name, "chatml");
    }
    for (int i = 0; i < 4; i++)
        quip_model_close(models[i]);
    const quip_model_options header = { .no_weights = true };
    quip_plan plans[2] = { { .struct_size = sizeof plans[0] }, { .struct_size = sizeof plans[0] } };
    check(quip_model_open(&models[0], task_path, &header, &error), &error);
    check(quip_model_open_source(&models[1], &source, &header, &error), &error);
    for (int i = 0; i < 2; i++) {
        check(quip_model_plan(models[i], NULL, &plans[i], &error), &error);
        quip_model_close(models[i]);
    }
    assert_true(plans[0].kv_bytes > 0);
    assert_int_equal(plans[0].kv_bytes, plans[1].kv_bytes);
    fclose(file);
    free(aligned);
    free(bytes);
}

/* Properties on which readers of MediaPipe's bundles rely. */
static void test_layout(void **state)
{
    (void)state;
    struct file f;
    struct zip zip;
    quip_error error = { 0 };
    check(qp_file_open(&f, task_path, &error), &error);
    check(qp_zip_open(&zip, &f, &error), &error);
    assert_int_equal(zip.n_entries, 3);
    for (int i = 0; i < zip.n_entries; i++)
        assert_int_equal(zip.entries[i].offset % 64, 0);
    assert_memory_equal(f.data, "\0\0\0\0PK\3\4", 8);
    qp_zip_close(&zip);
    qp_file_close(&f);
    if (system("python3 -c pass 2>/dev/null") == 0) { // another reader, which checks the CRCs
        char command[200];
        snprintf(command, sizeof command,
                 "python3 -c \"import zipfile,sys; sys.exit(zipfile.ZipFile('%s').testzip())\"",
                 task_path);
        assert_int_equal(system(command), 0);
    }
}

static void test_extract(void **state)
{
    (void)state;
    quip_error error = { 0 };
    char parts[160], part[300];
    strcpy(parts, in_folder("parts"));
    check(qp_bundle_extract(task_path, parts, NULL, NULL, &error), &error);
    snprintf(part, sizeof part, "%s/%s", parts, BUNDLE_MODEL);
    assert_same_file(part, model_path);
    snprintf(part, sizeof part, "%s/%s", parts, BUNDLE_TOKENIZER);
    struct bundle_options again = { .tokenizer = part };
    check(qp_bundle_write(model_path, in_folder("again.task"), &again, &error), &error);
    assert_same_file(in_folder("again.task"), task_path);
}

/* Other programs align nothing. Three of four bundles with an entry of 0 to 3 bytes before the
 * model have floats where no float can be read, and the message says where. */
static void test_misaligned(void **state)
{
    (void)state;
    char path[160], command[700];
    int n_refused = 0;
    strcpy(path, in_folder("misaligned.task"));
    if (system("python3 -c pass 2>/dev/null") != 0)
        return;
    for (int pad = 0; pad < 4; pad++) {
        quip_error error = { 0 };
        quip_model *m = NULL;
        snprintf(command, sizeof command,
                 "python3 -c \"import zipfile; a, b = zipfile.ZipFile('%s'), "
                 "zipfile.ZipFile('%s', 'w'); b.writestr('pad', b'x' * %d); "
                 "[b.writestr(n, a.read(n)) for n in a.namelist()]; b.close()\"",
                 task_path, path, pad);
        assert_int_equal(system(command), 0);
        if (quip_model_open(&m, path, NULL, &error) == QUIP_E_FORMAT) {
            const char *offset = strstr(error.message, "is at offset ");
            assert_non_null(offset);
            assert_int_not_equal(strtoull(offset + strlen("is at offset "), NULL, 10) % 4, 0);
            assert_non_null(strstr(error.message, "quip bundle"));
            n_refused++;
        }
        quip_model_close(m);
    }
    assert_int_equal(n_refused, 3);
}

/* Texts of a bundle override those of the model file. */
static void test_texts_win(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const char *stops[] = { "<eos>", "no piece" };
    const struct bundle_options o = {
        .start_token = "",
        .stop_tokens = stops,
        .n_stop_tokens = 2,
        .system_prompt = "first",
        .user = { "Q: ", "\n" },
        .model = { "A: ", "\n" },
        .end_role_token = "<end>",
    };
    char path[160];
    strcpy(path, in_folder("texts.task"));
    check(qp_bundle_write(model_path, path, &o, &error), &error);
    quip_model *m;
    check(quip_model_open(&m, path, NULL, &error), &error);
    assert_string_equal(m->chat->user.prefix, "Q: ");
    assert_string_equal(m->chat->model.suffix, "\n");
    assert_string_equal(m->chat->default_system, "first");
    assert_int_equal(m->config.n_stop_ids, 1);
    assert_int_equal(m->config.stop_ids[0], TINY_EOS);
    assert_int_equal(m->prompts.n_stop_texts, 1);
    assert_string_equal((const char *)m->prompts.stop_texts.data, "no piece");
    quip_model_close(m);
}

/* Only the older field: its suffix has the end of the user's turn and the beginning of the model's.
 */
static void test_single_template(void **state)
{
    (void)state;
    const struct {
        const char *prefix, *suffix, *user_suffix, *model_prefix, *model_suffix;
    } cases[] = {
        { "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>\n",
          "<start_of_turn>model\n", "<end_of_turn>\n" },
        { "Q: ", "\nA: ", "\n", "A: ", "" },
        { "Q: ", " A: ", "", " A: ", "" },
        { "", "", NULL, NULL, NULL },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct bytes turn = { 0 }, proto = { 0 };
        quip_model m = { 0 };
        quip_error error = { 0 };
        assert_true(qp_proto_put_bytes(&turn, 2, cases[i].prefix, strlen(cases[i].prefix)) &&
                    qp_proto_put_bytes(&turn, 3, cases[i].suffix, strlen(cases[i].suffix)) &&
                    qp_proto_put_bytes(&proto, 8, turn.data, turn.n));
        check(qp_prompts_read(&m, proto.data, proto.n, "test", &error), &error);
        const struct chat_template *chat = qp_prompts_chat(&m);
        if (cases[i].user_suffix) {
            assert_string_equal(chat->user.prefix, cases[i].prefix);
            assert_string_equal(chat->user.suffix, cases[i].user_suffix);
            assert_string_equal(chat->model.prefix, cases[i].model_prefix);
            assert_string_equal(chat->model.suffix, cases[i].model_suffix);
        } else {
            assert_null(chat);
        }
        qp_bytes_close(&m.chat_text);
        qp_bytes_close(&turn);
        qp_bytes_close(&proto);
    }
}

static void test_refused_options(void **state)
{
    (void)state;
    const char *stops[] = { "<eos>" };
    const struct {
        struct bundle_options o;
        const char *sentence;
    } cases[] = {
        { { .start_token = "no such piece" }, "not a piece" },
        { { .system_prompt = "x", .system = { "a", "b" } }, "mutually exclusive" },
        { { .tokenizer = "no such file", .stop_tokens = stops, .n_stop_tokens = 1 }, "no such" },
        { { .tokenizer = model_path, .stop_tokens = stops, .n_stop_tokens = 1 }, "SentencePiece" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        assert_int_not_equal(qp_bundle_write(model_path, in_folder("no.task"), &cases[i].o, &error),
                             QUIP_OK);
        if (!strstr(error.message, cases[i].sentence))
            fail_msg("expected \"%s\": %s", cases[i].sentence, error.message);
        assert_int_not_equal(access(in_folder("no.task"), F_OK), 0);
    }
    quip_error error = { 0 };
    assert_int_equal(qp_bundle_write(task_path, in_folder("no.task"), NULL, &error),
                     QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "--extract"));
}

/* ---- damaged files ---- */

static quip_status open_bytes(const void *data, size_t n, quip_error *error)
{
    quip_model *m = NULL;
    void *copy =
        aligned_alloc(64, qp_round_up(n + 1, 64)); // the sanitizer detects reads past its end
    memcpy(copy, data, n);
    const quip_status status = quip_model_open_memory(&m, copy, n, NULL, NULL, NULL, error);
    quip_model_close(m);
    free(copy);
    return status;
}

static char *find_bytes(char *in, size_t n, const char *wanted, size_t n_wanted)
{
    for (size_t i = 0; i + n_wanted <= n; i++)
        if (!memcmp(in + i, wanted, n_wanted))
            return in + i;
    return NULL;
}

static void test_damaged(void **state)
{
    (void)state;
    size_t n;
    char *whole = read_whole(task_path, &n);
    for (size_t cut = 0; cut < n; cut += cut < 200 || cut + 300 > n ? 1 : 997) {
        quip_error error = { 0 };
        if (!open_bytes(whole, cut, &error) && cut > 0)
            fail_msg("%zu of %zu bytes were opened", cut, n);
    }
    // flip every bit of headers, directory and metadata: no crash, and a message if it fails
    for (size_t at = 0; at < n; at += at == 64 ? n - 700 - 64 : 1)
        for (int bit = 0; bit < 8; bit++) {
            quip_error error = { 0 };
            whole[at] ^= (char)(1 << bit);
            if (open_bytes(whole, n, &error))
                assert_true(strlen(error.message) > 10);
            whole[at] ^= (char)(1 << bit);
        }
    // an entry with another name
    char *name = whole;
    while ((name = find_bytes(name, n - (size_t)(name - whole), "TOKENIZER_MODEL", 15)))
        memcpy(name, "TOKENIZER_MODAL", 15);
    quip_error error = { 0 };
    assert_int_equal(open_bytes(whole, n, &error), QUIP_E_FORMAT);
    assert_non_null(strstr(error.message, "TOKENIZER_MODEL"));
    free(whole);
}

/* The model in a bundle of another tool is a graph: its flatbuffer lists operators. */
static void test_graph(void **state)
{
    (void)state;
    size_t n;
    char *whole = read_whole(task_path, &n);
    uint8_t *flat = (uint8_t *)whole + 64;
    const uint32_t model = qp_le32(flat), vtable = model - qp_le32(flat + model);
    qp_put_le16(flat + vtable + 4 + 2 * 1,
                qp_le16(flat + vtable + 4 + 2 * 4)); // use the buffers as operator codes
    quip_error error = { 0 };
    assert_int_equal(open_bytes(whole, n, &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "graph"));
    assert_non_null(strstr(error.message, "quip convert"));
    free(whole);
}

static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    for (int n = 0, writes = 0; writes < 2; n++) {
        quip_error error = { 0 };
        quip_model *m = NULL;
        const int live = alloc_fault_live();
        alloc_fault_set(n);
        quip_status status = writes
                                 ? quip_model_open(&m, task_path, NULL, &error)
                                 : qp_bundle_write(model_path, in_folder("f.task"), NULL, &error);
        const bool has_failed = alloc_fault_clear();
        quip_model_close(m);
        assert_int_equal(alloc_fault_live(), live);
        if (has_failed) {
            if (status != QUIP_E_MEMORY && !(status == QUIP_E_ARGUMENT && !writes))
                fail_msg("allocation %d: %s", n, error.message);
            continue;
        }
        check(status, &error);
        writes++;
        n = -1;
    }
}

/* ---- MediaPipe's bundles ---- */

static void compare_entry(const struct zip *a, const struct file *fa, const struct zip *b,
                          const struct file *fb, const char *name)
{
    uint64_t at_a, at_b, n_a, n_b;
    assert_true(qp_zip_find(a, name, &at_a, &n_a));
    assert_true(qp_zip_find(b, name, &at_b, &n_b));
    assert_int_equal(n_a, n_b);
    assert_memory_equal(fa->data + at_a, fb->data + at_b, n_a);
}

/* With the same arguments as MediaPipe's bundler, ours writes the same entries. */
static void test_original(void **state)
{
    (void)state;
    need_shared("data/interop/GEMMA_2B-task-v0.10.35/model.task");
    quip_error error = { 0 };
    char theirs[1024], tokenizer[1024], ours[160];
    const char *stops[] = { "<eos>", "<end_of_turn>" };
    strcpy(theirs, shared_path("data/interop/GEMMA_2B-task-v0.10.35/model.task"));
    strcpy(tokenizer, shared_path("data/interop/sources/GEMMA_2B/tokenizer.model"));
    strcpy(ours, in_folder("ours.task"));
    const struct bundle_options o = {
        .tokenizer = tokenizer,
        .start_token = "<bos>",
        .stop_tokens = stops,
        .n_stop_tokens = 2,
        .user = { "<start_of_turn>user\n", "<end_of_turn>\n" },
        .model = { "<start_of_turn>model\n", "<end_of_turn>\n" },
        .system = { "<sys>", "</sys>" },
    };
    check(qp_bundle_write(shared_path("data/interop/GEMMA_2B-cpu-a8f4e4/model.bin"), ours, &o,
                          &error),
          &error);
    struct file fa, fb;
    struct zip a, b;
    check(qp_file_open(&fa, ours, &error), &error);
    check(qp_file_open(&fb, theirs, &error), &error);
    check(qp_zip_open(&a, &fa, &error), &error);
    check(qp_zip_open(&b, &fb, &error), &error);
    compare_entry(&a, &fa, &b, &fb, BUNDLE_MODEL);
    compare_entry(&a, &fa, &b, &fb, BUNDLE_TOKENIZER);
    compare_entry(&a, &fa, &b, &fb, BUNDLE_METADATA);
    qp_zip_close(&a);
    qp_zip_close(&b);
    qp_file_close(&fa);
    qp_file_close(&fb);
}

static void test_original_opens(void **state)
{
    (void)state;
    static const char *const names[] = { "data/interop/GEMMA_2B-task-v0.10.21/model.task",
                                         "data/interop/GEMMA_2B-task-v0.10.35/model.task" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        quip_error error = { 0 };
        quip_model *m;
        char text[512];
        need_shared(names[i]);
        check(quip_model_open(&m, shared_path(names[i]), NULL, &error), &error);
        assert_string_equal(m->chat->user.prefix, "<start_of_turn>user\n");
        assert_string_equal(m->chat->user.suffix, "<end_of_turn>\n");
        assert_string_equal(m->chat->model.prefix, "<start_of_turn>model\n");
        assert_string_equal(m->chat->model.suffix, "<end_of_turn>\n");
        if (i == 0)
            assert_string_equal(m->chat->default_system, "be brief");
        else
            assert_string_equal(m->chat->system.prefix, "<sys>");
        assert_int_equal(m->config.n_stop_ids, 2);
        answer_of(m, NULL, text);
        quip_model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_like_its_model),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_extract),
        cmocka_unit_test(test_misaligned),
        cmocka_unit_test(test_texts_win),
        cmocka_unit_test(test_single_template),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_original),
        cmocka_unit_test(test_original_opens),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
