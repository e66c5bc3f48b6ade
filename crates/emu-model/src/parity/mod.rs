//! Parity: comparison with tensors of the original implementation ("goldens"), each with its error bound.
//!
//! Goldens are looked up by the names in the data, never by a count or size in the code: other goldens of the same
//! layout are compared too.

mod cases;
pub mod core;
pub mod diffusion;
mod embed;
pub mod generate;
mod generator;
mod predict;
pub mod tokenizer;

use burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_pack::{PackError, TensorData, TensorSource};
use emu_tokenizer::TokenizerError;
use serde_json::Value;

use crate::config::ConfigError;
use crate::emu::SpliceError;
use crate::generate::GenerateError;

/// A compared tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the golden.
    pub tensor: String,
    /// Largest absolute difference; for ids and texts, the number of differences. Infinite if no comparison was
    /// possible.
    pub error: f64,
    /// Bound of the error.
    pub bound: f64,
    /// Why no comparison was possible.
    pub note: Option<String>,
}

impl Row {
    /// The result of a comparison.
    pub fn new(tensor: impl Into<String>, error: f64, bound: f64) -> Self {
        Self {
            tensor: tensor.into(),
            error,
            bound,
            note: None,
        }
    }

    /// A comparison that was not possible; counts as failed.
    pub fn failed(tensor: impl Into<String>, note: impl ToString) -> Self {
        Self {
            tensor: tensor.into(),
            error: f64::INFINITY,
            bound: 0.0,
            note: Some(note.to_string()),
        }
    }

    /// Whether the error is within the bound. NaN is not.
    pub fn passes(&self) -> bool {
        self.error <= self.bound
    }
}

/// Error bound of a tensor, given its largest absolute value: the limits that the reference suggests for f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// `1e-4 · max(1, absmax)`
    Forward,
    /// `2e-4 · absmax`, and at least 1e-8 for the rounding error of zero gradients.
    Gradient,
    /// `1e-3 · absmax / 10`
    Denoising,
    /// A constant.
    Absolute(f64),
}

impl Bound {
    /// The bound for a tensor of this largest absolute value.
    pub fn limit(self, absmax: f64) -> f64 {
        match self {
            Self::Forward => 1e-4 * absmax.max(1.0),
            Self::Gradient => (2e-4 * absmax).max(1e-8),
            Self::Denoising => 1e-3 * absmax / 10.0,
            Self::Absolute(limit) => limit,
        }
    }
}

/// Why a part of the goldens could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A tensor is absent or unreadable.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Images and their marks do not match.
    #[error(transparent)]
    Splice(#[from] SpliceError),
    /// A generation failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A text cannot be encoded or decoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The golden JSON lacks an entry.
    #[error("The golden JSON has no usable {0}. Give a folder laid out like the reference.")]
    Json(String),
    /// A tensor has an unexpected rank or length.
    #[error(
        "The golden {tensor} has the shape {shape:?}, which is none of its kind. Give a folder laid out like the reference."
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

impl ParityError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pack(e) => e.code(),
            Self::Config(_) => "bad-config",
            Self::Splice(_) => "image-marks",
            Self::Generate(e) => e.code(),
            Self::Tokenizer(e) => e.code(),
            Self::Json(_) => "golden-json",
            Self::Shape { .. } => "golden-shape",
        }
    }
}

/// Tensors of the original implementation, and the JSON that describes them.
#[derive(Clone, Copy)]
pub struct Goldens<'a> {
    /// The tensors.
    pub tensors: &'a dyn TensorSource,
    /// Texts, options and scalars.
    pub json: &'a Value,
}

impl<'a> Goldens<'a> {
    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.tensors.tensors().iter().map(|info| info.name.as_str())
    }

    /// Whether a tensor of this name exists.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// Shape and values of a float tensor.
    ///
    /// # Errors
    /// If it is absent or not of floats.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), ParityError> {
        let data = self.tensors.read(name)?;
        let values = data.to_f32()?;
        Ok((data.info.shape, values))
    }

    /// Shape and values of an integer tensor.
    ///
    /// # Errors
    /// If it is absent or not of integers.
    pub fn ints(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>), ParityError> {
        let data = self.tensors.read(name)?;
        let values = data.to_i64()?;
        Ok((data.info.shape, values))
    }

    /// The rows of an integer tensor of rank 2.
    ///
    /// # Errors
    /// If it is absent, of another rank, or not of integers.
    pub fn rows(&self, name: &str) -> Result<Vec<Vec<i64>>, ParityError> {
        match self.ints(name)? {
            (shape, values) if shape.len() == 2 => Ok(values
                .chunks(shape[1].max(1))
                .map(<[i64]>::to_vec)
                .collect()),
            (shape, _) => Err(ParityError::Shape {
                tensor: name.into(),
                shape,
            }),
        }
    }

    /// Rows of token ids.
    ///
    /// # Errors
    /// As [`Goldens::rows`].
    pub fn token_rows(&self, name: &str) -> Result<Vec<Vec<u32>>, ParityError> {
        let rows = self.rows(name)?;
        Ok(rows
            .into_iter()
            .map(|row| row.into_iter().map(|id| id.max(0) as u32).collect())
            .collect())
    }

    /// Loads a float tensor to a device.
    ///
    /// # Errors
    /// If it is absent, of another rank, or not of floats.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> Result<Tensor<D>, ParityError> {
        let (shape, values) = self.floats(name)?;
        match <[usize; D]>::try_from(shape.as_slice()) {
            Ok(dims) => Ok(Tensor::from_data(BurnData::new(values, dims), device)),
            Err(_) => Err(ParityError::Shape {
                tensor: name.into(),
                shape,
            }),
        }
    }

    /// Entries of an object of the JSON, in order; empty if it is absent.
    pub fn cases(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let object = self.json.get(key).and_then(Value::as_object);
        object
            .into_iter()
            .flatten()
            .map(|(name, case)| (name.as_str(), case))
    }

    /// Compares a tensor with the golden of this name.
    pub fn compare<const D: usize>(&self, name: &str, got: &Tensor<D>, bound: Bound) -> Row {
        self.compare_data(name, &got.to_data(), bound)
    }

    /// Compares data with the golden of this name.
    pub fn compare_data(&self, name: &str, got: &BurnData, bound: Bound) -> Row {
        match self.tensors.read(name) {
            Ok(want) => compare_tensor(name, got, &want, bound),
            Err(error) => Row::failed(name, error),
        }
    }
}

/// Compares a tensor with its golden: same shape, and every value within the bound.
pub fn compare_tensor(name: &str, got: &BurnData, want: &TensorData, bound: Bound) -> Row {
    let found: Vec<usize> = got.shape().iter().copied().collect();
    // A loss is a scalar in one library and a vector of one element in the other.
    let one = found.iter().product::<usize>() == 1 && want.info.elements().unwrap_or(0) == 1;
    if found != want.info.shape && !one {
        let shape = &want.info.shape;
        return Row::failed(name, format!("its shape is {found:?} instead of {shape:?}"));
    }
    let got: Vec<f32> = got.iter::<f32>().collect();
    match want.to_f32() {
        Ok(want) => compare(name, &got, &want, bound),
        Err(error) => Row::failed(name, error),
    }
}

/// Compares values. Equal infinities agree; NaN never does.
pub fn compare(name: &str, got: &[f32], want: &[f32], bound: Bound) -> Row {
    if got.len() != want.len() {
        let note = format!("{} values instead of {}", got.len(), want.len());
        return Row::failed(name, note);
    }
    Row::new(
        name,
        greatest_difference(got, want),
        bound.limit(greatest(want)),
    )
}

/// Compares the rows (of `width` values) for which `keep` is true.
pub fn compare_kept(name: &str, got: &[f32], want: &[f32], keep: &[bool], bound: Bound) -> Row {
    let width = want.len().checked_div(keep.len()).unwrap_or(0);
    if got.len() != want.len() || width * keep.len() != want.len() {
        let (rows, found, wanted) = (keep.len(), got.len(), want.len());
        return Row::failed(
            name,
            format!("{found} values instead of {wanted} in {rows} rows"),
        );
    }
    let pick = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks(width.max(1)).zip(keep);
        rows.filter(|(_, keep)| **keep)
            .flat_map(|(row, _)| row)
            .copied()
            .collect()
    };
    compare(name, &pick(got), &pick(want), bound)
}

/// Compares for equality: the error is the number of differing elements, including missing and additional ones.
pub fn exact<T: PartialEq>(name: &str, got: &[T], want: &[T]) -> Row {
    let common = got.iter().zip(want).filter(|(a, b)| a != b).count();
    Row::new(name, (common + got.len().abs_diff(want.len())) as f64, 0.0)
}

fn greatest(values: &[f32]) -> f64 {
    let finite = values.iter().filter(|v| v.is_finite());
    finite.fold(0.0, |max, v| f64::from(v.abs()).max(max))
}

fn greatest_difference(got: &[f32], want: &[f32]) -> f64 {
    got.iter().zip(want).fold(0.0, |max, (a, b)| {
        let difference = if a == b {
            0.0
        } else {
            (f64::from(*a) - f64::from(*b)).abs()
        };
        // `max` would ignore NaN.
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference.max(max)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_fails() {
        let want = [1.0, -8.0, 0.5];
        assert!(compare("t", &want, &want, Bound::Forward).passes());
        assert!(compare("t", &[1.0, -8.0005, 0.5], &want, Bound::Forward).passes());
        for wrong in [
            [1.001, -8.0, 0.5],
            [1.0, 8.0, 0.5],
            [1.0, -8.0, f32::NAN],
            [1.0, f32::NEG_INFINITY, 0.5],
        ] {
            let row = compare("t", &wrong, &want, Bound::Forward);
            assert!(!row.passes(), "{row:?}");
        }
        assert!(!compare("t", &want[..2], &want, Bound::Forward).passes());
        let infinite = [f32::NEG_INFINITY, 1.0];
        assert!(compare("t", &infinite, &infinite, Bound::Forward).passes());
        assert!(!compare("t", &[0.0, 1.0], &infinite, Bound::Forward).passes());
        assert!(!Row::new("t", f64::NAN, 1.0).passes());
        assert!(!Row::failed("t", "absent").passes());
    }

    #[test]
    fn shapes_must_agree() {
        let want = TensorData::from_f32("t", vec![2, 3], &[1.0; 6]).expect("fits");
        let got = |shape: &[usize]| BurnData::new(vec![1.0f32; 6], shape);
        assert!(compare_tensor("t", &got(&[2, 3]), &want, Bound::Forward).passes());
        assert!(!compare_tensor("t", &got(&[3, 2]), &want, Bound::Forward).passes());
        let ids = TensorData::new("t", emu_pack::Dtype::U8, vec![6], vec![1; 6]).expect("fits");
        assert!(!compare_tensor("t", &got(&[6]), &ids, Bound::Forward).passes());
    }

    #[test]
    fn only_kept_rows_count() {
        let want = [1.0, 1.0, 2.0, 2.0];
        let got = [1.0, 1.0, 9.0, 9.0];
        assert!(compare_kept("t", &got, &want, &[true, false], Bound::Forward).passes());
        assert!(!compare_kept("t", &got, &want, &[true, true], Bound::Forward).passes());
        assert!(!compare_kept("t", &got, &want, &[true, false, true], Bound::Forward).passes());
    }

    #[test]
    fn equality_counts_differences() {
        assert!(exact("t", &[1, 2], &[1, 2]).passes());
        assert_eq!(exact("t", &[1, 3], &[1, 2]).error, 1.0);
        assert_eq!(exact("t", &[1], &[1, 2, 3]).error, 2.0);
        assert!(!exact("t", &[] as &[i32], &[1]).passes());
    }
}
