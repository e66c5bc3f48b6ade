//! The guard against collapse.
//!
//! Regression targets are detached, which does not rule out that the encoder makes all pictures alike: constant
//! embeddings are regressed perfectly. The guard watches how much the targets vary from picture to picture.

use burn::tensor::Tensor;

/// Mean over positions and width of the variance across pictures, relative to the mean square: 0 for pictures that all
/// look alike, near 1 for embeddings without a common part.
///
/// # Shapes
/// - `embeddings`: `[B, Q, D]` with at least two pictures
pub fn relative_variance(embeddings: Tensor<3>) -> Tensor<1> {
    let mean = embeddings.clone().mean_dim(0); // [1, Q, D]
    let variance = (embeddings.clone() - mean).square().mean();
    variance / embeddings.square().mean().add_scalar(1e-12)
}

/// Follows the variance of the targets and says when it has vanished.
#[derive(Clone, Debug)]
pub struct CollapseMonitor {
    floor: f32,
    patience: usize,
    low: usize,
}

impl CollapseMonitor {
    /// Complains once the relative variance stayed below `floor` for `patience` looks in a row.
    pub fn new(floor: f32, patience: usize) -> Self {
        Self {
            floor,
            patience,
            low: 0,
        }
    }

    /// Takes a value of [`relative_variance`]. True means collapsed.
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
