//! Quantized tensors: blocks of 32 along the last dimension of a `[out, in]` matrix.
//!
//! A matrix `<name>` is stored as U32 words `[out, in * bits / 32]`, element 0 of a word in its lowest bits, and
//! `<name>.scales`, F16 `[out, in / 32]`; the scheme `q4_1` adds `<name>.mins` of the same shape. A convolution weight
//! `[out, in, height, width]` is stored as the matrix `[out, in * height * width]`, which has the same memory layout.
//!
//! | scheme | q | value |
//! | --- | --- | --- |
//! | `q8` | 8 bits, two's complement, -127 to 127 | `q * scale` |
//! | `q4` | 4 bits, two's complement, -8 to 7 | `q * scale` (a scale may be negative) |
//! | `q4_1` | 4 bits, unsigned, 0 to 15 | `q * scale + min` |

#[cfg(feature = "convert")]
mod fit;

use half::f16;

use crate::{Dtype, PackError, TensorData, TensorInfo};

#[cfg(feature = "convert")]
pub use fit::quantize;
#[cfg(feature = "convert")]
pub(crate) use fit::quantize_rows;

/// Elements per block, which share a scale.
pub const BLOCK: usize = 32;

/// A quantization scheme.
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

    /// Bits per element, without the scale.
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

    /// Whether blocks have a minimum.
    pub const fn has_mins(self) -> bool {
        matches!(self, Self::Q4_1)
    }

    /// The stored tensors of a matrix `[out, in]`; `None` if `in` does not divide into blocks.
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

    /// Extracts the element in bits `at * bits ..` of a word.
    const fn element(self, word: u32, at: usize) -> i32 {
        match self {
            Self::Q8 => (word >> (8 * at)) as i8 as i32,
            // Shifted to the top and back for sign extension.
            Self::Q4 => ((word << (28 - 4 * at)) as i32) >> 28,
            Self::Q4_1 => ((word >> (4 * at)) & 15) as i32,
        }
    }

    /// Dequantizes the words of one block to f32.
    fn widen(self, words: &[u8], scale: f32, min: f32, values: &mut [u8]) {
        let values = values.chunks_exact_mut(4 * self.per_word());
        for (values, &word) in values.zip(words.as_chunks::<4>().0) {
            let word = u32::from_le_bytes(word);
            for (at, value) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *value = (self.element(word, at) as f32 * scale + min).to_le_bytes();
            }
        }
    }
}

/// A stored quantized tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// The scheme.
    pub scheme: Scheme,
    /// U32 `[out, words]`.
    pub words: TensorData,
    /// F16 `[out, blocks]`.
    pub scales: TensorData,
    /// F16 `[out, blocks]`, if the scheme has minima.
    pub mins: Option<TensorData>,
    /// Logical shape: `[out, in]`, or that of a convolution weight.
    pub shape: Vec<usize>,
}

impl Quantized {
    /// Dequantizes to f32, in the logical shape.
    ///
    /// # Errors
    /// The stored tensors do not match.
    pub fn dequantize(&self) -> Result<TensorData, PackError> {
        let mins = self.mins.as_ref();
        let mut tensor = dequantize(self.scheme, &self.words, &self.scales, mins)?;
        tensor.info.shape.clone_from(&self.shape);
        Ok(tensor)
    }

    /// Checks that every scale and minimum is finite.
    ///
    /// # Errors
    /// Names the tensor that is not.
    pub fn check_finite(&self) -> Result<(), PackError> {
        self.scales.check_finite()?;
        self.mins.as_ref().map_or(Ok(()), TensorData::check_finite)
    }
}

/// A parameter as stored in a pack.
#[derive(Debug, Clone)]
pub enum Stored {
    /// Dense values.
    Dense(TensorData),
    /// Quantized blocks.
    Quantized(Quantized),
}

impl Stored {
    /// The same under another name.
    pub fn renamed(self, name: &str) -> Self {
        match self {
            Self::Dense(tensor) => Self::Dense(tensor.renamed(name)),
            Self::Quantized(tensor) => Self::Quantized(Quantized {
                words: tensor.words.renamed(name),
                scales: tensor.scales.renamed(scales_name(name)),
                mins: tensor.mins.map(|mins| mins.renamed(mins_name(name))),
                ..tensor
            }),
        }
    }

    /// Converts to a dense tensor; dequantizes if needed.
    ///
    /// # Errors
    /// As [`Quantized::dequantize`].
    pub fn into_dense(self) -> Result<TensorData, PackError> {
        match self {
            Self::Dense(tensor) => Ok(tensor),
            Self::Quantized(tensor) => tensor.dequantize(),
        }
    }
}

impl From<TensorData> for Stored {
    fn from(tensor: TensorData) -> Self {
        Self::Dense(tensor)
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

/// Dequantizes stored tensors to the f32 matrix `[out, in]`. `mins` is required for `q4_1` only.
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

    for tensor in [Some(packed), Some(scales), mins].into_iter().flatten() {
        tensor.check_len()?;
    }
    let mins = mins.filter(|_| scheme.has_mins());
    let mut bytes = vec![0; out.saturating_mul(width).saturating_mul(4)];
    // Blocks per parallel task.
    const CHUNK: usize = 1 << 10;
    let (packed_block, value_block) = (BLOCK * scheme.bits() / 8, BLOCK * 4);
    let fill = |at: usize, values: &mut [u8]| {
        let from = at * CHUNK;
        let words = packed.bytes.get(from * packed_block..).unwrap_or_default();
        let blocks = values
            .chunks_exact_mut(value_block)
            .zip(words.chunks_exact(packed_block));
        for (i, (values, words)) in blocks.enumerate() {
            let scale = half_at(scales, from + i);
            let min = mins.map_or(0.0, |mins| half_at(mins, from + i));
            scheme.widen(words, scale, min, values);
        }
    };
    #[cfg(feature = "convert")]
    {
        use rayon::prelude::*;
        let chunks = bytes.par_chunks_mut(CHUNK * value_block);
        chunks.enumerate().for_each(|(at, values)| fill(at, values));
    }
    #[cfg(not(feature = "convert"))]
    {
        let chunks = bytes.chunks_mut(CHUNK * value_block);
        chunks.enumerate().for_each(|(at, values)| fill(at, values));
    }
    TensorData::new(name, Dtype::F32, vec![out, width], bytes)
}

/// Element `at` of an F16 tensor.
pub(crate) fn half_at(tensor: &TensorData, at: usize) -> f32 {
    let element = tensor.bytes.get(2 * at..2 * at + 2);
    element
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0.0, |bytes| f16::from_le_bytes(bytes).to_f32())
}

/// The matrix shape `[out, in]` under which a tensor is quantized: a matrix itself, or a convolution weight
/// `[out, in, height, width]` with its last three dimensions merged.
pub fn as_matrix(shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [out, width] => Some((out, width)),
        [out, inputs, height, width] => {
            let row = inputs.checked_mul(height)?.checked_mul(width)?;
            Some((out, row))
        }
        _ => None,
    }
}
