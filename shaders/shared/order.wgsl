// order: maps f32 to u32 keys with the same order. This text is prepended to shaders that compare numbers by key.
// params     none
// shared     none
// reference  crates/emu-kernels/src/cpu/sampling/beam_merge.rs     test  crates/emu-kernels/tests/beams.rs

fn key_of_bits(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn key(value: f32) -> u32 {
    return key_of_bits(bitcast<u32>(value));
}

