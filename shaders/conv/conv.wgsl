// conv: y = W * x + b of square kernels, as a product of W with patches that are never stored (implicit GEMM); a
// workgroup makes a tile of TILE_O channels by TILE_P pixels, pixels counted through all images.
// twin  crates/emu-kernels/src/cpu/conv.rs     test  crates/emu-kernels/tests/diffusion_kernels.rs
//
// Fused with it, where asked for: x doubled by repeating pixels (`shrink` 2), channels of a second tensor after those of
// x (`beside`), a number for each image and channel (`shift`), a tensor like y that is added (`residual`), y written with
// its channels last. The gradient at the input is the same with `flipped` weights and x spread by zeros (`spread`).
// The depth (channels times kernel) is divided among SLICES of the invocations, which add their sums up at the end.

@group(0) @binding(0) var<storage, read_write> x: array<f32>;       // [B, FIRST, H, W], at any strides
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;  // [O, C, K, K]; flipped: [C, O, K, K]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // [B, O, HEIGHT, WIDTH]
//@if bias
@group(0) @binding({{bias_at}}) var<storage, read_write> bias: array<f32>;          // [O]
//@end
//@if beside
@group(0) @binding({{beside_at}}) var<storage, read_write> beside: array<f32>;      // [B, C - FIRST, H, W]
//@end
//@if shift
@group(0) @binding({{shift_at}}) var<storage, read_write> shift: array<f32>;        // [B or 1, O]
//@end
//@if residual
@group(0) @binding({{residual_at}}) var<storage, read_write> residual: array<f32>;  // as y, channels first
//@end

const C = {{channels}}u;
const FIRST = {{first}}u;
// Of x as the kernel sees it: doubled or spread.
const H = {{height}}u;
const W = {{width}}u;
const SHRINK = {{shrink}}u;
const K = {{kernel}}u;
const STRIDE = {{stride}}u;
const PADDING = {{padding}};
const O = {{out}}u;
const HEIGHT = {{out_height}}u;
const WIDTH = {{out_width}}u;
const AREA = HEIGHT * WIDTH;
const PIXELS = {{batch}}u * AREA;

const TILE_O = {{tile_o}}u;
const TILE_P = {{tile_p}}u;
// Channels of a tile, all at one place of the kernel.
const STEP = {{step}}u;
// Tiles of the depth.
const COUNT = (C + STEP - 1u) / STEP * K * K;
const SLICES = {{slices}}u;
// Channels that an invocation makes, each of so many times four pixels.
const PER = {{per}}u;
const QUADS = {{quads}}u;
const COLUMNS = TILE_P / (4u * QUADS);
const ROWS = TILE_O / PER;
const TEAM = COLUMNS * ROWS;
// One more than a row, so that what is loaded together lies in different banks.
const PITCH = TILE_O / 4u + 1u;
const TILE = STEP * (PITCH + TILE_P / 4u);

// For each slice: weights by depth and four channels, then patches by depth and four pixels. At the end, sums.
var<workgroup> tiles: array<vec4<f32>, {{shared}}>;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let slice = local / TEAM;
    let member = local % TEAM;
    let column = member % COLUMNS;
    let row = member / COLUMNS;
    let first_o = workgroup.z * TILE_O;
    let weights = slice * TILE;
    let patches = weights + STEP * PITCH;

    // The pixels of this invocation, those it loads and those it makes, and the corners of their patches.
    var p: array<vec4<u32>, QUADS>;
    var top: array<vec4<i32>, QUADS>;
    var left: array<vec4<i32>, QUADS>;
    for (var q = 0u; q < QUADS; q++) {
        let first_p = (workgroup.x + workgroup.y * workgroups.x) * TILE_P + (q * COLUMNS + column) * 4u;
        p[q] = vec4<u32>(first_p) + vec4<u32>(0u, 1u, 2u, 3u);
        top[q] = vec4<i32>(p[q] % AREA / WIDTH * STRIDE) - PADDING;
        left[q] = vec4<i32>(p[q] % WIDTH * STRIDE) - PADDING;
    }
    var sums: array<vec4<f32>, PER * QUADS>;
    for (var i = 0u; i < PER * QUADS; i++) {
        sums[i] = vec4<f32>(0.0);
    }
    for (var start = 0u; start < COUNT; start += SLICES) {
        // STEP channels at one place of the kernel; those of a slice that is done lie beyond C.
        let tap = (start + slice) % (K * K);
        let first_c = (start + slice) / (K * K) * STEP;
        for (var i = member; i < STEP * TILE_O / 4u; i += TEAM) {
            let c = first_c + i % STEP;
            let o = first_o + i / STEP * 4u;
            var value = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) {
                if c < C && o + j < O {
                    //@if flipped
                    value[j] = weight[(c * O + o + j) * K * K + K * K - 1u - tap];
                    //@end
                    //@if straight
                    value[j] = weight[((o + j) * C + c) * K * K + tap];
                    //@end
                }
            }
            tiles[weights + i % STEP * PITCH + i / STEP] = value;
        }
        for (var q = 0u; q < QUADS; q++) {
            let v = vec4<u32>(top[q] + i32(tap / K));
            let u = vec4<u32>(left[q] + i32(tap % K));
            // What is negative is large here.
            var inside = (p[q] < vec4<u32>(PIXELS)) & (v < vec4<u32>(H)) & (u < vec4<u32>(W));
            //@if spread
            inside = inside & (v % SHRINK == vec4<u32>(0u)) & (u % SHRINK == vec4<u32>(0u));
            //@end
            let batch = p[q] / AREA;
            let corner = batch * {{x_batch}}u + v / SHRINK * {{x_row}}u + u / SHRINK * {{x_column}}u;
            for (var i = row; i < STEP; i += ROWS) {
                let c = first_c + i;
                let there = inside & vec4<bool>(c < C);
                var value = vec4<f32>(0.0);
                //@if beside
                if c >= FIRST {
                    let at = select(vec4<u32>(0u), ((batch * (C - FIRST) + c - FIRST) * H + v) * W + u, there);
                    value = vec4<f32>(beside[at.x], beside[at.y], beside[at.z], beside[at.w]);
                } else {
                //@end
                    let at = select(vec4<u32>(0u), corner + c * {{x_channel}}u, there);
                    value = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
                //@if beside
                }
                //@end
                tiles[patches + (i * QUADS + q) * COLUMNS + column] = select(vec4<f32>(0.0), value, there);
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            for (var q = 0u; q < QUADS; q++) {
                let value = tiles[patches + (i * QUADS + q) * COLUMNS + column];
                for (var j = 0u; j < PER / 4u; j++) {
                    let w = tiles[weights + i * PITCH + row * (PER / 4u) + j];
                    let at = q * PER + j * 4u;
                    sums[at] += w.x * value;
                    sums[at + 1u] += w.y * value;
                    sums[at + 2u] += w.z * value;
                    sums[at + 3u] += w.w * value;
                }
            }
        }
        workgroupBarrier();
    }
    // The other slices hand theirs to the first, one after the other.
    for (var other = 1u; other < SLICES; other++) {
        if slice == other {
            for (var i = 0u; i < PER * QUADS; i++) {
                tiles[member * PER * QUADS + i] = sums[i];
            }
        }
        workgroupBarrier();
        if slice == 0u {
            for (var i = 0u; i < PER * QUADS; i++) {
                sums[i] += tiles[member * PER * QUADS + i];
            }
        }
        workgroupBarrier();
    }
    if slice > 0u {
        return;
    }
    for (var i = 0u; i < PER * QUADS; i++) {
        let o = first_o + row * PER + i % PER;
        for (var j = 0u; j < 4u; j++) {
            let pixel = p[i / PER][j];
            if o < O && pixel < PIXELS {
                let at = (pixel / AREA * O + o) * AREA + pixel % AREA;
                var sum = sums[i][j];
                //@if bias
                sum += bias[o];
                //@end
                //@if shift
                sum += shift[pixel / AREA * {{shift_batch}}u + o];
                //@end
                //@if residual
                sum += residual[at];
                //@end
                //@if channels_first
                y[at] = sum;
                //@end
                //@if channels_last
                y[pixel * O + o] = sum;
                //@end
            }
        }
    }
}
