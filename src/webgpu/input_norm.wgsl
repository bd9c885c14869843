// input_norm.wgsl: the input of matvec.wgsl is xn of norm.wgsl. Every workgroup computes it.
// In:  X, Y, V, as norm.wgsl says.
// Out: STORES 1: NEW_X, the x that follows, in another buffer, because other workgroups still read X.
//      STORES 2: XN. STORES 3: both. 0: nothing. The first workgroup of a row does only that.

@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> Y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> V: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> OUT: array<f32>;
@group(0) @binding(6) var<storage, read_write> NEW_X: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> XN: array<vec4<f32>>;

fn input(t: u32, i: u32) -> vec4<f32> {
    return inside(new_xn(t, i), i);
}

fn keep(t: u32, thread: u32) {
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        let at = t * p.input.stride + i;
        if ((STORES & 1) != 0) {
            NEW_X[at] = new_x(t, i);
        }
        if ((STORES & 2) != 0) {
            XN[at] = new_xn(t, i);
        }
    }
}
