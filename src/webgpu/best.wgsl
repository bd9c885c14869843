// best.wgsl: the largest of the numbers that the threads of a workgroup have, and its id; of equal ones
// the lower id. For argmax.wgsl, embed.wgsl and matvec.wgsl.
// In:  SIZE, the threads of a workgroup, a power of two.

const NO_TOKEN = 0xffffffffu;

struct Best {
    value: f32,
    id: u32,
}

const LEAST_BEST = Best(-3.0e38, NO_TOKEN);

var<workgroup> bests: array<Best, SIZE>;

fn better(a: Best, b: Best) -> Best {
    if (b.value > a.value || (b.value == a.value && b.id < a.id)) {
        return b;
    }
    return a;
}

// All threads call it.
fn best_of_all(x: Best, thread: u32) -> Best {
    bests[thread] = x;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            bests[thread] = better(bests[thread], bests[thread + step]);
        }
    }
    workgroupBarrier();
    return bests[0];
}

// A candidate as it is stored. Ids are below 2^24.
fn packed_best(x: Best) -> vec4<f32> {
    return vec4<f32>(x.value, select(-1.0, f32(x.id), x.id != NO_TOKEN), 0.0, 0.0);
}

fn unpacked_best(x: vec4<f32>) -> Best {
    return Best(x.x, select(NO_TOKEN, u32(max(x.y, 0.0)), x.y >= 0.0));
}

fn token_of(x: Best) -> u32 {
    return select(x.id, 0u, x.id == NO_TOKEN);
}
