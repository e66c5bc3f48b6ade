//! The interface of a training stage: the loss of a model on a batch, plus hooks for samples, evaluation and
//! monitoring.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::random::{Philox, Stream};

use crate::TrainError;
use crate::bad::Found;
use crate::bad::Visited;

/// Position of a batch in a run. All randomness of a step derives from it, so that a resumed run repeats the original:
/// [`StepContext::random`] on the host, and the device's own generator, which the trainer reseeds before every
/// micro-batch.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// Seed of the run.
    pub seed: u64,
    /// Optimiser step, counted from 0.
    pub step: u64,
    /// Micro-batch within the step, counted from 0.
    pub micro_step: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Steps of the whole run, for schedules in the objective.
    pub steps: u64,
    /// The data that the batch comes from.
    pub source: Source,
    /// Device for the batch's tensors; it has autodiff in training.
    pub device: Device,
    /// Whether this is a training step (dropout on).
    pub train: bool,
}

/// The data that a batch comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The mixture of `[[data]]`.
    #[default]
    Training,
    /// The validation set with this index in `[[validation]]`.
    Validation(usize),
}

impl StepContext {
    /// Index of the micro-batch in the whole run. Selects the data.
    pub fn batch_index(&self) -> u64 {
        self.step * self.accumulate as u64 + self.micro_step as u64
    }

    /// Random number generator of this micro-batch for the given stream.
    pub fn random(&self, stream: Stream) -> Philox {
        Philox::new(self.seed, stream, self.batch_index())
    }

    /// Seed of the device's generator for this micro-batch.
    pub(crate) fn device_seed(&self) -> u64 {
        let mut random = Philox::with_stream(self.seed, DEVICE_STREAM, self.batch_index());
        u64::from(random.next_u32()) << 32 | u64::from(random.next_u32())
    }
}

/// Stream number for the seeds of the device's generator. The named streams are below 16.
const DEVICE_STREAM: u32 = 16;

/// The loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct StepLoss {
    /// `[1]`, the mean over the samples.
    pub loss: Tensor<1>,
    /// Loss terms and other figures for the log, by name.
    pub terms: Vec<(String, Term)>,
    /// Number of samples. It weights this micro-batch within its step.
    pub samples: usize,
    /// Keys of the samples, for error messages.
    pub keys: Vec<String>,
    /// Samples left out for the first time.
    pub bad: Vec<Found>,
    /// Total number of samples left out so far.
    pub total_bad: u64,
}

impl StepLoss {
    /// A loss without terms or keys.
    pub fn new(loss: Tensor<1>, samples: usize) -> Self {
        Self {
            loss,
            terms: vec![],
            samples,
            keys: vec![],
            bad: vec![],
            total_bad: 0,
        }
    }

    /// Adds a figure for the log: an `f32`, or a `[1]` tensor that is read back together with the loss.
    #[must_use]
    pub fn with_term(mut self, name: impl Into<String>, value: impl Into<Term>) -> Self {
        self.terms.push((name.into(), value.into()));
        self
    }

    /// Sets the keys of the samples.
    #[must_use]
    pub fn with_keys(mut self, keys: Vec<String>) -> Self {
        self.keys = keys;
        self
    }

    /// Sets the keys of the samples, and the samples left out.
    #[must_use]
    pub fn with_visited(self, visited: Visited) -> Self {
        let Visited {
            keys,
            bad,
            total_bad,
        } = visited;
        Self {
            keys,
            bad,
            total_bad,
            ..self
        }
    }
}

/// A figure for the log.
#[derive(Clone, Debug)]
pub enum Term {
    /// On the host.
    Value(f32),
    /// `[1]`, still on the device.
    Tensor(Box<Tensor<1>>),
}

impl From<f32> for Term {
    fn from(value: f32) -> Self {
        Self::Value(value)
    }
}

impl From<Tensor<1>> for Term {
    fn from(tensor: Tensor<1>) -> Self {
        Self::Tensor(Box::new(tensor))
    }
}

/// A training stage. Only [`Stage::loss`] is required; the other methods inspect the model during training.
pub trait Stage {
    /// The trained model.
    type Model: Module;

    /// Name of the stage in configurations.
    fn name(&self) -> &str;

    /// The loss of a micro-batch. All its randomness must come from `context`.
    ///
    /// # Errors
    /// If the batch cannot be built.
    fn loss(&mut self, model: &Self::Model, context: &StepContext) -> Result<StepLoss, TrainError>;

    /// Writes sample pictures of the model into `dir`. The model has no autodiff. If the run keeps an EMA, the model
    /// has the averaged weights.
    ///
    /// # Errors
    /// If a picture cannot be written.
    fn sample(&mut self, model: &Self::Model, step: u64, dir: &Path) -> Result<(), TrainError> {
        let _ = (model, step, dir);
        Ok(())
    }

    /// Evaluates the model on held-out data. The model is as in [`Stage::sample`].
    ///
    /// # Errors
    /// If the evaluation fails.
    fn evaluate(
        &mut self,
        model: &Self::Model,
        step: u64,
    ) -> Result<Vec<(String, f32)>, TrainError> {
        let _ = (model, step);
        Ok(vec![])
    }

    /// Number of samples of the training data, or of a validation set. `None` if the stage has no such data, and no
    /// loss on it.
    fn samples(&self, source: Source) -> Option<usize> {
        let _ = source;
        None
    }

    /// Checks the figures of the step just made (for example for collapse).
    ///
    /// # Errors
    /// [`TrainError::Collapsed`] if continuing is pointless.
    fn monitor(&mut self, step: u64, terms: &[(String, f32)]) -> Result<(), TrainError> {
        let _ = (step, terms);
        Ok(())
    }
}
