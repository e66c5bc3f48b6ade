//! Trained components of an assembled model: the soft prompt, the request reader and the diffusion decoder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_data::emoji::ConceptList;
use emu_model::diffusion::DecoderConfig;
use emu_model::requests::{RequestsConfig, Vocabulary, Word};
use emu_pack::TensorData;
use emu_tokenizer::EmuTokenizer;
use emu_train::data::record::Layout;
use emu_train::trained::Trained;
use serde::Deserialize;

use super::files::there;
use super::words::spelled;

/// The components that draw: training runs, or parts exported from them by `emu part`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawing {
    /// Request reader, of the stage `reader`.
    reader: PathBuf,
    /// Diffusion decoder, of the stage `brush`.
    decoder: PathBuf,
}

/// The opened components, with weights under the names they have in a pack.
pub struct Parts {
    pub requests: RequestsConfig,
    pub decoder: DecoderConfig,
    pub tensors: Vec<TensorData>,
}

/// A soft prompt.
pub struct Persona {
    pub length: usize,
    pub tensor: TensorData,
}

fn open(folder: &Path, stage: &str) -> Result<Trained> {
    let how = format!(
        "Train it with `emu train configs/train/smol/{stage}.toml`, or correct its path in the recipe."
    );
    Ok(Trained::open(there(folder, &how)?)?)
}

impl Drawing {
    /// Opens reader and decoder.
    ///
    /// # Errors
    /// Where one of them is missing or corrupt, or a word cannot be tokenized.
    pub fn open(&self, concepts: &ConceptList, tokenizer: &EmuTokenizer) -> Result<Parts> {
        let reader = open(&self.reader, "reader")?;
        let decoder = open(&self.decoder, "brush")?;
        let word = |word: &str| -> Result<Word> {
            Ok(Word {
                word: word.to_owned(),
                tokens: spelled(tokenizer, word)?,
            })
        };
        let drawn = concepts.all().filter(|concept| concept.drawn);
        let colours = concepts.colours.iter();
        let vocabulary = Vocabulary {
            names: drawn.map(|c| word(&c.name)).collect::<Result<_>>()?,
            layouts: Layout::WORDS.map(word).into_iter().collect::<Result<_>>()?,
            colours: colours.map(|c| word(&c.name)).collect::<Result<_>>()?,
        };
        let requests = RequestsConfig {
            reader: reader.size("reader")?,
            trigger: reader.size("trigger")?,
            // Older runs have no such entry, which reads as `None`.
            alone: reader.size("alone")?,
            vocabulary,
        };
        let config = decoder.size("decoder")?;
        let reader = reader.tensors.into_iter().map(|tensor| {
            let name = &tensor.info.name;
            let name = match name.starts_with("trigger.") || name.starts_with("alone.") {
                true => format!("requests.{name}"),
                false => format!("requests.reader.{name}"),
            };
            tensor.renamed(name)
        });
        Ok(Parts {
            requests,
            decoder: config,
            tensors: reader.chain(decoder.tensors).collect(),
        })
    }
}

impl Persona {
    /// Opens a soft prompt for a language model of this width.
    ///
    /// # Errors
    /// Where it is missing, corrupt or of another width.
    pub fn open(folder: &Path, width: usize) -> Result<Self> {
        let persona = open(folder, "persona")?;
        let tensor = { persona.tensors.into_iter() }
            .find(|tensor| tensor.info.name == "embeddings")
            .with_context(|| {
                format!(
                    "{} holds no soft prompt. Name a run of the stage persona",
                    folder.display()
                )
            })?;
        let &[length, found] = &tensor.info.shape[..] else {
            bail!("{} is no soft prompt", folder.display());
        };
        if found != width {
            bail!(
                "The soft prompt in {} has width {found}, the language model {width}. Train one for it with `emu train configs/train/smol/persona.toml`.",
                folder.display()
            );
        }
        Ok(Self {
            length,
            tensor: tensor.renamed("persona.embeddings"),
        })
    }
}
