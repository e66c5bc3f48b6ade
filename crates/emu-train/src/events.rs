//! How a run is started, what it tells on the way, and how it ends.

use std::path::{Path, PathBuf};

use crate::StopFlag;
use crate::checkpoint::Skipped;
use crate::data::BadSample;
use crate::metrics::StepMetrics;

/// What happens in a run, for whoever shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The run begins or goes on.
    Started {
        /// Steps made before.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Numbers in the model.
        parameters: usize,
        /// Those that learn.
        trainable: usize,
    },
    /// A damaged checkpoint was passed over.
    Skipped(&'a Skipped),
    /// Something is wrong that does not end the run.
    Warning {
        /// Steps made.
        step: u64,
        /// What is wrong, and what to do.
        message: &'a str,
    },
    /// A sample of the data is unusable and left out; the list in the run's folder has it too.
    BadSample(&'a BadSample),
    /// A step was made.
    Step(&'a StepMetrics),
    /// The model was measured; the figures are in the step's metrics as well.
    Evaluated {
        /// Steps made.
        step: u64,
        /// Figures by name.
        figures: &'a [(String, f32)],
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
    /// The run ends here.
    Finished {
        /// Steps made.
        step: u64,
        /// Whether somebody asked it to stop before its last step.
        stopped: bool,
    },
}

/// How a run is started.
#[derive(Default)]
pub struct RunOptions<'a> {
    /// Goes on from the newest checkpoint in the folder (from the beginning, if there is none).
    pub resume: bool,
    /// Raised to have the run save and leave.
    pub stop: StopFlag,
    /// Called with everything that happens.
    pub on_event: Option<&'a mut dyn FnMut(TrainEvent)>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The model, with autodiff.
    pub model: M,
    /// The model with averaged weights, without autodiff, where the run keeps an average.
    pub averaged: Option<M>,
    /// Steps made.
    pub step: u64,
    /// Whether somebody asked it to stop before its last step.
    pub stopped: bool,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}
