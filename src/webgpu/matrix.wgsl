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

// The value of a code in blocks (model/matrix.h).
const VALUES = vec4<u32>(0xf8f6f4f1u, 0xfffefcfau, 0x04020100u, 0x0e0b0806u);

fn block_value(code: u32) -> i32 {
    return extractBits(i32(VALUES[code >> 2u]), (code & 3u) * 8u, 8u);
}

fn block_values(codes: u32, multiplier: i32) -> u32 {
    let c = unpack4xU8(codes);
    return pack4xI8(multiplier * vec4<i32>(block_value(c.x), block_value(c.y), block_value(c.z),
                                           block_value(c.w)));
}

// Weights [16 k, 16 k + 16) of row r.
fn weights16(m: Matrix, r: u32, k: u32) -> vec4<u32> {
    if (TYPE == I8) {
        return W[r * m.row_vecs + k];
    }
    let v = W[r * m.row_vecs + (k >> 1u)];
    let h = select(v.xy, v.zw, (k & 1u) == 1u);
    let codes = vec4<u32>(spread(h.x), spread(h.x >> 16u), spread(h.y), spread(h.y >> 16u));
    if (TYPE == I4) {
        // a code is its weight plus 8
        return (codes + vec4<u32>(0x78787878u)) ^ vec4<u32>(0x80808080u);
    }
    let words = (m.n_in + 127u) / 128u; // of a row's multipliers
    let multiplier =
        extractBits(i32(word(m.multiplier_at + r * words + (k >> 3u))), (k & 7u) * 4u, 4u);
    return vec4<u32>(block_values(codes.x, multiplier), block_values(codes.y, multiplier),
                     block_values(codes.z, multiplier), block_values(codes.w, multiplier));
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
