//! Soft prompt: learned embeddings that replace the system message and tell a frozen language model who it is.
//!
//! B batch, N embeddings, D width.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::QEmbedding;
use emu_kernels::init::{Init, param};

/// A learned soft prompt.
#[derive(Module, Debug)]
pub struct SoftPrompt {
    /// `[N, D]`
    pub embeddings: Param<Tensor<2>>,
}

impl SoftPrompt {
    /// Creates a soft prompt of zeros to load weights into.
    pub fn new(length: usize, width: usize, device: &Device) -> Self {
        Self {
            embeddings: param([length, width], Init::Zeros, device),
        }
    }

    /// Initializes a soft prompt from a system turn. A longer turn is cut before its last two tokens, its end token and
    /// the newline; of a shorter one, the last token is repeated.
    ///
    /// # Panics
    /// If `turn` is empty.
    pub fn of_turn(table: &QEmbedding, turn: &[u32], length: usize, device: &Device) -> Self {
        let last = turn.len() - 1;
        // Number of tokens cut before the last two.
        let cut = turn.len().saturating_sub(length);
        let token = |i: usize| match i + length.min(2) < length {
            true => turn[i.min(last)],
            false => turn[(i + cut).min(last)],
        };
        let ids = (0..length).map(|i| token(i) as i32).collect();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [1, length]), device);
        let rows = table.forward(ids).squeeze_dim::<2>(0).into_data();
        Self {
            embeddings: Param::from_data(rows, device),
        }
    }

    /// The first N positions of B sequences, `[B, N, D]`.
    pub fn begin(&self, batch: usize) -> Tensor<3> {
        let [n, d] = self.embeddings.dims();
        self.embeddings
            .val()
            .unsqueeze_dim::<3>(0)
            .expand([batch, n, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_start_as_a_turn() {
        let device = Device::flex();
        let rows: Vec<f32> = (0..8).map(|v| v as f32).collect();
        let table = QEmbedding {
            weight: Param::from_data(TensorData::new(rows, [8, 1]), &device),
        };
        let start = |turn: &[u32], length| {
            let prompt = SoftPrompt::of_turn(&table, turn, length, &device);
            let two = prompt.begin(2);
            assert_eq!(two.dims(), [2, length, 1]);
            let values: Vec<f32> = two.into_data().iter::<f32>().collect();
            assert_eq!(values[..length], values[length..]);
            values[..length].to_vec()
        };
        assert_eq!(start(&[1, 2, 3, 6, 7], 5), [1.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(start(&[1, 2, 3, 6, 7], 4), [1.0, 2.0, 6.0, 7.0]);
        assert_eq!(start(&[1, 7], 4), [1.0, 7.0, 7.0, 7.0]);
        assert_eq!(start(&[1, 2, 7], 1), [7.0]);
    }
}
