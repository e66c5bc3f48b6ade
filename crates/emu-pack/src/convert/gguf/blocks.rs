//! Dequantization of GGUF blocks as ggml defines them, and repacking into the pack's layout.
//!
//! A piece is ggml's storage unit: a block of 32 elements, or a super-block of 256 in the K types. Every 16 consecutive
//! elements share a scale and a minimum (all 32 in `Q4_0` and similar types). The value of an element `q` is
//! `scale * q - min`:
//!
//! | type | bits per weight | q | becomes | bits per weight | exact |
//! | --- | --- | --- | --- | --- | --- |
//! | `Q4_0` | 4.5 | -8 to 7 | `q4` | 4.5 | yes |
//! | `Q4_1` | 5 | 0 to 15, minimum | `q4_1` | 5 | yes |
//! | `Q4_K` | 4.5 | 0 to 15, minimum, per 32 | `q4_1` | 5 | scale and minimum rounded to f16 |
//! | `Q8_0` | 8.5 | -128 to 127 | `q8` | 8.5 | yes |
//! | `Q5_0` | 5.5 | -16 to 15 | `q8` | 8.5 | yes |
//! | `IQ4_NL` | 4.5 | one of 16 numbers | `q8` | 8.5 | yes |
//! | `IQ4_XS` | 4.25 | one of 16 numbers | `q8` | 8.5 | scale rounded to f16 |
//! | `Q6_K` | 6.56 | -32 to 31, per 16 | `q8` | 8.5 | to 1/254 of a block's largest value |
//! | `Q5_1`, `Q5_K` | 6, 5.5 | 0 to 31, minimum | `q8` | 8.5 | to 1/254 of a block's largest value |
//! | `Q3_K` | 3.44 | -4 to 3, per 16 | `q8` | 8.5 | to 1/254 of a block's largest value |
//! | `Q2_K` | 2.63 | 0 to 3, minimum, per 16 | `q8` | 8.5 | to 1/254 of a block's largest value |

use half::f16;
use rayon::prelude::*;

use super::kind::{Kind, SUPER};
use crate::{PackError, Quantized, Scheme, TensorData, quant::BLOCK};

/// Consecutive elements that share a scale.
const GROUP: usize = 16;
/// Pieces per parallel task.
const CHUNK: usize = 256;
/// The code book of `IQ4_NL` and `IQ4_XS`, indexed by 4 bits.
const NON_LINEAR: [i16; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// An unpacked piece; a piece of 32 elements uses only the first entries.
struct Levels {
    q: [i16; SUPER],
    scale: [f32; SUPER / GROUP],
    min: [f32; SUPER / GROUP],
}

impl Levels {
    /// Unpacks a piece of this type, whose length is correct.
    fn of(kind: Kind, piece: &[u8]) -> Self {
        let mut levels = Self {
            q: [0; SUPER],
            scale: [0.0; SUPER / GROUP],
            min: [0.0; SUPER / GROUP],
        };
        match kind {
            Kind::Float(_) => {}
            Kind::Q4_0 => {
                levels.whole(half(piece, 0), 0.0);
                levels.fill(|i| i16::from(nibble(&piece[2..], i)) - 8);
            }
            Kind::Q4_1 => {
                levels.whole(half(piece, 0), -half(piece, 2));
                levels.fill(|i| nibble(&piece[4..], i).into());
            }
            Kind::Q5_0 => {
                levels.whole(half(piece, 0), 0.0);
                levels.fill(|i| i16::from(nibble(&piece[6..], i) | high(&piece[2..6], i)) - 16);
            }
            Kind::Q5_1 => {
                levels.whole(half(piece, 0), -half(piece, 2));
                levels.fill(|i| (nibble(&piece[8..], i) | high(&piece[4..8], i)).into());
            }
            Kind::Q8_0 => {
                levels.whole(half(piece, 0), 0.0);
                levels.fill(|i| i8::from_le_bytes([piece[2 + i]]).into());
            }
            Kind::IQ4_NL => {
                levels.whole(half(piece, 0), 0.0);
                levels.fill(|i| NON_LINEAR[usize::from(nibble(&piece[2..], i))]);
            }
            Kind::IQ4_XS => levels.iq4_xs(piece),
            Kind::Q2_K => levels.q2_k(piece),
            Kind::Q3_K => levels.q3_k(piece),
            Kind::Q4_K | Kind::Q5_K => levels.q45_k(kind, piece),
            Kind::Q6_K => levels.q6_k(piece),
        }
        levels
    }

    /// Sets one scale and minimum for a piece of 32.
    fn whole(&mut self, scale: f32, min: f32) {
        self.scale[..BLOCK / GROUP].fill(scale);
        self.min[..BLOCK / GROUP].fill(min);
    }

    /// Sets the elements of a piece of 32.
    fn fill(&mut self, q: impl Fn(usize) -> i16) {
        for (i, to) in self.q[..BLOCK].iter_mut().enumerate() {
            *to = q(i);
        }
    }

    fn iq4_xs(&mut self, piece: &[u8]) {
        let d = half(piece, 0);
        let scales_high = u16::from_le_bytes([piece[2], piece[3]]);
        for (b, q) in self.q.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let low = (piece[4 + b / 2] >> (4 * (b % 2))) & 15;
            let scale = i16::from(low) + 16 * ((scales_high >> (2 * b)) & 3).cast_signed() - 32;
            self.scale[2 * b..2 * b + 2].fill(d * f32::from(scale));
            let bytes = &piece[8 + GROUP * b..8 + GROUP * (b + 1)];
            for (i, q) in q.iter_mut().enumerate() {
                *q = NON_LINEAR[usize::from(nibble(bytes, i))];
            }
        }
    }

    fn q2_k(&mut self, piece: &[u8]) {
        let (d, dmin) = (half(piece, 80), half(piece, 82));
        for (group, &scales) in piece[..16].iter().enumerate() {
            self.scale[group] = d * f32::from(scales & 15);
            self.min[group] = dmin * f32::from(scales >> 4);
        }
        for (i, q) in self.q.iter_mut().enumerate() {
            *q = two_bits(&piece[16..80], i).into();
        }
    }

    fn q3_k(&mut self, piece: &[u8]) {
        let (mask, scales, d) = (&piece[..32], &piece[96..108], half(piece, 108));
        for (group, scale) in self.scale.iter_mut().enumerate() {
            let low = (scales[group % 8] >> (4 * (group / 8))) & 15;
            let high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
            *scale = d * (f32::from(low | (high << 4)) - 32.0);
        }
        for (i, q) in self.q.iter_mut().enumerate() {
            let has_bit = (mask[i % 32] >> (i / 32)) & 1 == 1;
            *q = i16::from(two_bits(&piece[32..96], i)) - if has_bit { 0 } else { 4 };
        }
    }

    fn q45_k(&mut self, kind: Kind, piece: &[u8]) {
        let (d, dmin, scales) = (half(piece, 0), half(piece, 2), &piece[4..16]);
        let (fifth, bytes) = match kind {
            Kind::Q5_K => (Some(&piece[16..48]), &piece[48..176]),
            _ => (None, &piece[16..144]),
        };
        for (b, q) in self.q.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            // 6 bits each. The last four have their low 4 bits together, and their high 2 bits above those of the first four.
            let (scale, min) = match b {
                0..4 => (scales[b] & 63, scales[b + 4] & 63),
                _ => (
                    (scales[b + 4] & 15) | ((scales[b - 4] >> 6) << 4),
                    (scales[b + 4] >> 4) | ((scales[b] >> 6) << 4),
                ),
            };
            self.scale[2 * b..2 * b + 2].fill(d * f32::from(scale));
            self.min[2 * b..2 * b + 2].fill(dmin * f32::from(min));
            for (i, q) in q.iter_mut().enumerate() {
                let low = (bytes[BLOCK * (b / 2) + i] >> (4 * (b % 2))) & 15;
                let high = fifth.map_or(0, |fifth| ((fifth[i] >> b) & 1) << 4);
                *q = (low | high).into();
            }
        }
    }

    fn q6_k(&mut self, piece: &[u8]) {
        let (low, high, d) = (&piece[..128], &piece[128..192], half(piece, 208));
        for (scale, &byte) in self.scale.iter_mut().zip(&piece[192..208]) {
            *scale = d * f32::from(i8::from_le_bytes([byte]));
        }
        for (i, q) in self.q.iter_mut().enumerate() {
            // In each 128 elements, the low bits of the first 64 share bytes with those of the other 64.
            let (side, place) = (i / 128, i % 128);
            let low = (low[64 * side + place % 64] >> (4 * (place / 64))) & 15;
            *q = i16::from(low | (two_bits(high, i) << 4)) - 32;
        }
    }

    /// The value of an element.
    fn value(&self, i: usize) -> f32 {
        let group = i / GROUP;
        self.scale[group] * f32::from(self.q[i]) - self.min[group]
    }

    /// Encodes block `b` in the pack's layout: writes its words, returns scale and minimum.
    fn pack(&self, b: usize, scheme: Scheme, words: &mut [u8]) -> (f16, f16) {
        let (from, group) = (b * BLOCK, b * BLOCK / GROUP);
        let q = &self.q[from..from + BLOCK];
        let (scale, min) = (self.scale[group], self.min[group]);
        match scheme {
            Scheme::Q4 | Scheme::Q4_1 => {
                for (word, pair) in words.iter_mut().zip(q.as_chunks::<2>().0) {
                    let [even, odd] = pair.map(|q| q.to_le_bytes()[0] & 15);
                    *word = even | (odd << 4);
                }
                (f16::from_f32(scale), f16::from_f32(-min))
            }
            Scheme::Q8
                if scale == self.scale[group + 1] && min == 0.0 && self.min[group + 1] == 0.0 =>
            {
                for (word, q) in words.iter_mut().zip(q) {
                    *word = q.to_le_bytes()[0];
                }
                (f16::from_f32(scale), f16::ZERO)
            }
            Scheme::Q8 => {
                let values: [f32; BLOCK] = std::array::from_fn(|i| self.value(from + i));
                let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
                // `max` ignores NaN.
                let scale = match values.iter().all(|v| v.is_finite()) {
                    true => f16::from_f32(largest / 127.0),
                    false => f16::NAN,
                };
                let step = match scale.to_f32() {
                    0.0 => 0.0,
                    scale => 1.0 / scale,
                };
                for (word, value) in words.iter_mut().zip(values) {
                    // Saturates at 127.
                    let q = (value * step).round().max(-127.0) as i8;
                    *word = q.to_le_bytes()[0];
                }
                (scale, f16::ZERO)
            }
        }
    }
}

/// The f16 at byte `at`.
fn half(piece: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([piece[at], piece[at + 1]]).to_f32()
}

/// Element `i` of 32 4-bit elements in 16 bytes: the first 16 are in the low nibbles.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i % 16] >> (4 * (i / 16))) & 15
}

/// Bit `i` of four bytes, shifted to bit 4.
fn high(bytes: &[u8], i: usize) -> u8 {
    ((bytes[i / 8] >> (i % 8)) & 1) << 4
}

/// Element `i` of 256 2-bit elements: each run of 32 bytes holds four runs of 32 elements, from the lowest bits up.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    (bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3
}

/// Dequantizes whole pieces to f32, little-endian.
pub(super) fn dequantize(kind: Kind, pieces: &[u8]) -> Vec<u8> {
    let (elements, bytes) = kind.piece();
    let mut values = vec![0; pieces.len() / bytes * elements * 4];
    let chunks = values.par_chunks_mut(CHUNK * elements * 4);
    chunks
        .zip(pieces.par_chunks(CHUNK * bytes))
        .for_each(|(values, pieces)| {
            let values = values.chunks_exact_mut(elements * 4);
            for (values, piece) in values.zip(pieces.chunks_exact(bytes)) {
                let levels = Levels::of(kind, piece);
                for (i, value) in values.as_chunks_mut().0.iter_mut().enumerate() {
                    *value = levels.value(i).to_le_bytes();
                }
            }
        });
    values
}

/// Repacks a matrix `[out, width]` into the pack's layout; `None` for float types, and if rows are not whole blocks.
pub(super) fn repack(
    kind: Kind,
    name: &str,
    (out, width): (usize, usize),
    pieces: &[u8],
) -> Result<Option<Quantized>, PackError> {
    let Some(scheme) = kind.scheme() else {
        return Ok(None);
    };
    let Some(stored) = scheme.stored(name, out, width) else {
        return Ok(None);
    };
    let (elements, bytes) = kind.piece();
    let blocks = elements / BLOCK;
    let (word_bytes, count) = (BLOCK * scheme.bits() / 8, pieces.len() / bytes * blocks);
    let mut words = vec![0; count * word_bytes];
    let (mut scales, mut mins) = (vec![0; count * 2], vec![0; count * 2]);
    words
        .par_chunks_mut(blocks * word_bytes)
        .zip(
            scales
                .par_chunks_mut(blocks * 2)
                .zip(mins.par_chunks_mut(blocks * 2)),
        )
        .zip(pieces.par_chunks_exact(bytes))
        .with_min_len(CHUNK)
        .for_each(|((words, (scales, mins)), piece)| {
            let levels = Levels::of(kind, piece);
            let words = words.chunks_exact_mut(word_bytes);
            let heads = scales
                .as_chunks_mut()
                .0
                .iter_mut()
                .zip(mins.as_chunks_mut().0);
            for (b, (words, (scale, min))) in words.zip(heads).enumerate() {
                let (s, m) = levels.pack(b, scheme, words);
                (*scale, *min) = (s.to_le_bytes(), m.to_le_bytes());
            }
        });
    let mut parts = stored.into_iter().zip([words, scales, mins]);
    let mut next = || {
        parts
            .next()
            .map(|(info, bytes)| TensorData::new(info.name, info.dtype, info.shape, bytes))
            .transpose()
    };
    let (Some(words), Some(scales), mins) = (next()?, next()?, next()?) else {
        return Ok(None);
    };
    Ok(Some(Quantized {
        scheme,
        words,
        scales,
        mins,
        shape: vec![out, width],
    }))
}
