// sort.wgsl: sorts N tokens by their logits in a workgroup; of equal ones the lower id comes first.
// Before top_k.wgsl and draw.wgsl.
//
// A key is a number without a sign that is ordered as the logit is. A NaN and a token that is not
// allowed have the key of -inf. Key 0 is none.

const SIZE = 256u;
const N = 1024u; // of a workgroup
const NONE = 0xffffffffu;
var<workgroup> keys: array<u32, N>;
var<workgroup> ids: array<u32, N>;

fn key_of(bits: u32, is_allowed: bool) -> u32 {
    let is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    if (is_nan || !is_allowed) {
        return 0x007fffffu;
    }
    if (bits == 0x80000000u) { // -0 is 0
        return 0x80000000u;
    }
    return bits ^ select(0x80000000u, NONE, bits >= 0x80000000u);
}

fn comes_before(a: u32, b: u32) -> bool {
    return keys[a] > keys[b] || (keys[a] == keys[b] && ids[a] < ids[b]);
}

// Bitonic sort: Batcher 1968.
fn sort(thread: u32) {
    for (var size = 2u; size <= N; size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var t = thread; t < N / 2u; t += SIZE) {
                let i = 2u * t - (t & (step - 1u));
                let j = i + step;
                if (comes_before(j, i) == ((i & size) == 0u)) {
                    let key = keys[i];
                    let id = ids[i];
                    keys[i] = keys[j];
                    ids[i] = ids[j];
                    keys[j] = key;
                    ids[j] = id;
                }
            }
        }
    }
    workgroupBarrier();
}
