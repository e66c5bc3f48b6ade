// silu_pair: y = silu(first half of x) * second half, per row.
// grid       one invocation per element of y; workgroups folded over (x, y) beyond 65535
// bindings   x, y
// params     width: of y
// shared     none
// reference  crates/emu-kernels/src/cpu/activation/silu_pair.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;  // [rows, 2 D]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;  // [rows, D]

const D = {{width}}u;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * 64u + local;
    let row = index / D;
    if (row + 1u) * 2u * D > arrayLength(&x) || index >= arrayLength(&y) {
        return;
    }
    let gate = x[row * 2u * D + index % D];
    let up = x[row * 2u * D + D + index % D];
    y[index] = gate / (1.0 + exp(-gate)) * up;
}
