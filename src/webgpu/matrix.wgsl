// matrix.wgsl: weights as the file has them; before shaders that read a matrix.
// In:  TYPE, and a buffer W with the rows of a matrix, each padded to 64 weights that are 0, then
//      its multipliers, scales, biases and zero points (upload.c).
// Out: 16 weights as int8, four in a word; or 4 floats.

const F32 = 0;
const I8 = 1;
const I4 = 2;
const I4_BLOCK = 3;
const NONE = 0xffffffffu;

struct Matrix {
    n_in: u32,
    n_rows: u32,
    row_vecs: u32, // vec4s from row to row
    first: u32,    // its first row is this row of the whole product, or this token
    multiplier_at: u32, // index of a word of W, as are the next three; NONE: it has none
    scale_at: u32,
    bias_at: u32,
    zero_at: u32,
}

@group(0) @binding(1) var<storage, read> W: array<vec4<u32>>;

fn word(at: u32) -> u32 {
    return W[at >> 2u][at & 3u];
}

fn number(at: u32) -> f32 {
    return bitcast<f32>(word(at));
}

// Four codes of 4 bits, the lowest first, one in each byte.
fn spread(codes: u32) -> u32 {
    return (codes & 0xfu) | ((codes & 0xf0u) << 4u) | ((codes & 0xf00u) << 8u) |
           ((codes & 0xf000u) << 12u);
}

// The values of 8 codes in blocks (model/matrix.h) plus 15: those of the low halves of the bytes, and
// of the high ones. A code of sign s and magnitude m, 0 to 7, is 2 m + 13 or 2 m, plus a number from
// 0 to 2, which is computed for all codes at once.
fn values_plus_15(codes: u32) -> vec2<u32> {
    let b = codes >> 1u;
    let c = codes >> 2u;
    let sign = codes >> 3u;
    let is_end = (codes & b & c) | ~(codes | b | c); // m is 0 or 7
    let is_outer = ~(b ^ c);                         // 0, 1, 6 or 7
    let low = (sign & (~is_outer | is_end)) | (~sign & ~is_end);
    let more = (low & 0x11111111u) + 2u * (sign & is_outer & 0x11111111u) +
               12u * (sign & 0x11111111u);
    return 2u * (vec2<u32>(codes, codes >> 4u) & vec2<u32>(0x07070707u)) +
           (vec2<u32>(more, more >> 4u) & vec2<u32>(0x0f0f0f0fu));
}

// Four values of a block's codes, in the bytes `at` of low and high halves.
fn block_values(low: u32, high: u32, multiplier: i32) -> u32 {
    let codes = vec4<u32>(low & 0xffu, high & 0xffu, (low >> 8u) & 0xffu, (high >> 8u) & 0xffu);
    return pack4xI8(multiplier * (vec4<i32>(codes) - vec4<i32>(15)));
}

// Weights [16 k, 16 k + 16) of row r.
fn weights16(m: Matrix, r: u32, k: u32) -> vec4<u32> {
    if (TYPE == I8) {
        return W[r * m.row_vecs + k];
    }
    let v = W[r * m.row_vecs + (k >> 1u)];
    let h = select(v.xy, v.zw, (k & 1u) == 1u);
    if (TYPE == I4) { // a code is its weight plus 8
        let codes = vec4<u32>(spread(h.x), spread(h.x >> 16u), spread(h.y), spread(h.y >> 16u));
        return (codes + vec4<u32>(0x78787878u)) ^ vec4<u32>(0x80808080u);
    }
    let words = (m.n_in + 127u) / 128u; // of a row's multipliers
    let multiplier =
        extractBits(i32(word(m.multiplier_at + r * words + (k >> 3u))), (k & 7u) * 4u, 4u);
    let a = values_plus_15(h.x);
    let b = values_plus_15(h.y);
    return vec4<u32>(block_values(a.x, a.y, multiplier),
                     block_values(a.x >> 16u, a.y >> 16u, multiplier),
                     block_values(b.x, b.y, multiplier),
                     block_values(b.x >> 16u, b.y >> 16u, multiplier));
}

fn row_scale(m: Matrix, r: u32) -> f32 {
    if (TYPE == F32) {
        return 1.0;
    }
    return number(m.scale_at + r);
}

// A row's product, where `sum` is that of the inputs.
fn finish(m: Matrix, r: u32, scale: f32, product: f32, sum: f32) -> f32 {
    var y = product;
    if (TYPE != F32) {
        if (HAS_ZEROS) {
            y -= number(m.zero_at + r) * sum;
        }
        y *= scale;
    }
    if (m.bias_at != NONE) {
        y += number(m.bias_at + r);
    }
    return y;
}
