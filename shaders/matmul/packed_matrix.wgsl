// packed_matrix: y = x Wᵀ + b + r for many rows of x; 16 columns at a time, turned into workgroup memory.
// With `pair`, W is two matrices above each other, and y = silu(x Gᵀ) * x Uᵀ.
// twin  crates/emu-kernels/src/cpu/packed.rs     test  crates/emu-kernels/src/packed/tests.rs
//
// A workgroup makes 32 or 64 rows of y by 64 columns (32 of each matrix of a pair). Its invocations lie in a square of
// 8 x 8: one has every eighth vector of four rows by every eighth vector of four columns.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;      // [rows, blocks * 32]
@group(0) @binding(1) var<storage, read_write> words: array<u32>;        // [out, blocks * bits]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;            // [rows, out]
//@if scales
@group(0) @binding({{scales_at}}) var<storage, read_write> scales: array<u32>;  // [out * blocks], pairs of f16
//@end
//@if mins
@group(0) @binding({{mins_at}}) var<storage, read_write> mins: array<u32>;  // as scales
//@end
//@if bias
@group(0) @binding({{bias_at}}) var<storage, read_write> bias: array<f32>;  // [out]
//@end
//@if residual
@group(0) @binding({{residual_at}}) var<storage, read_write> residual: array<f32>;  // as y
//@end
@group(0) @binding({{info_at}}) var<uniform> info: Info;

// In a buffer, so that layers of one kind share a pipeline.
struct Info {
    rows: u32,
    blocks: u32,
    out: u32,   // rows of W, of each of a pair
}

const MATRICES = {{matrices}}u;
const WIDE = {{wide}}u;    // columns of y in a workgroup
const TALL = {{tall}}u;    // vectors of rows in a workgroup: 8 or 16
//@if scales
const SHIFT = -{{flip}}.0;
//@end

var<workgroup> xs: array<vec4<f32>, 16u * TALL>;  // [column][four rows of x]
var<workgroup> ws: array<vec4<f32>, 256>;         // [column][four rows of W]

//@if scales
fn half_at(pair: u32, index: u32) -> f32 {
    let both = unpack2x16float(pair);
    return select(both.x, both.y, (index & 1u) == 1u);
}
//@end

//@if nibbles
// Four values from the low half of a word.
fn four(word: u32) -> vec4<f32> {
    let nibbles = (vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return vec4<f32>(nibbles ^ vec4<u32>({{flip}}u));
}
//@end
//@if bytes
fn four(word: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
//@end
//@if halves
fn four(low: u32, high: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(low), unpack2x16float(high));
}
//@end

// Four values of a row of W: an eighth of a block.
fn weights(row: u32, block: u32, eighth: u32) -> vec4<f32> {
    let at = row * info.blocks + block;
    //@if scales
    let scale = half_at(scales[at >> 1u], at);
    var offset = SHIFT * scale;
    //@end
    //@if mins
    offset = half_at(mins[at >> 1u], at);
    //@end
    //@if nibbles
    return four(words[at * 4u + eighth / 2u] >> (eighth % 2u * 16u)) * scale + offset;
    //@end
    //@if bytes
    return four(words[at * 8u + eighth]) * scale;
    //@end
    //@if halves
    let word = at * 16u + eighth * 2u;
    return four(words[word], words[word + 1u]);
    //@end
}

// Of the rows of W in a workgroup, the `i`th; beyond the matrix where there is none.
fn row_of(i: u32, first: u32) -> u32 {
    //@if pair
    let row = first + i % 32u;
    return select(2u * info.out, row + i / 32u * info.out, row < info.out);
    //@end
    //@if single
    return first + i;
    //@end
}

//@if pair
fn gated(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
    return gate / (1.0 + exp(-gate)) * up;
}
//@end

fn store(row: u32, first: u32, values: vec4<f32>) {
    if row >= info.rows {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        if first + i < info.out {
            let at = row * info.out + first + i;
            var value = values[i];
            //@if bias
            value += bias[first + i];
            //@end
            //@if residual
            value += residual[at];
            //@end
            y[at] = value;
        }
    }
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first_out = workgroup.x * WIDE;
    let first_row = workgroup.y * TALL * 4u;
    let column = local % 8u;
    let line = local / 8u;

    var sums: array<vec4<f32>, TALL / 2u>;
    var more: array<vec4<f32>, TALL / 2u>;
    for (var i = 0u; i < TALL / 2u; i++) {
        sums[i] = vec4<f32>(0.0);
        more[i] = vec4<f32>(0.0);
    }
    for (var stage = 0u; stage < info.blocks * 2u; stage++) {
        workgroupBarrier();
        // 1. four by four of x
        for (var i = local; i < TALL * 4u; i += 64u) {
            let row = first_row + i % TALL * 4u;
            let vector = stage * 4u + i / TALL;
            var part = mat4x4<f32>();
            for (var j = 0u; j < 4u; j++) {
                if row + j < info.rows {
                    part[j] = x[(row + j) * info.blocks * 8u + vector];
                }
            }
            let turned = transpose(part);
            let to = i / TALL * 4u * TALL + i % TALL;
            for (var j = 0u; j < 4u; j++) {
                xs[to + j * TALL] = turned[j];
            }
        }
        // 2. four by four of W
        let quarter = local / 16u;
        var part = mat4x4<f32>();
        for (var j = 0u; j < 4u; j++) {
            let row = row_of(local % 16u * 4u + j, first_out);
            if row < MATRICES * info.out {
                part[j] = weights(row, stage / 2u, stage % 2u * 4u + quarter);
            }
        }
        let turned = transpose(part);
        for (var j = 0u; j < 4u; j++) {
            ws[quarter * 64u + j * 16u + local % 16u] = turned[j];
        }
        workgroupBarrier();
        // 3. products
        for (var k = 0u; k < 16u; k++) {
            let w = ws[k * 16u + column];
            let v = ws[k * 16u + 8u + column];
            let a = xs[k * TALL + line];
            sums[0] += a.x * w;
            sums[1] += a.y * w;
            sums[2] += a.z * w;
            sums[3] += a.w * w;
            more[0] += a.x * v;
            more[1] += a.y * v;
            more[2] += a.z * v;
            more[3] += a.w * v;
            //@if taller
            let b = xs[k * TALL + 8u + line];
            sums[4] += b.x * w;
            sums[5] += b.y * w;
            sums[6] += b.z * w;
            sums[7] += b.w * w;
            more[4] += b.x * v;
            more[5] += b.y * v;
            more[6] += b.z * v;
            more[7] += b.w * v;
            //@end
        }
    }
    for (var i = 0u; i < TALL / 2u; i++) {
        let row = first_row + i / 4u * 32u + line * 4u + i % 4u;
        let out = first_out + column * 4u;
        //@if pair
        store(row, out, gated(sums[i], more[i]));
        //@end
        //@if single
        store(row, out, sums[i]);
        store(row, out + 32u, more[i]);
        //@end
    }
}
