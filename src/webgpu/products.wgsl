// products.wgsl: 16 bytes of a row of a matrix times their part of x; before shaders that multiply
// (matvec.wgsl, matrows_subgroups.wgsl).
// In:  TYPE, N_CHUNKS: chunks of 16 numbers of x; a buffer with a matrix (matrix.wgsl); IS_WHOLE: nothing is
//      read behind the end of a row.

const IS_INT4 = TYPE == I4 || TYPE == I4_BLOCK;
const N_VECS = N_CHUNKS / select(1u, 2u, IS_INT4); // of 16 bytes, in a row

// The part of x of a slot: 16 numbers, or 32 and the sums of each 16; their scale.
struct Slot {
    v: vec4<u32>,
    w: vec4<u32>,
    sums: vec2<i32>,
    scale: f32,
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) +
           dot4I8Packed(a.w, b.w);
}

const ONES = vec4<u32>(0x01010101u);

// 16 bytes of a row, and in int4 blocks their fifth bits and the word with their multipliers.
struct Vec {
    v: vec4<u32>,
    bits: u32,
    multipliers: u32,
}

// Behind the end of a row its last bytes are read; x is 0 there.
fn read_vec(r: u32, k: u32) -> Vec {
    var i = k;
    if (!IS_WHOLE) {
        i = min(k, N_VECS - 1u);
    }
    var v = Vec(W[r * p.m.row_vecs + i], 0u, 0u);
    if (TYPE == I4_BLOCK) {
        v.bits = fifth_bits(p.m, r, i);
        v.multipliers = word(p.m.multiplier_at + r * ((p.m.n_in + 127u) / 128u) + (i >> 2u)) >>
                        ((i & 3u) * 8u);
    }
    return v;
}

// y plus a product, which is rounded once: the order of sums is the same in matrows_subgroups.wgsl.
fn plus_product(y: f32, w: Vec, x: Slot) -> f32 {
    if (!IS_INT4) {
        return fma(x.scale, f32(dot16(w.v, x.v)), y);
    }
    if (TYPE == I4) { // a code is its weight plus 8
        let low = w.v & vec4<u32>(0x0f0f0f0fu);
        let high = (w.v >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
        let sum = dot16(vec4<u32>(low.x, high.x, low.y, high.y), x.v) +
                  dot16(vec4<u32>(low.z, high.z, low.w, high.w), x.w);
        return fma(x.scale, f32(sum - 8 * (x.sums.x + x.sums.y)), y);
    }
    let a = values_plus_15(w.v.x, w.bits, 0u);
    let b = values_plus_15(w.v.y, w.bits, 1u);
    let c = values_plus_15(w.v.z, w.bits, 2u);
    let d = values_plus_15(w.v.w, w.bits, 3u);
    let multipliers = i32(w.multipliers);
    let sum = extractBits(multipliers, 0u, 4u) * (dot16(vec4<u32>(a, b), x.v) - 15 * x.sums.x) +
              extractBits(multipliers, 4u, 4u) * (dot16(vec4<u32>(c, d), x.w) - 15 * x.sums.y);
    return fma(x.scale, f32(sum), y);
}
