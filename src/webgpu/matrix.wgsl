// matrix.wgsl: weights; before shaders that read a matrix.
// In:  TYPE, and a buffer W with the rows of a matrix, each padded to 64 weights that are 0, then
//      its fifth bits, multipliers, scales, biases and zero points (upload.c).
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

// The word with the fifth bits of the 32 weights in blocks that are 16 bytes of row r (split.wgsl).
fn fifth_bits(m: Matrix, r: u32, vec: u32) -> u32 {
    return word(4u * m.n_rows * m.row_vecs + r * m.row_vecs + vec);
}

// Bit i of each byte, as bit 4.
fn to_bit_4(bits: u32, i: u32) -> u32 {
    if (i < 4u) {
        return bits << (4u - i);
    }
    return bits >> (i - 4u);
}

// Word i of such 16 bytes as 8 values plus 15: those of the low halves of bytes, and of the high
// ones.
fn values_plus_15(v: u32, bits: u32, i: u32) -> vec2<u32> {
    return vec2<u32>((v & 0x0f0f0f0fu) | (to_bit_4(bits, 2u * i) & 0x10101010u),
                     ((v >> 4u) & 0x0f0f0f0fu) | (to_bit_4(bits, 2u * i + 1u) & 0x10101010u));
}

// Four weights of a block, from the values in the lowest two bytes of both halves.
fn block_values(low: u32, high: u32, multiplier: i32) -> u32 {
    let values = vec4<u32>(low & 0xffu, high & 0xffu, (low >> 8u) & 0xffu, (high >> 8u) & 0xffu);
    return pack4xI8(multiplier * (vec4<i32>(values) - vec4<i32>(15)));
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
    let bits = fifth_bits(m, r, k >> 1u) >> ((k & 1u) * 4u);
    let a = values_plus_15(h.x, bits, 0u);
    let b = values_plus_15(h.y, bits, 1u);
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
