// quantize.wgsl: rows of x as int8, in blocks of 64 that share a scale, as the CPU rounds them.
// In:  X [n, x_stride].
// Out: Q [n, q_stride] words of four; S [n, q_stride / 16]. Padding is 0.

struct Params {
    n_in: u32,
    x_stride: u32,
    q_stride: u32, // words; a multiple of 16
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<f32>;
@group(0) @binding(2) var<storage, read_write> Q: array<u32>;
@group(0) @binding(3) var<storage, read_write> S: array<f32>;

const SIZE = 64u; // threads, of which 16 share a block
var<workgroup> largest: array<f32, SIZE>;

fn input(t: u32, i: u32) -> f32 {
    if (i >= p.n_in) {
        return 0.0;
    }
    return X[t * p.x_stride + i];
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.x * SIZE + thread; // word of the row
    let t = group.y;
    let i = 4u * at;
    let x = vec4<f32>(input(t, i), input(t, i + 1u), input(t, i + 2u), input(t, i + 3u));
    let a = abs(x);
    largest[thread] = max(max(a.x, a.y), max(a.z, a.w));
    for (var step = 8u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread % 16u < step) {
            largest[thread] = max(largest[thread], largest[thread + step]);
        }
    }
    workgroupBarrier();
    if (at >= p.q_stride) {
        return;
    }
    let most = largest[thread / 16u * 16u];
    let inverse = select(0.0, 127.0 / most, most > 0.0);
    Q[t * p.q_stride + at] =
        pack4xI8(vec4<i32>(round(clamp(x * inverse, vec4<f32>(-127.0), vec4<f32>(127.0)))));
    if (thread % 16u == 0u) {
        S[(t * p.q_stride + at) / 16u] = most / 127.0;
    }
}
