// embed.wgsl: x = the embedding of each row's token, times a factor, plus that of its position.
// In:  a part of the embedding matrix, ROWS: the tokens and positions of the batch, V: positions;
//      TOKENS: a token with the highest bit is the number of one that was drawn. With PICKS it has not
//      been found yet: it is the best of CANDIDATES (best.wgsl).
// Out: X [n, x_stride] of the rows whose token is in this part; with PICKS the token.

struct Params {
    m: Matrix,
    x_stride: u32,
    first_row: u32,
    factor: f32,
    n_candidates: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> V: array<f32>; // [positions, n_in]
@group(0) @binding(4) var<storage, read> CANDIDATES: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> TOKENS: array<u32>;
@group(0) @binding(6) var<storage, read_write> X: array<f32>;

const SIZE = 64u;

// Four weights of a row, less the zero point and times the scale.
fn values(r: u32, i: u32) -> vec4<f32> {
    if (TYPE == F32) {
        return bitcast<vec4<f32>>(W[r * p.m.row_vecs + i]);
    }
    var x = vec4<f32>(unpack4xI8(weights16(p.m, r, i >> 2u)[i & 3u]));
    if (HAS_ZEROS) {
        x -= vec4<f32>(number(p.m.zero_at + r));
    }
    return x * number(p.m.scale_at + r);
}

// The token of the only row.
fn pick(thread: u32) -> u32 {
    var best = LEAST_BEST;
    for (var i = thread; i < p.n_candidates; i += SIZE) {
        best = better(best, unpacked_best(CANDIDATES[i]));
    }
    return token_of(best_of_all(best, thread));
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.y;
    let row = ROWS[p.first_row + t];
    var token = row.x;
    if (PICKS) {
        let at = token & 0x7fffffffu;
        token = pick(thread);
        if (group.x == 0u && thread == 0u) {
            TOKENS[at] = token;
        }
    } else if (token >= 0x80000000u) {
        token = TOKENS[token & 0x7fffffffu];
    }
    let r = token - p.m.first;
    let i = group.x * SIZE + thread; // of four
    if (token < p.m.first || r >= p.m.n_rows || 4u * i >= p.m.n_in) {
        return;
    }
    let x = values(r, i) * p.factor;
    for (var k = 0u; k < min(4u, p.m.n_in - 4u * i); k++) {
        var y = x[k];
        if (HAS_POSITIONS) {
            y += V[row.y * p.m.n_in + 4u * i + k];
        }
        X[t * p.x_stride + 4u * i + k] = y;
    }
}
