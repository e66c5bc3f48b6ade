//! Byte products in WebAssembly, `simd128`.

use core::arch::wasm32::*;

use super::simd::Simd;

/// 128 bits.
#[derive(Clone, Copy)]
pub struct Simd128;

// SAFETY of every call below: the trait's methods require pointers to as much as is read.
impl Simd for Simd128 {
    const GROUP: usize = 1;
    const BYTE_BIAS: i32 = 0;
    const STEP: usize = 2;

    type Bytes = v128;
    type Ints = v128;
    type Floats = v128;

    #[inline(always)]
    unsafe fn load(at: *const u8, count: usize) -> v128 {
        match count {
            0 => u8x16_splat(0),
            _ => unsafe { v128_load(at.cast()) },
        }
    }

    #[inline(always)]
    unsafe fn nibbles(v: v128, flip: u8) -> [v128; 2] {
        let low = u8x16_splat(15);
        let v = match flip {
            0 => v,
            _ => v128_xor(v, u8x16_splat(flip)),
        };
        [v128_and(v, low), v128_and(u16x8_shr(v, 4), low)]
    }

    #[inline(always)]
    unsafe fn halves(v: [v128; 2]) -> [v128; 2] {
        v
    }

    #[inline(always)]
    unsafe fn dot_nibbles(acc: v128, w: [v128; 2], x: [v128; 2]) -> v128 {
        // Sums of four products of at most 15 · 127 fit in 16 bits.
        let first = i16x8_add(
            i16x8_extmul_low_i8x16(w[0], x[0]),
            i16x8_extmul_high_i8x16(w[0], x[0]),
        );
        let second = i16x8_add(
            i16x8_extmul_low_i8x16(w[1], x[1]),
            i16x8_extmul_high_i8x16(w[1], x[1]),
        );
        i32x4_add(acc, i32x4_extadd_pairwise_i16x8(i16x8_add(first, second)))
    }

    #[inline(always)]
    unsafe fn dot_bytes(acc: v128, w: [v128; 2], x: [v128; 2]) -> v128 {
        // Sums of two products of at most 128 · 127 fit in 16 bits.
        let pairs = |w, x| {
            i32x4_extadd_pairwise_i16x8(i16x8_add(
                i16x8_extmul_low_i8x16(w, x),
                i16x8_extmul_high_i8x16(w, x),
            ))
        };
        i32x4_add(acc, i32x4_add(pairs(w[0], x[0]), pairs(w[1], x[1])))
    }

    #[inline(always)]
    unsafe fn dot_lanes(acc: v128, w: v128, x: i32) -> v128 {
        i32x4_add(acc, i32x4_dot_i16x8(w, i32x4_splat(x)))
    }

    #[inline(always)]
    unsafe fn load_ints(at: *const i32) -> v128 {
        unsafe { v128_load(at.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_ints(v: i32) -> v128 {
        i32x4_splat(v)
    }

    #[inline(always)]
    unsafe fn floats(v: v128) -> v128 {
        f32x4_convert_i32x4(v)
    }

    #[inline(always)]
    unsafe fn zero() -> v128 {
        f32x4_splat(0.0)
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> v128 {
        f32x4_splat(v)
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> v128 {
        unsafe { v128_load(at.cast()) }
    }

    #[inline(always)]
    unsafe fn widen(at: *const u16, _: usize) -> v128 {
        // Two copies of the f16 fill a lane: the lower one's exponent is rebased by 112, the upper one provides the sign bit.
        let both = unsafe { v128_load16_splat(at.cast()) };
        let size = i32x4_shl(v128_and(both, i32x4_splat(0x7fff)), 13);
        let size = f32x4_mul(size, f32x4_splat(f32::from_bits(239 << 23)));
        v128_or(size, v128_and(both, i32x4_splat(i32::MIN)))
    }

    #[inline(always)]
    unsafe fn sum(v: v128) -> f32 {
        let two = f32x4_add(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }

    #[inline(always)]
    unsafe fn store(v: v128, at: *mut f32) {
        unsafe { v128_store(at.cast(), v) }
    }

    #[inline(always)]
    unsafe fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
}
