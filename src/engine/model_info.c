/* model_info.c: what quip_model_get_info reports about an open model. */
#include "engine/engine.h"

quip_model_info qp_model_info(const quip_model *model)
{
    const struct config *c = &model->config;
    const double *draws = qp_options_sampling(model)->value;
    return (quip_model_info){
        .backend = model->options.backend,
        .architecture = c->family->name,
        .weights = model->weights_name,
        .n_parameters = model->n_parameters,
        .file_bytes = model->file.size,
        .n_layers = c->n_layers,
        .d_model = c->d_model,
        .d_ff = c->d_ff > 0 ? c->d_ff : c->experts.d_ff,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab_size,
        .n_context_max = c->n_context_max,
        .bos = c->bos,
        .n_threads = qp_options_n_threads(model),
        .has_template = model->chat || model->jinja || model->jinja_problem[0],
        .is_embedding = model->embedding.pooling != 0,
        .n_embedding = qp_pooled_width(&model->weights, c->d_model, model->weights.n_dense),
        .n_experts = c->experts.n,
        .n_experts_used = c->experts.n_used,
        .n_active_parameters = model->n_active_parameters,
        .has_sampling = model->sampling.is_known,
        .default_temperature = (float)draws[SAMPLING_TEMPERATURE],
        .default_top_k = (int)draws[SAMPLING_TOP_K],
        .default_top_p = (float)draws[SAMPLING_TOP_P],
        .default_min_p = (float)draws[SAMPLING_MIN_P],
        .default_repeat_penalty = (float)draws[SAMPLING_REPEAT_PENALTY],
        .default_penalty_window = (int)draws[SAMPLING_PENALTY_WINDOW],
        .default_no_repeat_ngram = (int)draws[SAMPLING_NO_REPEAT_NGRAM],
        .backend_reason = model->backend_reason[0] ? model->backend_reason : NULL,
    };
}
