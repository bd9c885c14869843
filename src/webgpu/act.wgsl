// act.wgsl: the activation functions, and tanh; before shaders that need them.
// In:  ACT, an enum activation (model/matrix.h).

// Exact to a few ulp of 1, without an overflow.
fn safe_tanh(x: f32) -> f32 {
    let e = exp(-2.0 * abs(x));
    return sign(x) * (1.0 - e) / (1.0 + e);
}

fn soft_cap(x: f32, cap: f32) -> f32 {
    return cap * safe_tanh(x / cap);
}

// Abramowitz and Stegun 1964, formula 7.1.26: absolute error below 1.5e-7
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let series =
        t * (0.254829592 +
             t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - series * exp(-x * x));
}

fn activate(x: f32) -> f32 {
    if (ACT == 0) { // Hendrycks and Gimpel 2016, tanh form
        return 0.5 * x * (1.0 + safe_tanh(0.797884561 * (x + 0.044715 * x * x * x)));
    }
    if (ACT == 1) {
        return 0.5 * x * (1.0 + erf(x * 0.707106781));
    }
    if (ACT == 2) {
        return x / (1.0 + exp(-x));
    }
    return max(x, 0.0);
}
