//! Quantization: finds for each block the scale with the least squared rounding error.
//!
//! Absmax rounding derives the scale from the largest value alone. A slightly different scale, which may clip that value,
//! often suits the other 31 better. So a grid of scales around the absmax scale is tried, also with the opposite sign if
//! the integer range is asymmetric, and the best one is refined by regression. Every trial uses the scale as rounded to
//! f16, so that this rounding is part of the comparison.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{BLOCK, Scheme, as_matrix};
use crate::{Dtype, PackError, TensorData, TensorInfo, convert::Loss};

/// Quantizes a matrix `[out, in]` or a convolution weight `[out, in, height, width]`. Returns the packed words, the
/// scales and, for `q4_1`, the minima.
///
/// `Ok(None)` if the scheme does not apply: integers, another number of dimensions, or rows that do not divide into
/// blocks. NaN, infinity, and values whose scale overflows f16 are errors.
pub fn quantize(tensor: &TensorData, scheme: Scheme) -> Result<Option<Vec<TensorData>>, PackError> {
    tensor.check_finite()?;
    let made = quantize_rows(&tensor.info, &tensor.bytes, scheme)?;
    Ok(made.map(|(stored, _)| stored))
}

/// [`quantize`] from borrowed bytes, which must be finite and match `info`; also returns the loss.
pub(crate) fn quantize_rows(
    info: &TensorInfo,
    bytes: &[u8],
    scheme: Scheme,
) -> Result<Option<(Vec<TensorData>, Loss)>, PackError> {
    let Some((out, width)) = as_matrix(&info.shape) else {
        return Ok(None);
    };
    let (Some(decode), Some(stored)) = (decoder(info.dtype), scheme.stored(&info.name, out, width))
    else {
        return Ok(None);
    };
    // Written in place, block by block, without temporaries of the tensor's size.
    let blocks = out * width / BLOCK;
    let (mut words, mut scales) = (
        vec![0u8; blocks * BLOCK * scheme.bits() / 8],
        vec![0u8; blocks * 2],
    );
    let mut mins = vec![0u8; blocks * 2];
    let loss = bytes
        .par_chunks_exact(BLOCK * info.dtype.size())
        .zip(words.par_chunks_exact_mut(BLOCK * scheme.bits() / 8))
        .zip(
            scales
                .par_chunks_exact_mut(2)
                .zip(mins.par_chunks_exact_mut(2)),
        )
        .map(|((source, words), (scale, min))| {
            let mut values = [0.0; BLOCK];
            decode(source, &mut values);
            let block = Block::of(scheme, &values);
            for (to, word) in words.chunks_exact_mut(4).zip(block.words(scheme)) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            scale.copy_from_slice(&block.scale.to_le_bytes());
            min.copy_from_slice(&block.min.to_le_bytes());
            block.loss(&values)
        })
        .reduce(Loss::default, Loss::and);
    if !loss.is_finite() {
        let reason = "a scale exceeds what f16 holds".into();
        return Err(PackError::NotQuantizable {
            tensor: info.name.clone(),
            reason,
        });
    }
    let made = stored.into_iter().zip([words, scales, mins]);
    let made = made.map(|(info, bytes)| TensorData::new(info.name, info.dtype, info.shape, bytes));
    let made = made.collect::<Result<_, _>>()?;
    Ok(Some((made, loss)))
}

/// Decodes the bytes of one block.
type Decode = fn(&[u8], &mut [f32; BLOCK]);

/// The block decoder of a type; `None` for integers.
fn decoder(dtype: Dtype) -> Option<Decode> {
    fn block<const N: usize>(
        bytes: &[u8],
        values: &mut [f32; BLOCK],
        convert: impl Fn([u8; N]) -> f32,
    ) {
        for (value, &element) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = convert(element);
        }
    }
    match dtype {
        Dtype::F32 => Some(|bytes, values| block(bytes, values, f32::from_le_bytes)),
        Dtype::F16 => {
            Some(|bytes, values| block(bytes, values, |b| f16::from_le_bytes(b).to_f32()))
        }
        Dtype::BF16 => {
            Some(|bytes, values| block(bytes, values, |b| bf16::from_le_bytes(b).to_f32()))
        }
        Dtype::F64 => Some(|bytes, values| block(bytes, values, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

/// Number of regression steps that refine the best scale of the grid.
const REFINEMENTS: usize = 2;

/// A quantized block.
#[derive(Clone, Copy)]
struct Block {
    /// Integers, as f32.
    q: [f32; BLOCK],
    scale: f16,
    min: f16,
    /// Sum of the squared errors.
    error: f32,
    /// Maximum absolute error.
    worst: f32,
}

impl Block {
    /// The best quantization found. Its maximum error stays within the bound of absmax rounding.
    fn of(scheme: Scheme, values: &[f32; BLOCK]) -> Self {
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
        let largest = if high.abs() >= low.abs() { high } else { low };
        let range = scheme.range();
        let trial = |scale: f32, min: f32| Self::rounded(values, scale, min, range);
        let mut best = match scheme {
            Scheme::Q8 => trial(largest.abs() / 127.0, 0.0),
            Scheme::Q4 => trial(largest / -8.0, 0.0),
            Scheme::Q4_1 => trial((high - low) / 15.0, low),
        };
        // An exact block, or one whose scale overflows f16, which the caller rejects.
        if best.error == 0.0 || !best.error.is_finite() {
            return best;
        }
        // A step of absmax rounding, plus the rounding of the scale to f16.
        let step = match scheme {
            Scheme::Q8 => largest.abs() / 127.0,
            Scheme::Q4 => largest.abs() / 8.0,
            Scheme::Q4_1 => (high - low) / 15.0,
        };
        let limit = best.worst.max(step);
        let mut offer = |block: Self| {
            if block.error < best.error && block.worst <= limit {
                best = block;
            }
        };
        match scheme {
            Scheme::Q8 => [126.0, 126.5, 127.5, 128.0]
                .iter()
                .for_each(|n| offer(trial(largest.abs() / n, 0.0))),
            // Maps the largest value to about -8, the wider end of the range, or to about 7.
            Scheme::Q4 => [-7.0, -7.3, -7.6, -8.3, -8.6, 6.0, 6.35, 6.7, 7.0, 7.35]
                .iter()
                .for_each(|n| offer(trial(largest / n, 0.0))),
            Scheme::Q4_1 => [0.01, 0.02, 0.03, 0.045, 0.06].iter().for_each(|share| {
                let cut = (high - low) * share;
                offer(trial((high - low - 2.0 * cut) / 15.0, low + cut));
            }),
        }
        for _ in 0..REFINEMENTS {
            let (scale, min) = best.regressed(scheme, values);
            let refined = Self::rounded(values, scale, min, range);
            if refined.error < best.error && refined.worst <= limit {
                best = refined;
            } else {
                break;
            }
        }
        best
    }

    /// Rounds to the nearest integers, with scale and minimum as rounded to f16.
    #[inline]
    fn rounded(values: &[f32; BLOCK], scale: f32, min: f32, (least, most): (f32, f32)) -> Self {
        // Adding and subtracting a number that leaves no fraction bits rounds to the nearest integer. Unlike `round`, it
        // compiles to plain vector instructions on every target.
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
        let (scale, min) = (f16::from_f32(scale), f16::from_f32(min));
        let (s, m) = (scale.to_f32(), min.to_f32());
        // A scale that underflows to zero in f16 gives a zero block: all values are below 1e-5.
        let inverse = if s == 0.0 { 0.0 } else { 1.0 / s };
        let mut q = [0.0; BLOCK];
        let (mut error, mut worst) = ([0.0f32; 8], [0.0f32; 8]);
        for (at, (q, &value)) in q.iter_mut().zip(values).enumerate() {
            let x = ((value - m) * inverse).max(least).min(most);
            *q = (x + ROUND) - ROUND;
            let off = *q * s + m - value;
            // Eight independent sums avoid a dependency chain.
            error[at % 8] += off * off;
            worst[at % 8] = worst[at % 8].max(off.abs());
        }
        Self {
            q,
            scale,
            min,
            error: error.iter().sum(),
            worst: worst.iter().fold(0.0, |a, &b| a.max(b)),
        }
    }

    /// Least-squares scale and minimum for the integers.
    fn regressed(&self, scheme: Scheme, values: &[f32; BLOCK]) -> (f32, f32) {
        let (mut qq, mut qv, mut sum_q, mut sum_v) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for (&q, &v) in self.q.iter().zip(values) {
            (qq, qv) = (qq + q * q, qv + q * v);
            (sum_q, sum_v) = (sum_q + q, sum_v + v);
        }
        let n = BLOCK as f32;
        if scheme.has_mins() {
            let determinant = n * qq - sum_q * sum_q;
            if determinant > 0.0 {
                let scale = (n * qv - sum_q * sum_v) / determinant;
                return (scale, (sum_v - scale * sum_q) / n);
            }
        } else if qq > 0.0 {
            return (qv / qq, 0.0);
        }
        (self.scale.to_f32(), self.min.to_f32())
    }

    fn loss(&self, values: &[f32; BLOCK]) -> Loss {
        let fits = self.scale.is_finite() && self.min.is_finite();
        let squares: f32 = values.iter().map(|v| v * v).sum();
        Loss {
            squared_error: if fits {
                self.error.into()
            } else {
                f64::INFINITY
            },
            squares: squares.into(),
            worst: self.worst,
            largest: values.iter().fold(0.0, |max, v| v.abs().max(max)),
        }
    }

    fn words(&self, scheme: Scheme) -> impl Iterator<Item = u32> {
        let mask = if scheme.bits() == 8 { 0xff } else { 0xf };
        self.q.chunks_exact(scheme.per_word()).map(move |word| {
            let shifted = word
                .iter()
                .enumerate()
                .map(|(at, &q)| (q as i32 as u32 & mask) << (at * scheme.bits()));
            shifted.fold(0, |all, bits| all | bits)
        })
    }
}

impl Scheme {
    /// Minimum and maximum integer.
    const fn range(self) -> (f32, f32) {
        match self {
            Self::Q8 => (-127.0, 127.0),
            Self::Q4 => (-8.0, 7.0),
            Self::Q4_1 => (0.0, 15.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::dequantize, *};

    const ALL: [Scheme; 3] = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];

    fn matrix(out: usize, width: usize, values: &[f32]) -> TensorData {
        TensorData::from_f32("w", vec![out, width], values).unwrap()
    }

    fn there_and_back(tensor: &TensorData, scheme: Scheme) -> Vec<f32> {
        let stored = quantize(tensor, scheme).unwrap().unwrap();
        dequantize(scheme, &stored[0], &stored[1], stored.get(2))
            .unwrap()
            .to_f32()
            .unwrap()
    }

    #[test]
    fn bits_lie_where_the_format_says() {
        // The first of two blocks holds exactly representable values: 0.5 * q, with the largest at the end of the range.
        let mut values = vec![0.0f32; 64];
        for (i, v) in values.iter_mut().take(16).enumerate() {
            *v = 0.5 * (i as f32 - 8.0);
        }
        let stored = quantize(&matrix(1, 64, &values), Scheme::Q4)
            .unwrap()
            .unwrap();
        assert_eq!(stored[0].info.shape, [1, 8]);
        assert_eq!(stored[1].to_f32().unwrap(), [0.5, 0.0]);
        // from the low nibble up: -8, -7, .. -1, then 0 .. 7
        assert_eq!(
            stored[0].to_u32().unwrap()[..3],
            [0xfedc_ba98, 0x7654_3210, 0]
        );
        assert_eq!(there_and_back(&matrix(1, 64, &values), Scheme::Q4), values);

        let bytes: Vec<f32> = (0..32)
            .map(|i| if i == 31 { 127.0 } else { 3.0 - i as f32 })
            .collect();
        let stored = quantize(&matrix(1, 32, &bytes), Scheme::Q8)
            .unwrap()
            .unwrap();
        assert_eq!(stored[0].to_u32().unwrap()[..2], [0x0001_0203, 0xfcfd_feff]);
        assert_eq!(there_and_back(&matrix(1, 32, &bytes), Scheme::Q8), bytes);

        let steps: Vec<f32> = (0..32).map(|i| 10.0 + (i % 16) as f32 * 0.25).collect();
        let stored = quantize(&matrix(1, 32, &steps), Scheme::Q4_1)
            .unwrap()
            .unwrap();
        assert_eq!(stored[0].to_u32().unwrap()[..2], [0x7654_3210, 0xfedc_ba98]);
        assert_eq!(stored[2].to_f32().unwrap(), [10.0]);
        assert_eq!(there_and_back(&matrix(1, 32, &steps), Scheme::Q4_1), steps);
    }

    #[test]
    fn what_cannot_be_quantized() {
        for scheme in ALL {
            assert!(
                quantize(&matrix(2, 33, &[0.0; 66]), scheme)
                    .unwrap()
                    .is_none()
            );
            assert!(
                quantize(
                    &TensorData::from_f32("v", vec![32], &[0.0; 32]).unwrap(),
                    scheme
                )
                .unwrap()
                .is_none()
            );
            let mut values = [0.0f32; 32];
            values[5] = f32::NAN;
            assert_eq!(
                quantize(&matrix(1, 32, &values), scheme)
                    .unwrap_err()
                    .code(),
                "not-finite"
            );
            values[5] = 1e30;
            assert_eq!(
                quantize(&matrix(1, 32, &values), scheme)
                    .unwrap_err()
                    .code(),
                "not-quantizable"
            );
            values[5] = 1e-30;
            assert!(
                there_and_back(&matrix(1, 32, &values), scheme)
                    .iter()
                    .all(|v| v.abs() < 1e-7)
            );
        }
    }

    #[test]
    fn dequantizing_checks_every_part() {
        let stored = quantize(&matrix(2, 64, &[1.0; 128]), Scheme::Q4_1)
            .unwrap()
            .unwrap();
        let [packed, scales, mins] = [&stored[0], &stored[1], &stored[2]];
        assert_eq!(
            dequantize(Scheme::Q4_1, packed, scales, None)
                .unwrap_err()
                .code(),
            "missing-tensor"
        );
        assert_eq!(
            dequantize(Scheme::Q4_1, packed, packed, Some(mins))
                .unwrap_err()
                .code(),
            "misshapen"
        );
        assert_eq!(
            dequantize(Scheme::Q4_1, scales, scales, Some(mins))
                .unwrap_err()
                .code(),
            "misshapen"
        );
        assert_eq!(
            dequantize(Scheme::Q8, packed, scales, None)
                .unwrap_err()
                .code(),
            "misshapen"
        );
        let flat = TensorData::new("w", Dtype::U32, vec![8], vec![0; 32]).unwrap();
        assert_eq!(
            dequantize(Scheme::Q8, &flat, scales, None)
                .unwrap_err()
                .code(),
            "misshapen"
        );
        let huge = TensorData {
            info: TensorInfo {
                name: "w".into(),
                dtype: Dtype::U32,
                shape: vec![2, usize::MAX],
            },
            bytes: vec![],
        };
        assert_eq!(
            dequantize(Scheme::Q4, &huge, scales, None)
                .unwrap_err()
                .code(),
            "misshapen"
        );
    }

    /// The error of absmax rounding, the baseline of the search.
    fn plain(values: &[f32; 32], scheme: Scheme) -> f64 {
        let (low, high) = values
            .iter()
            .fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        let largest = if high.abs() >= low.abs() { high } else { low };
        let (scale, min, least, most) = match scheme {
            Scheme::Q8 => (largest.abs() / 127.0, 0.0, -127.0, 127.0),
            Scheme::Q4 => (largest / -8.0, 0.0, -8.0, 7.0),
            Scheme::Q4_1 => ((high - low) / 15.0, low, 0.0, 15.0),
        };
        let (s, m) = (f16::from_f32(scale).to_f32(), f16::from_f32(min).to_f32());
        let off = values.iter().map(|v| {
            let q = ((v - m) / s).round().clamp(least, most);
            f64::from(q * s + m - v)
        });
        off.map(|d| d * d).sum()
    }

    #[test]
    fn the_search_loses_less_than_plain_rounding() {
        // Many blocks of normally distributed values, like weights.
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut normal = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let values: Vec<f32> = (0..32 * 500).map(|_| normal()).collect();
        for (scheme, at_most) in [(Scheme::Q8, 0.9), (Scheme::Q4, 0.9), (Scheme::Q4_1, 0.95)] {
            let matrix = matrix(500, 32, &values);
            let (_, loss) = quantize_rows(&matrix.info, &matrix.bytes, scheme)
                .unwrap()
                .unwrap();
            let blocks = values.as_chunks::<32>().0.iter();
            let before: f64 = blocks.map(|block| plain(block, scheme)).sum();
            let share = loss.squared_error / before;
            println!("{scheme:?}: squared error {share:.3} of plain rounding's");
            assert!(share < at_most, "{scheme:?}: {share}");
        }
    }

    #[test]
    fn the_loss_is_that_of_the_stored_values() {
        let values: Vec<f32> = (0..96)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01)
            .collect();
        for scheme in ALL {
            let matrix = matrix(3, 32, &values);
            let (_, loss) = quantize_rows(&matrix.info, &matrix.bytes, scheme)
                .unwrap()
                .unwrap();
            let back = there_and_back(&matrix, scheme);
            let really = Loss::between(values.iter().copied().zip(back));
            assert!((loss.relative() / really.relative() - 1.0).abs() < 1e-3);
            assert!((loss.worst - really.worst).abs() < 1e-6);
            assert_eq!(loss.largest, really.largest);
        }
    }

    #[test]
    fn convolutions_are_matrices_in_memory() {
        let values: Vec<f32> = (0..2 * 32 * 9).map(|i| (i % 17) as f32 - 8.0).collect();
        let shaped = |shape: &[usize]| TensorData::from_f32("w", shape.into(), &values).unwrap();
        let (conv, flat) = (shaped(&[2, 32, 3, 3]), shaped(&[2, 288]));
        assert_eq!(
            quantize(&conv, Scheme::Q8).unwrap(),
            quantize(&flat, Scheme::Q8).unwrap()
        );
        assert!(
            quantize(&shaped(&[64, 3, 3]), Scheme::Q8)
                .unwrap()
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn errors_stay_within_a_step(values in prop::collection::vec(-3.0f32..3.0, 64)) {
            for scheme in ALL {
                let back = there_and_back(&matrix(1, 64, &values), scheme);
                for (block, back) in values.chunks(32).zip(back.chunks(32)) {
                    let (low, high) = block.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
                    let absmax = low.abs().max(high.abs());
                    // a step of absmax rounding, plus the rounding of scale and minimum to f16
                    let bound = match scheme {
                        Scheme::Q8 => absmax / 127.0 + absmax * 1e-3,
                        Scheme::Q4 => absmax / 8.0 + absmax * 1e-3,
                        Scheme::Q4_1 => (high - low) / 15.0 + absmax * 2e-3,
                    };
                    for (v, b) in block.iter().zip(back) {
                        prop_assert!((v - b).abs() <= bound, "{scheme:?}: {v} became {b}, bound {bound}");
                    }
                }
            }
        }
    }
}
