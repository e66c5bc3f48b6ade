//! Conversations of a set with their states in a frozen language model and the spelling of their requested pictures.

use std::path::{Path, PathBuf};

use emu_model::TextModel;
use emu_model::persona::SoftPrompt;
use emu_model::weights;
use emu_pack::{SafetensorsFile, TensorSource};

use super::speller::Speller;
use super::states::{Frozen, States, conversation};
use crate::TrainError;
use crate::data::requests::{Asked, Conversations, Set};

/// Conversations with their language model states.
pub(super) struct Read {
    pub name: &'static str,
    pub asked: Vec<Asked>,
    pub states: States,
    /// Offset of each conversation in the values.
    pub places: Vec<usize>,
    /// The token of each slot of each requested picture.
    pub slots: Vec<Vec<Option<u32>>>,
}

impl Read {
    /// Inputs of the trigger for a conversation: its hidden state, then the values of these tokens, counted from the
    /// last one. Missing tokens are zeros.
    pub fn features(&self, i: usize, tokens: &[usize]) -> Vec<f32> {
        let (width, inputs) = (self.states.width(), self.states.inputs);
        let mut found = self.states.hidden[i * width..][..width].to_vec();
        for &token in tokens {
            match self.states.lengths[i].checked_sub(token + 1) {
                Some(at) => {
                    let from = self.places[i] + at * inputs;
                    let values = &self.states.values[from..][..inputs];
                    found.extend(values.iter().map(|v| v.to_f32()));
                }
                None => found.extend(std::iter::repeat_n(0.0, inputs)),
            }
        }
        found
    }
}

/// Generates conversations and caches their states.
pub(super) struct Reading {
    pub made: Conversations,
    pub speller: Speller,
    /// Folder of the cached states.
    pub folder: PathBuf,
}

impl Reading {
    /// The first `count` conversations of a set, read after each of the `starts` in turn.
    ///
    /// # Errors
    /// If a conversation cannot be generated or read.
    pub fn read(
        &self,
        set: Set,
        name: &'static str,
        count: usize,
        starts: &[Frozen<'_>],
    ) -> Result<Read, TrainError> {
        let (mut all, mut states) = (vec![], States::default());
        for (k, frozen) in starts.iter().enumerate() {
            let asked = (k..count).step_by(starts.len());
            let asked: Vec<Asked> = asked
                .map(|i| self.made.get(set, i as u64))
                .collect::<Result<_, _>>()?;
            let prompts = asked
                .iter()
                .map(|a| conversation(frozen.model, &a.messages));
            let prompts: Vec<Vec<u32>> = prompts.collect::<Result<_, _>>()?;
            states.extend(frozen.states(&prompts, &self.folder, name)?);
            all.extend(asked);
        }
        let slots = all.iter().map(|asked| match &asked.shown {
            Some(shown) => {
                let names = shown.names.iter().map(String::as_str);
                (self.speller).slots(names, shown.layout_word(), shown.colour.as_deref())
            }
            None => vec![],
        });
        Ok(Read {
            name,
            slots: slots.collect(),
            places: states.places(),
            asked: all,
            states,
        })
    }
}

/// Loads a soft prompt from a file in the folder of its run.
///
/// # Errors
/// If it cannot be read or does not match the language model.
pub(super) fn open_soft_prompt(path: &Path, model: &TextModel) -> Result<SoftPrompt, TrainError> {
    let file = SafetensorsFile::open(path)?;
    let device = model.lm.embed_tokens.weight.lazy_device();
    let length = file
        .info("embeddings")
        .and_then(|info| info.shape.first().copied());
    let prompt = SoftPrompt::new(length.unwrap_or(1), model.config.lm.width, &device);
    Ok(weights::load(prompt, &device, |name| file.read(name))?)
}
