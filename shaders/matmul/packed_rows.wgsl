// packed_rows: y = the rows `ids` of a packed matrix, dequantized: value * scale + minimum.
// grid       one invocation per word; workgroups folded over (x, y) beyond 65535
// bindings   ids, words, y, scales, mins: if the scheme has them
// params     bits of the scheme, also as nibbles, bytes or halves; flip: sign bit of signed 4-bit values; out, blocks: of the
//            matrix; scales, mins
// shared     none
// reference  crates/emu-kernels/src/cpu/matmul/packed_rows.rs     test  crates/emu-kernels/src/packed/tests.rs

@group(0) @binding({{ids}}) var<storage, read_write> ids: array<i32>;
@group(0) @binding({{words}}) var<storage, read_write> words: array<u32>;   // [OUT, BLOCKS * BITS]
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;       // [ids, BLOCKS * 32]
//@if scales
@group(0) @binding({{scales}}) var<storage, read_write> scales: array<u32>;  // [OUT * BLOCKS], pairs of f16
//@end
//@if mins
@group(0) @binding({{mins}}) var<storage, read_write> mins: array<u32>;  // as scales
//@end

const BLOCKS = {{blocks}}u;
const OUT = {{out}}u;
const BITS = {{bits}}u;
const IN_WORD = 32u / BITS;
//@if scales
const SHIFT = -{{flip}}.0;
//@end

//@if scales
fn half_at(pair: u32, index: u32) -> f32 {
    let both = unpack2x16float(pair);
    return select(both.x, both.y, (index & 1u) == 1u);
}
//@end

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * 64u + local;
    let row_words = BLOCKS * BITS;
    let line = index / row_words;
    // Buffers may be longer than their tensors; both bounds keep every access inside.
    if line >= min(arrayLength(&ids), arrayLength(&y) / (BLOCKS * 32u)) {
        return;
    }
    let column = index % row_words;
    let row = min(u32(max(ids[line], 0)), OUT - 1u);
    //@if scales
    let at = row * BLOCKS + column / BITS;
    let scale = half_at(scales[at >> 1u], at);
    var offset = SHIFT * scale;
    //@end
    //@if mins
    offset = half_at(mins[at >> 1u], at);
    //@end
    let word = words[row * row_words + column];
    for (var i = 0u; i < IN_WORD; i++) {
        //@if nibbles
        let value = f32(((word >> (i * 4u)) & 15u) ^ {{flip}}u) * scale + offset;
        //@end
        //@if bytes
        let value = f32(bitcast<i32>(word << (24u - i * 8u)) >> 24u) * scale + offset;
        //@end
        //@if halves
        let value = unpack2x16float(word >> (i * 16u)).x;
        //@end
        y[index * IN_WORD + i] = value;
    }
}
