// input_rounded.wgsl: the input of matvec.wgsl is what another product left with ROUNDS.
// In:  X [n, stride vec4s]: n_in int8 in the order that these weights need; behind them a float for
//      each 64, their scale. n_in is a multiple of 64.

struct Input {
    stride: u32,
}

@group(0) @binding(2) var<storage, read> X: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> OUT: array<u32>;

const STORES = 0;
const HOLDS = false;
const IS_ROUNDED = true;

fn fetch(t: u32, thread: u32) {}

fn prepare(t: u32, thread: u32) {}

fn keep(t: u32, thread: u32) {}

fn keep_best(i: u32, best: vec4<f32>) {}

fn held8(i: u32) -> Eight {
    return Eight();
}

fn input(t: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}

// 16 numbers of row t, and the scale of 64.
fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return X[t * p.input.stride + chunk];
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return bitcast<f32>(X[t * p.input.stride + N_CHUNKS + block / 4u][block % 4u]);
}
