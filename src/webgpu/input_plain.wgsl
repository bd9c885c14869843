// input_plain.wgsl: the input of matvec.wgsl is a buffer.
// In:  X [n, stride vec4s].

struct Input {
    stride: u32,
}

@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> OUT: array<u32>;

const STORES = 0;
const HOLDS = 2u * N_CHUNKS <= SIZE; // a thread has eight numbers of the row
var<private> held: Eight;

fn fetch(t: u32, thread: u32) {
    if (HOLDS) {
        held = input8(t, thread);
    }
}

fn prepare(t: u32, thread: u32) {}

fn keep(t: u32, thread: u32) {}

fn keep_best(i: u32, best: vec4<f32>) {}

fn held8(i: u32) -> Eight {
    return held;
}

// Numbers [4 i, 4 i + 4) of row t.
fn input(t: u32, i: u32) -> vec4<f32> {
    let v = X[t * p.input.stride + i];
    if (IS_ALIGNED) {
        return v;
    }
    let index = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, index < vec4<u32>(p.m.n_in));
}

const IS_ROUNDED = false;

fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return 0.0;
}
