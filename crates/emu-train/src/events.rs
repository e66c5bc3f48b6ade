//! Options, events and outcome of a run.

use std::path::{Path, PathBuf};

use crate::StopFlag;
use crate::checkpoint::Skipped;
use crate::data::BadSample;
use crate::metrics::StepMetrics;

/// An event of a run, for the user interface.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The run starts or resumes.
    Started {
        /// Steps already made.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Number of model parameters.
        parameters: usize,
        /// Number of trainable parameters.
        trainable: usize,
        /// Number of samples of the training data, if the stage counts them.
        samples: Option<usize>,
    },
    /// A damaged checkpoint was skipped.
    Skipped(&'a Skipped),
    /// A problem that does not end the run.
    Warning {
        /// Steps made.
        step: u64,
        /// The problem and what to do about it.
        message: &'a str,
    },
    /// An unusable sample was left out. It is also in the list in the run's folder.
    BadSample(&'a BadSample),
    /// A step was made.
    Step(&'a StepMetrics),
    /// The model was evaluated. The step's metrics hold the figures too.
    Evaluated {
        /// Steps made.
        step: u64,
        /// Figures by name.
        figures: &'a [(String, f32)],
    },
    /// The run ends early, because a figure has not improved for as many evaluations as `early_stop` allows.
    EarlyStop {
        /// Steps made.
        step: u64,
        /// Name of the figure.
        figure: &'a str,
        /// Steps made at its best value, and the value.
        best: Option<(u64, f32)>,
    },
    /// Sample pictures were written.
    Sampled {
        /// Steps made.
        step: u64,
        /// Their folder.
        dir: &'a Path,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps made.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
    /// The run has ended.
    Finished {
        /// Steps made.
        step: u64,
        /// Whether the run was stopped before its last step.
        stopped: bool,
    },
}

/// Options of a run.
#[derive(Default)]
pub struct RunOptions<'a> {
    /// Resume from the newest checkpoint in the folder (from the beginning if there is none).
    pub resume: bool,
    /// Make at most this many steps, then return without saving: no checkpoint, evaluation or sample is made.
    pub check: Option<u64>,
    /// Set to make the run save and return.
    pub stop: StopFlag,
    /// Handler of all events.
    pub on_event: Option<&'a mut dyn FnMut(TrainEvent)>,
}

/// Result of a run.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The model, with autodiff.
    pub model: M,
    /// The model with EMA weights, without autodiff, if the run keeps an EMA.
    pub averaged: Option<M>,
    /// Steps made.
    pub step: u64,
    /// Whether the run was stopped before its last step.
    pub stopped: bool,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}
