//! Multi-threaded casts between float types, with their rounding loss.

use half::{bf16, f16};
use rayon::prelude::*;

use super::Loss;
use crate::{Dtype, PackError, TensorData, TensorInfo};

/// Elements per parallel task.
const CHUNK: usize = 1 << 15;

/// Casts to the same, a wider or a narrower float type; a policy only ever asks for F32 or F16.
pub(super) fn cast(
    info: TensorInfo,
    bytes: &[u8],
    dtype: Dtype,
) -> Result<(TensorData, Loss), PackError> {
    let from_f16 = |b| f16::from_le_bytes(b).to_f32();
    let from_bf16 = |b| bf16::from_le_bytes(b).to_f32();
    let from_f64 = |b| f64::from_le_bytes(b) as f32;
    let to_f16 = |v| f16::from_f32(v).to_le_bytes();
    let (bytes, loss) = match (info.dtype, dtype) {
        (from, to) if from == to => (bytes.to_vec(), magnitude(from, bytes)),
        (Dtype::F32, Dtype::F16) => each(bytes, f32::from_le_bytes, to_f16, from_f16),
        (Dtype::F64, Dtype::F16) => each(bytes, from_f64, to_f16, from_f16),
        (Dtype::BF16, Dtype::F16) => each(bytes, from_bf16, to_f16, from_f16),
        (Dtype::F64, Dtype::F32) => each(bytes, from_f64, f32::to_le_bytes, f32::from_le_bytes),
        (Dtype::F16, Dtype::F32) => each(bytes, from_f16, f32::to_le_bytes, f32::from_le_bytes),
        (Dtype::BF16, Dtype::F32) => each(bytes, from_bf16, f32::to_le_bytes, f32::from_le_bytes),
        (from, _) => {
            let (tensor, found) = (info.name, from.to_string());
            return Err(PackError::WrongDtype {
                tensor,
                found,
                wanted: "a float type",
            });
        }
    };
    let tensor = TensorData::new(info.name, dtype, info.shape, bytes)?;
    Ok((tensor, loss))
}

fn each<const N: usize, const M: usize>(
    bytes: &[u8],
    widen: impl Fn([u8; N]) -> f32 + Sync,
    narrow: impl Fn(f32) -> [u8; M] + Sync,
    back: impl Fn([u8; M]) -> f32 + Sync,
) -> (Vec<u8>, Loss) {
    let mut converted = vec![0; bytes.len() / N * M];
    let loss = bytes
        .par_chunks(CHUNK * N)
        .zip(converted.par_chunks_mut(CHUNK * M))
        .map(|(bytes, converted)| {
            let (bytes, converted) = (bytes.as_chunks::<N>().0, converted.as_chunks_mut::<M>().0);
            Loss::between(bytes.iter().zip(converted).map(|(&from, to)| {
                let value = widen(from);
                *to = narrow(value);
                (value, back(*to))
            }))
        })
        .reduce(Loss::default, Loss::and);
    (converted, loss)
}

/// The [`Loss`] of values stored exactly.
fn magnitude(dtype: Dtype, bytes: &[u8]) -> Loss {
    fn exact<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32 + Sync) -> Loss {
        let elements = bytes.as_chunks::<N>().0.par_chunks(CHUNK);
        let losses = elements.map(|chunk| {
            let values = chunk.iter().map(|&element| value(element));
            Loss::between(values.map(|value| (value, value)))
        });
        losses.reduce(Loss::default, Loss::and)
    }
    match dtype {
        Dtype::F32 => exact(bytes, f32::from_le_bytes),
        Dtype::F16 => exact(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => exact(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => exact(bytes, |b| f64::from_le_bytes(b) as f32),
        _ => Loss::default(),
    }
}

/// Whether no value overflows to infinity in f16.
pub(super) fn fits_f16(tensor: &TensorData) -> bool {
    const LIMIT: f64 = 65520.0;
    all(tensor, |value| value.abs() < LIMIT)
}

/// Whether the tensor has neither NaN nor infinity. Always true for integers.
pub(super) fn is_finite(tensor: &TensorData) -> bool {
    all(tensor, f64::is_finite)
}

fn all(tensor: &TensorData, holds: impl Fn(f64) -> bool + Sync) -> bool {
    fn within<const N: usize>(
        bytes: &[u8],
        value: impl Fn([u8; N]) -> f64 + Sync,
        holds: impl Fn(f64) -> bool + Sync,
    ) -> bool {
        let chunks = bytes.as_chunks::<N>().0.par_chunks(CHUNK);
        let chunk = |chunk: &[[u8; N]]| chunk.iter().all(|&element| holds(value(element)));
        chunks.all(chunk)
    }
    let bytes = &tensor.bytes;
    match tensor.info.dtype {
        Dtype::F32 => within(bytes, |b| f32::from_le_bytes(b).into(), holds),
        Dtype::F16 => within(bytes, |b| f16::from_le_bytes(b).to_f64(), holds),
        Dtype::BF16 => within(bytes, |b| bf16::from_le_bytes(b).to_f64(), holds),
        Dtype::F64 => within(bytes, f64::from_le_bytes, holds),
        _ => true,
    }
}
