// conv_weight: gradients of a convolution's weights and bias: the gradient of y times patches that are never stored.
// grid       x patch elements by 64 · y output channels by 32 · z parts of the pixels
// bindings   x, grad, at_weight, at_bias
// params     channels, height, width: of x; kernel: K; stride, padding: of the forward pass; out, out_height, out_width: of y;
//            batch; depth: pixels per part; x_batch, x_channel, x_row, x_column, grad_batch, grad_channel, grad_row,
//            grad_column: strides
// shared     6,400 bytes
// reference  crates/emu-kernels/src/cpu/conv/conv_weight.rs     test  crates/emu-kernels/tests/backward_conv.rs
//
// A workgroup computes 32 channels of y by 64 patch elements (channel of x, row, column), over a part of the pixels of all
// images; an invocation eight channels by four patch elements. Sums of several parts are added afterwards.

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;          // [B, C, H, W], any strides
@group(0) @binding({{grad}}) var<storage, read_write> grad: array<f32>;       // [B, O, HEIGHT, WIDTH], any strides
@group(0) @binding({{at_weight}}) var<storage, read_write> at_weight: array<f32>;  // [PARTS, O, C, K, K]
@group(0) @binding({{at_bias}}) var<storage, read_write> at_bias: array<f32>;    // [PARTS, O]

const H = {{height}}u;
const W = {{width}}u;
const K = {{kernel}}u;
const O = {{out}}u;
const WIDTH = {{out_width}}u;
const AREA = {{out_height}}u * WIDTH;
const PIXELS = {{batch}}u * AREA;
// Pixels per part.
const DEPTH = {{depth}}u;
// Elements of a patch.
const PLACES = {{channels}}u * K * K;

const TILE_O = 32u;
const TILE_P = 64u;
// Pixels loaded at a time.
const STEP = 16u;
// Padded by one, so that values loaded together are in different banks.
const PITCH = TILE_O / 4u + 1u;
const ONE_TO_FOUR = vec4<u32>(1u, 2u, 3u, 4u);

var<workgroup> grads: array<vec4<f32>, STEP * PITCH>;             // by pixel and four channels
var<workgroup> patches: array<vec4<f32>, STEP * TILE_P / 4u>;     // by pixel and four patch elements

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = local % 16u;
    let row = local / 16u;
    let first_o = workgroup.y * TILE_O;
    let first = workgroup.z * DEPTH;
    let last = min(first + DEPTH, PIXELS);

    // The four patch elements that this invocation loads and computes.
    let place = workgroup.x * TILE_P + column * 4u + ONE_TO_FOUR - 1u;
    let channel = place / (K * K) * {{x_channel}}u;
    let down = vec4<i32>(place % (K * K) / K) - {{padding}};
    let right = vec4<i32>(place % K) - {{padding}};
    let known = place < vec4<u32>(PLACES);

    // Sums of four channels each, as separate variables, which compilers keep in registers.
    var low = mat4x4<f32>();
    var high = mat4x4<f32>();
    var bias_low = vec4<f32>(0.0);
    var bias_high = vec4<f32>(0.0);
    for (var start = first; start < last; start += STEP) {
        for (var i = local; i < STEP * TILE_O / 4u; i += 64u) {
            let pixel = start + i % STEP;
            let o = first_o + i / STEP * 4u;
            let there = (vec4<u32>(o) + ONE_TO_FOUR <= vec4<u32>(O)) & vec4<bool>(pixel < last);
            let corner = pixel / AREA * {{grad_batch}}u + pixel % AREA / WIDTH * {{grad_row}}u + pixel % WIDTH * {{grad_column}}u;
            let at = select(vec4<u32>(0u), corner + (o + ONE_TO_FOUR - 1u) * {{grad_channel}}u, there);
            let value = vec4<f32>(grad[at.x], grad[at.y], grad[at.z], grad[at.w]);
            grads[i % STEP * PITCH + i / STEP] = select(vec4<f32>(0.0), value, there);
        }
        for (var i = row; i < STEP; i += 4u) {
            let pixel = start + i;
            // Negative values wrap to large ones.
            let v = vec4<u32>(i32(pixel % AREA / WIDTH * {{stride}}u) + down);
            let u = vec4<u32>(i32(pixel % WIDTH * {{stride}}u) + right);
            let there = known & (v < vec4<u32>(H)) & (u < vec4<u32>(W)) & vec4<bool>(pixel < last);
            let corner = pixel / AREA * {{x_batch}}u + channel + v * {{x_row}}u + u * {{x_column}}u;
            let at = select(vec4<u32>(0u), corner, there);
            let value = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
            patches[i * 16u + column] = select(vec4<f32>(0.0), value, there);
        }
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let value = patches[i * 16u + column];
            let a = grads[i * PITCH + row * 2u];
            let b = grads[i * PITCH + row * 2u + 1u];
            low += mat4x4<f32>(a.x * value, a.y * value, a.z * value, a.w * value);
            high += mat4x4<f32>(b.x * value, b.y * value, b.z * value, b.w * value);
        }
        if workgroup.x == 0u {
            for (var i = 0u; i < STEP; i++) {
                bias_low += grads[i * PITCH + row * 2u];
                bias_high += grads[i * PITCH + row * 2u + 1u];
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 8u; i++) {
        let o = first_o + row * 8u + i;
        if o < O {
            var sums = low[i % 4u];
            var bias = bias_low[i % 4u];
            if i > 3u {
                sums = high[i % 4u];
                bias = bias_high[i % 4u];
            }
            for (var j = 0u; j < 4u; j++) {
                if known[j] {
                    at_weight[(workgroup.z * O + o) * PLACES + place[j]] = sums[j];
                }
            }
            if workgroup.x == 0u && column == 0u {
                at_bias[workgroup.z * O + o] = bias;
            }
        }
    }
}
