//! A tensor: type, shape and bytes.

use std::{collections::HashMap, fmt};

use crate::PackError;

/// Element type of a stored tensor. Bytes are little-endian and row-major throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float with 5 exponent bits.
    F16,
    /// 16-bit float with 8 exponent bits.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer; also eight 4-bit or four 8-bit quantized values.
    U32,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    #[serde(rename = "BOOL")]
    Bool,
}

impl Dtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// The name in safetensors files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// The type by its name in safetensors files; `None` if unsupported.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::F64,
            Self::F32,
            Self::F16,
            Self::BF16,
            Self::I64,
            Self::I32,
            Self::U32,
            Self::U8,
            Self::Bool,
        ];
        all.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Whether it is one of the four float types.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor's metadata, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, as spelled by its source.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements; an error if it overflows `usize`.
    pub fn elements(&self) -> Result<usize, PackError> {
        checked_product(&self.shape).ok_or_else(|| self.absurd())
    }

    /// Size in bytes; an error if it overflows `usize`.
    pub fn byte_len(&self) -> Result<usize, PackError> {
        self.elements()?
            .checked_mul(self.dtype.size())
            .ok_or_else(|| self.absurd())
    }

    /// Type and shape, for error messages.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }

    fn absurd(&self) -> PackError {
        PackError::TooLarge {
            what: format!("tensor `{}`", self.name),
            size: format!("the shape {:?}", self.shape),
            limit: "the address space".into(),
        }
    }
}

/// Product of the sizes; `None` on overflow (a zero size makes it 0 regardless of the others).
pub(crate) fn checked_product(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// A tensor with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorData {
    /// Metadata.
    pub info: TensorInfo,
    /// Elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl TensorData {
    /// A tensor from its bytes, whose length must match type and shape.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    ) -> Result<Self, PackError> {
        let tensor = Self {
            info: TensorInfo {
                name: name.into(),
                dtype,
                shape,
            },
            bytes,
        };
        tensor.check_len()?;
        Ok(tensor)
    }

    /// An f32 tensor from its values.
    pub fn from_f32(
        name: impl Into<String>,
        shape: Vec<usize>,
        values: &[f32],
    ) -> Result<Self, PackError> {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self::new(name, Dtype::F32, shape, bytes)
    }

    /// The values as f32; f16 and bf16 are widened, f64 is rounded. Integers are an error, since they are not weights.
    pub fn to_f32(&self) -> Result<Vec<f32>, PackError> {
        self.check_len()?;
        Ok(match self.info.dtype {
            Dtype::F32 => map_elements(&self.bytes, f32::from_le_bytes),
            Dtype::F16 => map_elements(&self.bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => map_elements(&self.bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => map_elements(&self.bytes, |b| f64::from_le_bytes(b) as f32),
            _ => return Err(self.wrong_dtype("a float type")),
        })
    }

    /// The values as i64, from any integer type or bool. Floats are an error.
    pub fn to_i64(&self) -> Result<Vec<i64>, PackError> {
        self.check_len()?;
        Ok(match self.info.dtype {
            Dtype::I64 => map_elements(&self.bytes, i64::from_le_bytes),
            Dtype::I32 => map_elements(&self.bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::U32 => map_elements(&self.bytes, |b| u32::from_le_bytes(b).into()),
            Dtype::U8 | Dtype::Bool => self.bytes.iter().map(|&b| b.into()).collect(),
            _ => return Err(self.wrong_dtype("an integer type")),
        })
    }

    /// The values of a U32 tensor.
    pub fn to_u32(&self) -> Result<Vec<u32>, PackError> {
        self.check_len()?;
        match self.info.dtype {
            Dtype::U32 => Ok(map_elements(&self.bytes, u32::from_le_bytes)),
            _ => Err(self.wrong_dtype("U32")),
        }
    }

    /// Fails with [`PackError::NotFinite`] at the first NaN or infinity. Integers always pass.
    pub fn check_finite(&self) -> Result<(), PackError> {
        self.check_len()?;
        let found = match self.info.dtype {
            Dtype::F32 => first_not_finite(&self.bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::F16 => first_not_finite(&self.bytes, |b| half::f16::from_le_bytes(b).to_f64()),
            Dtype::BF16 => first_not_finite(&self.bytes, |b| half::bf16::from_le_bytes(b).to_f64()),
            Dtype::F64 => first_not_finite(&self.bytes, f64::from_le_bytes),
            _ => None,
        };
        match found {
            None => Ok(()),
            Some((index, value)) => Err(PackError::NotFinite {
                tensor: self.info.name.clone(),
                index,
                value: value.to_string(),
            }),
        }
    }

    /// The same values under another name.
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.info.name = name.into();
        self
    }

    pub(crate) fn check_len(&self) -> Result<(), PackError> {
        let expected = self.info.byte_len()?;
        if self.bytes.len() == expected {
            return Ok(());
        }
        let (tensor, found) = (self.info.name.clone(), self.bytes.len() as u64);
        Err(PackError::WrongLength {
            tensor,
            expected: expected as u64,
            found,
        })
    }

    fn wrong_dtype(&self, wanted: &'static str) -> PackError {
        PackError::WrongDtype {
            tensor: self.info.name.clone(),
            found: self.info.dtype.to_string(),
            wanted,
        }
    }
}

fn map_elements<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&element| convert(element))
        .collect()
}

fn first_not_finite<const N: usize>(
    bytes: &[u8],
    convert: impl Fn([u8; N]) -> f64,
) -> Option<(usize, f64)> {
    let values = bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&element| convert(element));
    values.enumerate().find(|(_, value)| !value.is_finite())
}

/// The tensors of a source, with lookup by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    infos: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Index {
    /// Adds one tensor; `false` (and no change) if the name is taken.
    pub fn push(&mut self, info: TensorInfo) -> bool {
        if self.by_name.contains_key(&info.name) {
            return false;
        }
        self.by_name.insert(info.name.clone(), self.infos.len());
        self.infos.push(info);
        true
    }

    pub fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.infos.get(self.position(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(dtype: Dtype, bits: &[u16]) -> TensorData {
        let bytes = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        TensorData::new("t", dtype, vec![bits.len()], bytes).unwrap()
    }

    #[test]
    fn widens_floats() {
        assert_eq!(
            halves(Dtype::F16, &[0x3c00, 0xc000, 0x0001])
                .to_f32()
                .unwrap(),
            [1.0, -2.0, 5.9604645e-8]
        );
        assert_eq!(
            halves(Dtype::BF16, &[0x3f80, 0xc000]).to_f32().unwrap(),
            [1.0, -2.0]
        );
        let wide =
            TensorData::new("d", Dtype::F64, vec![1], 0.1f64.to_le_bytes().to_vec()).unwrap();
        assert_eq!(wide.to_f32().unwrap(), [0.1f32]);
    }

    #[test]
    fn integers_are_no_weights() {
        let ids = TensorData::new(
            "ids",
            Dtype::I64,
            vec![2],
            [7i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
        .unwrap();
        assert_eq!(ids.to_i64().unwrap(), [7, -1]);
        assert_eq!(ids.to_f32().unwrap_err().code(), "wrong-dtype");
        assert_eq!(
            halves(Dtype::F16, &[0]).to_i64().unwrap_err().code(),
            "wrong-dtype"
        );
    }

    #[test]
    fn lengths_are_checked() {
        let error = TensorData::new("t", Dtype::F32, vec![3], vec![0; 8]).unwrap_err();
        assert_eq!(error.code(), "wrong-length");
        let error = TensorData::new("t", Dtype::F32, vec![usize::MAX, 2], vec![]).unwrap_err();
        assert_eq!(error.code(), "too-large");
        assert_eq!(
            TensorData::new("t", Dtype::F32, vec![usize::MAX, 0, 9], vec![])
                .unwrap()
                .to_f32()
                .unwrap()
                .len(),
            0
        );
    }

    #[test]
    fn finds_nan_and_infinity() {
        let tensor = TensorData::from_f32("w", vec![3], &[0.0, 1.0, f32::NEG_INFINITY]).unwrap();
        let message = tensor.check_finite().unwrap_err().to_string();
        assert!(
            message.contains("`w`") && message.contains("-inf") && message.contains("element 2"),
            "{message}"
        );
        assert_eq!(
            halves(Dtype::F16, &[0x7e00])
                .check_finite()
                .unwrap_err()
                .code(),
            "not-finite"
        );
        assert_eq!(
            halves(Dtype::BF16, &[0x7f80])
                .check_finite()
                .unwrap_err()
                .code(),
            "not-finite"
        );
        assert!(halves(Dtype::F16, &[0x7bff]).check_finite().is_ok());
    }
}
