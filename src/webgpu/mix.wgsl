// mix.wgsl: mixes blocks of 64 numbers of each row by the Hadamard matrix; what is left at the end of
//      a row by smaller ones (qp_mix_row).
// In:  X [n, stride], rows of n_in numbers.
// Out: X.

struct Params {
    n_in: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> X: array<f32>;

const SIZE = 64u;
var<workgroup> values: array<f32, SIZE>;

// The size of the block that thread i is in, of n numbers.
fn block_of(i: u32, n: u32) -> u32 {
    var size = SIZE;
    var first = 0u;
    while (first < n) {
        while (size > n - first) {
            size /= 2u;
        }
        if (i < first + size) {
            return size;
        }
        first += size;
    }
    return 1u;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let n = min(SIZE, p.n_in - group.x * SIZE);
    let at = group.y * p.stride + group.x * SIZE + thread;
    let size = block_of(thread, n);
    var x = 0.0;
    if (thread < n) {
        x = X[at];
    }
    for (var step = 1u; step < SIZE; step *= 2u) {
        values[thread] = x;
        workgroupBarrier();
        let other = values[thread ^ step];
        if (step < size) {
            x = select(x + other, other - x, (thread & step) != 0u);
        }
        workgroupBarrier();
    }
    if (thread < n) {
        X[at] = x * inverseSqrt(f32(size));
    }
}
