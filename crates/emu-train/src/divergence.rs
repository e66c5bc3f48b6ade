//! Detects divergence: compares the smoothed loss with its best value.

/// Decay of the moving average per step.
const DECAY: f64 = 0.9;
/// A smoothed loss of this multiple of the best one counts as divergence.
const FACTOR: f64 = 10.0;

/// The smoothed loss of a run. It depends on the losses only, so that a resumed run gives the same warnings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Divergence {
    mean: f64,
    /// Sum of the weights in `mean`, for bias correction.
    weight: f64,
    best: Option<f64>,
    diverged: bool,
}

impl Divergence {
    /// The state after these losses.
    pub fn new(losses: impl IntoIterator<Item = f32>) -> Self {
        let mut divergence = Self::default();
        for loss in losses {
            divergence.push(loss);
        }
        divergence
    }

    /// Adds the loss of a step. Returns a warning with advice when the run starts to diverge. It warns once, and again
    /// only after the loss has come down.
    pub fn push(&mut self, loss: f32) -> Option<String> {
        self.mean = DECAY * self.mean + (1.0 - DECAY) * f64::from(loss);
        self.weight = DECAY * self.weight + (1.0 - DECAY);
        let smoothed = self.mean / self.weight;
        let best = self.best.map_or(smoothed, |best| best.min(smoothed));
        self.best = Some(best);
        // The ratio is meaningless for a loss that can be zero or negative.
        let before = self.diverged;
        self.diverged = best > 0.0 && smoothed >= FACTOR * best;
        (self.diverged && !before).then(|| {
            format!(
                "Training diverges: the smoothed loss is {smoothed:.4}, {:.0} times its best ({best:.4}). \
                 Lower the learning rate or lengthen the warm-up, and go back to an earlier checkpoint or start again.",
                smoothed / best
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(losses: &[f32]) -> Vec<usize> {
        let mut divergence = Divergence::default();
        let push = |(i, loss): (usize, &f32)| divergence.push(*loss).map(|_| i);
        losses.iter().enumerate().filter_map(push).collect()
    }

    #[test]
    fn divergence_is_told_once_at_ten_times_the_best() {
        let mut losses = vec![1.0; 20];
        losses.extend([2.0, 5.0, 9.0]);
        assert_eq!(warnings(&losses), Vec::<usize>::new());
        losses.extend([1e3; 5]);
        assert_eq!(warnings(&losses), [23]);
        // The loss comes down and rises again.
        losses.extend([1.0; 80]);
        losses.extend([1e6; 3]);
        assert_eq!(warnings(&losses), [23, 108]);
    }

    #[test]
    fn what_says_nothing_is_not_told() {
        assert!(warnings(&[1.0, 0.5, 3.0, 0.2, 1.5, 0.1]).is_empty());
        assert!(warnings(&[-1.0, -5.0, 10.0]).is_empty());
        assert!(warnings(&[0.0, 0.0, 1.0]).is_empty());
    }

    #[test]
    fn a_resumed_run_sees_what_the_original_saw() {
        let losses = [1.0, 0.9, 0.8, 50.0, 60.0];
        let mut resumed = Divergence::new(losses[..3].iter().copied());
        assert!(resumed.push(losses[3]).is_none() != warnings(&losses).contains(&3));
        let mut late = Divergence::new(losses[..4].iter().copied());
        assert_eq!(
            late.push(losses[4]).is_some(),
            warnings(&losses).contains(&4)
        );
    }
}
