// pool.wgsl: the mean of some rows of each text.
// In:  ROWS: the last word of row t of the batch says whether it counts; from first_text on, of each
//      text its first row and its rows; X [n, x_stride].
// Out: Y [texts, y_stride]. A thread has one column of a text.

struct Params {
    n: u32, // width
    first_text: u32,
    x_stride: u32,
    y_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> X: array<f32>;
@group(0) @binding(3) var<storage, read_write> Y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * 64u + thread;
    let text = ROWS[p.first_text + group.y];
    if (i >= p.n) {
        return;
    }
    var sum = 0.0;
    var n = 0u;
    for (var t = text.x; t < text.x + text.y; t++) {
        if (ROWS[t].w != 0u) {
            sum += X[t * p.x_stride + i];
            n++;
        }
    }
    Y[group.y * p.y_stride + i] = sum / f32(n);
}
