// round.wgsl: a row of x as int8, in blocks of 64 that share a scale, as the CPU rounds it; before
// shaders that multiply it (matvec.wgsl) or leave it in memory (round_rows.wgsl).
// In:  the functions of input_*.wgsl, which make x; SIZE threads; N_CHUNKS of 16 numbers; IS_INT4.
// Out: x8 and scales, after a call of round_x.

// 16 numbers of x.
struct Sixteen {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

var<workgroup> x8: array<vec4<u32>, N_CHUNKS>; // 16 numbers each
var<workgroup> scales: array<f32, N_CHUNKS / 4u>;

fn input_or_0(t: u32, i: u32) -> vec4<f32> {
    if (4u * i < p.m.n_in) {
        return input(t, i);
    }
    return vec4<f32>(0.0);
}

// Chunk i of row t; 0 behind its end.
fn input16(t: u32, i: u32) -> Sixteen {
    if (HOLDS) {
        return held16(i);
    }
    return Sixteen(input_or_0(t, 4u * i), input_or_0(t, 4u * i + 1u), input_or_0(t, 4u * i + 2u),
                   input_or_0(t, 4u * i + 3u));
}

fn largest_of(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

fn rounded(v: vec4<f32>, inverse: f32) -> vec4<i32> {
    return vec4<i32>(round(clamp(v * inverse, vec4<f32>(-127.0), vec4<f32>(127.0))));
}

// 8 numbers as int8; for int4 weights in the order 0, 2, 4, 6, 1, 3, 5, 7: that of the low halves of
// bytes, then of the high ones.
fn rounded8(x: vec4<f32>, y: vec4<f32>, inverse: f32, is_for_int4: bool) -> vec2<u32> {
    let a = rounded(x, inverse);
    let b = rounded(y, inverse);
    if (is_for_int4) {
        return vec2<u32>(pack4xI8(vec4<i32>(a.xz, b.xz)), pack4xI8(vec4<i32>(a.yw, b.yw)));
    }
    return vec2<u32>(pack4xI8(a), pack4xI8(b));
}

// Chunk i of x as int8.
fn round_chunk(x: Sixteen, i: u32, thread: u32) {
    let most = max_of_4(max(max(largest_of(x.a), largest_of(x.b)),
                            max(largest_of(x.c), largest_of(x.d))),
                        thread);
    if (i >= N_CHUNKS) {
        return;
    }
    let inverse = select(0.0, 127.0 / most, most > 0.0);
    x8[i] = vec4<u32>(rounded8(x.a, x.b, inverse, IS_INT4), rounded8(x.c, x.d, inverse, IS_INT4));
    if (i % 4u == 0u) {
        scales[i / 4u] = most / 127.0;
    }
}

fn round_x(t: u32, thread: u32) {
    if (IS_ROUNDED) {
        return;
    }
    for (var first = 0u; first < N_CHUNKS; first += SIZE) {
        round_chunk(input16(t, first + thread), first + thread, thread);
    }
    workgroupBarrier();
}
