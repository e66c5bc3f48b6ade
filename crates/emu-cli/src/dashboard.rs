//! Burn's terminal dashboard, fed with the events of a run.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::train::Interrupter;
use burn::train::logger::TrainingProgressLogger;
use burn::train::metric::{
    MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};
use emu_train::{StopFlag, TrainEvent};

/// Plots of all metrics, and keys to stop the run. Owns the terminal of stdout until it is dropped.
pub struct Dashboard {
    /// `None` once the user killed the dashboard.
    renderer: Option<TuiMetricsRendererWrapper>,
    interrupter: Interrupter,
    stop: StopFlag,
    known: BTreeMap<String, MetricId>,
    batch: usize,
}

impl Dashboard {
    /// Takes over the terminal. The stop key raises `stop`.
    pub fn open(stop: StopFlag) -> Self {
        let interrupter = Interrupter::new();
        let renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), None);
        Self {
            renderer: Some(renderer),
            interrupter,
            stop,
            known: BTreeMap::new(),
            batch: 1,
        }
    }

    /// Shows an event of a run.
    pub fn show(&mut self, event: &TrainEvent) {
        match event {
            TrainEvent::Started { step, steps, .. } => {
                let (step, steps) = (*step as usize, *steps as usize);
                self.call(|renderer, _| {
                    renderer.start(1, 1, Some(steps), Some("training"));
                    renderer.start_split("train", steps);
                    renderer.update_split(step);
                });
            }
            TrainEvent::Step(metrics) => {
                let mut figures = vec![("loss".to_string(), f64::from(metrics.loss))];
                figures.extend(
                    metrics
                        .terms
                        .iter()
                        .map(|(name, value)| (name.clone(), f64::from(*value))),
                );
                figures.push(("gradient norm".into(), f64::from(metrics.grad_norm)));
                figures.push(("samples/s".into(), f64::from(metrics.samples_per_s)));
                figures.extend(
                    metrics
                        .lr
                        .first()
                        .map(|(_, rate)| ("rate".to_string(), *rate)),
                );
                let step = metrics.step as usize + 1;
                for (name, value) in figures {
                    self.figure(&name, value, false);
                }
                self.call(|renderer, _| renderer.update_split(step));
            }
            TrainEvent::Evaluated { figures, .. } => {
                for (name, value) in *figures {
                    self.figure(name, f64::from(*value), true);
                }
            }
            TrainEvent::Finished { .. } => self.call(|renderer, _| renderer.end_split()),
            _ => {}
        }
        if self.interrupter.should_stop() {
            self.stop.stop();
        }
    }

    fn figure(&mut self, name: &str, value: f64, valid: bool) {
        self.batch += 1;
        self.call(|renderer, known| {
            let id = known.entry(name.to_string()).or_insert_with(|| {
                let name = Arc::new(name.to_string());
                let id = MetricId::new(name.clone());
                let attributes = NumericAttributes {
                    unit: None,
                    higher_is_better: valid,
                }
                .into();
                renderer.register_metric(MetricDefinition {
                    metric_id: id.clone(),
                    name,
                    description: None,
                    attributes,
                });
                id
            });
            let text = format!("{value:.5}");
            let entry = MetricEntry::new(id.clone(), SerializedEntry::new(text.clone(), text));
            let state = MetricState::Numeric(entry, Some(NumericEntry::Value(value)));
            if valid {
                renderer.update_valid(state)
            } else {
                renderer.update_train(state)
            }
        });
    }

    /// Burn's dashboard panics if the user chooses to kill the run. Turns that panic into a stop request.
    fn call(
        &mut self,
        f: impl FnOnce(&mut TuiMetricsRendererWrapper, &mut BTreeMap<String, MetricId>),
    ) {
        let Some(renderer) = &mut self.renderer else {
            return;
        };
        let known = &mut self.known;
        if catch_unwind(AssertUnwindSafe(|| f(renderer, known))).is_err() {
            self.stop.stop();
            let renderer = self.renderer.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
        }
    }
}

impl core::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Dashboard")
            .field("figures", &self.known.len())
            .finish_non_exhaustive()
    }
}
