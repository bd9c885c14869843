// few_heads.wgsl: the queries and new keys of attend_few.wgsl, where a workgroup has several lanes: a
// head for each.

// A loop over dimensions ends after the first if each thread has one: a compiler does not see that,
// and unrolls it.

// The weights of a norm for dimension i of these heads.
fn gain(norm_at: u32, head: Indices, i: u32) -> Numbers {
    if (QK_NORM == 1) {
        return Numbers(V[norm_at + i] + select(0.0, 1.0, IS_PLUS_1));
    }
    return gather_weights(norm_at + i + head * HEAD_DIM) + select(0.0, 1.0, IS_PLUS_1);
}

// A head for each lane, of rows that begin at `row_at`.
struct Heads {
    row_at: Indices,
    head: Indices,
    n: u32, // heads of their kind in a row
    first: Numbers, // dimension `thread`, and its weights: read before anything waits
    first_gain: Numbers,
}

fn is_normed(norm_at: u32) -> bool {
    return QK_NORM > 0 && norm_at != NONE;
}

fn heads(row_at: Indices, head: Indices, n: u32, norm_at: u32, thread: u32) -> Heads {
    let i = min(thread, HEAD_DIM - 1u);
    var h = Heads(row_at, head, n, gather(row_at + head * HEAD_DIM, i), Numbers(1.0));
    if (is_normed(norm_at)) {
        h.first_gain = gain(norm_at, head, i);
    }
    return h;
}

fn dimension(h: Heads, i: u32, thread: u32) -> Numbers {
    if (i == thread) {
        return h.first;
    }
    return gather(h.row_at + h.head * HEAD_DIM, i);
}

// What norms subtract and multiply by.
struct Statistics {
    mean: Numbers,
    scale: Numbers,
}

// Of these heads, or of all heads in their rows.
fn statistics(h: Heads, is_of_rows: bool, is_layer_norm: bool, thread: u32) -> Statistics {
    let n = select(1u, h.n, is_of_rows) * HEAD_DIM;
    let at = select(h.row_at + h.head * HEAD_DIM, h.row_at, is_of_rows);
    var s = Statistics();
    if (is_layer_norm) {
        var sum = Numbers(0.0);
        for (var i = thread; i < n; i += SIZE) {
            sum += number(h, at, i, is_of_rows, thread);
        }
        s.mean = add_up(sum, thread) / f32(n);
    }
    var squares = Numbers(0.0);
    for (var i = thread; i < n; i += SIZE) {
        let d = number(h, at, i, is_of_rows, thread) - s.mean;
        squares += d * d;
        if (QK_NORM != 3 && HEAD_DIM <= SIZE) {
            break;
        }
    }
    s.scale = inverseSqrt(add_up(squares, thread) / f32(n) + p.eps);
    return s;
}

fn number(h: Heads, at: Indices, i: u32, is_of_rows: bool, thread: u32) -> Numbers {
    if (is_of_rows) {
        return gather(at, i);
    }
    return dimension(h, i, thread);
}

// Load q from these heads, normed if norm_at is not NONE. With is_pair they are a key and a value,
// which has a norm of its own.
fn load_heads(h: Heads, norm_at: u32, is_pair: bool, thread: u32) {
    var s = Statistics(Numbers(0.0), Numbers(1.0));
    if (is_normed(norm_at)) {
        s = statistics(h, QK_NORM == 3, IS_LAYER_NORM, thread);
    }
    var value_scale = 1.0;
    if (is_pair && V_NORM) {
        if (QK_NORM == 1 && !IS_LAYER_NORM && is_normed(norm_at)) {
            value_scale = s.scale.y;
        } else {
            value_scale = statistics(h, false, false, thread).scale.y;
        }
    }
    for (var i = thread; i < DIMS; i += SIZE) {
        var x = Numbers(0.0);
        if (i < HEAD_DIM) {
            let plain = dimension(h, i, thread);
            x = plain;
            if (is_normed(norm_at)) {
                var g = h.first_gain;
                if (i != thread) {
                    g = gain(norm_at, h.head, i);
                }
                x = (x - s.mean) * s.scale * g;
            }
            if (is_pair) {
                x = two_numbers(x.x, plain.y * value_scale);
            }
        }
        q[place(i)] = x;
        if (DIMS <= SIZE) {
            break;
        }
    }
    workgroupBarrier();
}

// The rotations of a pair of dimensions.
struct Turn {
    cosine: Numbers,
    sine: Numbers,
}

fn turn_of(pos: Indices, i: u32) -> Turn {
    let at = pos * p.half + i;
    if (IS_ONE_ROW) {
        let u = ROPE[at.x];
        return Turn(Numbers(u.x), Numbers(u.y));
    }
    return gather_turns(at);
}

// Rotate the heads in q by their positions; of a key and a value, the key. `first` is the turn of
// pair `thread`.
fn rotate(pos: Indices, first: Turn, is_pair: bool, thread: u32) {
    for (var i = thread; i < p.half; i += SIZE) {
        var turn = first;
        if (i != thread) {
            turn = turn_of(pos, i);
        }
        let a = q[place(i)];
        let b = q[place(i + p.half)];
        let c = fma(a, turn.cosine, -(b * turn.sine)); // few_one.wgsl rounds the same
        let d = fma(b, turn.cosine, a * turn.sine);
        q[place(i)] = select(c, first_and_rest(c, a), is_pair);
        q[place(i + p.half)] = select(d, first_and_rest(d, b), is_pair);
        if (HEAD_DIM <= 2u * SIZE) {
            break;
        }
    }
    workgroupBarrier();
}

fn part(i: u32, is_second: bool) -> f32 {
    let x = q[place(i)];
    return select(x.x, x.y, is_second);
}

// A key and a value of row t, which are made together.
fn new_heads(t: u32, kv_head: u32, thread: u32) -> Heads {
    let keys_at = (first_t() + t) * p.x_stride + N_HEADS * HEAD_DIM;
    let values_at = keys_at + select(p.n_kv_heads * HEAD_DIM, 0u, V_IS_K);
    return heads(two_indices(keys_at, values_at), Indices(kv_head), p.n_kv_heads, p.k_norm_at,
                 thread);
}

fn first_turn(pos: Indices, thread: u32) -> Turn {
    if (thread < p.half) {
        return turn_of(pos, thread);
    }
    return Turn();
}

struct Reads {
    queries: Heads,
    pos: Indices,
    turn: Turn,
}

fn read_heads(lanes: Lanes, kv_head: u32, thread: u32) -> Reads {
    let t = rows_of(lanes);
    let pos = positions_of(t);
    let turn = first_turn(pos, thread);
    return Reads(heads((first_t() + t) * p.x_stride, heads_of(lanes), N_HEADS, p.q_norm_at, thread),
                 pos, turn);
}

// Make the queries, and append the new keys of [first, last). Returns the tile with them.
fn make_heads(reads: Reads, kv_head: u32, begin_row: u32, first: u32, last: u32, old: Tile,
              thread: u32) -> Tile {
    var tile = old;
    // New keys, then the queries, in one loop: instructions are fetched from memory, too, because the
    // weights of a layer push them out of the caches.
    for (var i = select(p.n, 0u, APPENDS); i <= p.n; i++) {
        let is_new = i < p.n;
        var new_pos = 0u;
        var h = reads.queries;
        var its_pos = reads.pos;
        var its_turn = reads.turn;
        if (is_new) {
            new_pos = row_of_batch(i, begin_row).y;
            if (new_pos < first || new_pos >= last) {
                continue;
            }
            h = new_heads(i, kv_head, thread);
            if (!IS_ONE_ROW) {
                its_pos = Indices(new_pos);
                its_turn = first_turn(its_pos, thread);
            }
        }
        load_heads(h, select(p.q_norm_at, p.k_norm_at, is_new), is_new, thread);
        rotate(its_pos, its_turn, is_new, thread);
        if (is_new) {
            append(new_pos, kv_head, thread);
            if (IS_READ_FIRST && new_pos - first < TILE) {
                tile = with_new_key(tile, new_pos - first, thread);
            }
            if (!IS_READ_FIRST || last > first + TILE) {
                storageBarrier();
            }
            if (!IS_ONE_ROW) {
                workgroupBarrier(); // before the next one is there
            }
        }
    }
    return tile;
}
