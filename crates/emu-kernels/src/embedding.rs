//! Embedding table.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::init::{Init, param};
use crate::ops;

/// A table of one row per token.
#[derive(Module, Debug)]
pub struct QEmbedding {
    /// `[rows, width]`
    pub weight: Param<Tensor<2>>,
}

impl QEmbedding {
    /// A table of normal rows with this standard deviation.
    pub fn new(rows: usize, width: usize, std: f32, device: &Device) -> Self {
        Self {
            weight: param([rows, width], Init::Normal(std), device),
        }
    }

    /// # Shapes
    /// - `ids`: `[B, T]`, each below the number of rows
    /// - returns `[B, T, width]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        ops::embedding(self.weight.val(), ids)
    }
}
