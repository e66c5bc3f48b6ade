//! Follows a figure of the evaluations: the best value, and how long ago it was.

use crate::TrainError;
use crate::config::{EarlyStopConfig, FigureConfig};

/// A figure and its best value so far. Everything follows from the evaluations, so a resumed run restores it from
/// `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Watch {
    key: &'static str,
    figure: String,
    larger: bool,
    min_delta: f64,
    /// Steps made at the best value, and the value.
    best: Option<(u64, f32)>,
    /// Evaluations since then.
    stale: usize,
}

impl Watch {
    /// The figure that selects the best checkpoint.
    pub fn best(config: &FigureConfig) -> Self {
        Self::new("checkpoint.best.figure", &config.figure, config.larger, 0.0)
    }

    /// The figure that ends a run.
    pub fn early_stop(config: &EarlyStopConfig) -> Self {
        Self::new(
            "early_stop.figure",
            &config.figure,
            config.larger,
            config.min_delta,
        )
    }

    fn new(key: &'static str, figure: &str, larger: bool, min_delta: f64) -> Self {
        Self {
            key,
            figure: figure.into(),
            larger,
            min_delta,
            best: None,
            stale: 0,
        }
    }

    /// Takes the figures of an evaluation after `step` steps. Returns whether the figure improved.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the figure is not among them.
    pub fn push(&mut self, step: u64, figures: &[(String, f32)]) -> Result<bool, TrainError> {
        let Some((_, value)) = figures.iter().find(|(name, _)| *name == self.figure) else {
            let known: Vec<&str> = figures.iter().map(|(name, _)| name.as_str()).collect();
            let message = match known.as_slice() {
                [] => "evaluations of this run have no figures; list held-out data under [[validation]]".into(),
                known => format!(
                    "evaluations have no figure `{}`, only {}",
                    self.figure,
                    known.join(", ")
                ),
            };
            return Err(TrainError::config(self.key, message));
        };
        let gain = |best: f32| {
            let gain = f64::from(value - best);
            if self.larger { gain } else { -gain }
        };
        // NaN never improves.
        let improved = match self.best {
            None => value.is_finite(),
            Some((_, best)) => gain(best) > self.min_delta,
        };
        if improved {
            self.best = Some((step, *value));
            self.stale = 0;
        } else {
            self.stale += 1;
        }
        Ok(improved)
    }

    /// Steps made at the best value, and the value.
    pub fn found(&self) -> Option<(u64, f32)> {
        self.best
    }

    /// Number of evaluations since the best value.
    pub fn stale(&self) -> usize {
        self.stale
    }

    /// Name of the figure.
    pub fn figure(&self) -> &str {
        &self.figure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f32) -> Vec<(String, f32)> {
        vec![("other".into(), 0.0), ("val.loss".into(), value)]
    }

    fn watch(larger: bool, min_delta: f64) -> Watch {
        Watch::new("early_stop.figure", "val.loss", larger, min_delta)
    }

    #[test]
    fn smaller_is_better_by_default() {
        let mut watch = watch(false, 0.0);
        let improved: Vec<bool> = [3.0, 2.0, 2.0, f32::NAN, 2.5, 1.0]
            .iter()
            .enumerate()
            .map(|(i, value)| watch.push(i as u64, &figures(*value)).expect("a figure"))
            .collect();
        assert_eq!(improved, [true, true, false, false, false, true]);
        assert_eq!((watch.found(), watch.stale()), (Some((5, 1.0)), 0));
    }

    #[test]
    fn larger_and_the_smallest_change_count() {
        let mut watch = watch(true, 0.5);
        for (value, improved) in [(1.0, true), (1.25, false), (2.0, true), (2.5, false)] {
            assert_eq!(watch.push(0, &figures(value)).expect("a figure"), improved);
        }
        assert_eq!(watch.stale(), 1);
    }

    #[test]
    fn nan_at_first_is_no_best_value() {
        let mut watch = watch(false, 0.0);
        assert!(!watch.push(1, &figures(f32::NAN)).expect("a figure"));
        assert_eq!(watch.found(), None);
        assert!(watch.push(2, &figures(1.0)).expect("a figure"));
    }

    #[test]
    fn an_unknown_figure_is_named() {
        let error = watch(false, 0.0).push(1, &[("t1.name".into(), 0.5)]);
        let message = error.expect_err("no such figure").to_string();
        assert!(
            message.contains("val.loss") && message.contains("t1.name"),
            "{message}"
        );
        let error = watch(false, 0.0).push(1, &[]).expect_err("no figures");
        assert!(error.to_string().contains("[[validation]]"), "{error}");
    }
}
