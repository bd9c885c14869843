// input_parts.wgsl: the input of matvec.wgsl is the output of attention, whose parts every workgroup
// adds up in the order of combine.wgsl.
// In:  PARTS, as combine.wgsl says; HEAD_DIM is a multiple of 4.

struct Input {
    n_heads: u32, // at most 64
    n_parts: u32, // n_heads * n_parts is at most 768
}

@group(0) @binding(2) var<storage, read> PARTS: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> OUT: array<f32>;

const STORES = 0;
var<workgroup> factors: array<f32, 768>; // of the parts
var<workgroup> head_sums: array<f32, 64>;

// The largest score of part i of row t, and the sum of its weights.
fn part_statistics(t: u32, i: u32) -> vec2<f32> {
    return PARTS[((t * p.input.n_heads * p.input.n_parts + i + 1u) * PITCH) / 4u - 1u].xy;
}

fn prepare(t: u32, thread: u32) {
    let n = p.input.n_heads * p.input.n_parts;
    for (var i = thread; i < n; i += SIZE) {
        factors[i] = part_statistics(t, i).x;
    }
    workgroupBarrier();
    for (var head = thread; head < p.input.n_heads; head += SIZE) {
        let first = head * p.input.n_parts;
        var most = -3.0e38;
        for (var i = 0u; i < p.input.n_parts; i++) {
            most = max(most, factors[first + i]);
        }
        var sum = 0.0;
        for (var i = 0u; i < p.input.n_parts; i++) {
            let factor = exp(factors[first + i] - most);
            factors[first + i] = factor;
            sum += factor * part_statistics(t, first + i).y;
        }
        head_sums[head] = sum;
    }
    workgroupBarrier();
}

fn keep(t: u32, thread: u32) {}

// Numbers [4 i, 4 i + 4) of row t.
fn input(t: u32, i: u32) -> vec4<f32> {
    let head = 4u * i / HEAD_DIM;
    let first = head * p.input.n_parts;
    let at = (t * p.input.n_heads * p.input.n_parts + first) * (PITCH / 4u) + i -
             head * (HEAD_DIM / 4u);
    var x = vec4<f32>(0.0);
    for (var k = 0u; k < p.input.n_parts; k++) {
        x += factors[first + k] * PARTS[at + k * (PITCH / 4u)];
    }
    return x / head_sums[head];
}
