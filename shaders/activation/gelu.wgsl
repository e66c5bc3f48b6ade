// gelu: y = x Φ(x), Φ the normal distribution function; with `gated`, y = first half of a row * gelu(second half).
// grid       one invocation per element of y; workgroups folded over (x, y) beyond 65535
// bindings   x, y
// params     rows, width: of y; gated
// shared     none
// reference  crates/emu-kernels/src/cpu/activation/gelu.rs     test  crates/emu-kernels/tests/diffusion_kernels.rs
//
// The tail uses Abramowitz and Stegun's rational approximation 7.1.26 of the error function, absolute error 1.5e-7.

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;  // [rows, D], gated: [rows, 2 D]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;  // [rows, D]

const ROWS = {{rows}}u;
const D = {{width}}u;
const INVOCATIONS = 64u;

fn gelu(v: f32) -> f32 {
    let z = abs(v) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    // x * P(-|x|); subtracted from x if x is positive, so that nothing cancels if x is negative.
    let tail = 0.5 * series * exp(-z * z) * v;
    return select(v - tail, tail, v < 0.0);
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * INVOCATIONS + local;
    if index >= ROWS * D {
        return;
    }
    var at = index;
    var factor = 1.0;
    //@if gated
    at = index + (index / D + 1u) * D;
    factor = x[at - D];
    //@end
    y[index] = factor * gelu(x[at]);
}
