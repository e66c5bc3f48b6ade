//! A language model file as the LM of an Emu: its weights unchanged, its tokenizer extended by Emu's tokens, its chat
//! template as prompt templates.

use burn::tensor::Device;
use emu_pack::{PackError, Plan, Stored, TensorData, TensorSource, check};
use emu_tokenizer::gguf::{GgufError, Metadata};
use emu_tokenizer::{EmuTokenizer, Vocabulary};

use super::chat::ChatMl;
use super::config::{TextConfig, TextError, rope_divisors};
use super::{keys, metadata};
use crate::config::{
    EmuConfig, GenerationConfig, ImageConfig, PromptConfig, SpecialTokens, VisionConfig,
};
use crate::lm::Lm;
use crate::namer::NamerConfig;
use crate::weights;

/// Name of the token embedding table.
const TABLE: &str = "embed_tokens.weight";

/// Parameters of a language model in a GGUF file, by this crate's names and in its row order.
#[derive(Debug)]
pub(super) struct LmWeights<'a, S: ?Sized> {
    source: &'a S,
    plan: Plan,
    /// Number of query heads and of key heads.
    heads: (usize, usize),
}

impl<'a, S: TensorSource + ?Sized> LmWeights<'a, S> {
    /// # Errors
    /// If a tensor is missing, unknown or has the wrong shape.
    pub(super) fn new(source: &'a S, config: &TextConfig, lm: &Lm) -> Result<Self, PackError> {
        Ok(Self {
            source,
            plan: check(source.tensors(), &weights::parameters(lm), &keys::gguf()?)?,
            heads: (config.lm.heads, config.lm.kv_heads),
        })
    }

    /// Reads a parameter, quantized if the file has it so.
    ///
    /// # Errors
    /// If the file is damaged there.
    pub(super) fn read(&self, name: &str) -> Result<Stored, PackError> {
        let tensor = self.plan.read_stored(self.source, name)?;
        match keys::rope_halves(name, self.heads) {
            Some(heads) => tensor.with_halves_joined(heads),
            None => Ok(tensor),
        }
    }
}

/// Base of a multimodal model: everything about the language model that a pack stores.
#[derive(Debug)]
pub struct Base<'a, S: ?Sized> {
    /// Its configuration.
    pub config: TextConfig,
    /// Ids of the special tokens.
    pub special: SpecialTokens,
    /// Its `tokenizer.json`, extended by Emu's special tokens.
    pub tokenizer: String,
    /// Its prompt templates.
    pub prompts: PromptConfig,
    names: Vec<String>,
    weights: LmWeights<'a, S>,
}

impl<'a, S: TensorSource + ?Sized> Base<'a, S> {
    /// Parses the metadata and tensor list of a GGUF file. Reads no weights and allocates nothing on the device.
    ///
    /// # Errors
    /// If the model has no chat template, its tokenizer cannot be converted, it needs a feature that packs do not
    /// support, or a tensor is missing, unknown or has the wrong shape.
    pub fn new(metadata: &Metadata, source: &'a S, device: &Device) -> Result<Self, TextError> {
        let (mut config, vocabulary) = metadata::read(metadata)?;
        let unsupported = |what: &str| TextError::from(GgufError::unsupported(what));
        let chat = config.chat.clone().ok_or(TextError::NoChat)?;
        if config.bos_in_prompts {
            return Err(unsupported("a token of its own before every prompt"));
        }
        config.lm.tied = source.info(keys::HEAD).is_none();
        if !rope_divisors(source, &config)?.is_empty() {
            return Err(unsupported("rotary positions that are stretched"));
        }
        if config.lm.layers > source.tensors().len() {
            return Err(unsupported("layers without their tensors"));
        }
        let lm = config.lm.init(None, device).alone();
        let weights = LmWeights::new(source, &config, &lm)?;
        let names = weights::parameters(&lm).into_iter().map(|(name, _)| name);
        let (tokenizer, special) = tokenizer(&vocabulary, &config, &chat)?;
        Ok(Self {
            names: names.collect(),
            special,
            tokenizer,
            prompts: chat.prompts(),
            weights,
            config,
        })
    }

    /// Configuration of a model with this vision encoder and namer.
    pub fn with_namer(
        &self,
        vision: VisionConfig,
        image: ImageConfig,
        namer: NamerConfig,
    ) -> EmuConfig {
        let ends = self.config.ends.iter().copied();
        EmuConfig {
            vision,
            causal: None,
            namer: Some(namer),
            lm: self.config.lm.clone(),
            adapter: None,
            persona: None,
            requests: None,
            special: self.special,
            ends: ends.filter(|end| *end != self.special.eos).collect(),
            image,
            prompts: self.prompts.clone(),
            generation: GenerationConfig::default(),
        }
    }

    /// Embedding table, `[vocab, D]`.
    ///
    /// # Errors
    /// If the file is damaged there.
    pub fn table(&self) -> Result<TensorData, PackError> {
        self.weights.read(TABLE)?.into_dense()
    }

    /// Calls `f` with every parameter under its name in a pack, one at a time.
    ///
    /// # Errors
    /// If the file is damaged; else the first error of `f`.
    pub fn each<E: From<PackError>>(
        &self,
        mut f: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<(), E> {
        { self.names.iter() }
            .try_for_each(|name| f(self.weights.read(name)?.renamed(&format!("lm.{name}"))))
    }

    /// Location of each parameter: its name in a pack, its name in the file, and the number of heads if their halves
    /// are interleaved there.
    pub fn places(&self) -> impl Iterator<Item = (String, String, Option<usize>)> {
        let LmWeights { plan, heads, .. } = &self.weights;
        self.names.iter().map(|name| {
            let key = plan.source_key(name).unwrap_or(name);
            (
                format!("lm.{name}"),
                key.to_owned(),
                keys::rope_halves(name, *heads),
            )
        })
    }
}

/// The `tokenizer.json`, and the ids of its special tokens.
fn tokenizer(
    vocabulary: &Vocabulary,
    config: &TextConfig,
    chat: &ChatMl,
) -> Result<(String, SpecialTokens), TextError> {
    let turns = chat.marks();
    let used: Vec<u32> = { config.ends.iter().copied() }
        .chain(config.bos)
        .chain(turns)
        .collect();
    let json = vocabulary.to_emu_json(&used)?;
    let tokenizer = EmuTokenizer::from_json_bytes(json.as_bytes())?;
    let found = tokenizer.specials();
    if found.bos != turns[0] {
        let what = "a tokenizer with <s> beside ChatML";
        return Err(GgufError::unsupported(what).into());
    }
    let special = SpecialTokens {
        // First token of a generated sequence, as for the language model alone.
        bos: config
            .bos
            .or(config.ends.first().copied())
            .unwrap_or(found.bos),
        eos: config.ends.first().copied().unwrap_or(found.eos),
        pad: found.pad,
        img: found.img,
        end_img: found.end_img,
        image: found.image,
        user: None,
        assistant: None,
    };
    Ok((json, special))
}

#[cfg(test)]
mod tests;
