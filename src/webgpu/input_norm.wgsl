// input_norm.wgsl: the input of matvec.wgsl is xn of norm.wgsl. Every workgroup computes it.
// In:  X, Y, V, as norm.wgsl says.
// Out: STORES 1: NEW_X, the x that follows, in another buffer, because other workgroups still read X.
//      STORES 2: XN. STORES 3: both. 0: nothing. The first workgroup of a row does only that. STORES 4
//      and 5 as 0 and 1, and XN has the best of the outputs of each other workgroup (best.wgsl).

@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> Y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> V: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> OUT: array<u32>;
@group(0) @binding(6) var<storage, read_write> NEW_X: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> XN: array<vec4<f32>>;

// With HOLDS a thread has numbers [8 thread, 8 thread + 8) of the row, and with HAS_MORE the same
// behind the first 8 SIZE. It reads them once.
const HAS_MORE = 2u * N_CHUNKS > SIZE;

// Eight numbers of X and Y, later of the new x and of what the norm of NEXT gets; weights of norms.
struct Held {
    x: Eight,
    y: Eight,
    post: Eight,
    next: Eight,
}

var<private> held: Held;
var<private> more: Held;

fn input(t: u32, i: u32) -> vec4<f32> {
    return inside(new_xn(t, i), i);
}

// x, but 0 behind the end of the row.
fn inside8(x: Eight, i: u32) -> Eight {
    if (8u * i >= p.input.n) {
        return Eight();
    }
    return Eight(inside(x.a, 2u * i), inside(x.b, 2u * i + 1u));
}

fn read_held(t: u32, i: u32) -> Held {
    let at = t * p.input.stride + 2u * i;
    var h = Held();
    if (8u * i < p.input.n) {
        h.x = inside8(Eight(X[at], X[at + 1u]), i);
        if (ADDS) {
            h.y = inside8(Eight(Y[at], Y[at + 1u]), i);
        }
        h.post = Eight(post_weights(2u * i), post_weights(2u * i + 1u));
        h.next = Eight(next_weights(2u * i), next_weights(2u * i + 1u));
    }
    return h;
}

fn fetch(t: u32, thread: u32) {
    if (HOLDS) {
        held = read_held(t, thread);
        if (HAS_MORE) {
            more = read_held(t, thread + SIZE);
        }
    }
}

fn sum_of_8(x: Eight) -> f32 {
    return total(x.a + x.b);
}

fn squares_of_8(x: Eight) -> f32 {
    return total(x.a * x.a + x.b * x.b);
}

fn minus(x: Eight, mean: f32, i: u32) -> Eight {
    return inside8(Eight(x.a - mean, x.b - mean), i);
}

// Of `x` and, with HAS_MORE, y.
fn statistics8(x: Eight, y: Eight, thread: u32) -> vec2<f32> {
    let n = f32(p.input.n);
    var mean = 0.0;
    var d = x;
    var e = y;
    if (IS_LAYER_NORM) {
        var sum = sum_of_8(x);
        if (HAS_MORE) {
            sum += sum_of_8(y);
        }
        mean = add_up(sum, thread) / n;
        d = minus(x, mean, thread);
        e = minus(y, mean, thread + SIZE);
    }
    var squares = squares_of_8(d);
    if (HAS_MORE) {
        squares += squares_of_8(e);
    }
    return vec2<f32>(mean, inverseSqrt(add_up(squares, thread) / n + p.input.eps));
}

fn summed8(h: Held, i: u32) -> Eight {
    return inside8(Eight(summed(h.x.a, h.y.a, 2u * i, h.post.a),
                         summed(h.x.b, h.y.b, 2u * i + 1u, h.post.b)),
                   i);
}

fn posted8(h: Held, i: u32) -> Eight {
    return inside8(Eight(posted(h.x.a, 2u * i, h.post.a), posted(h.x.b, 2u * i + 1u, h.post.b)), i);
}

fn prepare(t: u32, thread: u32) {
    if (!HOLDS) {
        prepare_row(t, thread);
        return;
    }
    let old = held.x;
    let old_more = more.x;
    if (POST == 1) {
        post = statistics8(held.y, more.y, thread);
    }
    held.x = summed8(held, thread);
    if (HAS_MORE) {
        more.x = summed8(more, thread + SIZE);
    }
    if (POST == 2) {
        post = statistics8(held.x, more.x, thread);
        held.x = posted8(held, thread);
        if (HAS_MORE) {
            more.x = posted8(more, thread + SIZE);
        }
    }
    held.y = held.x;
    more.y = more.x;
    if (NEXT == 3) {
        held.y = old;
        more.y = old_more;
    }
    if (NEXT >= 2) {
        next = statistics8(held.y, more.y, thread);
    }
}

// Numbers [8 i, 8 i + 8) of xn.
fn held8(i: u32) -> Eight {
    var h = held;
    if (HAS_MORE && i >= SIZE) {
        h = more;
    }
    return inside8(Eight(nexted(h.y.a, 2u * i, h.next.a), nexted(h.y.b, 2u * i + 1u, h.next.b)), i);
}

fn keep_four(t: u32, i: u32, x: vec4<f32>, xn: vec4<f32>) {
    let at = t * p.input.stride + i;
    if (4u * i >= p.input.n) {
        return;
    }
    if ((STORES & 1) != 0) {
        NEW_X[at] = x;
    }
    if ((STORES & 2) != 0) {
        XN[at] = xn;
    }
}

fn keep8(t: u32, i: u32, x: Eight) {
    let xn = held8(i);
    keep_four(t, 2u * i, x.a, xn.a);
    keep_four(t, 2u * i + 1u, x.b, xn.b);
}

fn keep(t: u32, thread: u32) {
    if (HOLDS) {
        keep8(t, thread, held.x);
        if (HAS_MORE) {
            keep8(t, thread + SIZE, more.x);
        }
        return;
    }
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        keep_four(t, i, new_x(t, i), new_xn(t, i));
    }
}

fn keep_best(i: u32, best: vec4<f32>) {
    XN[i] = best;
}

const IS_ROUNDED = false;

fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return 0.0;
}
