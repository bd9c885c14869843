// gemm_matrices.wgsl: what gemm.wgsl does, with matrices of 16 x 16 that a subgroup multiplies.
// In:  a part of a matrix; X [n, x_stride vec4s] and S [n], as halves.wgsl writes them.
// Out: Y[t, y_at + first + r]; with GATE 1 and 2 act(gate) * up, or act(up), as gated.wgsl, where the
//      gate's rows are the first half of the matrix.
//
// Integers are exact as binary16; sums are float32. A workgroup computes TILE rows of x times
// TILE of w, of which each of its four subgroups has a quarter: 64 x 64 or 32 x 32. An array of the
// sums, read with an index, is five times as slow as their names. Workgroups with the same rows of w
// are neighbours: only the first reads them from memory.

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

const SIZE = 128u; // threads
const HALF = TILE / 2u; // rows of x, and of w, that a subgroup has
const STEP = select(64u, 32u, TILE == 128u); // numbers of a row that are in memory
const X_VECS = STEP / 8u; // vec4s of a row
const W_VECS = STEP / 16u;
const X_ROWS = SIZE / X_VECS; // that all threads together load at once
const W_ROWS = SIZE / W_VECS;
const PITCH = STEP / 4u + 2u; // vec4s from row to row
const IS_PAIR = GATE == 1;
const WIDTH = select(TILE, TILE / 2u, IS_PAIR); // columns of Y that a workgroup has
var<workgroup> xs: array<vec4<f16>, TILE * PITCH>;
var<workgroup> ws: array<vec4<f16>, TILE * PITCH>;
var<workgroup> ys: array<f32, 8u * SIZE>;

fn load_x(t: u32, k: u32) -> vec4<u32> {
    if (t >= p.n) {
        return vec4<u32>(0u);
    }
    return X[t * p.x_stride + k];
}

// Columns of Y.
fn n_columns() -> u32 {
    return select(p.m.n_rows, p.m.n_rows / 2u, IS_PAIR);
}

// Row i of the tile: 16 weights, or their codes in 4 bits. Of a pair, 16 rows of the gate are before
// the same 16 of up.
fn load_w(c0: u32, i: u32, k: u32) -> vec4<u32> {
    var r = c0 + i;
    if (IS_PAIR) {
        r = c0 + i / 32u * 16u + i % 16u;
    }
    if (r >= n_columns()) {
        return vec4<u32>(0u);
    }
    if (IS_PAIR && (i & 16u) > 0u) {
        r += n_columns();
    }
    if (TYPE == I4) {
        let v = W[r * p.m.row_vecs + (k >> 1u)];
        return vec4<u32>(select(v.xy, v.zw, (k & 1u) == 1u), 0u, 0u);
    }
    return weights16(p.m, r, k);
}

// Four weights, the first, third, second and fourth: 1024 + w + 128 has the bits of w + 128.
fn halves(w: u32) -> vec4<f16> {
    let u = w ^ 0x80808080u;
    let h = vec2<u32>(u & 0x00ff00ffu, (u >> 8u) & 0x00ff00ffu) | vec2<u32>(0x64006400u);
    return bitcast<vec4<f16>>(h) - vec4<f16>(1152.0h);
}

// The same of four codes, which are w + 8.
fn halves_of_codes(codes: u32) -> vec4<f16> {
    let u = codes | (codes << 8u);
    let h = vec2<u32>(u & 0x000f000fu, (u >> 4u) & 0x000f000fu) | vec2<u32>(0x64006400u);
    return bitcast<vec4<f16>>(h) - vec4<f16>(1032.0h);
}

fn put_x(row: u32, k: u32, v: vec4<u32>) {
    xs[row * PITCH + 2u * k] = bitcast<vec4<f16>>(v.xy);
    xs[row * PITCH + 2u * k + 1u] = bitcast<vec4<f16>>(v.zw);
}

fn put_w(row: u32, k: u32, v: vec4<u32>) {
    let at = row * PITCH + 4u * k;
    if (TYPE == I4) {
        ws[at] = halves_of_codes(v.x & 0xffffu);
        ws[at + 1u] = halves_of_codes(v.x >> 16u);
        ws[at + 2u] = halves_of_codes(v.y & 0xffffu);
        ws[at + 3u] = halves_of_codes(v.y >> 16u);
        return;
    }
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

// Of 16 x 16 numbers, what a thread stores: each second row of a column.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn eight_of(sums: Sums, group: u32, lane: u32) -> Eight {
    let at = 256u * group + lane;
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&ys, 256u * group, sums, 16u);
    workgroupBarrier();
    return Eight(vec4<f32>(ys[at], ys[at + 32u], ys[at + 64u], ys[at + 96u]),
                 vec4<f32>(ys[at + 128u], ys[at + 160u], ys[at + 192u], ys[at + 224u]));
}

fn put(t: u32, column: u32, scale: f32, x: f32, up_scale: f32, up: f32) {
    if (t >= p.n) {
        return;
    }
    var y = finish(p.m, column, scale, S[t] * x, 0.0);
    if (GATE > 0) {
        y = activate(y);
    }
    if (IS_PAIR) {
        y *= finish(p.m, n_columns() + column, up_scale, S[t] * up, 0.0);
    }
    Y[t * p.y_stride + p.y_at + p.m.first + column] = y;
}

// 16 x 16 sums, from row t and column c on; of a pair, those of up are beside them.
fn store(sums: Sums, up_sums: Sums, t: u32, c: u32, group: u32, lane: u32) {
    let x = eight_of(sums, group, lane);
    var up = x;
    if (IS_PAIR) {
        up = eight_of(up_sums, group, lane);
    }
    let column = c + lane % 16u;
    if (column >= n_columns()) {
        return;
    }
    let scale = row_scale(p.m, column);
    let up_scale = row_scale(p.m, select(column, n_columns() + column, IS_PAIR));
    let row = t + lane / 16u;
    put(row, column, scale, x.a.x, up_scale, up.a.x);
    put(row + 2u, column, scale, x.a.y, up_scale, up.a.y);
    put(row + 4u, column, scale, x.a.z, up_scale, up.a.z);
    put(row + 6u, column, scale, x.a.w, up_scale, up.a.w);
    put(row + 8u, column, scale, x.b.x, up_scale, up.b.x);
    put(row + 10u, column, scale, x.b.y, up_scale, up.b.y);
    put(row + 12u, column, scale, x.b.z, up_scale, up.b.z);
    put(row + 14u, column, scale, x.b.w, up_scale, up.b.w);
}

// Two such squares that are neighbours; of a pair, the second one is up.
fn store_both(left_sums: Sums, right_sums: Sums, t: u32, c: u32, group: u32, lane: u32) {
    store(left_sums, right_sums, t, c, group, lane);
    if (!IS_PAIR) {
        store(right_sums, right_sums, t, c + 16u, group, lane);
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) group: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let column0 = id.y * WIDTH;
    let t0 = id.x * TILE;
    let x0 = group / 2u * HALF; // this subgroup's rows
    let w0 = group % 2u * HALF;
    let xr = thread / X_VECS; // what this thread loads
    let xk = thread % X_VECS;
    let wr = thread / W_VECS;
    let wk = thread % W_VECS;
    let n_steps = (p.m.n_in + STEP - 1u) / STEP;
    var c00: Sums;
    var c01: Sums;
    var c02: Sums;
    var c03: Sums;
    var c10: Sums;
    var c11: Sums;
    var c12: Sums;
    var c13: Sums;
    var c20: Sums;
    var c21: Sums;
    var c22: Sums;
    var c23: Sums;
    var c30: Sums;
    var c31: Sums;
    var c32: Sums;
    var c33: Sums;
    for (var step = 0u; step < n_steps; step++) {
        let v0 = load_x(t0 + xr, X_VECS * step + xk);
        let v1 = load_x(t0 + xr + X_ROWS, X_VECS * step + xk);
        let v2 = load_x(t0 + xr + 2u * X_ROWS, X_VECS * step + xk);
        let v3 = load_x(t0 + xr + 3u * X_ROWS, X_VECS * step + xk);
        let u0 = load_w(column0, wr, W_VECS * step + wk);
        let u1 = load_w(column0, wr + W_ROWS, W_VECS * step + wk);
        put_x(xr, xk, v0);
        put_x(xr + X_ROWS, xk, v1);
        put_x(xr + 2u * X_ROWS, xk, v2);
        put_x(xr + 3u * X_ROWS, xk, v3);
        put_w(wr, wk, u0);
        put_w(wr + W_ROWS, wk, u1);
        workgroupBarrier();
        let a0_0 = left(x0, 0u);
        let a1_0 = left(x0 + 16u, 0u);
        let b0_0 = right(w0, 0u);
        let b1_0 = right(w0 + 16u, 0u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_0, b0_0, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_0, b1_0, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_0, b0_0, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_0, b1_0, c11);
        if (TILE == 128u) {
            let a2_0 = left(x0 + 32u, 0u);
            let a3_0 = left(x0 + 48u, 0u);
            let b2_0 = right(w0 + 32u, 0u);
            let b3_0 = right(w0 + 48u, 0u);
            c02 = subgroupMatrixMultiplyAccumulate(a0_0, b2_0, c02);
            c03 = subgroupMatrixMultiplyAccumulate(a0_0, b3_0, c03);
            c12 = subgroupMatrixMultiplyAccumulate(a1_0, b2_0, c12);
            c13 = subgroupMatrixMultiplyAccumulate(a1_0, b3_0, c13);
            c20 = subgroupMatrixMultiplyAccumulate(a2_0, b0_0, c20);
            c21 = subgroupMatrixMultiplyAccumulate(a2_0, b1_0, c21);
            c22 = subgroupMatrixMultiplyAccumulate(a2_0, b2_0, c22);
            c23 = subgroupMatrixMultiplyAccumulate(a2_0, b3_0, c23);
            c30 = subgroupMatrixMultiplyAccumulate(a3_0, b0_0, c30);
            c31 = subgroupMatrixMultiplyAccumulate(a3_0, b1_0, c31);
            c32 = subgroupMatrixMultiplyAccumulate(a3_0, b2_0, c32);
            c33 = subgroupMatrixMultiplyAccumulate(a3_0, b3_0, c33);
        }
        let a0_1 = left(x0, 4u);
        let a1_1 = left(x0 + 16u, 4u);
        let b0_1 = right(w0, 4u);
        let b1_1 = right(w0 + 16u, 4u);
        c00 = subgroupMatrixMultiplyAccumulate(a0_1, b0_1, c00);
        c01 = subgroupMatrixMultiplyAccumulate(a0_1, b1_1, c01);
        c10 = subgroupMatrixMultiplyAccumulate(a1_1, b0_1, c10);
        c11 = subgroupMatrixMultiplyAccumulate(a1_1, b1_1, c11);
        if (TILE == 128u) {
            let a2_1 = left(x0 + 32u, 4u);
            let a3_1 = left(x0 + 48u, 4u);
            let b2_1 = right(w0 + 32u, 4u);
            let b3_1 = right(w0 + 48u, 4u);
            c02 = subgroupMatrixMultiplyAccumulate(a0_1, b2_1, c02);
            c03 = subgroupMatrixMultiplyAccumulate(a0_1, b3_1, c03);
            c12 = subgroupMatrixMultiplyAccumulate(a1_1, b2_1, c12);
            c13 = subgroupMatrixMultiplyAccumulate(a1_1, b3_1, c13);
            c20 = subgroupMatrixMultiplyAccumulate(a2_1, b0_1, c20);
            c21 = subgroupMatrixMultiplyAccumulate(a2_1, b1_1, c21);
            c22 = subgroupMatrixMultiplyAccumulate(a2_1, b2_1, c22);
            c23 = subgroupMatrixMultiplyAccumulate(a2_1, b3_1, c23);
            c30 = subgroupMatrixMultiplyAccumulate(a3_1, b0_1, c30);
            c31 = subgroupMatrixMultiplyAccumulate(a3_1, b1_1, c31);
            c32 = subgroupMatrixMultiplyAccumulate(a3_1, b2_1, c32);
            c33 = subgroupMatrixMultiplyAccumulate(a3_1, b3_1, c33);
        }
        if (STEP == 64u) {
            let a0_2 = left(x0, 8u);
            let a1_2 = left(x0 + 16u, 8u);
            let b0_2 = right(w0, 8u);
            let b1_2 = right(w0 + 16u, 8u);
            c00 = subgroupMatrixMultiplyAccumulate(a0_2, b0_2, c00);
            c01 = subgroupMatrixMultiplyAccumulate(a0_2, b1_2, c01);
            c10 = subgroupMatrixMultiplyAccumulate(a1_2, b0_2, c10);
            c11 = subgroupMatrixMultiplyAccumulate(a1_2, b1_2, c11);
            let a0_3 = left(x0, 12u);
            let a1_3 = left(x0 + 16u, 12u);
            let b0_3 = right(w0, 12u);
            let b1_3 = right(w0 + 16u, 12u);
            c00 = subgroupMatrixMultiplyAccumulate(a0_3, b0_3, c00);
            c01 = subgroupMatrixMultiplyAccumulate(a0_3, b1_3, c01);
            c10 = subgroupMatrixMultiplyAccumulate(a1_3, b0_3, c10);
            c11 = subgroupMatrixMultiplyAccumulate(a1_3, b1_3, c11);
        }
        workgroupBarrier();
    }
    let t = t0 + x0;
    let column = column0 + group % 2u * (WIDTH / 2u);
    let beside = select(32u, 16u, IS_PAIR);
    store_both(c00, c01, t, column, group, lane);
    store_both(c10, c11, t + 16u, column, group, lane);
    if (TILE == 128u) {
        store_both(c02, c03, t, column + beside, group, lane);
        store_both(c12, c13, t + 16u, column + beside, group, lane);
        store_both(c20, c21, t + 32u, column, group, lane);
        store_both(c22, c23, t + 32u, column + beside, group, lane);
        store_both(c30, c31, t + 48u, column, group, lane);
        store_both(c32, c33, t + 48u, column + beside, group, lane);
    }
}
