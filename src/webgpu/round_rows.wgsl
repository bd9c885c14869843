// round_rows.wgsl: rows of x as int8 in memory, for matrows_subgroups.wgsl: what matvec.wgsl makes of them in its
// own memory, with the same bits. A workgroup has a row.
// In:  the functions of input_*.wgsl, which make x.
// Out: Q [n, N_CHUNKS]; OUT [n, N_CHUNKS / 4], the scales; what STORES says (input_norm.wgsl).

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
@group(0) @binding(Q_BINDING) var<storage, read_write> Q: array<vec4<u32>>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    fetch(t, thread);
    prepare(t, thread);
    if (STORES != 0) {
        keep(t, thread);
    }
    round_x(t, thread);
    for (var i = thread; i < N_CHUNKS; i += SIZE) {
        Q[t * N_CHUNKS + i] = chunk_of_x8(i);
    }
    for (var i = thread; i < N_CHUNKS / 4u; i += SIZE) {
        OUT[t * (N_CHUNKS / 4u) + i] = bitcast<u32>(scales[i]);
    }
}
