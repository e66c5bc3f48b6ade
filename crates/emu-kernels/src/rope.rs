//! Rotary position embedding (Su et al., "RoFormer", 2021), in LLaMA's layout: halves, not pairs.

use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines of one forward, shared by all layers.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// `[B or 1, 1, T, E]`
    cos: Tensor<4>,
    /// `[B or 1, 1, T, E]`
    sin: Tensor<4>,
}

impl RopeTables {
    /// Tables for the given positions; frequencies `base^(-2i/E)` are computed, never read from a checkpoint (the
    /// released file has them rounded to bf16).
    ///
    /// # Shapes
    /// - `positions`: B rows of T; one row serves any batch
    pub fn new(positions: &[Vec<usize>], head_size: usize, base: f64, device: &Device) -> Self {
        let rows = positions.len();
        let steps = positions.first().map_or(0, Vec::len);
        let half = head_size / 2;
        let mut cos = Vec::with_capacity(rows * steps * head_size);
        let mut sin = Vec::with_capacity(cos.capacity());
        let frequencies: Vec<f64> = (0..half)
            .map(|i| 1.0 / libm::pow(base, 2.0 * i as f64 / head_size as f64))
            .collect();
        for &position in positions.iter().flatten() {
            for i in 0..head_size {
                let angle = position as f64 * frequencies[i % half];
                cos.push(libm::cos(angle) as f32);
                sin.push(libm::sin(angle) as f32);
            }
        }
        let tensor = |values| {
            Tensor::from_data(TensorData::new(values, [rows, 1, steps, head_size]), device)
        };
        Self {
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }

    /// Rotates `[B, H, T, E]`.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (low, high) = (
            x.clone().narrow(3, 0, half),
            x.clone().narrow(3, half, half),
        );
        let turned = Tensor::cat(vec![high.neg(), low], 3);
        x.mul(self.cos.clone()).add(turned.mul(self.sin.clone()))
    }
}
