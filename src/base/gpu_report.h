/* gpu_report.h: which GPUs this machine has, for `quip doctor`. The GPU backend fills it. */
#ifndef QP_GPU_REPORT_H
#define QP_GPU_REPORT_H

#include "base/base.h"

enum {
    GPU_MAX_ATTEMPTS = 4,
    GPU_MAX_ADAPTERS = 8,
    GPU_MAX_FEATURES = 8
};

/* Where the library was looked for. */
struct gpu_attempt {
    char name[512];    // of the file
    char problem[256]; // why it was not loaded; "": it was
};

struct gpu_adapter {
    char name[160];                         // with its kind of API and its driver
    bool is_software;                       // the driver computes on the CPU
    uint64_t max_buffer, max_binding;       // bytes of a buffer; of its part that a shader reads
    uint32_t max_groups, group_memory;      // workgroups of a dispatch; bytes of one's own memory
    bool is_chosen;                         // models run on it
    const char *features[GPU_MAX_FEATURES]; // those that matter to shaders
    int n_features;
};

struct gpu_report {
    struct gpu_attempt attempts[GPU_MAX_ATTEMPTS];
    int n_attempts;
    char library[64]; // its name and version; "": there is none
    struct gpu_adapter adapters[GPU_MAX_ADAPTERS];
    int n_adapters;
};

/* Look for the library and the adapters, without opening a device. It is there if the backend is
 * built (QUIP_WEBGPU). */
void qp_gpu_report(struct gpu_report *report);

#endif
