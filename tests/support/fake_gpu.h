/* fake_gpu.h: a GPU that computes nothing, behind the functions of wgpu-native or Dawn.
 *
 * With is_on it is what a model that is opened on the GPU gets, also where there is neither a GPU
 * nor wgpu-native. All that comes back from it is zeros. It counts the objects that are alive, it
 * can be told what goes wrong, and it notes calls that wgpu-native would end the process for:
 * objects that were closed, ranges outside of a buffer, a submit after the GPU was lost.
 *
 * The linker's --wrap puts it in the place of the library (CMakeLists.txt). Where the linker cannot
 * do that, fake_gpu_is_here() is false. */
#ifndef FAKE_GPU_H
#define FAKE_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fake_failure {
    FAKE_REFUSED, // the call is wrong in some way: a shader does not compile
    FAKE_SHORT,   // there is no memory left
    FAKE_LOST     // the GPU is lost, for good
};

struct fake_gpu {
    bool is_on;
    bool is_dawn, has_matrices; // it is Dawn, not wgpu-native; its subgroups multiply matrices
    void (*answer)(void *bytes, size_t n); // fills what comes back; NULL: zeros
    uint64_t max_buffer, max_binding;      // limits; 0: those of a usual GPU
    uint32_t group_memory, group_threads, max_groups, n_bindings;
    int fail_in;               // the n-th call from now that can fail, fails; 0: none
    enum fake_failure failure; // in this way
    bool is_typed;             // errors have the types of webgpu.h, not those of wgpu-native 29
    int n_not_yet;             // a mapping is done at this many polls after the first, or at a wait
    long wait_ns;              // how long a wait takes
    /* What it found: */
    const char *failed;    // the call that failed; NULL: none
    int n_calls;           // that could fail
    int n_live, n_devices; // objects that were not released; of these, devices
    int n_matrix_modules;  // shaders that multiply matrices,
    int n_tile_modules;    // or tiles without them
    int n_attend_modules;  // of them, those of attention
    int n_polls;           // that found a mapping which was not done
    const char *wrong;     // the first wrong call; NULL: none was wrong
};
extern struct fake_gpu fake_gpu;

bool fake_gpu_is_here(void);
/* All-zero again. Forgets what was not released. */
void fake_gpu_reset(void);

#endif
