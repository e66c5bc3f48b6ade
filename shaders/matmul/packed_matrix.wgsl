// packed_matrix: y = x Wᵀ + b + r for many rows of x; tiles of 32 x 32, a block of W unpacked into workgroup memory at a time.
// twin  crates/emu-kernels/src/cpu/packed.rs     test  crates/emu-kernels/src/packed/tests.rs

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;      // [rows, BLOCKS * 32]
@group(0) @binding(1) var<storage, read_write> words: array<u32>;        // [OUT, BLOCKS * BITS]
@group(0) @binding(2) var<storage, read_write> scales: array<u32>;       // [OUT * BLOCKS], pairs of f16
@group(0) @binding(3) var<storage, read_write> y: array<f32>;            // [rows, OUT]
//@if mins
@group(0) @binding({{mins_at}}) var<storage, read_write> mins: array<u32>;  // as scales
//@end
//@if bias
@group(0) @binding({{bias_at}}) var<storage, read_write> bias: array<f32>;  // [OUT]
//@end
//@if residual
@group(0) @binding({{residual_at}}) var<storage, read_write> residual: array<f32>;  // as y
//@end

const BLOCKS = {{blocks}}u;
const OUT = {{out}}u;
const TILE = 32u;
// One more than a tile, so that a column lies in different banks.
const PITCH = 33u;
const SHIFT = -{{flip}}.0;

var<workgroup> xs: array<f32, TILE * PITCH>;  // [k][row of x]
var<workgroup> ws: array<f32, TILE * PITCH>;  // [k][row of W]

fn half_at(pair: u32, index: u32) -> f32 {
    let both = unpack2x16float(pair);
    return select(both.x, both.y, (index & 1u) == 1u);
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // Buffers may be longer than their tensors; both bounds keep every access inside.
    let rows = min(arrayLength(&x) / (BLOCKS * 8u), arrayLength(&y) / OUT);
    let first_out = workgroup.x * TILE;
    let first_row = workgroup.y * TILE;
    let column = local % 8u;
    let line = local / 8u;

    var sums: array<vec4<f32>, 4>;
    for (var i = 0u; i < 4u; i++) {
        sums[i] = vec4<f32>(0.0);
    }
    for (var block = 0u; block < BLOCKS; block++) {
        // Four values of x for each of four rows.
        for (var i = 0u; i < 4u; i++) {
            let r = line + i * 8u;
            var value = vec4<f32>(0.0);
            if first_row + r < rows {
                value = x[((first_row + r) * BLOCKS + block) * 8u + column];
            }
            let k = column * 4u;
            xs[k * PITCH + r] = value.x;
            xs[(k + 1u) * PITCH + r] = value.y;
            xs[(k + 2u) * PITCH + r] = value.z;
            xs[(k + 3u) * PITCH + r] = value.w;
        }
        // Half a block of one row of W.
        let o = local / 2u;
        let part = local % 2u;
        let at = (first_out + o) * BLOCKS + block;
        var scale = 0.0;
        var offset = 0.0;
        let inside = first_out + o < OUT;
        if inside {
            scale = half_at(scales[at >> 1u], at);
            offset = SHIFT * scale;
            //@if mins
            offset = half_at(mins[at >> 1u], at);
            //@end
        }
        for (var i = 0u; i < 16u; i++) {
            let k = part * 16u + i;
            var value = 0.0;
            if inside {
                //@if nibbles
                let word = words[at * 4u + (k >> 3u)];
                value = f32(((word >> ((k & 7u) * 4u)) & 15u) ^ {{flip}}u) * scale + offset;
                //@end
                //@if bytes
                let word = words[at * 8u + (k >> 2u)];
                value = f32(bitcast<i32>(word << (24u - (k & 3u) * 8u)) >> 24u) * scale;
                //@end
            }
            ws[k * PITCH + o] = value;
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE; k++) {
            let at_x = k * PITCH + line * 4u;
            let at_w = k * PITCH + column * 4u;
            let w = vec4<f32>(ws[at_w], ws[at_w + 1u], ws[at_w + 2u], ws[at_w + 3u]);
            sums[0] += xs[at_x] * w;
            sums[1] += xs[at_x + 1u] * w;
            sums[2] += xs[at_x + 2u] * w;
            sums[3] += xs[at_x + 3u] * w;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let r = first_row + line * 4u + i;
        for (var j = 0u; j < 4u; j++) {
            let o = first_out + column * 4u + j;
            if r < rows && o < OUT {
                var sum = sums[i][j];
                //@if bias
                sum += bias[o];
                //@end
                //@if residual
                sum += residual[r * OUT + o];
                //@end
                y[r * OUT + o] = sum;
            }
        }
    }
}
