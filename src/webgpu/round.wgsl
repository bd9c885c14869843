// round.wgsl: a row of x as int8, in blocks of 64 that share a scale, as the CPU rounds it; before
// shaders that multiply it (matvec.wgsl) or leave it in memory (round_rows.wgsl).
// In:  the functions of input_*.wgsl, which make x; SIZE threads; N_CHUNKS of 16 numbers; IS_INT4.
// Out: x8 and scales, after a call of round_x.

// 8 numbers of x: few for each thread, because many threads take turns.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

var<workgroup> x8: array<vec2<u32>, 2u * N_CHUNKS>; // 8 numbers each
var<workgroup> scales: array<f32, N_CHUNKS / 4u>;

// 16 numbers of it.
fn chunk_of_x8(i: u32) -> vec4<u32> {
    return vec4<u32>(x8[2u * i], x8[2u * i + 1u]);
}

fn input_or_0(t: u32, i: u32) -> vec4<f32> {
    if (4u * i < p.m.n_in) {
        return input(t, i);
    }
    return vec4<f32>(0.0);
}

// Numbers [8 i, 8 i + 8) of row t; 0 behind its end.
fn input8(t: u32, i: u32) -> Eight {
    return Eight(input_or_0(t, 2u * i), input_or_0(t, 2u * i + 1u));
}

fn largest_of(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

// The numbers times `inverse`, at most 127 in size, to the nearest integers, the even ones of two: in the
// lowest byte of each word. So large a number has no bits behind the point.
fn rounded(v: vec4<f32>, inverse: f32) -> vec4<u32> {
    return bitcast<vec4<u32>>(fma(v, vec4<f32>(inverse), vec4<f32>(12582912.0)));
}

fn packed_bytes(v: vec4<u32>) -> u32 {
    return insertBits(insertBits(v.x, v.y, 8u, 8u), insertBits(v.z, v.w, 8u, 8u), 16u, 16u);
}

// 8 numbers as int8; for int4 weights in the order 0, 2, 4, 6, 1, 3, 5, 7: that of the low halves of
// bytes, then of the high ones.
fn rounded8(x: Eight, inverse: f32, is_for_int4: bool) -> vec2<u32> {
    let a = rounded(x.a, inverse);
    let b = rounded(x.b, inverse);
    if (is_for_int4) {
        return vec2<u32>(packed_bytes(vec4<u32>(a.xz, b.xz)), packed_bytes(vec4<u32>(a.yw, b.yw)));
    }
    return vec2<u32>(packed_bytes(a), packed_bytes(b));
}

fn largest_of_8(x: Eight) -> f32 {
    return max(largest_of(x.a), largest_of(x.b));
}

// Eight numbers of x as int8; with those of seven other threads they share a scale.
fn round_eight(x: Eight, i: u32, thread: u32) {
    let most = max_of_8(largest_of_8(x), thread);
    if (i >= 2u * N_CHUNKS) {
        return;
    }
    x8[i] = rounded8(x, select(0.0, 127.0 / most, most > 0.0), IS_INT4);
    if (i % 8u == 0u) {
        scales[i / 8u] = most / 127.0;
    }
}

fn round_turn(t: u32, i: u32, thread: u32) {
    if (HOLDS) {
        round_eight(held8(i), i, thread);
    } else {
        round_eight(input8(t, i), i, thread);
    }
}

fn round_x(t: u32, thread: u32) {
    if (IS_ROUNDED) {
        return;
    }
    for (var first = 0u; first < 2u * N_CHUNKS; first += SIZE) {
        round_turn(t, first + thread, thread);
    }
    workgroupBarrier();
}
