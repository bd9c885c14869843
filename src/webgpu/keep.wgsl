// keep.wgsl: moves some rows of a buffer to its front.
// In:  ROWS: where each of n rows was; X [n, stride].
// Out: X. A thread has one column of all rows, which it moves in ascending order.

struct Params {
    n: u32,
    first_row: u32, // in ROWS
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> X: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.stride) {
        return;
    }
    for (var t = 0u; t < p.n; t++) {
        X[t * p.stride + id.x] = X[(ROWS[p.first_row + t].w & 0xffffu) * p.stride + id.x];
    }
}
