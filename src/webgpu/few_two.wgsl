// few_two.wgsl: what few_four.wgsl has, where a workgroup has two lanes of a single row, with few_row.wgsl.

alias Numbers = vec2<f32>;
alias Indices = vec2<u32>;
alias Flags = vec2<bool>;

struct Lanes {
    a: Lane,
    b: Lane,
}

fn lanes_of(group: u32, kv_head: u32, first_row: u32) -> Lanes {
    return Lanes(lane_of(2u * group, kv_head, first_row),
                 lane_of(2u * group + 1u, kv_head, first_row));
}

fn begins(l: Lanes) -> Indices {
    return Indices(l.a.begin, l.b.begin);
}

fn ends(l: Lanes) -> Indices {
    return Indices(l.a.end, l.b.end);
}

fn heads_of(l: Lanes) -> vec2<u32> {
    return Indices(l.a.head, l.b.head);
}

fn queries_of(x: vec4<f32>) -> Numbers {
    return x.xy;
}

fn slopes_of(l: Lanes) -> Numbers {
    return Numbers(slope(l.a), slope(l.b));
}

fn smallest_of(i: Indices) -> u32 {
    return min(i.x, i.y);
}

fn largest_of(i: Indices) -> u32 {
    return max(i.x, i.y);
}

fn store_lanes(o: Output, d: u32, x: Numbers) {
    if (d < HEAD_DIM) {
        store(o.lanes.a, o.part, d, x.x, o.most.x, o.sum.x);
        store(o.lanes.b, o.part, d, x.y, o.most.y, o.sum.y);
    }
}

fn store_halves(o: Output, d: u32, x: Numbers, y: Numbers) {
    store_half(o.lanes.a, o.part, d, x.x, y.x, o.most.x, o.sum.x);
    store_half(o.lanes.b, o.part, d, x.y, y.y, o.most.y, o.sum.y);
}
