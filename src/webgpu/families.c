/* families.c: which models the GPU backend runs.
 * In:  a model.
 * Out: QUIP_OK, or a sentence that says what the backend cannot do yet. */
#include "webgpu/webgpu_impl.h"

enum {
    MAX_HEAD_DIM_GPU = 512 // attend.wgsl: a workgroup's memory is 16 KB
};

/* What the model has and the backend does not; NULL: it has everything. */
static const char *missing_feature(const quip_model *model)
{
    const struct config *c = &model->config;
    if (model->embedding.pooling != QUIP_POOLING_MODEL && c->conv_width > 0)
        return "embeddings of a model with convolutions";
    if (c->experts.n > 0 && c->norm == NORM_LAYER)
        return "experts behind layer norms";
    if (c->mixes_inputs &&
        (c->is_parallel || c->d_ple > 0 || c->experts.n > 0 || c->conv_width > 0))
        return "mixed inputs in a model of this kind"; // XN is mixed in place, for one product
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].head_dim > MAX_HEAD_DIM_GPU || c->layers[l].head_dim % 2)
            return "heads that are wider than 512, or odd";
    return NULL;
}

quip_status qp_webgpu_check_model(const quip_model *model, quip_error *error)
{
    const char *missing = missing_feature(model);
    if (!missing)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: the gpu backend does not run %s yet; use the cpu", model->file.name,
                   missing);
}
