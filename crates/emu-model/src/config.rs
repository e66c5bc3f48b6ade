//! Every size of the model. Networks take their numbers from here and from nowhere else.

use serde::{Deserialize, Serialize};

use crate::clip::ClipConfig;
use crate::efficientnet::EfficientNetConfig;
use crate::namer::NamerConfig;
use crate::requests::RequestsConfig;
use crate::tokenizer::names;

mod presets;

/// A configuration that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The model configuration is wrong: {0}. Correct it, or take one of the presets emu-14b, emu-mini or tiny."
)]
pub struct ConfigError(pub String);

/// The visual encoder (EVA-01-CLIP).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Side of the square picture, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels. With a stem: how many pixels a token covers.
    pub patch_size: usize,
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Size of a head; `width / head_width` heads.
    pub head_width: usize,
    /// The MLP is `int(width * mlp_ratio)` wide.
    pub mlp_ratio: f64,
    /// A convolutional stem in place of the patch embedding (small models that are trained from scratch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemConfig>,
    /// An EfficientNet in place of EVA: its features are the tokens, their mean stands where the class token does, and no
    /// block follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficientnet: Option<EfficientNetConfig>,
    /// CLIP's tower in place of EVA: the same sizes mean the same, and its norms have this eps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// A convolutional stem: stages of stride 2, each followed by residual blocks; the last stage has the encoder's width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StemConfig {
    /// Channels after each stage.
    pub channels: Vec<usize>,
    /// Residual blocks after each stage.
    pub blocks: Vec<usize>,
    /// Groups of its normalisations.
    pub groups: usize,
}

impl VisionConfig {
    /// Tokens of a picture, the class token included.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image_size.div_ceil(self.patch_size)
    }

    /// EfficientNet-Lite2 as it is published: 260 px, 9 x 9 tokens of 1,280.
    pub fn efficientnet_lite2() -> Self {
        Self::of_efficientnet(EfficientNetConfig::lite2(), 260)
    }

    /// An EfficientNet over square pictures of `image_size` pixels.
    pub fn of_efficientnet(net: EfficientNetConfig, image_size: usize) -> Self {
        Self {
            image_size,
            patch_size: net.stride(),
            width: net.features,
            layers: 0,
            head_width: net.features,
            mlp_ratio: 1.0,
            stem: None,
            efficientnet: Some(net),
            clip: None,
        }
    }

    /// CLIP's tower as the encoder.
    pub fn of_clip(clip: &ClipConfig) -> Self {
        Self {
            image_size: clip.image_size,
            patch_size: clip.patch_size,
            width: clip.width,
            layers: clip.layers,
            head_width: clip.width / clip.heads,
            mlp_ratio: clip.mlp_width as f64 / clip.width as f64,
            stem: None,
            efficientnet: None,
            clip: Some(clip.norm_eps),
        }
    }

    /// The tower's sizes, where it is one of CLIP's.
    pub fn clip_config(&self) -> Option<ClipConfig> {
        Some(ClipConfig {
            image_size: self.image_size,
            patch_size: self.patch_size,
            width: self.width,
            // The ratio is that of two whole numbers.
            mlp_width: (self.width as f64 * self.mlp_ratio).round() as usize,
            layers: self.layers,
            heads: self.width / self.head_width,
            norm_eps: self.clip?,
        })
    }

    /// Width of the MLP.
    pub fn mlp_width(&self) -> usize {
        (self.width as f64 * self.mlp_ratio) as usize
    }
}

/// The causal transformer between encoder and LM (a T5 decoder).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CausalConfig {
    /// Visual embeddings of a picture.
    pub queries: usize,
    /// Width.
    pub d_model: usize,
    /// Size of a head.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of heads.
    pub heads: usize,
    /// Buckets of the relative position bias.
    pub buckets: usize,
    /// Distance from which all positions share the last bucket.
    pub max_distance: usize,
    /// Added to the mean square in its norms.
    pub norm_eps: f64,
    /// Each query also starts from the encoder's token of its raster position (small models; needs as many queries as
    /// patches).
    #[serde(default)]
    pub raster: bool,
}

/// The language model (LLaMA family).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmConfig {
    /// Tokens, the special ones included.
    pub vocab: usize,
    /// Width.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_size: usize,
    /// Longest sequence.
    pub context: usize,
    /// Base of the rotary embedding.
    pub rope_base: f64,
    /// Added to the mean square in its norms.
    pub norm_eps: f64,
    /// The output head shares the embedding table.
    #[serde(default)]
    pub tied: bool,
}

impl LmConfig {
    /// Numbers of a position in the widest activation of a layer: queries, keys and values beside each other, or gate and
    /// up projection.
    pub fn widest(&self) -> usize {
        (2 * self.ffn).max((self.heads + 2 * self.kv_heads) * self.head_size)
    }
}

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

/// How pictures become tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Mean of each channel, of values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

impl ImageConfig {
    /// Of EfficientNet-Lite, as it is published.
    pub const fn efficientnet_lite() -> Self {
        Self {
            mean: [0.498; 3],
            std: [0.502; 3],
        }
    }
}

impl Default for ImageConfig {
    /// CLIP's.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_72],
            std: [0.268_629_55, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// Texts around what the user says. `{}` is what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Put first in a chat, unless the user gives another.
    pub system: String,
    /// A system message that the user gives; without it, it stands as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_turn: Option<String>,
    /// A user's turn. Pictures without a mark in the text go where `{pictures}` stands, or else before the text.
    pub user: String,
    /// What asks for the answer.
    pub assistant: String,
    /// What ends an answer before the next turn.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answered: String,
    /// Turns of a conversation that the model follows; all of them without it. Earlier ones are left out, but for their pictures
    /// where no later turn has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<usize>,
    /// What stands for a picture, with an `<image>` for each of its embeddings; without it these stand between `[IMG]` and
    /// `[/IMG]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// What stands for a drawing of several things, where a namer reads them one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenes: Option<ScenePrompts>,
    /// A turn whose text marks the places of its pictures, where that is no turn of `user` and `assistant` but a text
    /// to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<String>,
    /// What asks for a caption, after the picture. Empty: the picture alone does.
    pub caption: String,
    /// What asks for a picture.
    pub imagine: String,
    /// What asks for a picture with words and pictures, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<String>,
}

/// What stands for a drawing of several things on a plain background: an `<image>` for each embedding of each thing's name, in
/// reading order, and behind them one for the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenePrompts {
    /// Two beside each other.
    pub beside: String,
    /// Two above each other.
    pub above: String,
    /// Three.
    pub three: String,
    /// Four.
    pub four: String,
}

impl ScenePrompts {
    /// Each with the number of its things.
    pub fn each(&self) -> [(&str, usize); 4] {
        [
            (&self.beside, 2),
            (&self.above, 2),
            (&self.three, 3),
            (&self.four, 4),
        ]
    }
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            system: String::new(),
            system_turn: None,
            user: "{}".into(),
            assistant: String::new(),
            answered: String::new(),
            turns: None,
            picture: None,
            scenes: None,
            marked: None,
            caption: String::new(),
            imagine: "{}".into(),
            blend: None,
        }
    }
}

impl PromptConfig {
    /// Of models that this project trains, as the sequences of its training are made: a question follows its picture,
    /// a text with marks is a document, a request to draw is a turn, and pictures to blend stand alone.
    pub fn trained() -> Self {
        Self {
            user: "{pictures}[USER]{}".into(),
            assistant: "[ASSISTANT]".into(),
            marked: Some("{}".into()),
            imagine: "[USER]{}[ASSISTANT]".into(),
            blend: Some("{}".into()),
            ..Default::default()
        }
    }
}

/// How text is generated where the user does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationConfig {
    /// Above 1 makes tokens that were used before less likely; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Low-rank adapters on the LM's attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Rank.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
}

/// The whole model but the decoder of pictures, which has a file of its own ([`crate::diffusion`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmuConfig {
    /// The visual encoder.
    pub vision: VisionConfig,
    /// The causal transformer between encoder and LM. A model has either this or a namer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal: Option<CausalConfig>,
    /// What names the picture in the LM's own words, in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namer: Option<NamerConfig>,
    /// The language model.
    pub lm: LmConfig,
    /// Adapters on the LM, where the model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
    /// Embeddings of a soft prompt that stands in the place of the system message where the user gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<usize>,
    /// What reads requests for pictures from an LM that regresses no embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsConfig>,
    /// Special tokens.
    pub special: SpecialTokens,
    /// Further tokens that end an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<u32>,
    /// Preprocessing.
    #[serde(default)]
    pub image: ImageConfig,
    /// Templates.
    #[serde(default)]
    pub prompts: PromptConfig,
    /// What generation does where it is not told otherwise.
    #[serde(default, skip_serializing_if = "GenerationConfig::is_plain")]
    pub generation: GenerationConfig,
}

impl EmuConfig {
    /// Embeddings of a picture that the LM reads.
    pub fn queries(&self) -> usize {
        match (&self.causal, &self.namer) {
            (Some(causal), _) => causal.queries,
            (None, Some(namer)) => namer.embeddings(),
            (None, None) => 0,
        }
    }

    /// Embeddings of a picture that a decoder draws from: those that are read, or all slots of a spelled one.
    pub fn drawn(&self) -> usize {
        match (&self.requests, &self.namer) {
            (Some(requests), _) => requests.reader.spelling.slots(),
            (None, Some(namer)) => namer.spelling.slots(),
            (None, None) => self.queries(),
        }
    }

    /// Checks what the networks rely on.
    ///
    /// # Errors
    /// Names the first number that does not fit.
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
