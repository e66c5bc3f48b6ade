//! The inverse DCT of Loeffler, Ligtenberg and Moschytz in 13-bit fixed point: libjpeg's "islow", bit for bit.

use std::num::Wrapping;

/// Damaged files hold out-of-range coefficients; arithmetic wraps here rather than panics.
type Int = Wrapping<i32>;

/// Fraction bits of the constants.
const CONST_BITS: usize = 13;
/// Extra precision kept between the two passes, in bits.
const PASS1_BITS: usize = 2;

/// `x` in fixed point.
const fn fix(x: f64) -> Int {
    Wrapping((x * (1 << CONST_BITS) as f64 + 0.5) as i32)
}

/// One 1-D pass over eight values; results are scaled by 2^13 and not yet rounded.
fn pass(x: [Int; 8]) -> [Int; 8] {
    // even part
    let z1 = (x[2] + x[6]) * fix(0.541196100);
    let t2 = z1 - x[6] * fix(1.847759065);
    let t3 = z1 + x[2] * fix(0.765366865);
    let t0 = (x[0] + x[4]) << CONST_BITS;
    let t1 = (x[0] - x[4]) << CONST_BITS;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    // odd part
    let (z1, z2, z3, z4) = (x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]);
    let z5 = (z3 + z4) * fix(1.175875602);
    let z1 = z1 * fix(0.899976223);
    let z2 = z2 * fix(2.562915447);
    let z3 = z5 - z3 * fix(1.961570560);
    let z4 = z5 - z4 * fix(0.390180644);
    let odd = [
        x[1] * fix(1.501321110) - z1 + z4,
        x[3] * fix(3.072711026) - z2 + z3,
        x[5] * fix(2.053119869) - z2 + z4,
        x[7] * fix(0.298631336) - z1 + z3,
    ];
    [
        even[0] + odd[0],
        even[1] + odd[1],
        even[2] + odd[2],
        even[3] + odd[3],
        even[3] - odd[3],
        even[2] - odd[2],
        even[1] - odd[1],
        even[0] - odd[0],
    ]
}

/// Shifts out `bits` fraction bits with rounding.
fn descale(x: Int, bits: usize) -> Int {
    (x + Wrapping(1 << (bits - 1))) >> bits
}

/// Dequantises and transforms a block; writes eight rows of eight samples to the start of `out`, `stride` apart.
pub(super) fn inverse(block: &[i16; 64], quant: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut columns = [Wrapping(0); 64];
    for c in 0..8 {
        let x: [Int; 8] = std::array::from_fn(|r| {
            Wrapping(i32::from(block[r * 8 + c])) * Wrapping(i32::from(quant[r * 8 + c]))
        });
        let y = if x[1..].iter().all(|v| v.0 == 0) {
            // shortcut for DC only; the general case gives the same value
            [x[0] << PASS1_BITS; 8]
        } else {
            pass(x).map(|v| descale(v, CONST_BITS - PASS1_BITS))
        };
        for (r, value) in y.into_iter().enumerate() {
            columns[r * 8 + c] = value;
        }
    }
    for (row, line) in columns
        .as_chunks::<8>()
        .0
        .iter()
        .zip(out.chunks_mut(stride))
    {
        let samples = pass(*row).map(|v| {
            (descale(v, CONST_BITS + PASS1_BITS + 3) + Wrapping(128))
                .0
                .clamp(0, 255) as u8
        });
        line[..8].copy_from_slice(&samples);
    }
}
