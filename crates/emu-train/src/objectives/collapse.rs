//! Detection of collapsed embeddings.
//!
//! Regression targets are detached, but the encoder may still map all pictures to the same embeddings, since constant
//! embeddings are easy to regress. The monitor tracks the variance of the targets across pictures.

use burn::tensor::Tensor;

/// Variance across pictures, averaged over positions and width, relative to the mean square: 0 if all embeddings are
/// equal, near 1 if they have no common component.
///
/// # Shapes
/// - `embeddings`: `[B, Q, D]` with at least two pictures
pub fn relative_variance(embeddings: Tensor<3>) -> Tensor<1> {
    let mean = embeddings.clone().mean_dim(0); // [1, Q, D]
    let variance = (embeddings.clone() - mean).square().mean();
    variance / embeddings.square().mean().add_scalar(1e-12)
}

/// Tracks the variance of the targets and detects when it has vanished.
#[derive(Clone, Debug)]
pub struct CollapseMonitor {
    floor: f32,
    patience: usize,
    low: usize,
}

impl CollapseMonitor {
    /// Reports collapse once the relative variance has been below `floor` for `patience` consecutive checks.
    pub fn new(floor: f32, patience: usize) -> Self {
        Self {
            floor,
            patience,
            low: 0,
        }
    }

    /// Adds a value of [`relative_variance`]. Returns true on collapse.
    pub fn collapsed(&mut self, variance: f32) -> bool {
        self.low = if variance.is_nan() || variance < self.floor {
            self.low + 1
        } else {
            0
        };
        self.low >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn sees_constant_embeddings() {
        let device = Device::flex();
        let one = Tensor::<3>::random([1, 4, 8], Distribution::Normal(0.0, 1.0), &device);
        let same = relative_variance(one.expand([6, 4, 8])).into_scalar::<f32>();
        let varied = Tensor::<3>::random([6, 4, 8], Distribution::Normal(0.0, 1.0), &device);
        let varied = relative_variance(varied).into_scalar::<f32>();
        assert!(same < 1e-6 && varied > 0.5, "{same} {varied}");
        let mut monitor = CollapseMonitor::new(0.05, 3);
        assert!(!monitor.collapsed(same) && !monitor.collapsed(same));
        assert!(!monitor.collapsed(varied));
        assert!(!monitor.collapsed(same) && !monitor.collapsed(same) && monitor.collapsed(same));
    }
}
