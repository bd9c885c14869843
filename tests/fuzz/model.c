/* model.c: fuzz target for a whole model file.
 * In:  the bytes of the file; the last byte selects sampled or greedy decoding.
 * Out: no crash; a file that opens as a model generates an answer. */
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const bool is_sampled = n && data[n - 1] & 1;
    const quip_session_options options = { .n_context = 8,
                                           .n_threads = 1,
                                           .seed = 1,
                                           .has_seed = true,
                                           .max_output_tokens = 3,
                                           .greedy = !is_sampled,
                                           .top_p = 0.9f };
    struct file file;
    quip_model *model;
    quip_session *session;
    quip_error error;
    qp_file_open_memory(&file, data, n, "fuzz");
    if (qp_model_open(&model, &file, NULL, &error))
        return 0;
    if (!quip_session_open(&session, model, &options, &error)) {
        quip_session_generate(session, "he", 2, NULL, NULL, NULL, &error);
        quip_session_close(session);
    }
    quip_model_close(model);
    return 0;
}
