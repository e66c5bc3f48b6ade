//! Element types of GGUF: names, numbers and sizes.

use crate::{Dtype, Scheme, quant::BLOCK};

/// Elements of a super-block of the K types.
pub(super) const SUPER: usize = 256;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // As ggml spells them.
pub(super) enum Kind {
    Float(Dtype),
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
}

impl Kind {
    /// The type with this code; the error is the name of an unsupported type, or its code.
    pub fn from_code(code: u32) -> Result<Self, String> {
        const OTHERS: [(u32, &str); 18] = [
            (9, "Q8_1"),
            (15, "Q8_K"),
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
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
        Ok(match code {
            0 => Self::Float(Dtype::F32),
            1 => Self::Float(Dtype::F16),
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            20 => Self::IQ4_NL,
            23 => Self::IQ4_XS,
            30 => Self::Float(Dtype::BF16),
            _ => {
                let known = OTHERS.iter().find(|(other, _)| *other == code);
                return Err(
                    known.map_or_else(|| format!("number {code}"), |(_, name)| (*name).to_owned())
                );
            }
        })
    }

    /// Element type after reading (dequantized).
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::Float(dtype) => dtype,
            _ => Dtype::F32,
        }
    }

    /// The closest quantization scheme of the pack.
    pub const fn scheme(self) -> Option<Scheme> {
        match self {
            Self::Float(_) => None,
            Self::Q4_0 => Some(Scheme::Q4),
            Self::Q4_1 | Self::Q4_K => Some(Scheme::Q4_1),
            _ => Some(Scheme::Q8),
        }
    }

    /// Elements and bytes per piece (ggml's storage unit).
    pub const fn piece(self) -> (usize, usize) {
        match self {
            Self::Float(dtype) => (1, dtype.size()),
            Self::Q4_0 | Self::IQ4_NL => (BLOCK, 18),
            Self::Q4_1 => (BLOCK, 20),
            Self::Q5_0 => (BLOCK, 22),
            Self::Q5_1 => (BLOCK, 24),
            Self::Q8_0 => (BLOCK, 34),
            Self::Q2_K => (SUPER, 84),
            Self::Q3_K => (SUPER, 110),
            Self::Q4_K => (SUPER, 144),
            Self::Q5_K => (SUPER, 176),
            Self::Q6_K => (SUPER, 210),
            Self::IQ4_XS => (SUPER, 136),
        }
    }

    /// Size of a tensor of `elements` in rows of `width`, in bytes; `None` if rows are not whole blocks, or on overflow.
    ///
    /// A super-block of 256 may span rows; blocks of 32 still lie within rows.
    pub fn byte_len(self, elements: usize, width: usize) -> Option<usize> {
        let (piece, bytes) = self.piece();
        let rows_fit = piece == 1 || (width > 0 && width.is_multiple_of(BLOCK));
        match rows_fit && elements.is_multiple_of(piece) {
            true => (elements / piece).checked_mul(bytes),
            false => None,
        }
    }
}
