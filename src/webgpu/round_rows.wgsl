// round_rows.wgsl: rows of x as int8 in memory, for matrows_subgroups.wgsl: what matvec.wgsl makes of
// them in its own memory, with the same bits. A workgroup has a row; of input_plain.wgsl several share
// one.
// In:  the functions of input_*.wgsl, which make x.
// Out: Q [n, 2 * N_CHUNKS], 8 numbers each; OUT [n, N_CHUNKS / 4], the scales; what STORES says (input_norm.wgsl).

struct Columns {
    n_in: u32,
    unused_1: u32,
    unused_2: u32,
    unused_3: u32, // a struct behind it begins at a multiple of 16 bytes
}

struct Params {
    m: Columns,
    input: Input,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(Q_BINDING) var<storage, read_write> Q: array<vec2<u32>>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    fetch(t, thread);
    prepare(t, thread);
    if (STORES != 0) {
        keep(t, thread);
    }
    for (var first = SIZE * group.y; first < 2u * N_CHUNKS; first += SIZE * n_groups.y) {
        let i = first + thread;
        round_turn(t, i, thread);
        if (i < 2u * N_CHUNKS) { // what it wrote itself
            Q[t * 2u * N_CHUNKS + i] = x8[i];
            if (i % 8u == 0u) {
                OUT[(t * 2u * N_CHUNKS + i) / 8u] = bitcast<u32>(scales[i / 8u]);
            }
        }
    }
}
