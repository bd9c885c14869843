// output.wgsl: what matvec.wgsl and matrows_subgroups.wgsl make of a row of a matrix times a row of x.
// In:  OUT, with ACCUMULATES.
// Out: a number for OUT[at]: with GATE 2 act(y); with CAPS soft-capped; with ACCUMULATES added to what
//      is there.

fn place_of(r: u32, t: u32) -> u32 {
    return t * p.out_stride + p.out_at + p.m.first + r;
}

fn output_of(at: u32, value: f32) -> f32 {
    var y = value;
    if (GATE == 2) {
        y = activate(y);
    }
    y *= p.scale;
    if (CAPS) {
        y = soft_cap(y, p.cap);
    }
    if (ACCUMULATES) {
        y += bitcast<f32>(OUT[at]);
    }
    return y;
}
