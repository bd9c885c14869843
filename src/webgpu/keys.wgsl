// keys.wgsl: logits as keys, before select.wgsl and draw.wgsl. A key is a number without a sign that
// is ordered as the logit is. A NaN and a token that is not allowed have the key of -inf. Key 0 is
// none.

const SIZE = 256u; // threads of a workgroup
const N = 1024u;   // tokens of a workgroup
const NONE = 0xffffffffu;
const MINUS_INF = 0x007fffffu;
const PLUS_INF = 0xff800000u;
const LIST = 32u; // of DRAWS: the first listed token
var<workgroup> keys: array<u32, N>;

fn key_of(bits: u32, is_allowed: bool) -> u32 {
    let is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    if (is_nan || !is_allowed) {
        return MINUS_INF;
    }
    if (bits == 0x80000000u) { // -0 is 0
        return 0x80000000u;
    }
    return bits ^ select(0x80000000u, NONE, bits >= 0x80000000u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}
