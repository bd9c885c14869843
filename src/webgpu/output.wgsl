// output.wgsl: what matvec.wgsl and matrows_subgroups.wgsl leave of a row of a matrix times a row of x.
// Out: OUT[t, out_at + first + r]; with GATE 2 act(y); with CAPS soft-capped; with ACCUMULATES added
//      to what is there.

fn store(r: u32, t: u32, value: f32) {
    let at = t * p.out_stride + p.out_at + p.m.first + r;
    var y = value;
    if (GATE == 2) {
        y = activate(y);
    }
    y *= p.scale;
    if (CAPS) {
        y = soft_cap(y, p.cap);
    }
    if (ACCUMULATES) {
        y += OUT[at];
    }
    OUT[at] = y;
}
