// advance: one more position is in the cache.
// twin  crates/emu-kernels/src/cpu/decode.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding(0) var<storage, read_write> place: array<i32>;  // positions in the cache, and how many follow at once

@compute @workgroup_size(1, 1, 1)
fn main() {
    place[0] += 1;
}
