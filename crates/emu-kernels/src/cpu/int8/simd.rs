//! SIMD operations that byte products need, and a portable implementation.

/// SIMD vectors of an instruction set.
///
/// A vector holds [`GROUP`](Self::GROUP) times 16 bytes, or four 32-bit lanes for each 16. In a gemv the 16 bytes are one half
/// of a block, so that four lanes belong to a block; in a gemm a lane is a row of the matrix.
///
/// # Safety
/// Every method may use the instructions of the set: it must be [available](super::isa::Isa::available). Pointers must be
/// valid for as many values as a method reads or writes; they need no alignment.
#[allow(clippy::missing_safety_doc)]
pub trait Simd: Copy {
    /// Blocks per vector pair: each vector holds half of every block.
    const GROUP: usize;
    /// 32-bit lanes.
    const LANES: usize = 4 * Self::GROUP;
    /// Bias of the matrix's bytes in [`Self::dot_bytes`]: 128 if it takes them as unsigned.
    const BYTE_BIAS: i32;
    /// Elements of a row per lane in a gemm: 4 unsigned bytes or 2 signed 16-bit values.
    const STEP: usize;

    /// Vector of bytes.
    type Bytes: Copy;
    /// Vector of 32-bit integers.
    type Ints: Copy;
    /// Vector of f32.
    type Floats: Copy;

    /// Loads `count` bytes, a multiple of 16; the rest is zero.
    unsafe fn load(at: *const u8, count: usize) -> Self::Bytes;
    /// Low and high nibbles of every byte, after XOR with `flip`.
    unsafe fn nibbles(v: Self::Bytes, flip: u8) -> [Self::Bytes; 2];
    /// First and second halves of the [`GROUP`](Self::GROUP) blocks in two vectors, with [`BYTE_BIAS`](Self::BYTE_BIAS) added.
    unsafe fn halves(v: [Self::Bytes; 2]) -> [Self::Bytes; 2];
    /// `acc + w · x`, where four lanes sum 32 products; `w` is from 0 to 15.
    unsafe fn dot_nibbles(acc: Self::Ints, w: [Self::Bytes; 2], x: [Self::Bytes; 2]) -> Self::Ints;
    /// Same, with the result of [`halves`](Self::halves).
    unsafe fn dot_bytes(acc: Self::Ints, w: [Self::Bytes; 2], x: [Self::Bytes; 2]) -> Self::Ints;
    /// `acc + w · x`, where every lane sums [`STEP`](Self::STEP) products; `x` is a 32-bit cell broadcast to all lanes.
    unsafe fn dot_lanes(acc: Self::Ints, w: Self::Bytes, x: i32) -> Self::Ints;

    /// Loads a vector of integers.
    unsafe fn load_ints(at: *const i32) -> Self::Ints;
    /// Broadcasts to all lanes.
    unsafe fn splat_ints(v: i32) -> Self::Ints;
    /// Converts to f32.
    unsafe fn floats(v: Self::Ints) -> Self::Floats;

    /// Zeros.
    unsafe fn zero() -> Self::Floats;
    /// Broadcasts to all lanes.
    unsafe fn splat(v: f32) -> Self::Floats;
    /// Loads a vector of floats.
    unsafe fn load_floats(at: *const f32) -> Self::Floats;
    /// Converts `count` of [`GROUP`](Self::GROUP) finite f16, each broadcast to four lanes; the rest is zero.
    unsafe fn widen(at: *const u16, count: usize) -> Self::Floats;
    /// Sum of all lanes.
    unsafe fn sum(v: Self::Floats) -> f32;
    /// Stores a vector of floats.
    unsafe fn store(v: Self::Floats, at: *mut f32);
    /// `a · b`
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// No specific instruction set: plain loops, which the compiler vectorizes where it can.
#[derive(Clone, Copy)]
pub struct Portable;

impl Simd for Portable {
    const GROUP: usize = 1;
    const BYTE_BIAS: i32 = 0;
    const STEP: usize = 2;

    type Bytes = [u8; 16];
    type Ints = [i32; 4];
    type Floats = [f32; 4];

    #[inline(always)]
    unsafe fn load(at: *const u8, count: usize) -> Self::Bytes {
        match count {
            0 => [0; 16],
            // SAFETY: the caller's guarantee.
            _ => unsafe { at.cast::<[u8; 16]>().read_unaligned() },
        }
    }

    #[inline(always)]
    unsafe fn nibbles(v: Self::Bytes, flip: u8) -> [Self::Bytes; 2] {
        let v = v.map(|v| v ^ flip);
        [v.map(|v| v & 15), v.map(|v| v >> 4)]
    }

    #[inline(always)]
    unsafe fn halves(v: [Self::Bytes; 2]) -> [Self::Bytes; 2] {
        v
    }

    #[inline(always)]
    unsafe fn dot_nibbles(acc: Self::Ints, w: [Self::Bytes; 2], x: [Self::Bytes; 2]) -> Self::Ints {
        // Nibbles are non-negative bytes.
        // SAFETY: needs no specific instructions.
        unsafe { Self::dot_bytes(acc, w, x) }
    }

    #[inline(always)]
    unsafe fn dot_bytes(
        mut acc: Self::Ints,
        w: [Self::Bytes; 2],
        x: [Self::Bytes; 2],
    ) -> Self::Ints {
        for (w, x) in w.iter().zip(&x) {
            for i in 0..16 {
                acc[i / 4] += i32::from(w[i] as i8) * i32::from(x[i] as i8);
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn dot_lanes(mut acc: Self::Ints, w: Self::Bytes, x: i32) -> Self::Ints {
        let x = [i32::from(x as i16), x >> 16];
        for i in 0..4 {
            let w = |j: usize| i32::from(i16::from_le_bytes([w[4 * i + j], w[4 * i + j + 1]]));
            acc[i] += w(0) * x[0] + w(2) * x[1];
        }
        acc
    }

    #[inline(always)]
    unsafe fn load_ints(at: *const i32) -> Self::Ints {
        // SAFETY: the caller's guarantee.
        unsafe { at.cast::<[i32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_ints(v: i32) -> Self::Ints {
        [v; 4]
    }

    #[inline(always)]
    unsafe fn floats(v: Self::Ints) -> Self::Floats {
        v.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Floats {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::Floats {
        [v; 4]
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> Self::Floats {
        // SAFETY: the caller's guarantee.
        unsafe { at.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn widen(at: *const u16, _: usize) -> Self::Floats {
        // SAFETY: the caller's guarantee.
        [super::blocks::widened(unsafe { at.read() }); 4]
    }

    #[inline(always)]
    unsafe fn sum(v: Self::Floats) -> f32 {
        v.iter().sum()
    }

    #[inline(always)]
    unsafe fn store(v: Self::Floats, at: *mut f32) {
        // SAFETY: the caller's guarantee.
        unsafe { at.cast::<[f32; 4]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
}
