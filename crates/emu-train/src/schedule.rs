//! The learning rate schedule: a factor on each part's own rate.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The shape of the schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from 1 to `floor` over the steps after warm-up.
    #[default]
    Cosine,
    /// 1 after warm-up.
    Constant,
    /// The factor of the last entry of `points` reached so far.
    Piecewise,
}

/// The schedule's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Its shape.
    pub kind: ScheduleKind,
    /// Number of linear warm-up steps: step `i` of them has the factor `(i + 1) / warmup`.
    pub warmup: u64,
    /// Warm-up as a share of all steps instead.
    pub warmup_fraction: Option<f64>,
    /// Final value of the cosine.
    pub floor: f64,
    /// For `piecewise`: `[step, factor]`, ordered by step. The factor before the first is 1.
    pub points: Vec<(u64, f64)>,
}

/// A schedule for a run of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    warmup: u64,
    steps: u64,
}

impl ScheduleConfig {
    /// Builds the schedule for a run of `steps` steps.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the invalid value.
    pub fn build(&self, steps: u64) -> Result<Schedule, TrainError> {
        let wrong = |key: &str, message: String| {
            Err(TrainError::config(format!("schedule.{key}"), message))
        };
        if let Some(fraction) = self.warmup_fraction {
            if !(0.0..1.0).contains(&fraction) {
                return wrong("warmup_fraction", format!("{fraction} is not in 0..1"));
            }
            if self.warmup > 0 {
                return wrong("warmup_fraction", "warmup is given as well".into());
            }
        }
        let warmup = self.warmup_fraction.map_or(self.warmup, |fraction| {
            (fraction * steps as f64).round() as u64
        });
        if warmup > steps {
            return wrong(
                "warmup",
                format!("{warmup} steps of warm-up do not fit in a run of {steps}"),
            );
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return wrong("floor", format!("{} is not in 0..=1", self.floor));
        }
        match (self.kind, self.points.is_empty()) {
            (ScheduleKind::Piecewise, true) => {
                return wrong("points", "a piecewise schedule needs some".into());
            }
            (ScheduleKind::Piecewise, false) | (_, true) => {}
            (kind, false) => {
                return wrong("points", format!("a schedule of kind {kind:?} has none"));
            }
        }
        if !self.points.is_sorted_by(|a, b| a.0 < b.0) {
            return wrong("points", "the steps do not increase".into());
        }
        if let Some((step, factor)) = self
            .points
            .iter()
            .find(|(_, factor)| !factor.is_finite() || *factor < 0.0)
        {
            return wrong(
                "points",
                format!("the factor {factor} at step {step} is not a positive number"),
            );
        }
        Ok(Schedule {
            config: self.clone(),
            warmup,
            steps,
        })
    }
}

impl Schedule {
    /// The learning rate factor at a step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let warm = if step < self.warmup {
            (step + 1) as f64 / self.warmup as f64
        } else {
            1.0
        };
        let shape = match self.config.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let length = self.steps.saturating_sub(self.warmup).max(1) as f64;
                let progress = (step.saturating_sub(self.warmup) as f64 / length).min(1.0);
                let floor = self.config.floor;
                floor + (1.0 - floor) * 0.5 * (1.0 + (core::f64::consts::PI * progress).cos())
            }
            ScheduleKind::Piecewise => self
                .config
                .points
                .iter()
                .rev()
                .find(|(from, _)| *from <= step)
                .map_or(1.0, |(_, factor)| *factor),
        };
        warm * shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str, steps: u64) -> Result<Schedule, TrainError> {
        toml::from_str::<ScheduleConfig>(text).unwrap().build(steps)
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn cosine_warms_up_and_falls_to_its_floor() {
        let schedule = build("warmup = 10\nfloor = 0.1", 110).unwrap();
        close(schedule.factor(0), 0.1);
        close(schedule.factor(9), 1.0);
        close(schedule.factor(10), 1.0);
        close(schedule.factor(60), 0.55);
        close(schedule.factor(110), 0.1);
        close(schedule.factor(10_000), 0.1);
        let fraction = build("warmup_fraction = 0.2", 100).unwrap();
        close(fraction.factor(9), 0.5);
        close(fraction.factor(20), 1.0);
    }

    /// The schedule of the paper's decoder: 5k steps of warm-up to 1e-4, 5e-5 from 10k, 1e-5 from 14k.
    #[test]
    fn piecewise_holds_its_values() {
        let schedule = build(
            "kind = 'piecewise'\nwarmup = 5000\npoints = [[10000, 0.5], [14000, 0.1]]",
            15_000,
        )
        .unwrap();
        close(schedule.factor(2499), 0.5);
        close(schedule.factor(9_999), 1.0);
        close(schedule.factor(10_000), 0.5);
        close(schedule.factor(13_999), 0.5);
        close(schedule.factor(14_000), 0.1);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, key) in [
            ("warmup = 101", "schedule.warmup"),
            ("warmup_fraction = 1.5", "schedule.warmup_fraction"),
            (
                "warmup_fraction = 0.1\nwarmup = 3",
                "schedule.warmup_fraction",
            ),
            ("floor = -0.5", "schedule.floor"),
            ("kind = 'piecewise'", "schedule.points"),
            ("kind = 'constant'\npoints = [[1, 0.5]]", "schedule.points"),
            (
                "kind = 'piecewise'\npoints = [[5, 0.5], [5, 0.1]]",
                "schedule.points",
            ),
            (
                "kind = 'piecewise'\npoints = [[5, -1.0]]",
                "schedule.points",
            ),
        ] {
            let error = build(text, 100).unwrap_err();
            assert!(
                error.to_string().contains(&format!("`{key}`")),
                "{text}: {error}"
            );
        }
    }
}
