// add.wgsl: x += y, and the norms before and after, as norm.wgsl has them.
// In:  X, Y.
// Out: X, and XN unless NEXT is 0; one row for each workgroup.

struct Params {
    input: Input,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> V: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> Y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> X: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> XN: array<vec4<f32>>;

const SIZE = 128u;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    prepare_row(t, thread);
    // all threads have read X, and each one reads below only what it writes itself
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        let at = t * p.input.stride + i;
        if (NEXT > 0) {
            XN[at] = new_xn(t, i);
        }
        if (ADDS || SCALES || POST == 2) {
            X[at] = new_x(t, i);
        }
    }
}
