// advance: increments the number of positions in the cache.
// reference  crates/emu-kernels/src/cpu/decode.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding(0) var<storage, read_write> place: array<i32>;  // offset of the new positions, and their number

@compute @workgroup_size(1, 1, 1)
fn main() {
    place[0] += 1;
}
