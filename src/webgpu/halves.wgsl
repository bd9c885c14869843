// halves.wgsl: rows of x as binary16, for gemm_matrices.wgsl: what quantize.wgsl rounds to, times
// its scale and a power of two that brings the row's largest number between 1024 and 2048.
// In:  X [n, x_stride], a multiple of 4.
// Out: H [n, h_stride] words of two, of each four the first and third, then the others; S [n]: one
//      divided by the powers. Padding is 0.

struct Params {
    n_in: u32,
    x_stride: u32,
    h_stride: u32, // words; a multiple of 32
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> H: array<u32>;
@group(0) @binding(3) var<storage, read_write> S: array<f32>;

const SIZE = 256u; // threads; each has four numbers at once, and 16 threads share a block
const N_PARTS = SIZE / SUBGROUP;
var<workgroup> parts: array<f32, N_PARTS>;

fn input(t: u32, i: u32) -> vec4<f32> {
    if (i >= p.n_in) {
        return vec4<f32>(0.0);
    }
    let index = vec4<u32>(i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), X[(t * p.x_stride + i) / 4u], index < vec4<u32>(p.n_in));
}

// The largest of the threads that are neighbours, n of them.
fn largest_of(x: vec4<f32>, n: u32) -> f32 {
    let a = abs(x);
    var most = max(max(a.x, a.y), max(a.z, a.w));
    for (var i = n / 2u; i > 0u; i /= 2u) {
        most = max(most, subgroupShuffleXor(most, i));
    }
    return most;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    let n = 2u * p.h_stride;
    var most = vec4<f32>(0.0);
    for (var i = 4u * thread; i < n; i += 4u * SIZE) {
        most = max(most, abs(input(t, i)));
    }
    let part = largest_of(most, SUBGROUP);
    if (thread % SUBGROUP == 0u) {
        parts[thread / SUBGROUP] = part;
    }
    workgroupBarrier();
    var row = 0.0;
    for (var i = 0u; i < N_PARTS; i++) {
        row = max(row, parts[i]);
    }
    let power = select(1.0, exp2(10.0 - floor(log2(row))), row > 0.0);
    if (thread == 0u) {
        S[t] = 1.0 / power;
    }
    for (var begin = 0u; begin < n; begin += 4u * SIZE) {
        let i = begin + 4u * thread;
        let x = input(t, i);
        let block = largest_of(x, 16u);
        let inverse = select(0.0, 127.0 / block, block > 0.0);
        let y = round(clamp(x * inverse, vec4<f32>(-127.0), vec4<f32>(127.0))) *
                (block / 127.0 * power);
        if (i < n) {
            H[t * p.h_stride + i / 2u] = pack2x16float(y.xz);
            H[t * p.h_stride + i / 2u + 1u] = pack2x16float(y.yw);
        }
    }
}
