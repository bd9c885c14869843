// gated.wgsl: h = act(gate) * up, or act(up), of many rows.
// In:  X [n, x_stride]: the gate and behind it up, each d_ff; or up alone.
// Out: H [n, h_stride].

struct Params {
    d_ff: u32,
    x_stride: u32,
    h_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<f32>;
@group(0) @binding(2) var<storage, read_write> H: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * 64u + thread;
    let t = group.y;
    if (i >= p.d_ff) {
        return;
    }
    var h = activate(X[t * p.x_stride + i]);
    if (GATE == 1) {
        h *= X[t * p.x_stride + p.d_ff + i];
    }
    H[t * p.h_stride + i] = h;
}
