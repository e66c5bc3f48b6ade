//! Functions of the elements of one or two tensors.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape};

use crate::cpu::{contiguous, for_each, values};

/// Elements per task.
pub const CHUNK: usize = 1 << 14;

/// Builds a tensor of any shape from values.
pub fn of(values: Vec<f32>, shape: Shape) -> FlexTensor {
    use burn::backend::flex::Layout;
    FlexTensor::new(
        burn::tensor::Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// Applies `f` to each element.
pub fn unary(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync + Send) -> FlexTensor {
    let (shape, x) = (x.shape(), contiguous(x));
    let mut out = vec![0.0; values(&x).len()];
    for_each(
        out.chunks_mut(CHUNK)
            .zip(values(&x).chunks(CHUNK))
            .collect(),
        |(out, x)| {
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x));
        },
    );
    of(out, shape)
}

/// Applies `f` to the elements of two tensors of the same shape.
pub fn binary(
    x: FlexTensor,
    y: FlexTensor,
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> FlexTensor {
    let (shape, x, y) = (x.shape(), contiguous(x), contiguous(y));
    let mut out = vec![0.0; values(&x).len()];
    let work = out
        .chunks_mut(CHUNK)
        .zip(values(&x).chunks(CHUNK))
        .zip(values(&y).chunks(CHUNK))
        .collect();
    for_each(work, |((out, x), y)| {
        out.iter_mut()
            .zip(x)
            .zip(y)
            .for_each(|((out, &x), &y)| *out = f(x, y));
    });
    of(out, shape)
}
