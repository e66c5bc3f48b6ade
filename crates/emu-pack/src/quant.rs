//! Quantized tensors: blocks of 32 along the last dimension of a `[out, in]` matrix.
//!
//! A matrix `<name>` is stored as U32 words `[out, in * bits / 32]`, element 0 of a word in its lowest bits, and
//! `<name>.scales`, F16 `[out, in / 32]`; the scheme `q4_1` adds `<name>.mins` of the same kind.
//!
//! | scheme | q | value |
//! | --- | --- | --- |
//! | `q8` | 8 bits, two's complement, -127 to 127 | `q * scale` |
//! | `q4` | 4 bits, two's complement, -8 to 7 | `q * scale` (a scale may be negative) |
//! | `q4_1` | 4 bits, unsigned, 0 to 15 | `q * scale + min` |

#[cfg(feature = "convert")]
use half::f16;

use crate::{Dtype, PackError, TensorData, TensorInfo};

/// Elements that share a scale.
pub const BLOCK: usize = 32;

/// How a matrix is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// 8.5 bits per weight.
    Q8,
    /// 4.5 bits per weight.
    Q4,
    /// 5 bits per weight, with a minimum per block.
    #[serde(rename = "q4_1")]
    Q4_1,
}

impl Scheme {
    /// The name in manifests and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8",
            Self::Q4 => "q4",
            Self::Q4_1 => "q4_1",
        }
    }

    /// Bits of one element, without its share of the scale.
    pub const fn bits(self) -> usize {
        match self {
            Self::Q8 => 8,
            Self::Q4 | Self::Q4_1 => 4,
        }
    }

    /// Elements in one U32 word.
    pub const fn per_word(self) -> usize {
        32 / self.bits()
    }

    /// Whether blocks have a minimum too.
    pub const fn has_mins(self) -> bool {
        matches!(self, Self::Q4_1)
    }

    /// The stored tensors of a matrix `[out, in]`; `None` where `in` is not divisible into blocks.
    pub fn stored(self, name: &str, out: usize, width: usize) -> Option<Vec<TensorInfo>> {
        if width == 0 || !width.is_multiple_of(BLOCK) {
            return None;
        }
        let info = |name: String, dtype, width| TensorInfo {
            name,
            dtype,
            shape: vec![out, width],
        };
        let mut stored = vec![
            info(name.into(), Dtype::U32, width / self.per_word()),
            info(scales_name(name), Dtype::F16, width / BLOCK),
        ];
        if self.has_mins() {
            stored.push(info(mins_name(name), Dtype::F16, width / BLOCK));
        }
        Some(stored)
    }

    /// The element in bits `at * bits ..` of a word, as a number.
    const fn element(self, word: u32, at: usize) -> i32 {
        match self {
            Self::Q8 => (word >> (8 * at)) as i8 as i32,
            // Moved to the top and back, so that the sign is spread.
            Self::Q4 => ((word << (28 - 4 * at)) as i32) >> 28,
            Self::Q4_1 => ((word >> (4 * at)) & 15) as i32,
        }
    }
}

/// Name of the scales of a quantized tensor.
pub fn scales_name(name: &str) -> String {
    format!("{name}.scales")
}

/// Name of the minima of a quantized tensor.
pub fn mins_name(name: &str) -> String {
    format!("{name}.mins")
}

/// The f32 matrix `[out, in]` that stored tensors stand for. `mins` is needed for `q4_1` only.
pub fn dequantize(
    scheme: Scheme,
    packed: &TensorData,
    scales: &TensorData,
    mins: Option<&TensorData>,
) -> Result<TensorData, PackError> {
    let name = &packed.info.name;
    let wrong = |info: &TensorInfo, expected: String| PackError::Misshapen {
        file: "quantized tensor".into(),
        tensor: info.name.clone(),
        expected,
        found: info.describe(),
    };
    let &[out, words] = packed.info.shape.as_slice() else {
        return Err(wrong(&packed.info, "U32 [out, words]".into()));
    };
    let width = words.checked_mul(scheme.per_word());
    let Some(stored) = width.and_then(|width| scheme.stored(name, out, width)) else {
        return Err(wrong(
            &packed.info,
            format!("U32 in whole blocks of {BLOCK} elements"),
        ));
    };
    let width = words * scheme.per_word();
    for (found, needed) in [Some(packed), Some(scales), mins]
        .into_iter()
        .flatten()
        .zip(&stored)
    {
        if (found.info.dtype, &found.info.shape) != (needed.dtype, &needed.shape) {
            return Err(wrong(&found.info, needed.describe()));
        }
    }
    if scheme.has_mins() && mins.is_none() {
        return Err(PackError::MissingTensor {
            file: "quantized tensor".into(),
            tensor: mins_name(name),
        });
    }

    let (words, scales) = (packed.to_u32()?, scales.to_f32()?);
    let mins = match mins {
        Some(mins) if scheme.has_mins() => mins.to_f32()?,
        _ => vec![0.0; scales.len()],
    };
    let mut bytes = Vec::with_capacity(out.saturating_mul(width).saturating_mul(4));
    for ((block, scale), min) in words
        .chunks_exact(BLOCK / scheme.per_word())
        .zip(scales)
        .zip(mins)
    {
        for word in block {
            for at in 0..scheme.per_word() {
                let value = scheme.element(*word, at) as f32 * scale + min;
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    TensorData::new(name, Dtype::F32, vec![out, width], bytes)
}

/// Quantizes a matrix `[out, in]`: the packed words, the scales and, for `q4_1`, the minima.
///
/// `Ok(None)` where the scheme does not apply: not a float matrix, or `in` not divisible into blocks.
/// NaN, infinity, and values whose scale f16 cannot hold are errors.
#[cfg(feature = "convert")]
pub fn quantize(tensor: &TensorData, scheme: Scheme) -> Result<Option<Vec<TensorData>>, PackError> {
    tensor.check_finite()?;
    quantize_rows(&tensor.info, &tensor.bytes, scheme)
}

/// The same from borrowed bytes, which are known to be finite and as many as `info` says.
#[cfg(feature = "convert")]
pub(crate) fn quantize_rows(
    info: &TensorInfo,
    bytes: &[u8],
    scheme: Scheme,
) -> Result<Option<Vec<TensorData>>, PackError> {
    use rayon::prelude::*;

    let &[out, width] = info.shape.as_slice() else {
        return Ok(None);
    };
    let (Some(decode), Some(stored)) = (decoder(info.dtype), scheme.stored(&info.name, out, width))
    else {
        return Ok(None);
    };
    // Written in place, block by block, so that nothing of the tensor's size is held besides.
    let blocks = out * width / BLOCK;
    let (mut words, mut scales) = (
        vec![0u8; blocks * BLOCK * scheme.bits() / 8],
        vec![0u8; blocks * 2],
    );
    let mut mins = vec![0u8; blocks * 2];
    let fits = bytes
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
            block.scale.is_finite() && block.min.is_finite()
        })
        .reduce(|| true, |a, b| a && b);
    if !fits {
        let reason = "a scale exceeds what f16 holds".into();
        return Err(PackError::NotQuantizable {
            tensor: info.name.clone(),
            reason,
        });
    }
    let made = stored.into_iter().zip([words, scales, mins]);
    let made = made.map(|(info, bytes)| TensorData::new(info.name, info.dtype, info.shape, bytes));
    made.collect::<Result<_, _>>().map(Some)
}

/// Turns the bytes of one block into its values.
#[cfg(feature = "convert")]
type Decode = fn(&[u8], &mut [f32; BLOCK]);

/// What decodes blocks of a type; `None` for integers.
#[cfg(feature = "convert")]
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
            Some(|bytes, values| block(bytes, values, |b| half::bf16::from_le_bytes(b).to_f32()))
        }
        Dtype::F64 => Some(|bytes, values| block(bytes, values, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

/// One quantized block.
#[cfg(feature = "convert")]
struct Block {
    q: [i32; BLOCK],
    scale: f16,
    min: f16,
}

#[cfg(feature = "convert")]
impl Block {
    fn of(scheme: Scheme, values: &[f32]) -> Self {
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
        let largest = if high.abs() >= low.abs() { high } else { low };
        match scheme {
            Scheme::Q8 => Self::rounded(values, largest.abs() / 127.0, 0.0, (-127, 127)),
            Scheme::Q4 => {
                // Either spends all of -8..=7 on the side of the largest value, or is symmetric: the better of both.
                let candidates = [largest / -8.0, largest.abs() / 7.0];
                let [a, b] = candidates.map(|scale| Self::rounded(values, scale, 0.0, (-8, 7)));
                if b.error(values) < a.error(values) {
                    b
                } else {
                    a
                }
            }
            Scheme::Q4_1 => Self::rounded(values, (high - low) / 15.0, low, (0, 15)),
        }
    }

    /// The nearest integers, given the scale and minimum as f16 will store them.
    fn rounded(values: &[f32], scale: f32, min: f32, (least, most): (i32, i32)) -> Self {
        let (scale, min) = (f16::from_f32(scale), f16::from_f32(min));
        let (s, m) = (scale.to_f32(), min.to_f32());
        let mut q = [0; BLOCK];
        for (q, &value) in q.iter_mut().zip(values) {
            // A scale that f16 rounds to zero leaves zeros: the whole block is below 1e-5.
            *q = if s == 0.0 {
                0
            } else {
                (((value - m) / s).round() as i32).clamp(least, most)
            };
        }
        Self { q, scale, min }
    }

    fn error(&self, values: &[f32]) -> f64 {
        let (s, m) = (self.scale.to_f32(), self.min.to_f32());
        let differences = self
            .q
            .iter()
            .zip(values)
            .map(|(&q, &v)| f64::from(q as f32 * s + m - v));
        differences.map(|d| d * d).sum()
    }

    fn words(&self, scheme: Scheme) -> impl Iterator<Item = u32> {
        let mask = if scheme.bits() == 8 { 0xff } else { 0xf };
        self.q.chunks_exact(scheme.per_word()).map(move |word| {
            let shifted = word
                .iter()
                .enumerate()
                .map(|(at, &q)| (q as u32 & mask) << (at * scheme.bits()));
            shifted.fold(0, |all, bits| all | bits)
        })
    }
}

#[cfg(all(test, feature = "convert"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        // Values that are their own quanta: 0.5 * q, the largest at the end of the range, in the first block of two.
        let mut values = vec![0.0f32; 64];
        for (i, v) in values.iter_mut().take(16).enumerate() {
            *v = 0.5 * (i as f32 - 8.0);
        }
        let stored = quantize(&matrix(1, 64, &values), Scheme::Q4)
            .unwrap()
            .unwrap();
        assert_eq!(stored[0].info.shape, [1, 8]);
        assert_eq!(stored[1].to_f32().unwrap(), [0.5, 0.0]);
        // -8, -7, .. -1 from the low nibble up, then 0 .. 7
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

    proptest! {
        #[test]
        fn errors_stay_within_half_a_step(values in prop::collection::vec(-3.0f32..3.0, 64)) {
            for scheme in ALL {
                let back = there_and_back(&matrix(1, 64, &values), scheme);
                for (block, back) in values.chunks(32).zip(back.chunks(32)) {
                    let (low, high) = block.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
                    let absmax = low.abs().max(high.abs());
                    // half a step, a clamped end of the range for q4, and f16's rounding of scale and minimum
                    let bound = match scheme {
                        Scheme::Q8 => absmax / 127.0 * 0.5 + absmax * 1e-3,
                        Scheme::Q4 => absmax / 8.0 + absmax * 1e-3,
                        Scheme::Q4_1 => (high - low) / 15.0 * 0.5 + absmax * 2e-3,
                    };
                    for (v, b) in block.iter().zip(back) {
                        prop_assert!((v - b).abs() <= bound, "{scheme:?}: {v} became {b}, bound {bound}");
                    }
                }
            }
        }
    }
}
