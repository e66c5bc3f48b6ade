//! Embedding table.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::init::{Init, param};
use crate::{ops, packed};

/// Embedding table with one row per token.
#[derive(Module, Debug)]
pub struct QEmbedding {
    /// `[rows, width]`, dense or [`packed`].
    pub weight: Param<Tensor<2>>,
}

impl QEmbedding {
    /// A table of normally distributed rows with this standard deviation.
    pub fn new(rows: usize, width: usize, std: f32, device: &Device) -> Self {
        Self {
            weight: param([rows, width], Init::Normal(std), device),
        }
    }

    /// Whether the table is packed.
    pub fn is_packed(&self) -> bool {
        self.weight.reparameterization::<packed::Packed>().is_some()
    }

    /// # Shapes
    /// - `ids`: `[B, T]`, each below the number of rows
    /// - returns `[B, T, width]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let Some(packed) = packed::of(&self.weight, &ids) else {
            return ops::embedding(self.weight.val(), ids);
        };
        let ([b, t], [_, width]) = (ids.dims(), packed.shape());
        packed.rows(ids.reshape([b * t])).reshape([b, t, width])
    }

    /// Dot products of `[.., width]` with every row: `[.., rows]`, the logits of an output head tied to the table.
    pub fn project<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match packed::of(&self.weight, &x) {
            Some(packed) => packed.linear(x, None),
            None => ops::linear(x, self.weight.val(), None),
        }
    }
}
