// group_norm_backward: gradients of group norm. With n = (x - mean) / std and g the gradient of n, that of the input is
// (g - mean(g) - n * mean(g * n)) / std; with `affine`, those of weight and bias are Σ grad * n and Σ grad.
// grid       one workgroup per image and group; with `affine` per group; folded over (x, y) beyond 65535
// bindings   x, grad, y, weight without `affine` or with `silu`, bias with `silu`
// params     batch, channels, area: height * width; groups; eps: literal; silu: SiLU follows; affine; weight, bias: bound
// shared     8 bytes per invocation
// reference  crates/emu-kernels/src/cpu/norm/group_norm_backward.rs     test  crates/emu-kernels/tests/diffusion_kernels.rs

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;       // [B, C, AREA]
@group(0) @binding({{grad}}) var<storage, read_write> grad: array<f32>;    // [B, C, AREA]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [B, C, AREA]; affine: [2, C]
//@if weight
@group(0) @binding({{weight}}) var<storage, read_write> weight: array<f32>;  // [C]
//@end
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;    // [C]
//@end

const B = {{batch}}u;
const C = {{channels}}u;
const AREA = {{area}}u;
const G = {{groups}}u;
const SIZE = C / G * AREA;
const INVOCATIONS = {{invocations}}u;
const EPS = {{eps}};

var<workgroup> partial: array<vec2<f32>, INVOCATIONS>;

// Sums over all invocations, returned to every invocation.
fn total(local: u32, sums: vec2<f32>) -> vec2<f32> {
    partial[local] = sums;
    workgroupBarrier();
    for (var step = INVOCATIONS / 2u; step > 0u; step /= 2u) {
        if local < step {
            partial[local] += partial[local + step];
        }
        workgroupBarrier();
    }
    let all = partial[0];
    workgroupBarrier();
    return all;
}

// Mean and 1 / std of the group that starts at an element; meaningless if `size` is 0.
fn moments(local: u32, start: u32, size: u32) -> vec2<f32> {
    var sum = 0.0;
    for (var i = local; i < size; i += INVOCATIONS) {
        sum += x[start + i];
    }
    let mean = total(local, vec2<f32>(sum, 0.0)).x / f32(SIZE);
    var squares = 0.0;
    for (var i = local; i < size; i += INVOCATIONS) {
        let off = x[start + i] - mean;
        squares += off * off;
    }
    let variance = total(local, vec2<f32>(squares, 0.0)).x / f32(SIZE);
    return vec2<f32>(mean, inverseSqrt(variance + EPS));
}

// Gradient of n * weight + bias, from that of the output.
fn before_silu(at: u32, n: f32, c: u32) -> f32 {
    //@if silu
    let z = n * weight[c] + bias[c];
    let s = 1.0 / (1.0 + exp(-z));
    return grad[at] * s * (1.0 + z * (1.0 - s));
    //@else
    return grad[at];
    //@end
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    //@if !affine
    // The last workgroups of a folded grid may be out of range: their size is 0.
    let size = select(0u, SIZE, index < B * G);
    let channel = index % G * (C / G);
    let start = index * SIZE;
    let m = moments(local, start, size);
    var sums = vec2<f32>(0.0);
    for (var i = local; i < size; i += INVOCATIONS) {
        let c = channel + i / AREA;
        let n = (x[start + i] - m.x) * m.y;
        let g = before_silu(start + i, n, c) * weight[c];
        sums += vec2<f32>(g, g * n);
    }
    let means = total(local, sums) / f32(SIZE);
    for (var i = local; i < size; i += INVOCATIONS) {
        let c = channel + i / AREA;
        let n = (x[start + i] - m.x) * m.y;
        let g = before_silu(start + i, n, c) * weight[c];
        y[start + i] = (g - means.x - n * means.y) * m.y;
    }
    //@else
    // One workgroup per group loops over the images: gradients of weight, then of bias, for its channels.
    if local == 0u && index < G {
        for (var c = index * (C / G); c < (index + 1u) * (C / G); c++) {
            y[c] = 0.0;
            y[C + c] = 0.0;
        }
    }
    for (var batch = 0u; batch < B; batch++) {
        let size = select(0u, SIZE, index < G);
        let start = (batch * G + index) * SIZE;
        let m = moments(local, start, size);
        for (var first = 0u; first < C / G; first++) {
            let c = index * (C / G) + first;
            var sums = vec2<f32>(0.0);
            for (var i = local; i < min(size, AREA); i += INVOCATIONS) {
                let at = start + first * AREA + i;
                let n = (x[at] - m.x) * m.y;
                let g = before_silu(at, n, c);
                sums += vec2<f32>(g * n, g);
            }
            let all = total(local, sums);
            if local == 0u && index < G {
                y[c] += all.x;
                y[C + c] += all.y;
            }
        }
    }
    //@end
}
