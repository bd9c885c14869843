// split.wgsl: int4 in blocks, from the file's codes to the values of these plus 15, which are 0 to 29:
// four bits where the code was, and the fifth elsewhere. Few shifts make numbers of them
// (matrix.wgsl); the values of codes would be 19 operations for each 8 of a product.
// In:  W: 16 bytes of codes n times, and n words for the fifth bits.
// Out: W. Bit 2 i of a byte belongs to the low half of that byte in word i of the 16 bytes, bit 2 i
//      + 1 to the high half.

struct Params {
    n: u32,
    n_in_x: u32, // threads that are beside each other
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> W: array<u32>;

// The values of 8 codes (model/matrix.h) plus 15: those of the low halves of the bytes, and of the
// high ones. A code of sign s and magnitude m, 0 to 7, is 2 m + 13 or 2 m, plus a number from 0 to 2,
// which is computed for all codes at once.
fn values_of_codes(codes: u32) -> vec2<u32> {
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

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vec = id.y * p.n_in_x + id.x;
    if (vec >= p.n) {
        return;
    }
    var bits = 0u;
    for (var i = 0u; i < 4u; i++) {
        let v = values_of_codes(W[4u * vec + i]);
        let fifth = (v >> vec2<u32>(4u)) & vec2<u32>(0x01010101u);
        W[4u * vec + i] = (v.x & 0x0f0f0f0fu) | ((v.y & 0x0f0f0f0fu) << 4u);
        bits |= (fifth.x | (fifth.y << 1u)) << (2u * i);
    }
    W[4u * p.n + vec] = bits;
}
