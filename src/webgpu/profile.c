/* profile.c: which dispatches batches have, and how long they take.
 * In:  the dispatches that are recorded; their times, from the GPU.
 * Out: for each kind of dispatch its number, time, and the weights that it reads. */
#include "webgpu/webgpu_impl.h"

#include <stdlib.h>
#include <string.h>

void qp_webgpu_profile_add(struct webgpu_device *d, const char *name, uint64_t n_weight)
{
    struct profile *p = &d->profile;
    if (p->dispatches && p->n < GPU_MAX_MEASURED)
        p->dispatches[p->n++] = (struct kernel_time){ name, 1, 0, n_weight };
}

static void begin_profile(struct webgpu_device *d)
{
    struct profile *p = &d->profile;
    p->n = 0;
    if (!p->dispatches)
        p->dispatches = calloc(GPU_MAX_MEASURED, sizeof *p->dispatches);
    qp_gpu_measure(d->gpu, NULL); // without timestamps, the dispatches are only counted
}

/* The kernel with a name; a new one if there is none. */
static struct kernel_time *find_kernel(struct kernel_time *times, int *n, int max, const char *name)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(times[i].name, name) == 0)
            return &times[i];
    if (*n == max)
        return NULL;
    times[*n] = (struct kernel_time){ .name = name };
    return &times[(*n)++];
}

int qp_webgpu_profile(struct device *device, struct kernel_time *times, int max)
{
    struct webgpu_device *d = webgpu_of(device);
    struct profile *p = &d->profile;
    int n = 0;
    if (!times) {
        begin_profile(d);
        return 0;
    }
    uint64_t *ns = calloc(GPU_MAX_MEASURED, sizeof *ns);
    if (ns)
        qp_gpu_measured(d->gpu, ns, GPU_MAX_MEASURED);
    for (int i = 0; i < p->n; i++) {
        struct kernel_time *k = find_kernel(times, &n, max, p->dispatches[i].name);
        if (!k)
            continue;
        k->n++;
        k->ns += ns ? ns[i] : 0;
        k->n_weight += p->dispatches[i].n_weight;
    }
    free(ns);
    free(p->dispatches);
    *p = (struct profile){ 0 };
    return n;
}
