// gemm_matrices.wgsl: what gemm.wgsl does, with matrices of 16 x 16 that a subgroup multiplies.
// In:  a part of a matrix; X [n, x_stride vec4s] and S [n], as halves.wgsl writes them.
// Out: Y[t, y_at + first + r].
//
// int8 weights are exact as binary16; sums are float32. A workgroup computes TILE rows of x times
// TILE of w: of 64 each of its four subgroups has 32 x 32, of 128 each of eight has 64 x 32. An
// array of the sums, read with an index, is five times as slow as their names.

struct Params {
    m: Matrix,
    n: u32,        // rows of x
    x_stride: u32, // vec4s
    y_stride: u32,
    y_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> X: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> S: array<f32>;
@group(0) @binding(4) var<storage, read_write> Y: array<f32>;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

const SIZE = 2u * TILE; // threads
const ACROSS = TILE / 32u; // subgroups that share rows of x
const HEIGHT = TILE / 2u; // rows of x that a subgroup has
const QUARTER = TILE / 4u; // rows that all threads together load at once
const STEP = 16u; // vec4s of a row that are in memory
const PITCH = STEP + 2u; // from row to row
var<workgroup> xs: array<vec4<f16>, TILE * PITCH>;
var<workgroup> ws: array<vec4<f16>, TILE * PITCH>;
var<workgroup> ys: array<f32, 8u * SIZE>;

fn load_x(t: u32, k: u32) -> vec4<u32> {
    if (t >= p.n) {
        return vec4<u32>(0u);
    }
    return X[t * p.x_stride + k];
}

fn load_w(r: u32, k: u32) -> vec4<u32> {
    if (r >= p.m.n_rows) {
        return vec4<u32>(0u);
    }
    return weights16(p.m, r, k);
}

// Four weights, the first, third, second and fourth: 1024 + w + 128 has the bits of w + 128.
fn halves(w: u32) -> vec4<f16> {
    let u = w ^ 0x80808080u;
    let h = vec2<u32>(u & 0x00ff00ffu, (u >> 8u) & 0x00ff00ffu) | vec2<u32>(0x64006400u);
    return bitcast<vec4<f16>>(h) - vec4<f16>(1152.0h);
}

fn put_x(row: u32, k: u32, v: vec4<u32>) {
    xs[row * PITCH + 2u * k] = bitcast<vec4<f16>>(v.xy);
    xs[row * PITCH + 2u * k + 1u] = bitcast<vec4<f16>>(v.zw);
}

fn put_w(row: u32, k: u32, v: vec4<u32>) {
    let at = row * PITCH + 4u * k;
    ws[at] = halves(v.x);
    ws[at + 1u] = halves(v.y);
    ws[at + 2u] = halves(v.z);
    ws[at + 3u] = halves(v.w);
}

fn left(row: u32, k: u32) -> Left {
    return subgroupMatrixLoad<Left, row_major>(&xs, row * PITCH + k, PITCH);
}

fn right(row: u32, k: u32) -> Right {
    return subgroupMatrixLoad<Right, col_major>(&ws, row * PITCH + k, PITCH);
}

// 16 x 16 sums, from row t and column r on.
fn store(sums: Sums, t: u32, r: u32, group: u32, lane: u32) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&ys, 256u * group, sums, 16u);
    workgroupBarrier();
    let column = r + lane % 16u;
    if (column >= p.m.n_rows) {
        return;
    }
    let scale = row_scale(p.m, column);
    for (var i = lane; i < 256u; i += SUBGROUP) {
        let row = t + i / 16u;
        if (row < p.n) {
            Y[row * p.y_stride + p.y_at + p.m.first + column] =
                finish(p.m, column, scale, S[row] * ys[256u * group + i], 0.0);
        }
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) group: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let r0 = id.x * TILE;
    let t0 = id.y * TILE;
    let x0 = group / ACROSS * HEIGHT; // this subgroup's rows
    let w0 = group % ACROSS * 32u;
    let xr = thread / 8u; // what this thread loads
    let xk = thread % 8u;
    let wr = thread / 4u;
    let wk = thread % 4u;
    let n_steps = (p.m.n_in + 63u) / 64u;
    var c00: Sums;
    var c01: Sums;
    var c10: Sums;
    var c11: Sums;
    var c20: Sums;
    var c21: Sums;
    var c30: Sums;
    var c31: Sums;
    for (var step = 0u; step < n_steps; step++) {
        let v0 = load_x(t0 + xr, 8u * step + xk);
        let v1 = load_x(t0 + xr + QUARTER, 8u * step + xk);
        let v2 = load_x(t0 + xr + 2u * QUARTER, 8u * step + xk);
        let v3 = load_x(t0 + xr + 3u * QUARTER, 8u * step + xk);
        let u0 = load_w(r0 + wr, 4u * step + wk);
        let u1 = load_w(r0 + wr + 2u * QUARTER, 4u * step + wk);
        put_x(xr, xk, v0);
        put_x(xr + QUARTER, xk, v1);
        put_x(xr + 2u * QUARTER, xk, v2);
        put_x(xr + 3u * QUARTER, xk, v3);
        put_w(wr, wk, u0);
        put_w(wr + 2u * QUARTER, wk, u1);
        workgroupBarrier();
        let a0_0 = left(x0 + 0u, 0u);
        let a1_0 = left(x0 + 16u, 0u);
        let b0_0 = right(w0 + 0u, 0u);
        let b1_0 = right(w0 + 16u, 0u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_0, b0_0, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_0, b1_0, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_0, b0_0, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_0, b1_0, c11);
        if (TILE == 128u) {
        let a2_0 = left(x0 + 32u, 0u);
        let a3_0 = left(x0 + 48u, 0u);
        c20 = subgroupMatrixMultiplyAccumulate(a2_0, b0_0, c20);
        c21 = subgroupMatrixMultiplyAccumulate(a2_0, b1_0, c21);
        c30 = subgroupMatrixMultiplyAccumulate(a3_0, b0_0, c30);
        c31 = subgroupMatrixMultiplyAccumulate(a3_0, b1_0, c31);
        }
        let a0_1 = left(x0 + 0u, 4u);
        let a1_1 = left(x0 + 16u, 4u);
        let b0_1 = right(w0 + 0u, 4u);
        let b1_1 = right(w0 + 16u, 4u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_1, b0_1, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_1, b1_1, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_1, b0_1, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_1, b1_1, c11);
        if (TILE == 128u) {
        let a2_1 = left(x0 + 32u, 4u);
        let a3_1 = left(x0 + 48u, 4u);
        c20 = subgroupMatrixMultiplyAccumulate(a2_1, b0_1, c20);
        c21 = subgroupMatrixMultiplyAccumulate(a2_1, b1_1, c21);
        c30 = subgroupMatrixMultiplyAccumulate(a3_1, b0_1, c30);
        c31 = subgroupMatrixMultiplyAccumulate(a3_1, b1_1, c31);
        }
        let a0_2 = left(x0 + 0u, 8u);
        let a1_2 = left(x0 + 16u, 8u);
        let b0_2 = right(w0 + 0u, 8u);
        let b1_2 = right(w0 + 16u, 8u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_2, b0_2, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_2, b1_2, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_2, b0_2, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_2, b1_2, c11);
        if (TILE == 128u) {
        let a2_2 = left(x0 + 32u, 8u);
        let a3_2 = left(x0 + 48u, 8u);
        c20 = subgroupMatrixMultiplyAccumulate(a2_2, b0_2, c20);
        c21 = subgroupMatrixMultiplyAccumulate(a2_2, b1_2, c21);
        c30 = subgroupMatrixMultiplyAccumulate(a3_2, b0_2, c30);
        c31 = subgroupMatrixMultiplyAccumulate(a3_2, b1_2, c31);
        }
        let a0_3 = left(x0 + 0u, 12u);
        let a1_3 = left(x0 + 16u, 12u);
        let b0_3 = right(w0 + 0u, 12u);
        let b1_3 = right(w0 + 16u, 12u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_3, b0_3, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_3, b1_3, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_3, b0_3, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_3, b1_3, c11);
        if (TILE == 128u) {
        let a2_3 = left(x0 + 32u, 12u);
        let a3_3 = left(x0 + 48u, 12u);
        c20 = subgroupMatrixMultiplyAccumulate(a2_3, b0_3, c20);
        c21 = subgroupMatrixMultiplyAccumulate(a2_3, b1_3, c21);
        c30 = subgroupMatrixMultiplyAccumulate(a3_3, b0_3, c30);
        c31 = subgroupMatrixMultiplyAccumulate(a3_3, b1_3, c31);
        }
        workgroupBarrier();
    }
    let t = t0 + x0;
    let r = r0 + w0;
    store(c00, t, r, group, lane);
    store(c01, t, r + 16u, group, lane);
    store(c10, t + 16u, r, group, lane);
    store(c11, t + 16u, r + 16u, group, lane);
    if (TILE == 128u) {
        store(c20, t + 32u, r, group, lane);
        store(c21, t + 32u, r + 16u, group, lane);
        store(c30, t + 48u, r, group, lane);
        store(c31, t + 48u, r + 16u, group, lane);
    }
}
