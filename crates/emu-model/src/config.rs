//! Model configuration: the only source of the sizes of all networks.

use emu_tokenizer::names;
use serde::{Deserialize, Serialize};

use crate::namer::NamerConfig;
use crate::requests::RequestsConfig;

mod error;
mod image;
mod lm;
mod presets;
mod prompts;
mod vision;

pub use error::ConfigError;
pub use image::ImageConfig;
pub use lm::{AdapterConfig, CausalConfig, LmConfig, LmInit};
pub use prompts::{GenerationConfig, PromptConfig, ScenePrompts};
pub use vision::{StemConfig, VisionConfig};

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// `<s>`
    pub bos: u32,
    /// `</s>`
    pub eos: u32,
    /// `[PAD]`
    pub pad: u32,
    /// `[IMG]`
    pub img: u32,
    /// `[/IMG]`
    pub end_img: u32,
    /// `<image>`
    pub image: u32,
    /// `[USER]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// `[ASSISTANT]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistant: Option<u32>,
}

/// Configuration of the whole model except the image decoder, which has its own ([`crate::diffusion::DecoderConfig`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmuConfig {
    /// The vision encoder.
    pub vision: VisionConfig,
    /// The causal former between encoder and LM. A model has either this or a namer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal: Option<CausalConfig>,
    /// The namer, which replaces visual embeddings by words of the LM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namer: Option<NamerConfig>,
    /// The language model.
    pub lm: LmConfig,
    /// LoRA adapters on the LM, if the model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
    /// Length of the soft prompt that replaces the default system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<usize>,
    /// Request reader of a model whose LM regresses no embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsConfig>,
    /// Special tokens.
    pub special: SpecialTokens,
    /// Further end tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<u32>,
    /// Image normalisation.
    #[serde(default)]
    pub image: ImageConfig,
    /// Prompt templates.
    #[serde(default)]
    pub prompts: PromptConfig,
    /// Generation defaults.
    #[serde(default, skip_serializing_if = "GenerationConfig::is_plain")]
    pub generation: GenerationConfig,
}

impl EmuConfig {
    /// Embeddings per image that the LM reads.
    pub fn queries(&self) -> usize {
        match (&self.causal, &self.namer) {
            (Some(causal), _) => causal.queries,
            (None, Some(namer)) => namer.embeddings(),
            (None, None) => 0,
        }
    }

    /// Embeddings per image that condition the decoder: those that the LM reads, or all slots of a spelling.
    pub fn drawn(&self) -> usize {
        match (&self.requests, &self.namer) {
            (Some(requests), _) => requests.reader.spelling.slots(),
            (None, Some(namer)) => namer.spelling.slots(),
            (None, None) => self.queries(),
        }
    }

    /// Checks the invariants of the networks.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (v, l) = (&self.vision, &self.lm);
        let wrong = |what: String| Err(ConfigError(what));
        let mut sizes = vec![
            ("vision.image_size", v.image_size),
            ("vision.patch_size", v.patch_size),
            ("vision.width", v.width),
            ("vision.head_width", v.head_width),
            ("lm.vocab", l.vocab),
            ("lm.width", l.width),
            ("lm.layers", l.layers),
            ("lm.heads", l.heads),
            ("lm.kv_heads", l.kv_heads),
            ("lm.head_size", l.head_size),
            ("lm.context", l.context),
        ];
        match (&self.causal, &self.namer) {
            (Some(c), None) => sizes.extend([
                ("causal.queries", c.queries),
                ("causal.d_model", c.d_model),
                ("causal.d_kv", c.d_kv),
                ("causal.heads", c.heads),
                ("causal.buckets", c.buckets),
            ]),
            (None, Some(namer)) => namer.validate()?,
            _ => return wrong("it needs either causal or namer".into()),
        }
        if let Some((name, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return wrong(format!("{name} is 0"));
        }
        if let Some((name, n)) = sizes.iter().find(|(_, n)| *n > 1 << 24) {
            return wrong(format!("{name} is {n}, which no model has"));
        }
        if let Some(net) = &v.efficientnet {
            net.validate()?;
            if v.stem.is_some() || v.layers > 0 {
                return wrong("vision.efficientnet takes neither a stem nor layers".into());
            }
            if (v.patch_size, v.width) != (net.stride(), net.features) {
                return wrong(format!(
                    "vision.patch_size and vision.width are {} and {}, the EfficientNet's are {} and {}",
                    v.patch_size,
                    v.width,
                    net.stride(),
                    net.features
                ));
            }
        } else if !v.image_size.is_multiple_of(v.patch_size) {
            return wrong(format!(
                "vision.image_size {} is no multiple of the patch {}",
                v.image_size, v.patch_size
            ));
        }
        if v.clip.is_some() {
            if v.stem.is_some() || v.efficientnet.is_some() {
                return wrong("vision.clip takes neither a stem nor an EfficientNet".into());
            }
            let clip = v.clip_config();
            let checked = clip.map_or(Ok(()), |clip| clip.validate());
            checked.map_err(|ConfigError(what)| ConfigError(format!("vision.clip: {what}")))?;
        }
        if !v.width.is_multiple_of(v.head_width) {
            return wrong(format!(
                "vision.width {} is no multiple of the head {}",
                v.width, v.head_width
            ));
        }
        if let Some(stem) = &v.stem {
            if stem.channels.len() != stem.blocks.len() || stem.channels.last() != Some(&v.width) {
                return wrong(
                    "vision.stem needs as many blocks as channels, the last of the encoder's width"
                        .into(),
                );
            }
            if stem.channels.len() >= usize::BITS as usize
                || v.patch_size != 1 << stem.channels.len()
            {
                return wrong(format!(
                    "vision.patch_size {} is not what {} stages of stride 2 make",
                    v.patch_size,
                    stem.channels.len()
                ));
            }
            if stem.groups == 0 || stem.channels.iter().any(|c| c % stem.groups != 0) {
                return wrong("vision.stem.channels are no multiples of its groups".into());
            }
        }
        let grid = v.grid() * v.grid();
        if let Some(c) = self
            .causal
            .as_ref()
            .filter(|c| c.raster && c.queries != grid)
        {
            return wrong(format!(
                "causal.raster needs {grid} queries, not {}",
                c.queries
            ));
        }
        if !l.heads.is_multiple_of(l.kv_heads) {
            return wrong(format!(
                "lm.heads {} is no multiple of lm.kv_heads {}",
                l.heads, l.kv_heads
            ));
        }
        if !l.head_size.is_multiple_of(2) {
            return wrong(format!(
                "lm.head_size {} is odd, which the rotary embedding cannot halve",
                l.head_size
            ));
        }
        let s = &self.special;
        let ids = [
            Some(s.bos),
            Some(s.eos),
            Some(s.pad),
            Some(s.img),
            Some(s.end_img),
            Some(s.image),
            s.user,
            s.assistant,
        ];
        let ids = ids.into_iter().flatten().chain(self.ends.iter().copied());
        if let Some(id) = { ids }.find(|id| *id as usize >= l.vocab) {
            return wrong(format!(
                "special token {id} is outside the vocabulary of {}",
                l.vocab
            ));
        }
        if let Some(n) = self.persona.filter(|n| *n == 0 || *n > l.context) {
            return wrong(format!("persona is {n}, in a context of {}", l.context));
        }
        match (&self.requests, &self.causal) {
            (Some(_), Some(_)) => {
                return wrong("requests stand beside a namer, not beside causal".into());
            }
            (Some(requests), None) => requests.validate(l)?,
            (None, _) => {}
        }
        if let Some(picture) = &self.prompts.picture {
            let (marks, queries) = (picture.matches(names::IMAGE).count(), self.queries());
            if marks != queries {
                return wrong(format!(
                    "prompts.picture has {marks} <image> for {queries} embeddings"
                ));
            }
        }
        if self.prompts.turns == Some(0) {
            return wrong("prompts.turns is 0".into());
        }
        if let Some(scenes) = &self.prompts.scenes {
            let Some(namer) = &self.namer else {
                return wrong("prompts.scenes stand beside a namer".into());
            };
            let name = namer.spelling.tokens;
            for (text, things) in scenes.each() {
                let (marks, wanted) = (text.matches(names::IMAGE).count(), things * name + 1);
                if marks != wanted {
                    return wrong(format!(
                        "prompts.scenes has {marks} <image> for {things} things, which take {wanted}"
                    ));
                }
            }
        }
        if self.image.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return wrong("image.std must be positive".into());
        }
        Ok(())
    }
}
