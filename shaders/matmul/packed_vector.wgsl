// packed_vector: gemv, y = x Wᵀ + b + r for few rows of x; every weight is read once and dequantized in registers.
// With `pair`, W is two stacked matrices G and U, and y = silu(x Gᵀ) * x Uᵀ.
// grid       `per` rows of W for each `lanes` invocations; workgroups folded over (x, y) beyond 65535
// bindings   x, words, y, scales, mins: if the scheme has them, bias, residual: if used
// params     bits of the scheme as nibbles, bytes or halves; flip: sign bit of signed 4-bit values; out, blocks: of W;
//            rows: of x; lanes: invocations per row of W; per: rows of W per invocation; pair, matrices: 2 if so;
//            subgroups: reduce by subgroups, else in turns; scales, mins, bias, residual
// shared     4 bytes per invocation and sum, of which it has per * matrices * rows: at most 16 KiB
// reference  crates/emu-kernels/src/cpu/matmul/packed_vector.rs     test  crates/emu-kernels/src/packed/tests.rs
//
// A row of W belongs to LANES invocations, which take its blocks in turns; an invocation works on PER rows. With subgroups
// they form a whole workgroup, whose sums are reduced as in reduce.

@group(0) @binding({{x}}) var<storage, read_write> x: array<vec4<f32>>;      // [ROWS, BLOCKS * 32]
@group(0) @binding({{words}}) var<storage, read_write> words: array<vec4<u32>>;  // [OUT, BLOCKS * BITS / 4]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;            // [ROWS, OUT]
//@if scales
@group(0) @binding({{scales}}) var<storage, read_write> scales: array<u32>;  // [OUT * BLOCKS], pairs of f16
//@end
//@if mins
@group(0) @binding({{mins}}) var<storage, read_write> mins: array<u32>;  // as scales
//@end
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;  // [OUT]
//@end
//@if residual
@group(0) @binding({{residual}}) var<storage, read_write> residual: array<f32>;  // as y
//@end

const BLOCKS = {{blocks}}u;
const OUT = {{out}}u;
const ROWS = {{rows}}u;
const LANES = {{lanes}}u;
const PER = {{per}}u;
const INVOCATIONS = {{invocations}}u;
const GROUPS = INVOCATIONS / LANES;
// Rows of W per row of y, OUT apart.
const MATRICES = {{matrices}}u;
const SUMS = PER * MATRICES * ROWS;
// Added to unscaled values: -8 for signed 4-bit values, whose sign bit is flipped on reading.
//@if scales
const SHIFT = -{{flip}}.0;
//@end

var<workgroup> partial: array<f32, INVOCATIONS * SUMS>;

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

// Writes element `i` of this group's part of y, with bias and residual added.
fn finish(i: u32, row: u32, product: f32) {
    var sum = product;
    //@if bias
    sum += bias[row];
    //@end
    let to = (i % ROWS) * OUT + row;
    //@if residual
    sum += residual[to];
    //@end
    y[to] = sum;
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % LANES;
    let group = local / LANES;
    let first = ((workgroup.x + workgroup.y * workgroups.x) * GROUPS + group) * PER;

    var sums: array<f32, SUMS>;
    for (var i = 0u; i < SUMS; i++) {
        sums[i] = 0.0;
    }
    for (var block = lane; block < BLOCKS; block += LANES) {
        for (var p = 0u; p < PER * MATRICES; p++) {
            let row = first + p % PER;
            if row >= OUT {
                continue;
            }
            let at = (row + p / PER * OUT) * BLOCKS + block;
            //@if scales
            let scale = half_at(scales[at >> 1u], at);
            var offset = SHIFT * scale;
            //@end
            //@if mins
            offset = half_at(mins[at >> 1u], at);
            //@end
            //@if nibbles
            let w = words[at];
            let w0 = four(w.x); let w1 = four(w.x >> 16u);
            let w2 = four(w.y); let w3 = four(w.y >> 16u);
            let w4 = four(w.z); let w5 = four(w.z >> 16u);
            let w6 = four(w.w); let w7 = four(w.w >> 16u);
            //@end
            //@if bytes
            let low = words[at * 2u];
            let high = words[at * 2u + 1u];
            let w0 = four(low.x); let w1 = four(low.y);
            let w2 = four(low.z); let w3 = four(low.w);
            let w4 = four(high.x); let w5 = four(high.y);
            let w6 = four(high.z); let w7 = four(high.w);
            //@end
            //@if halves
            let a = words[at * 4u]; let b = words[at * 4u + 1u];
            let c = words[at * 4u + 2u]; let d = words[at * 4u + 3u];
            let w0 = four(a.x, a.y); let w1 = four(a.z, a.w);
            let w2 = four(b.x, b.y); let w3 = four(b.z, b.w);
            let w4 = four(c.x, c.y); let w5 = four(c.z, c.w);
            let w6 = four(d.x, d.y); let w7 = four(d.z, d.w);
            //@end
            for (var r = 0u; r < ROWS; r++) {
                let start = (r * BLOCKS + block) * 8u;
                let x0 = x[start]; let x1 = x[start + 1u];
                let x2 = x[start + 2u]; let x3 = x[start + 3u];
                let x4 = x[start + 4u]; let x5 = x[start + 5u];
                let x6 = x[start + 6u]; let x7 = x[start + 7u];
                let product = (dot(w0, x0) + dot(w1, x1)) + (dot(w2, x2) + dot(w3, x3))
                    + (dot(w4, x4) + dot(w5, x5)) + (dot(w6, x6) + dot(w7, x7));
                //@if scales
                let all = (x0 + x1) + (x2 + x3) + (x4 + x5) + (x6 + x7);
                sums[p * ROWS + r] += product * scale + offset * (all.x + all.y + all.z + all.w);
                //@end
                //@if halves
                sums[p * ROWS + r] += product;
                //@end
            }
        }
    }
    //@if subgroups
    let lanes = subgroupAdd(1u);
    let rank = subgroupExclusiveAdd(1u);
    for (var i = 0u; i < SUMS; i++) {
        let sum = subgroupAdd(sums[i]);
        partial[i * INVOCATIONS + local] = select(0.0, sum, rank == 0u);
    }
    workgroupBarrier();
    for (var i = 0u; i < PER * ROWS; i++) {
        var sum = 0.0;
        for (var other = rank; other < INVOCATIONS; other += lanes) {
            sum += partial[i * INVOCATIONS + other];
        }
        sum = subgroupAdd(sum);
        //@if pair
        var factor = 0.0;
        for (var other = rank; other < INVOCATIONS; other += lanes) {
            factor += partial[(i + PER * ROWS) * INVOCATIONS + other];
        }
        sum = sum / (1.0 + exp(-sum)) * subgroupAdd(factor);
        //@end
        let row = first + i / ROWS;
        if local == i && row < OUT {
            finish(i, row, sum);
        }
    }
    //@end
    //@if !subgroups
    for (var i = 0u; i < SUMS; i++) {
        partial[local * SUMS + i] = sums[i];
    }
    workgroupBarrier();
    for (var i = lane; i < PER * ROWS; i += LANES) {
        let row = first + i / ROWS;
        if row >= OUT {
            break;
        }
        var sum = 0.0;
        //@if pair
        var factor = 0.0;
        //@end
        for (var other = 0u; other < LANES; other++) {
            let start = (group * LANES + other) * SUMS + i;
            sum += partial[start];
            //@if pair
            factor += partial[start + PER * ROWS];
            //@end
        }
        //@if pair
        sum = sum / (1.0 + exp(-sum)) * factor;
        //@end
        finish(i, row, sum);
    }
    //@end
}
