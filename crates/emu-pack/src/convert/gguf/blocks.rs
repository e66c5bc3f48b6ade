//! Element types of GGUF, and their blocks in the pack's layout, bit for bit.
//!
//! | type | a block of 32 | value |
//! | --- | --- | --- |
//! | `Q4_0` | `d: f16`, 16 bytes: element i in the low half of byte i, element i + 16 in the high half | `(q - 8) * d` |
//! | `Q4_1` | `d: f16`, `m: f16`, 16 bytes as before | `q * d + m` |
//! | `Q8_0` | `d: f16`, 32 signed bytes | `q * d` |
//!
//! Each has a scheme of the pack with the same values: only the order of the elements differs, and where `q - 8` is
//! stored as it is.

use crate::{Dtype, PackError, Quantized, Scheme, TensorData, quant::BLOCK};

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Float(Dtype),
    Q4_0,
    Q4_1,
    Q8_0,
}

impl Kind {
    /// The type of that number; the name of one that is not read here, where it has one.
    pub fn from_code(code: u32) -> Result<Self, String> {
        const OTHERS: [(u32, &str); 27] = [
            (6, "Q5_0"),
            (7, "Q5_1"),
            (9, "Q8_1"),
            (10, "Q2_K"),
            (11, "Q3_K"),
            (12, "Q4_K"),
            (13, "Q5_K"),
            (14, "Q6_K"),
            (15, "Q8_K"),
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (20, "IQ4_NL"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
            (23, "IQ4_XS"),
            (24, "I8"),
            (25, "I16"),
            (26, "I32"),
            (27, "I64"),
            (28, "F64"),
            (29, "IQ1_M"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (39, "MXFP4"),
            (40, "NVFP4"),
        ];
        match code {
            0 => Ok(Self::Float(Dtype::F32)),
            1 => Ok(Self::Float(Dtype::F16)),
            2 => Ok(Self::Q4_0),
            3 => Ok(Self::Q4_1),
            8 => Ok(Self::Q8_0),
            30 => Ok(Self::Float(Dtype::BF16)),
            _ => Err(OTHERS
                .iter()
                .find(|(other, _)| *other == code)
                .map_or_else(|| format!("number {code}"), |(_, name)| (*name).to_owned())),
        }
    }

    /// The type of the tensor that reading gives.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::Float(dtype) => dtype,
            _ => Dtype::F32,
        }
    }

    /// The pack's scheme of the same values.
    const fn scheme(self) -> Option<Scheme> {
        match self {
            Self::Float(_) => None,
            Self::Q4_0 => Some(Scheme::Q4),
            Self::Q4_1 => Some(Scheme::Q4_1),
            Self::Q8_0 => Some(Scheme::Q8),
        }
    }

    /// Elements and bytes of the smallest piece that is stored.
    const fn piece(self) -> (usize, usize) {
        match self {
            Self::Float(dtype) => (1, dtype.size()),
            Self::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            Self::Q4_1 => (BLOCK, 4 + BLOCK / 2),
            Self::Q8_0 => (BLOCK, 2 + BLOCK),
        }
    }

    /// Bytes of a tensor of `elements` in rows of `width`; `None` where rows are no whole blocks, or nothing could
    /// hold so many.
    pub fn byte_len(self, elements: usize, width: usize) -> Option<usize> {
        let (piece, bytes) = self.piece();
        match width.is_multiple_of(piece) && (piece == 1 || width > 0) {
            true => (elements / piece).checked_mul(bytes),
            false => None,
        }
    }
}

/// Blocks `[out, width / 32]` in the pack's layout; `None` for floats, and where they are not of that shape.
pub(super) fn repack(
    kind: Kind,
    name: &str,
    (out, width): (usize, usize),
    blocks: &[u8],
) -> Result<Option<Quantized>, PackError> {
    let Some(scheme) = kind.scheme() else {
        return Ok(None);
    };
    let Some(stored) = scheme.stored(name, out, width) else {
        return Ok(None);
    };
    let (_, bytes) = kind.piece();
    let count = blocks.len() / bytes;
    let (mut words, mut scales) = (
        Vec::with_capacity(count * BLOCK * scheme.bits() / 8),
        Vec::with_capacity(count * 2),
    );
    let mut mins = Vec::with_capacity(if scheme.has_mins() { count * 2 } else { 0 });
    for block in blocks.chunks_exact(bytes) {
        let (head, elements) = block.split_at(if scheme.has_mins() { 4 } else { 2 });
        let (scale, min) = head.split_at(2);
        scales.extend_from_slice(scale);
        mins.extend_from_slice(min);
        match kind {
            Kind::Q4_0 => words.extend(neighbours(elements).map(|pair| pair ^ 0x88)),
            Kind::Q4_1 => words.extend(neighbours(elements)),
            _ => words.extend_from_slice(elements),
        }
    }
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

/// From halves 16 elements apart to halves that are neighbours: elements 2i and 2i + 1 of the block in byte i.
///
/// A nibble `q` of `Q4_0` means `q - 8`, whose two's complement is `q` with its highest bit turned.
fn neighbours(halves: &[u8]) -> impl Iterator<Item = u8> {
    let low = halves.as_chunks::<2>().0.iter();
    let high = low.clone();
    low.map(|[even, odd]| (even & 15) | (odd << 4))
        .chain(high.map(|[even, odd]| (even >> 4) | (odd & 0xf0)))
}
