/* gpu.c (test): see gpu.h */
#include "support/gpu.h"

#include "engine/engine.h"
#include "support/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

bool has_gpu(void)
{
    static bool is_known, is_there;
    quip_error error = { 0 };
    if (!is_known) {
        is_known = true;
        is_there = quip_backend_check(QUIP_BACKEND_GPU, &error) == QUIP_OK;
        if (!is_there) {
            print_message("no GPU here: %s\n", error.message);
            assert_int_equal(error.status, QUIP_E_UNSUPPORTED);
        }
    }
    return is_there;
}

quip_model *open_on_gpu(int i)
{
    quip_model *model = models_open(i, &(quip_model_options){ .backend = QUIP_BACKEND_CPU });
    quip_error error = { 0 };
    model->options.backend = QUIP_BACKEND_GPU;
    model->no_self_test = true; // the tests compare the same, of all layers
    if (qp_backend_check_model(model, &error) == QUIP_OK)
        return model;
    assert_int_equal(error.status, QUIP_E_UNSUPPORTED);
    printf("  %-22s refused: %s\n", models_name(i), error.message);
    quip_model_close(model);
    return NULL;
}
