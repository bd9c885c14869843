// few_four.wgsl: the lanes of a workgroup of attend_few.wgsl, where these are four. few_two.wgsl and
// few_one.wgsl have the same for two and one: less arithmetic in more workgroups, with the same bits.

alias Numbers = vec4<f32>; // one for each lane
alias Indices = vec4<u32>;
alias Flags = vec4<bool>;

struct Lanes {
    a: Lane,
    b: Lane,
    c: Lane,
    d: Lane,
}

fn lanes_of(group: u32, kv_head: u32, first_row: u32) -> Lanes {
    return Lanes(lane_of(4u * group, kv_head, first_row),
                 lane_of(4u * group + 1u, kv_head, first_row),
                 lane_of(4u * group + 2u, kv_head, first_row),
                 lane_of(4u * group + 3u, kv_head, first_row));
}

fn begins(l: Lanes) -> Indices {
    return Indices(l.a.begin, l.b.begin, l.c.begin, l.d.begin);
}

fn ends(l: Lanes) -> Indices {
    return Indices(l.a.end, l.b.end, l.c.end, l.d.end);
}

fn rows_of(l: Lanes) -> Indices {
    return Indices(row_of(l.a), row_of(l.b), row_of(l.c), row_of(l.d));
}

fn heads_of(l: Lanes) -> Indices {
    return Indices(l.a.head, l.b.head, l.c.head, l.d.head);
}

fn slopes_of(l: Lanes) -> Numbers {
    return Numbers(slope(l.a), slope(l.b), slope(l.c), slope(l.d));
}

fn smallest_of(i: Indices) -> u32 {
    return min(min(i.x, i.y), min(i.z, i.w));
}

fn largest_of(i: Indices) -> u32 {
    return max(max(i.x, i.y), max(i.z, i.w));
}

fn positions_of(t: Indices) -> Indices {
    return Indices(row_of_batch(t.x, first_row()).y, row_of_batch(t.y, first_row()).y,
                   row_of_batch(t.z, first_row()).y, row_of_batch(t.w, first_row()).y);
}

fn gather(at: Indices, i: u32) -> Numbers {
    return Numbers(X[at.x + i], X[at.y + i], X[at.z + i], X[at.w + i]);
}

fn gather_weights(at: Indices) -> Numbers {
    return Numbers(V[at.x], V[at.y], V[at.z], V[at.w]);
}

fn gather_turns(at: Indices) -> Turn {
    let a = ROPE[at.x];
    let b = ROPE[at.y];
    let c = ROPE[at.z];
    let d = ROPE[at.w];
    return Turn(Numbers(a.x, b.x, c.x, d.x), Numbers(a.y, b.y, c.y, d.y));
}

// Of a key and a value.
fn two_indices(key: u32, value: u32) -> Indices {
    return Indices(key, value, value, value);
}

fn two_numbers(key: f32, value: f32) -> Numbers {
    return Numbers(key, value, 0.0, 0.0);
}

// The first number of `a`, the others of b.
fn first_and_rest(a: Numbers, b: Numbers) -> Numbers {
    return Numbers(a.x, b.yzw);
}

fn store_lanes(o: Output, d: u32, x: Numbers) {
    if (d < HEAD_DIM) {
        store(o.lanes.a, o.part, d, x.x, o.most.x, o.sum.x);
        store(o.lanes.b, o.part, d, x.y, o.most.y, o.sum.y);
        store(o.lanes.c, o.part, d, x.z, o.most.z, o.sum.z);
        store(o.lanes.d, o.part, d, x.w, o.most.w, o.sum.w);
    }
}

fn store_halves(o: Output, d: u32, x: Numbers, y: Numbers) {
    store_half(o.lanes.a, o.part, d, x.x, y.x, o.most.x, o.sum.x);
    store_half(o.lanes.b, o.part, d, x.y, y.y, o.most.y, o.sum.y);
    store_half(o.lanes.c, o.part, d, x.z, y.z, o.most.z, o.sum.z);
    store_half(o.lanes.d, o.part, d, x.w, y.w, o.most.w, o.sum.w);
}
