//! Matrix-vector products (gemv) on stored matrices, without dequantizing the whole matrix.
//!
//! For converters that run a model larger than memory: a matrix is read, multiplied and dropped.

use rayon::prelude::*;

use crate::{
    Dtype, PackError, PackReader, TensorData, TensorSource,
    quant::{BLOCK, Scheme, half_at, mins_name, scales_name},
};

impl PackReader {
    /// Computes `W x` for the stored matrix `[out, in]` of this name, accumulating in f32.
    ///
    /// # Errors
    /// The tensor is not a matrix with rows of `x`'s length, or cannot be read.
    pub fn multiply(&self, name: &str, x: &[f32]) -> Result<Vec<f32>, PackError> {
        let packed = self.read(name)?;
        let wrong = || PackError::Misshapen {
            file: self.manifest().name.clone(),
            tensor: name.into(),
            expected: format!("a matrix with rows of {}", x.len()),
            found: packed.info.describe(),
        };
        let &[rows, stored] = packed.info.shape.as_slice() else {
            return Err(wrong());
        };
        let scheme = self.scheme(name);
        let width = scheme.map_or(stored, |scheme| stored * scheme.per_word());
        if width != x.len() {
            return Err(wrong());
        }
        let mut product = vec![0.0; rows];
        let row_bytes = stored * packed.info.dtype.size();
        let Some(scheme) = scheme else {
            let dot = dense(packed.info.dtype).ok_or_else(wrong)?;
            let rows = packed.bytes.par_chunks_exact(row_bytes.max(1));
            let outputs = product.par_iter_mut().zip(rows);
            outputs.for_each(|(y, row)| *y = dot(row, x));
            return Ok(product);
        };
        let scales = self.read(&scales_name(name))?;
        let mins = match scheme.has_mins() {
            true => Some(self.read(&mins_name(name))?),
            false => None,
        };
        let blocks = width / BLOCK;
        let rows = packed.bytes.par_chunks_exact(row_bytes.max(1));
        let outputs = product.par_iter_mut().zip(rows).enumerate();
        outputs.for_each(|(at, (y, row))| {
            *y = quantized(scheme, row, x, &scales, mins.as_ref(), at * blocks);
        });
        Ok(product)
    }
}

/// Dot product of a row of some type with a vector.
type Dot = fn(&[u8], &[f32]) -> f32;

fn dense(dtype: Dtype) -> Option<Dot> {
    fn dot<const N: usize>(row: &[u8], x: &[f32], value: impl Fn([u8; N]) -> f32) -> f32 {
        let mut sums = [0.0f32; 8];
        let pairs = row.as_chunks::<N>().0.chunks(8).zip(x.chunks(8));
        for (row, x) in pairs {
            for ((sum, &w), &x) in sums.iter_mut().zip(row).zip(x) {
                *sum += value(w) * x;
            }
        }
        sums.iter().sum()
    }
    match dtype {
        Dtype::F32 => Some(|row, x| dot(row, x, f32::from_le_bytes)),
        Dtype::F16 => Some(|row, x| dot(row, x, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(|row, x| dot(row, x, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::F64 => Some(|row, x| dot(row, x, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

/// Dot product of a quantized row whose first block has index `first`.
fn quantized(
    scheme: Scheme,
    row: &[u8],
    x: &[f32],
    scales: &TensorData,
    mins: Option<&TensorData>,
    first: usize,
) -> f32 {
    let blocks = row.chunks_exact(BLOCK * scheme.bits() / 8);
    let mut sum = 0.0;
    for (i, (block, x)) in blocks.zip(x.as_chunks::<BLOCK>().0).enumerate() {
        let inner = match scheme {
            Scheme::Q8 => bytes(block, x),
            Scheme::Q4 => nibbles(
                block,
                x,
                |low| (low << 4) as i8 >> 4,
                |high| high as i8 >> 4,
            ),
            Scheme::Q4_1 => nibbles(block, x, |low| (low & 15) as i8, |high| (high >> 4) as i8),
        };
        sum += inner * half_at(scales, first + i);
        if let Some(mins) = mins {
            sum += half_at(mins, first + i) * x.iter().sum::<f32>();
        }
    }
    sum
}

fn bytes(block: &[u8], x: &[f32; BLOCK]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (block, x) in block.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0) {
        for ((sum, &q), x) in sums.iter_mut().zip(block).zip(x) {
            *sum += f32::from(q as i8) * x;
        }
    }
    sums.iter().sum()
}

/// Dot product of 4-bit elements, two per byte with the first in the low nibble (words are little-endian).
fn nibbles(block: &[u8], x: &[f32; BLOCK], low: impl Fn(u8) -> i8, high: impl Fn(u8) -> i8) -> f32 {
    let mut sums = [0.0f32; 8];
    for (block, x) in block.as_chunks::<4>().0.iter().zip(x.as_chunks::<8>().0) {
        for ((sums, &byte), x) in { sums.as_chunks_mut::<2>().0.iter_mut() }
            .zip(block)
            .zip(x.as_chunks::<2>().0)
        {
            sums[0] += f32::from(low(byte)) * x[0];
            sums[1] += f32::from(high(byte)) * x[1];
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{PackMeta, PackWriter, Policy, WriteOptions};

    #[test]
    fn products_are_those_of_the_widened_matrix() {
        let folder = tempfile::tempdir().unwrap();
        let (rows, width) = (7, 96);
        let values: Vec<f32> = (0..rows * width)
            .map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 1e-3)
            .collect();
        let x: Vec<f32> = (0..width).map(|i| (i as f32 * 0.37).sin()).collect();
        for policy in ["none", "f16", "q8", "q4", "q4_1"] {
            let path = folder.path().join(policy);
            let options = WriteOptions {
                policy: Policy::from_argument(policy).unwrap(),
                ..WriteOptions::default()
            };
            let mut writer = PackWriter::create(&path, PackMeta::default(), options).unwrap();
            let matrix = TensorData::from_f32("w", vec![rows, width], &values).unwrap();
            writer.add("lm", matrix).unwrap();
            writer.finish().unwrap();
            let pack = PackReader::open(&path).unwrap();
            let wide = pack.read_logical("w").unwrap().to_f32().unwrap();
            let product = pack.multiply("w", &x).unwrap();
            for (row, y) in wide.chunks(width).zip(&product) {
                let want: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(w * x)).sum();
                assert!((f64::from(*y) - want).abs() < 1e-5, "{policy}: {y} {want}");
            }
            assert_eq!(product.len(), rows);
            assert_eq!(pack.multiply("w", &x[1..]).unwrap_err().code(), "misshapen");
            assert_eq!(pack.multiply("v", &x).unwrap_err().code(), "missing-tensor");
        }
    }
}
