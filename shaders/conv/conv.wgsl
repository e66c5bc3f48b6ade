// conv: y = W * x + b with square kernels, as implicit gemm: a product of W with patches that are never stored.
// grid       (x, y) pixels of all images by TILE_P, folded beyond 65535 · z output channels by TILE_O
// bindings   x, weight, y, bias, skip, shift, residual, each of these four only if used, sizes {see Sizes}
// params     kernel: K; stride; shrink: upsampling of x, or with `flipped` its dilation; tile_o, tile_p: tile of a workgroup;
//            per: output channels per invocation, `eight` or four; slices: groups that split the depth; step: channels loaded
//            at a time; shared: vectors of workgroup memory; flipped: input gradient; spread: its x is dilated with zeros;
//            channels_last: NHWC output; bias, skip, shift, residual: what is fused
// shared     16 bytes times `shared`, at most 12,800
// reference  crates/emu-kernels/src/cpu/conv/conv.rs     test  crates/emu-kernels/tests/diffusion_kernels.rs
//
// Optionally fused: nearest-neighbour upsampling of x (`shrink` 2), channels of a second tensor after those of x (`skip`), a
// number per image and channel (`shift`), an added tensor shaped like y (`residual`), NHWC output (`channels_last`). The input
// gradient is the same with `flipped` weights and x dilated with zeros (`spread`).
// The depth (channels times kernel) is split among SLICES groups of invocations, whose sums are added at the end.

@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;       // [B, FIRST, H, W], any strides
@group(0) @binding({{weight}}) var<storage, read_write> weight: array<f32>;  // [O, C, K, K]; flipped: [C, O, K, K]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [B, O, HEIGHT, WIDTH]
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;          // [O]
//@end
//@if skip
@group(0) @binding({{skip}}) var<storage, read_write> skip: array<f32>;      // [B, C - FIRST, H, W]
//@end
//@if shift
@group(0) @binding({{shift}}) var<storage, read_write> shift: array<f32>;        // [B or 1, O]
//@end
//@if residual
@group(0) @binding({{residual}}) var<storage, read_write> residual: array<f32>;  // as y, NCHW
//@end

// Sizes that differ between layers are in a buffer, so that layers of one kind share a pipeline.
struct Sizes {
    channels: u32,     // C: channels of x and `skip`
    first: u32,        // channels of x
    height: u32,       // of x as seen by the kernel: upsampled or dilated
    width: u32,
    padding: i32,
    out: u32,          // O
    out_height: u32,
    out_width: u32,
    batch: u32,
    x_batch: u32,      // strides of x
    x_channel: u32,
    x_row: u32,
    x_column: u32,
    shift_batch: u32,  // stride of `shift`, 0 if shared by all images
}
@group(0) @binding({{uniform}}) var<uniform> sizes: Sizes;

const SHRINK = {{shrink}}u;
const K = {{kernel}}u;
const STRIDE = {{stride}}u;

const ONE_TO_FOUR = vec4<u32>(1u, 2u, 3u, 4u);

const TILE_O = {{tile_o}}u;
const TILE_P = {{tile_p}}u;
// Channels per depth tile, all at one tap of the kernel.
const STEP = {{step}}u;
const SLICES = {{slices}}u;
// Output channels per invocation, four or eight, each for four pixels.
const PER = {{per}}u;
const COLUMNS = TILE_P / 4u;
const ROWS = TILE_O / PER;
const TEAM = COLUMNS * ROWS;
// Padded by one, so that values loaded together are in different banks.
const PITCH = TILE_O / 4u + 1u;
const TILE = STEP * (PITCH + TILE_P / 4u);

// Per slice: weights by depth and four channels, then patches by depth and four pixels. At the end, sums.
var<workgroup> tiles: array<vec4<f32>, {{shared}}>;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let depth = sizes.channels;
    let out = sizes.out;
    let area = sizes.out_height * sizes.out_width;
    let pixels = sizes.batch * area;
    // Number of depth tiles.
    let count = (depth + STEP - 1u) / STEP * K * K;
    let slice = local / TEAM;
    let member = local % TEAM;
    let column = member % COLUMNS;
    let row = member / COLUMNS;
    let first_o = workgroup.z * TILE_O;
    let weights = slice * TILE;
    let patches = weights + STEP * PITCH;

    // The four pixels that this invocation loads and computes, and the corners of their patches.
    let p = vec4<u32>((workgroup.x + workgroup.y * workgroups.x) * TILE_P + column * 4u) + ONE_TO_FOUR - 1u;
    let batch = p / area;
    let top = vec4<i32>(p % area / sizes.out_width * STRIDE) - sizes.padding;
    let left = vec4<i32>(p % sizes.out_width * STRIDE) - sizes.padding;

    // Sums of four channels each, as separate variables, which compilers keep in registers.
    var low = mat4x4<f32>();
    //@if eight
    var high = mat4x4<f32>();
    //@end
    for (var start = 0u; start < count; start += SLICES) {
        // STEP channels at one tap of the kernel; slices that are done load out-of-range channels, which are zeros.
        let tap = (start + slice) % (K * K);
        let first_c = (start + slice) / (K * K) * STEP;
        for (var i = member; i < STEP * TILE_O / 4u; i += TEAM) {
            let c = first_c + i % STEP;
            let o = first_o + i / STEP * 4u;
            let there = (vec4<u32>(o) + ONE_TO_FOUR <= vec4<u32>(out)) & vec4<bool>(c < depth);
            //@if flipped
            let first = (c * out + o) * K * K + K * K - 1u - tap;
            let at = select(vec4<u32>(0u), first + (ONE_TO_FOUR - 1u) * K * K, there);
            //@else
            let first = (o * depth + c) * K * K + tap;
            let at = select(vec4<u32>(0u), first + (ONE_TO_FOUR - 1u) * depth * K * K, there);
            //@end
            let value = vec4<f32>(weight[at.x], weight[at.y], weight[at.z], weight[at.w]);
            tiles[weights + i % STEP * PITCH + i / STEP] = select(vec4<f32>(0.0), value, there);
        }
        let v = vec4<u32>(top + i32(tap / K));
        let u = vec4<u32>(left + i32(tap % K));
        // Negative values wrap to large ones.
        var inside = (p < vec4<u32>(pixels)) & (v < vec4<u32>(sizes.height)) & (u < vec4<u32>(sizes.width));
        //@if spread
        inside = inside & (v % SHRINK == vec4<u32>(0u)) & (u % SHRINK == vec4<u32>(0u));
        //@end
        let corner = batch * sizes.x_batch + v / SHRINK * sizes.x_row + u / SHRINK * sizes.x_column;
        for (var i = row; i < STEP; i += ROWS) {
            let c = first_c + i;
            let there = inside & vec4<bool>(c < depth);
            var value = vec4<f32>(0.0);
            //@if skip
            if c >= sizes.first {
                let at = select(vec4<u32>(0u), ((batch * (depth - sizes.first) + c - sizes.first) * sizes.height + v) * sizes.width + u, there);
                value = vec4<f32>(skip[at.x], skip[at.y], skip[at.z], skip[at.w]);
            } else {
            //@end
                let at = select(vec4<u32>(0u), corner + c * sizes.x_channel, there);
                value = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
            //@if skip
            }
            //@end
            tiles[patches + i * COLUMNS + column] = select(vec4<f32>(0.0), value, there);
        }
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let value = tiles[patches + i * COLUMNS + column];
            let w = tiles[weights + i * PITCH + row * (PER / 4u)];
            low += mat4x4<f32>(w.x * value, w.y * value, w.z * value, w.w * value);
            //@if eight
            let w2 = tiles[weights + i * PITCH + row * 2u + 1u];
            high += mat4x4<f32>(w2.x * value, w2.y * value, w2.z * value, w2.w * value);
            //@end
        }
        workgroupBarrier();
    }
    var sums: array<vec4<f32>, PER>;
    for (var i = 0u; i < 4u; i++) {
        sums[i] = low[i];
        //@if eight
        sums[i + 4u] = high[i];
        //@end
    }
    // The other slices add their sums to those of the first, one after the other.
    for (var other = 1u; other < SLICES; other++) {
        if slice == other {
            for (var i = 0u; i < PER; i++) {
                tiles[member * PER + i] = sums[i];
            }
        }
        workgroupBarrier();
        if slice == 0u {
            for (var i = 0u; i < PER; i++) {
                sums[i] += tiles[member * PER + i];
            }
        }
        workgroupBarrier();
    }
    if slice > 0u {
        return;
    }
    for (var i = 0u; i < PER; i++) {
        let o = first_o + row * PER + i;
        for (var j = 0u; j < 4u; j++) {
            if o < out && p[j] < pixels {
                let at = (batch[j] * out + o) * area + p[j] % area;
                var sum = sums[i][j];
                //@if bias
                sum += bias[o];
                //@end
                //@if shift
                sum += shift[batch[j] * sizes.shift_batch + o];
                //@end
                //@if residual
                sum += residual[at];
                //@end
                //@if channels_last
                y[p[j] * out + o] = sum;
                //@else
                y[at] = sum;
                //@end
            }
        }
    }
}
