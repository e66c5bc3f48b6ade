//! What a stage of training is to the trainer: a loss of a model on a batch, and ways to look at the model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::random::{Philox, Stream};

use crate::TrainError;
use crate::bad::Found;
use crate::bad::Visited;

/// Where in a run a batch stands. Everything random in a step comes from here, so that a resumed run repeats the
/// original: [`StepContext::random`] for the host, and the device's own generator, which the trainer reseeds before
/// every micro-batch.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// Seed of the run.
    pub seed: u64,
    /// Optimiser step, counted from 0.
    pub step: u64,
    /// Micro-batch of the step, counted from 0.
    pub micro_step: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Steps of the whole run, for schedules of the objective.
    pub steps: u64,
    /// Where to build tensors; it differentiates in training.
    pub device: Device,
    /// Whether the loss is to be learnt from (dropout on).
    pub train: bool,
}

impl StepContext {
    /// Number of the micro-batch since the beginning of the run: which data to take.
    pub fn batch_index(&self) -> u64 {
        self.step * self.accumulate as u64 + self.micro_step as u64
    }

    /// Random numbers of this micro-batch, for the given use.
    pub fn random(&self, stream: Stream) -> Philox {
        Philox::new(self.seed, stream, self.batch_index())
    }

    /// What the device's generator is seeded with for this micro-batch.
    pub(crate) fn device_seed(&self) -> u64 {
        let mut random = Philox::with_stream(self.seed, DEVICE_STREAM, self.batch_index());
        u64::from(random.next_u32()) << 32 | u64::from(random.next_u32())
    }
}

/// Stream number of the device generator's seeds (16 and above are free of the named streams).
const DEVICE_STREAM: u32 = 16;

/// The loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct StepLoss {
    /// `[1]`, the mean over the samples.
    pub loss: Tensor<1>,
    /// Parts of the loss and other figures for the log, by name.
    pub terms: Vec<(String, Term)>,
    /// Samples it is the mean of; the weight of this micro-batch among those of its step.
    pub samples: usize,
    /// Names of the samples, for errors.
    pub keys: Vec<String>,
    /// Samples left out of the data for the first time.
    pub bad: Vec<Found>,
    /// Samples left out of the data so far.
    pub total_bad: u64,
}

impl StepLoss {
    /// A loss without terms or names.
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

    /// Adds a figure for the log: an `f32`, or a tensor `[1]` which is read back together with the loss.
    #[must_use]
    pub fn with_term(mut self, name: impl Into<String>, value: impl Into<Term>) -> Self {
        self.terms.push((name.into(), value.into()));
        self
    }

    /// Names the samples.
    #[must_use]
    pub fn with_keys(mut self, keys: Vec<String>) -> Self {
        self.keys = keys;
        self
    }

    /// Names the samples, and those left out.
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
    /// Known already.
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

/// A stage of training. Only [`Stage::loss`] is needed; the others look at the model while it learns.
pub trait Stage {
    /// What is trained.
    type Model: Module;

    /// Its name in configurations.
    fn name(&self) -> &str;

    /// The loss of a micro-batch. All that is random in it must come from `context`.
    ///
    /// # Errors
    /// Whatever keeps the batch from being built.
    fn loss(&mut self, model: &Self::Model, context: &StepContext) -> Result<StepLoss, TrainError>;

    /// Writes pictures of what the model can do into `dir`. The model has no autodiff; where the run keeps an average
    /// of the weights, it is the averaged one.
    ///
    /// # Errors
    /// Whatever keeps a picture from being written.
    fn sample(&mut self, model: &Self::Model, step: u64, dir: &Path) -> Result<(), TrainError> {
        let _ = (model, step, dir);
        Ok(())
    }

    /// Measures the model on held-out data; as [`Stage::sample`] about the model.
    ///
    /// # Errors
    /// Whatever keeps it from being measured.
    fn evaluate(
        &mut self,
        model: &Self::Model,
        step: u64,
    ) -> Result<Vec<(String, f32)>, TrainError> {
        let _ = (model, step);
        Ok(vec![])
    }

    /// Looks at the figures of a step that was just made (for example for collapse).
    ///
    /// # Errors
    /// [`TrainError::Collapsed`] where going on would be useless.
    fn monitor(&mut self, step: u64, terms: &[(String, f32)]) -> Result<(), TrainError> {
        let _ = (step, terms);
        Ok(())
    }
}
