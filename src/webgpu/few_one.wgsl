// few_one.wgsl: what few_two.wgsl has, where a workgroup has one lane, with the same bits.

alias Numbers = f32;
alias Indices = u32;
alias Flags = bool;

struct Lanes {
    a: Lane,
}

fn lanes_of(group: u32, kv_head: u32, first_row: u32) -> Lanes {
    return Lanes(lane_of(group, kv_head, first_row));
}

fn begins(l: Lanes) -> Indices {
    return l.a.begin;
}

fn ends(l: Lanes) -> Indices {
    return l.a.end;
}

fn slopes_of(l: Lanes) -> Numbers {
    return slope(l.a);
}

fn heads_of(l: Lanes) -> vec2<u32> {
    return vec2<u32>(l.a.head);
}

fn queries_of(x: vec4<f32>) -> Numbers {
    return x.x;
}

fn smallest_of(i: Indices) -> u32 {
    return i;
}

fn largest_of(i: Indices) -> u32 {
    return i;
}

fn store_lanes(o: Output, d: u32, x: Numbers) {
    if (d < HEAD_DIM) {
        store(o.lanes.a, o.part, d, x, o.most, o.sum);
    }
}

fn store_halves(o: Output, d: u32, x: Numbers, y: Numbers) {
    store_half(o.lanes.a, o.part, d, x, y, o.most, o.sum);
}
