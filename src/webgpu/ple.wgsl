// ple.wgsl: what the embedding of a row's token for this layer becomes: act(gate) * u, where u is
//      (norm(context) + embedding) / sqrt(2).
// In:  ROWS: where each row was in the batch; GATE [n, gate_stride]; CONTEXT and TABLE, the
//      products and the embeddings of all layers for all rows of the batch; V: weights of norms.
// Out: Y [n, y_stride].

struct Params {
    n: u32, // width
    first: u32, // column of the layer in CONTEXT and TABLE
    first_row: u32, // in ROWS
    gate_stride: u32,
    table_stride: u32, // and of CONTEXT
    y_stride: u32,
    norm_at: u32,
    context_scale: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> GATE: array<f32>;
@group(0) @binding(3) var<storage, read> CONTEXT: array<f32>;
@group(0) @binding(4) var<storage, read> TABLE: array<f32>;
@group(0) @binding(5) var<storage, read> V: array<f32>;
@group(0) @binding(6) var<storage, read_write> Y: array<f32>;

const SIZE = 64u;
var<workgroup> sums: array<f32, SIZE>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    let at = (ROWS[p.first_row + t].w & 0xffffu) * p.table_stride + p.first;
    var squares = 0.0;
    for (var i = thread; i < p.n; i += SIZE) {
        let x = p.context_scale * CONTEXT[at + i];
        squares += x * x;
    }
    sums[thread] = squares;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    let factor = p.context_scale * inverseSqrt(sums[0] / f32(p.n) + p.eps);
    for (var i = thread; i < p.n; i += SIZE) {
        let gain = V[p.norm_at + i] + select(0.0, 1.0, IS_PLUS_1);
        let u = CONTEXT[at + i] * factor * gain + sqrt(f32(p.n)) * TABLE[at + i];
        Y[t * p.y_stride + i] = activate(GATE[t * p.gate_stride + i]) * u * 0.707106781;
    }
}
