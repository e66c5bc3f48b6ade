// quads: four vectors, one loaded by each of the four invocations of a quad. This text is prepended to shaders with a variant
// for software adapters.
// params     quads: whether there are quad operations
// shared     none
// reference  crates/emu-kernels/src/selftest.rs     test  crates/emu-kernels/tests/variants.rs

//@if quads
fn of_quad(own: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        quadBroadcast(own, 0u),
        quadBroadcast(own, 1u),
        quadBroadcast(own, 2u),
        quadBroadcast(own, 3u),
    );
}
//@end

