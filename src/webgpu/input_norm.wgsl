// input_norm.wgsl: the input of matvec.wgsl is xn of norm.wgsl. Every workgroup computes it.
// In:  X, Y, V, as norm.wgsl says.
// Out: STORES 1: NEW_X, the x that follows, in another buffer, because other workgroups still read X.
//      STORES 2: XN. STORES 3: both. 0: nothing. The first workgroup of a row does only that.

@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> Y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> V: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> OUT: array<u32>;
@group(0) @binding(6) var<storage, read_write> NEW_X: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> XN: array<vec4<f32>>;

// With HOLDS a thread has chunk `thread` of the row, and reads it once.
var<private> held: Sixteen; // new x
var<private> held_next: Sixteen; // what the norm of NEXT gets

fn input(t: u32, i: u32) -> vec4<f32> {
    return inside(new_xn(t, i), i);
}

fn squares_of(x: Sixteen) -> f32 {
    return total((x.a * x.a + x.b * x.b) + (x.c * x.c + x.d * x.d));
}

fn statistics16(x: Sixteen, is_mine: bool, thread: u32) -> vec2<f32> {
    let n = f32(p.input.n);
    if (!IS_LAYER_NORM) {
        return vec2<f32>(0.0, inverseSqrt(add_up(squares_of(x), thread) / n + p.input.eps));
    }
    let mean = add_up(total((x.a + x.b) + (x.c + x.d)), thread) / n;
    let i = 4u * thread;
    var d = Sixteen();
    if (is_mine) {
        d = Sixteen(inside(x.a - mean, i), inside(x.b - mean, i + 1u), inside(x.c - mean, i + 2u),
                    inside(x.d - mean, i + 3u));
    }
    return vec2<f32>(mean, inverseSqrt(add_up(squares_of(d), thread) / n + p.input.eps));
}

fn inside16(x: Sixteen, i: u32) -> Sixteen {
    return Sixteen(inside(x.a, i), inside(x.b, i + 1u), inside(x.c, i + 2u), inside(x.d, i + 3u));
}

fn prepare(t: u32, thread: u32) {
    if (!HOLDS) {
        prepare_row(t, thread);
        return;
    }
    let i = 4u * thread;
    let at = t * p.input.stride + i;
    let is_mine = 16u * thread < p.input.n; // rows are padded to 16 numbers
    var x = Sixteen();
    var y = Sixteen();
    if (is_mine) {
        x = Sixteen(X[at], X[at + 1u], X[at + 2u], X[at + 3u]);
        if (ADDS) {
            y = inside16(Sixteen(Y[at], Y[at + 1u], Y[at + 2u], Y[at + 3u]), i);
        }
    }
    let old_x = inside16(x, i);
    if (POST == 1) {
        post = statistics16(y, is_mine, thread);
    }
    if (is_mine) {
        x = inside16(Sixteen(summed(x.a, y.a, i), summed(x.b, y.b, i + 1u),
                             summed(x.c, y.c, i + 2u), summed(x.d, y.d, i + 3u)),
                     i);
    }
    if (POST == 2) {
        post = statistics16(x, is_mine, thread);
        if (is_mine) {
            x = inside16(Sixteen(posted(x.a, i), posted(x.b, i + 1u), posted(x.c, i + 2u),
                                 posted(x.d, i + 3u)),
                         i);
        }
    }
    held = x;
    held_next = x;
    if (NEXT == 3) {
        held_next = old_x;
    }
    if (NEXT >= 2) {
        next = statistics16(held_next, is_mine, thread);
    }
}

// Chunk `thread` of xn.
fn held16(chunk: u32) -> Sixteen {
    let i = 4u * chunk;
    if (4u * i >= p.input.n) {
        return Sixteen();
    }
    return inside16(Sixteen(nexted(held_next.a, i), nexted(held_next.b, i + 1u),
                            nexted(held_next.c, i + 2u), nexted(held_next.d, i + 3u)),
                    i);
}

fn keep_four(t: u32, i: u32, x: vec4<f32>, before_next: vec4<f32>) {
    let at = t * p.input.stride + i;
    if (4u * i >= p.input.n) {
        return;
    }
    if ((STORES & 1) != 0) {
        NEW_X[at] = x;
    }
    if ((STORES & 2) != 0) {
        XN[at] = nexted(before_next, i);
    }
}

fn keep(t: u32, thread: u32) {
    if (HOLDS) {
        keep_four(t, 4u * thread, held.a, held_next.a);
        keep_four(t, 4u * thread + 1u, held.b, held_next.b);
        keep_four(t, 4u * thread + 2u, held.c, held_next.c);
        keep_four(t, 4u * thread + 3u, held.d, held_next.d);
        return;
    }
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        keep_four(t, i, new_x(t, i), next_input(t, i));
    }
}

const IS_ROUNDED = false;

fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return 0.0;
}
