// packed_matrix: gemm, y = x Wᵀ + b + r for many rows of x; 16 columns of x and W at a time, transposed into workgroup memory.
// With `pair`, W is two stacked matrices G and U, and y = silu(x Gᵀ) * x Uᵀ.
// grid       x columns of y by `wide` · y rows of y by 4 `tall`, or by `lines` in `software`
// bindings   x, words, y, scales, mins: if the scheme has them, bias, residual: if used, info {rows, blocks, out}
// params     bits of the scheme as nibbles, bytes or halves; flip: sign bit of signed 4-bit values; pair, matrices: 2 if so;
//            wide: columns of y per workgroup; software; quads: the invocations of a quad share loads; tall: vectors of rows
//            on hardware, 8 or 16 (`taller`); lines: rows per invocation in software; scales, mins, bias, residual
// shared     6 KiB, 8 with `taller`; none in `software`
// reference  crates/emu-kernels/src/cpu/matmul/packed_matrix.rs     test  crates/emu-kernels/src/packed/tests.rs
//
// On hardware a workgroup computes 32 or 64 rows of y by 64 columns (32 of each matrix of a pair). Its invocations form an
// 8 x 8 grid: each has every eighth vector of four rows by every eighth vector of four columns.
//
// In `software` memory is as fast as registers, and a load or a barrier costs as much as dozens of products: each of eight
// invocations computes up to 16 rows by four columns (two of each of a pair) over all blocks, and nothing is shared; in
// `quads` the four invocations of a quad load one vector of x each and broadcast it.

@group(0) @binding({{x}}) var<storage, read_write> x: array<vec4<f32>>;      // [rows, blocks * 32]
@group(0) @binding({{words}}) var<storage, read_write> words: array<u32>;        // [out, blocks * bits]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;            // [rows, out]
//@if scales
@group(0) @binding({{scales}}) var<storage, read_write> scales: array<u32>;  // [out * blocks], pairs of f16
//@end
//@if mins
@group(0) @binding({{mins}}) var<storage, read_write> mins: array<u32>;  // as scales
//@end
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;  // [out]
//@end
//@if residual
@group(0) @binding({{residual}}) var<storage, read_write> residual: array<f32>;  // as y
//@end
@group(0) @binding({{uniform}}) var<uniform> info: Info;

// Sizes are in a buffer, so that layers of one kind share a pipeline.
struct Info {
    rows: u32,
    blocks: u32,
    out: u32,   // rows of W, or of each matrix of a pair
}

const MATRICES = {{matrices}}u;
const WIDE = {{wide}}u;    // columns of y per workgroup
//@if scales
const SHIFT = -{{flip}}.0;
//@end

//@if !software
const TALL = {{tall}}u;    // vectors of rows per workgroup: 8 or 16
const COLUMNS = 4u;        // consecutive columns of y per invocation
var<workgroup> xs: array<vec4<f32>, 16u * TALL>;  // [column][four rows of x]
var<workgroup> ws: array<vec4<f32>, 256>;         // [column][four rows of W]
//@else
const COLUMNS = 4u / MATRICES;
//@end

//@if scales
fn half_at(pair: u32, index: u32) -> f32 {
    let both = unpack2x16float(pair);
    return select(both.x, both.y, (index & 1u) == 1u);
}
//@end

//@if !software
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

// The `i`th row of W of a workgroup; out of range if there is none.
fn row_of(i: u32, first: u32) -> u32 {
    //@if pair
    let row = first + i % 32u;
    return select(2u * info.out, row + i / 32u * info.out, row < info.out);
    //@else
    return first + i;
    //@end
}
//@end

//@if pair
fn gated(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
    return gate / (1.0 + exp(-gate)) * up;
}
//@end

fn store(row: u32, first: u32, values: vec4<f32>) {
    if row >= info.rows {
        return;
    }
    for (var i = 0u; i < COLUMNS; i++) {
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

//@if !software
@compute @workgroup_size({{invocations}}, 1, 1)
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
        // 1. load and transpose 4 x 4 tiles of x
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
        // 2. load and transpose 4 x 4 tiles of W
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
        // 3. multiply
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
        //@else
        store(row, out, sums[i]);
        store(row, out + 32u, more[i]);
        //@end
    }
}
//@end
//@if software
// One word of each of four rows of W.
fn of_rows(at: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(words[at.x], words[at.y], words[at.z], words[at.w]);
}

// Four values of four rows of W: [value][row]. Bits are converted in place, with a scale that is smaller accordingly: vector
// shifts are slow without a GPU.
//@if nibbles
fn four(words: vec4<u32>, scale: vec4<f32>, offset: vec4<f32>) -> mat4x4<f32> {
    let bits = bitcast<vec4<i32>>(words);
    return mat4x4<f32>(
        vec4<f32>(bits & vec4<i32>(0xf)) * scale + offset,
        vec4<f32>(bits & vec4<i32>(0xf0)) * (scale * 0x1p-4) + offset,
        vec4<f32>(bits & vec4<i32>(0xf00)) * (scale * 0x1p-8) + offset,
        vec4<f32>(bits & vec4<i32>(0xf000)) * (scale * 0x1p-12) + offset,
    );
}
//@end
//@if bytes
fn four(words: vec4<u32>, scale: vec4<f32>, offset: vec4<f32>) -> mat4x4<f32> {
    let bits = bitcast<vec4<i32>>(words ^ vec4<u32>(0x808080u));
    return mat4x4<f32>(
        vec4<f32>(bits & vec4<i32>(0xff)) * scale + offset,
        vec4<f32>(bits & vec4<i32>(0xff00)) * (scale * 0x1p-8) + offset,
        vec4<f32>(bits & vec4<i32>(0xff0000)) * (scale * 0x1p-16) + offset,
        vec4<f32>(bits >> vec4<u32>(24u)) * scale,
    );
}
//@end
//@if halves
fn four(low: vec4<u32>, high: vec4<u32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        vec4<f32>(unpack2x16float(low.x), unpack2x16float(high.x)),
        vec4<f32>(unpack2x16float(low.y), unpack2x16float(high.y)),
        vec4<f32>(unpack2x16float(low.z), unpack2x16float(high.z)),
        vec4<f32>(unpack2x16float(low.w), unpack2x16float(high.w)),
    ));
}
//@end

// Four vectors of x.
fn sixteen(at: u32, lane: u32) -> mat4x4<f32> {
    //@if quads
    return of_quad(x[at + lane]);
    //@else
    return mat4x4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
    //@end
}

//@if scales
fn halves_at(pairs: vec4<u32>, at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(half_at(pairs.x, at.x), half_at(pairs.y, at.y), half_at(pairs.z, at.z), half_at(pairs.w, at.w));
}
//@end

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    //@if quads
    @builtin(subgroup_invocation_id) invocation: u32,
    //@end
) {
    let out = workgroup.x * WIDE + local * COLUMNS;
    let first_row = workgroup.y * {{lines}}u;
    var lane = 0u;
    //@if quads
    lane = invocation % 4u;
    //@end
    // Out-of-range rows of x and W are clamped to the last.
    let last = vec4<u32>(info.out - 1u);
    //@if pair
    let both = min(vec4<u32>(out) + vec4<u32>(0u, 1u, 0u, 1u), last);
    let first = (both + vec4<u32>(0u, 0u, info.out, info.out)) * info.blocks;
    //@else
    let first = min(vec4<u32>(out) + vec4<u32>(0u, 1u, 2u, 3u), last) * info.blocks;
    //@end
    //@each lines
    let x_{{nth}} = min(first_row + {{nth}}u, info.rows - 1u) * info.blocks * 8u;
    var sums_{{nth}} = vec4<f32>(0.0);
    //@end
    for (var block = 0u; block < info.blocks; block++) {
        let at = first + vec4<u32>(block);
        //@if scales
        let pair = at >> vec4<u32>(1u);
        let scale = halves_at(vec4<u32>(scales[pair.x], scales[pair.y], scales[pair.z], scales[pair.w]), at);
        var offset = SHIFT * scale;
        //@end
        //@if mins
        offset = halves_at(vec4<u32>(mins[pair.x], mins[pair.y], mins[pair.z], mins[pair.w]), at);
        //@end
        for (var half = 0u; half < 2u; half++) {
            //@if nibbles
            let word = at * 4u + vec4<u32>(half * 2u);
            let low = of_rows(word) ^ vec4<u32>({{flip}}u * 0x11111111u);
            let high = of_rows(word + vec4<u32>(1u)) ^ vec4<u32>({{flip}}u * 0x11111111u);
            let w_0 = four(low, scale, offset);
            let w_1 = four(low >> vec4<u32>(16u), scale, offset);
            let w_2 = four(high, scale, offset);
            let w_3 = four(high >> vec4<u32>(16u), scale, offset);
            //@end
            //@if bytes
            let word = at * 8u + vec4<u32>(half * 4u);
            offset = -128.0 * scale;
            let w_0 = four(of_rows(word), scale, offset);
            let w_1 = four(of_rows(word + vec4<u32>(1u)), scale, offset);
            let w_2 = four(of_rows(word + vec4<u32>(2u)), scale, offset);
            let w_3 = four(of_rows(word + vec4<u32>(3u)), scale, offset);
            //@end
            //@if halves
            let word = at * 16u + vec4<u32>(half * 8u);
            let w_0 = four(of_rows(word), of_rows(word + vec4<u32>(1u)));
            let w_1 = four(of_rows(word + vec4<u32>(2u)), of_rows(word + vec4<u32>(3u)));
            let w_2 = four(of_rows(word + vec4<u32>(4u)), of_rows(word + vec4<u32>(5u)));
            let w_3 = four(of_rows(word + vec4<u32>(6u)), of_rows(word + vec4<u32>(7u)));
            //@end
            let vector = block * 8u + half * 4u;
            //@each lines
            let four_{{nth}} = sixteen(x_{{nth}} + vector, lane);
            sums_{{nth}} += w_0 * four_{{nth}}[0] + w_1 * four_{{nth}}[1] + w_2 * four_{{nth}}[2] + w_3 * four_{{nth}}[3];
            //@end
        }
    }
    //@each lines
    //@if pair
    store(first_row + {{nth}}u, out, gated(sums_{{nth}}, sums_{{nth}}.zwzw));
    //@else
    store(first_row + {{nth}}u, out, sums_{{nth}});
    //@end
    //@end
}
//@end
