// input_parts.wgsl: the input of matvec.wgsl is the output of attention, whose parts every workgroup
// adds up in the order of combine.wgsl.
// In:  PARTS, as combine.wgsl says; HEAD_DIM is a multiple of 4.

struct Input {
    n_heads: u32, // at most 64
    n_parts: u32, // n_heads * n_parts is at most 768
}

@group(0) @binding(2) var<storage, read> PARTS: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> OUT: array<u32>;

const STORES = 0;
const HOLDS = false;
var<workgroup> largest_scores: array<f32, 768>; // of the parts
var<workgroup> weight_sums: array<f32, 768>;
var<workgroup> factors: array<f32, 768>;
var<workgroup> sum_of_parts: array<vec4<f32>, 4u * N_CHUNKS>;

fn fetch(t: u32, thread: u32) {}

fn prepare(t: u32, thread: u32) {
    let n = p.input.n_heads * p.input.n_parts;
    let row = t * n * (PITCH / 4u); // where its parts begin
    for (var i = thread; i < n; i += SIZE) {
        let s = PARTS[row + (i + 1u) * (PITCH / 4u) - 1u];
        largest_scores[i] = s.x;
        weight_sums[i] = s.y;
    }
    workgroupBarrier();
    for (var i = thread; i < n; i += SIZE) {
        let first = i / p.input.n_parts * p.input.n_parts;
        var most = -3.0e38;
        for (var k = 0u; k < p.input.n_parts; k++) {
            most = max(most, largest_scores[first + k]);
        }
        factors[i] = exp(largest_scores[i] - most);
    }
    workgroupBarrier();
    for (var i = thread; 4u * i < p.m.n_in; i += SIZE) {
        sum_of_parts[i] = add_parts(row, i);
    }
    workgroupBarrier();
}

fn plus_part(x: vec4<f32>, i: u32, part: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(factors[i]), part, x);
}

fn add_parts(row: u32, i: u32) -> vec4<f32> {
    let head = 4u * i / HEAD_DIM;
    let first = head * p.input.n_parts;
    let at = row + first * (PITCH / 4u) + i - head * (HEAD_DIM / 4u);
    var x = vec4<f32>(0.0);
    var sum = 0.0;
    var k = 0u;
    for (; k + 3u < p.input.n_parts; k += 4u) { // four loads are on their way at once
        let a = PARTS[at + k * (PITCH / 4u)];
        let b = PARTS[at + (k + 1u) * (PITCH / 4u)];
        let c = PARTS[at + (k + 2u) * (PITCH / 4u)];
        let d = PARTS[at + (k + 3u) * (PITCH / 4u)];
        x = plus_part(plus_part(x, first + k, a), first + k + 1u, b);
        x = plus_part(plus_part(x, first + k + 2u, c), first + k + 3u, d);
    }
    for (; k < p.input.n_parts; k++) {
        x = plus_part(x, first + k, PARTS[at + k * (PITCH / 4u)]);
    }
    for (k = 0u; k < p.input.n_parts; k++) {
        sum = fma(factors[first + k], weight_sums[first + k], sum);
    }
    return x / sum;
}

fn keep(t: u32, thread: u32) {}

fn held8(i: u32) -> Eight {
    return Eight();
}

fn input(t: u32, i: u32) -> vec4<f32> {
    return sum_of_parts[i];
}

const IS_ROUNDED = false;

fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return 0.0;
}
