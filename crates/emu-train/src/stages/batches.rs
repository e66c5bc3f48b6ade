//! The micro-batches of a stage: training data, prepared ahead on a background thread, and validation sets.

use std::sync::Arc;

use super::corpus::Corpus;
use crate::stage::Source;
use crate::{Prefetch, StepContext, TrainConfig, TrainError};

type Make<T> = dyn Fn(&Corpus, u64) -> Result<T, TrainError> + Send + Sync;

/// Makes the micro-batches of a stage from its training data and its validation sets, both in the same way.
pub struct Batches<T> {
    corpus: Arc<Corpus>,
    training: Prefetch<T>,
    validation: Vec<Corpus>,
    make: Arc<Make<T>>,
}

/// Number of micro-batches that are prepared ahead.
const DEPTH: usize = 4;

impl<T: Send + 'static> Batches<T> {
    /// Opens the data of a configuration. `make` prepares the micro-batch with this index from a data set. It must
    /// depend on nothing else, so that a resumed run gets the same micro-batches.
    ///
    /// # Errors
    /// If a data set cannot be opened.
    pub fn open(
        train: &TrainConfig,
        make: impl Fn(&Corpus, u64) -> Result<T, TrainError> + Send + Sync + 'static,
    ) -> Result<Self, TrainError> {
        let corpus = Corpus::open(train)?;
        let validation = (train.validation.iter())
            .map(|set| Corpus::open_validation(train, set))
            .collect::<Result<_, _>>()?;
        let make: Arc<Make<T>> = Arc::new(make);
        let training = {
            let (corpus, make) = (corpus.clone(), make.clone());
            Prefetch::new(DEPTH, move |index| make(&corpus, index))
        };
        Ok(Self {
            corpus,
            training,
            validation,
            make,
        })
    }

    /// The training data.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The micro-batch of a step.
    ///
    /// # Errors
    /// If it cannot be prepared.
    pub fn get(&mut self, context: &StepContext) -> Result<T, TrainError> {
        let index = context.batch_index();
        match context.source {
            Source::Training => self.training.get(index),
            Source::Validation(set) => match self.validation.get(set) {
                Some(corpus) => (self.make)(corpus, index),
                None => Err(TrainError::Stage(format!(
                    "There is no validation set number {set}. List it under [[validation]]."
                ))),
            },
        }
    }

    /// Number of samples of the training data, or of a validation set. `None` if there is no such set.
    pub fn samples(&self, source: Source) -> Option<usize> {
        match source {
            Source::Training => Some(self.corpus.samples()),
            Source::Validation(set) => self.validation.get(set).map(Corpus::samples),
        }
    }
}
