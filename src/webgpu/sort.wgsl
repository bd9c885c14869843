// sort.wgsl: sorts N tokens by their keys in a workgroup; of equal ones the lower id comes first.
// Before draw.wgsl.

var<workgroup> ids: array<u32, N>;

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
