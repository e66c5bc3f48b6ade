// advance: place[0] += 1, the number of positions in the cache.
// grid       one invocation
// bindings   place
// params     none
// shared     none
// reference  crates/emu-kernels/src/cpu/decode/advance.rs     test  crates/emu-kernels/src/ops/tests.rs

@group(0) @binding({{place}}) var<storage, read_write> place: array<i32>;  // offset of the new positions, and their number

@compute @workgroup_size({{invocations}}, 1, 1)
fn main() {
    place[0] += 1;
}
