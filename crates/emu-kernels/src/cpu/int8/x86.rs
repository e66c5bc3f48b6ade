//! Byte products on x86-64: AVX-512 with VNNI, AVX-VNNI, AVX2.

use core::arch::x86_64::*;

use super::simd::Simd;

/// 512 bits. Features `avx512f`, `avx512bw`, `avx512vl`, `avx512vnni`, `f16c`.
#[derive(Clone, Copy)]
pub struct Avx512;

// SAFETY of every call below: the trait's methods require the features, and pointers to as much as is read.
impl Simd for Avx512 {
    const GROUP: usize = 4;
    const BYTE_BIAS: i32 = 128;
    const STEP: usize = 4;

    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn load(at: *const u8, count: usize) -> __m512i {
        unsafe {
            match count {
                64 => _mm512_loadu_si512(at.cast()),
                _ => _mm512_maskz_loadu_epi32((1 << (count / 4)) - 1, at.cast()),
            }
        }
    }

    #[inline(always)]
    unsafe fn nibbles(v: __m512i, flip: u8) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_set1_epi8(15);
            let v = match flip {
                0 => v,
                _ => _mm512_xor_si512(v, _mm512_set1_epi8(flip as i8)),
            };
            let high = _mm512_srli_epi16::<4>(v);
            [_mm512_and_si512(v, low), _mm512_and_si512(high, low)]
        }
    }

    #[inline(always)]
    unsafe fn halves([a, b]: [__m512i; 2]) -> [__m512i; 2] {
        unsafe {
            let bias = _mm512_set1_epi8(i8::MIN);
            let first = _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b);
            let second = _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b);
            [
                _mm512_xor_si512(first, bias),
                _mm512_xor_si512(second, bias),
            ]
        }
    }

    #[inline(always)]
    unsafe fn dot_nibbles(acc: __m512i, w: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(acc, w[0], x[0]), w[1], x[1]) }
    }

    #[inline(always)]
    unsafe fn dot_bytes(acc: __m512i, w: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        unsafe { Self::dot_nibbles(acc, w, x) }
    }

    #[inline(always)]
    unsafe fn dot_lanes(acc: __m512i, w: __m512i, x: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x)) }
    }

    #[inline(always)]
    unsafe fn load_ints(at: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_ints(v: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(v) }
    }

    #[inline(always)]
    unsafe fn floats(v: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m512 {
        unsafe { _mm512_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn widen(at: *const u16, count: usize) -> __m512 {
        unsafe {
            let four = match count {
                4 => _mm_loadl_epi64(at.cast()),
                _ => _mm_maskz_loadu_epi16((1 << count) - 1, at.cast()),
            };
            let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_permutexvar_ps(each, _mm512_castps128_ps512(_mm_cvtph_ps(four)))
        }
    }

    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    unsafe fn store(v: __m512, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, v) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}

/// 256 bits. Features `avx2`, `fma`, `f16c`, and `avxvnni` if VNNI.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const GROUP: usize = 2;
    const BYTE_BIAS: i32 = if VNNI { 128 } else { 0 };
    const STEP: usize = if VNNI { 4 } else { 2 };

    type Bytes = __m256i;
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn load(at: *const u8, count: usize) -> __m256i {
        unsafe {
            match count {
                32 => _mm256_loadu_si256(at.cast()),
                16 => _mm256_zextsi128_si256(_mm_loadu_si128(at.cast())),
                _ => _mm256_setzero_si256(),
            }
        }
    }

    #[inline(always)]
    unsafe fn nibbles(v: __m256i, flip: u8) -> [__m256i; 2] {
        unsafe {
            let low = _mm256_set1_epi8(15);
            let v = match flip {
                0 => v,
                _ => _mm256_xor_si256(v, _mm256_set1_epi8(flip as i8)),
            };
            let high = _mm256_srli_epi16::<4>(v);
            [_mm256_and_si256(v, low), _mm256_and_si256(high, low)]
        }
    }

    #[inline(always)]
    unsafe fn halves([a, b]: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let halves = [
                _mm256_permute2x128_si256::<0x20>(a, b),
                _mm256_permute2x128_si256::<0x31>(a, b),
            ];
            if !VNNI {
                return halves;
            }
            halves.map(|half| _mm256_xor_si256(half, _mm256_set1_epi8(i8::MIN)))
        }
    }

    #[inline(always)]
    unsafe fn dot_nibbles(acc: __m256i, w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        unsafe {
            if VNNI {
                let acc = _mm256_dpbusd_avx_epi32(acc, w[0], x[0]);
                return _mm256_dpbusd_avx_epi32(acc, w[1], x[1]);
            }
            // Sums of four products of at most 15 · 127 fit in 16 bits.
            let pairs = _mm256_add_epi16(
                _mm256_maddubs_epi16(w[0], x[0]),
                _mm256_maddubs_epi16(w[1], x[1]),
            );
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn dot_bytes(mut acc: __m256i, w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        unsafe {
            if VNNI {
                return Self::dot_nibbles(acc, w, x);
            }
            for i in 0..2 {
                // |w| times x with the sign of w: sums of two products of at most 128 · 127 fit in 16 bits.
                let (size, x) = (_mm256_abs_epi8(w[i]), _mm256_sign_epi8(x[i], w[i]));
                let pairs = _mm256_maddubs_epi16(size, x);
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
            acc
        }
    }

    #[inline(always)]
    unsafe fn dot_lanes(acc: __m256i, w: __m256i, x: i32) -> __m256i {
        unsafe {
            let x = _mm256_set1_epi32(x);
            match VNNI {
                true => _mm256_dpbusd_avx_epi32(acc, w, x),
                false => _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)),
            }
        }
    }

    #[inline(always)]
    unsafe fn load_ints(at: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_ints(v: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(v) }
    }

    #[inline(always)]
    unsafe fn floats(v: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(v) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        unsafe { _mm256_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn widen(at: *const u16, count: usize) -> __m256 {
        unsafe {
            let two = match count {
                2 => at.cast::<i32>().read_unaligned(),
                _ => i32::from(at.read()),
            };
            let each = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
            let two = _mm_cvtph_ps(_mm_cvtsi32_si128(two));
            _mm256_permutevar8x32_ps(_mm256_castps128_ps256(two), each)
        }
    }

    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn store(v: __m256, at: *mut f32) {
        unsafe { _mm256_storeu_ps(at, v) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
}
