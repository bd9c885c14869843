// few_row.wgsl: what few_heads.wgsl has, where a workgroup has one or two lanes of a single row: its
// queries, and the key and the value of the row, are made at once, with the same bits. Heads have at
// most SIZE dimensions, one for each thread; QK_NORM is not 3.

// Before they are rotated: queries and the key; and the key and the value that are appended.
var<workgroup> plain: array<vec3<f32>, HEAD_DIM>;
var<workgroup> pairs: array<vec2<f32>, select(1u, QUADS * (PER_QUAD + 1u), APPENDS)>;

fn part(i: u32, is_second: bool) -> f32 {
    let x = pairs[place(i)];
    return select(x.x, x.y, is_second);
}

// Dimension `thread` of two queries, of the key and the value, the weights of their norms, and the
// rotation of its pair.
struct Reads {
    x: vec4<f32>,
    gains: vec4<f32>,
    turn: vec2<f32>,
}

fn gain(norm_at: u32, head: u32, i: u32) -> f32 {
    if (QK_NORM == 0 || norm_at == NONE) {
        return 1.0;
    }
    return V[norm_at + i + select(head * HEAD_DIM, 0u, QK_NORM == 1)] + select(0.0, 1.0, IS_PLUS_1);
}

fn read_heads(lanes: Lanes, kv_head: u32, thread: u32) -> Reads {
    var r = Reads();
    if (thread >= HEAD_DIM) {
        return r;
    }
    let head = heads_of(lanes);
    let at = p.first_t * p.x_stride + thread;
    r.x = vec4<f32>(X[at + head.x * HEAD_DIM], X[at + head.y * HEAD_DIM], 0.0, 0.0);
    r.gains = vec4<f32>(gain(p.q_norm_at, head.x, thread), gain(p.q_norm_at, head.y, thread), 1.0, 1.0);
    if (APPENDS) {
        let key = at + (N_HEADS + kv_head) * HEAD_DIM;
        r.x.z = X[key];
        r.x.w = X[key + select(p.n_kv_heads * HEAD_DIM, 0u, V_IS_K)];
        r.gains.z = gain(p.k_norm_at, kv_head, thread);
    }
    if (thread < 2u * p.half) {
        r.turn = ROPE[p.pos * p.half + select(thread, thread - p.half, thread >= p.half)];
    }
    return r;
}

fn normed(r: Reads, thread: u32) -> vec4<f32> {
    let has_q_norm = QK_NORM > 0 && p.q_norm_at != NONE;
    let is_normed = vec4<bool>(has_q_norm, has_q_norm, QK_NORM > 0 && p.k_norm_at != NONE, V_NORM);
    if (QK_NORM == 0 && !V_NORM) {
        return r.x;
    }
    var mean = vec4<f32>(0.0);
    if (IS_LAYER_NORM) {
        mean = vec4<f32>((add_four(r.x, thread) / f32(HEAD_DIM)).xyz, 0.0);
    }
    let d = select(vec4<f32>(0.0), r.x - mean, thread < HEAD_DIM);
    let scale = inverseSqrt(add_four(d * d, thread) / f32(HEAD_DIM) + p.eps);
    return select(r.x, (r.x - mean) * scale * r.gains, is_normed);
}

// Make the queries, and append the new key, if it is in [first, last). Returns the tile with it.
fn make_heads(r: Reads, kv_head: u32, begin_row: u32, first: u32, last: u32, old: Tile,
              thread: u32) -> Tile {
    var tile = old;
    var x = normed(r, thread);
    if (p.half > 0u) {
        if (thread < HEAD_DIM) {
            plain[thread] = x.xyz;
        }
        workgroupBarrier();
        if (thread < 2u * p.half) {
            let is_first = thread < p.half;
            let other = plain[select(thread - p.half, thread + p.half, is_first)];
            let sine = select(r.turn.y, -r.turn.y, is_first);
            x = vec4<f32>(fma(x.xyz, vec3<f32>(r.turn.x), other * sine), x.w);
        }
    }
    let is_new = APPENDS && p.pos >= first && p.pos < last;
    if (thread < DIMS) {
        q[place(thread)] = queries_of(x);
        if (is_new) {
            pairs[place(thread)] = x.zw;
        }
    }
    workgroupBarrier();
    if (is_new) {
        append(p.pos, kv_head, thread);
        if (IS_READ_FIRST && p.pos - first < TILE) {
            tile = with_new_key(tile, p.pos - first, thread);
        }
        if (!IS_READ_FIRST || last > first + TILE) {
            storageBarrier();
        }
    }
    return tile;
}
