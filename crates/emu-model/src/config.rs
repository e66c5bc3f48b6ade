//! Every size of the model. Networks take their numbers from here and from nowhere else.

use serde::{Deserialize, Serialize};

use crate::efficientnet::EfficientNetConfig;

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
        let net = EfficientNetConfig::lite2();
        Self {
            image_size: 260,
            patch_size: net.stride(),
            width: net.features,
            layers: 0,
            head_width: net.features,
            mlp_ratio: 1.0,
            stem: None,
            efficientnet: Some(net),
        }
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
    /// A user's turn. Pictures without a mark in the text go where `{pictures}` stands, or else before the text.
    pub user: String,
    /// What asks for the answer.
    pub assistant: String,
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

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            system: String::new(),
            user: "{}".into(),
            assistant: String::new(),
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
    /// The causal transformer.
    pub causal: CausalConfig,
    /// The language model.
    pub lm: LmConfig,
    /// Adapters on the LM, where the model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
    /// Special tokens.
    pub special: SpecialTokens,
    /// Preprocessing.
    #[serde(default)]
    pub image: ImageConfig,
    /// Templates.
    #[serde(default)]
    pub prompts: PromptConfig,
}

impl EmuConfig {
    /// Checks what the networks rely on.
    ///
    /// # Errors
    /// Names the first number that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (v, c, l) = (&self.vision, &self.causal, &self.lm);
        let wrong = |what: String| Err(ConfigError(what));
        let sizes = [
            ("vision.image_size", v.image_size),
            ("vision.patch_size", v.patch_size),
            ("vision.width", v.width),
            ("vision.head_width", v.head_width),
            ("causal.queries", c.queries),
            ("causal.d_model", c.d_model),
            ("causal.d_kv", c.d_kv),
            ("causal.heads", c.heads),
            ("causal.buckets", c.buckets),
            ("lm.vocab", l.vocab),
            ("lm.width", l.width),
            ("lm.layers", l.layers),
            ("lm.heads", l.heads),
            ("lm.kv_heads", l.kv_heads),
            ("lm.head_size", l.head_size),
            ("lm.context", l.context),
        ];
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
        if c.raster && c.queries != v.grid() * v.grid() {
            return wrong(format!(
                "causal.raster needs {} queries, not {}",
                v.grid() * v.grid(),
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
        if let Some(id) = ids.into_iter().flatten().find(|id| *id as usize >= l.vocab) {
            return wrong(format!(
                "special token {id} is outside the vocabulary of {}",
                l.vocab
            ));
        }
        if self.image.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return wrong("image.std must be positive".into());
        }
        Ok(())
    }

    /// The released Emu-14B (pretrained; see [`EmuConfig::instruct`]).
    pub fn emu_14b() -> Self {
        Self {
            vision: VisionConfig {
                image_size: 224,
                patch_size: 14,
                width: 1408,
                layers: 40,
                head_width: 88,
                mlp_ratio: 4.3637,
                stem: None,
                efficientnet: None,
            },
            causal: CausalConfig {
                queries: 32,
                d_model: 768,
                d_kv: 64,
                d_ff: 3072,
                layers: 12,
                heads: 12,
                buckets: 32,
                max_distance: 128,
                norm_eps: 1e-6,
                raster: false,
            },
            lm: LmConfig {
                vocab: 32004,
                width: 5120,
                ffn: 13824,
                layers: 40,
                heads: 40,
                kv_heads: 40,
                head_size: 128,
                context: 2048,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: false,
            },
            adapter: None,
            special: SpecialTokens {
                bos: 1,
                eos: 2,
                pad: 32000,
                img: 32001,
                end_img: 32002,
                image: 32003,
                user: None,
                assistant: None,
            },
            image: ImageConfig::default(),
            prompts: PromptConfig::default(),
        }
    }

    /// The instruction-tuned variant of a pretrained model: two more tokens, adapters of rank 16 and alpha 16.
    pub fn instruct(mut self) -> Self {
        self.special.user = Some(self.lm.vocab as u32);
        self.special.assistant = Some(self.lm.vocab as u32 + 1);
        self.lm.vocab += 2;
        self.adapter = Some(AdapterConfig {
            rank: 16,
            alpha: 16.0,
        });
        self.prompts = PromptConfig {
            user: "[USER]: {}".into(),
            assistant: " [ASSISTANT]:".into(),
            caption: "Please provide an accurate and concise description of the given image."
                .into(),
            ..Default::default()
        };
        self
    }

    /// The small Emu that this project trains and ships: 64 px, a convolutional stem, 16 embeddings a picture.
    pub fn emu_mini(vocab: usize, special: SpecialTokens) -> Self {
        Self {
            vision: VisionConfig {
                image_size: 64,
                patch_size: 16,
                width: 192,
                layers: 2,
                head_width: 32,
                mlp_ratio: 3.0,
                stem: Some(StemConfig {
                    channels: vec![32, 48, 96, 192],
                    blocks: vec![0, 1, 1, 1],
                    groups: 16,
                }),
                efficientnet: None,
            },
            causal: CausalConfig {
                queries: 16,
                d_model: 192,
                d_kv: 32,
                d_ff: 512,
                layers: 2,
                heads: 6,
                buckets: 32,
                max_distance: 128,
                norm_eps: 1e-6,
                raster: true,
            },
            lm: LmConfig {
                vocab,
                width: 192,
                ffn: 512,
                layers: 4,
                heads: 6,
                kv_heads: 6,
                head_size: 32,
                context: 512,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: true,
            },
            adapter: None,
            special,
            image: ImageConfig::default(),
            prompts: PromptConfig::trained(),
        }
    }

    /// The sizes of the reference's tiny model, for tests.
    pub fn tiny() -> Self {
        Self {
            vision: VisionConfig {
                image_size: 56,
                patch_size: 14,
                width: 64,
                layers: 2,
                head_width: 16,
                mlp_ratio: 4.3637,
                stem: None,
                efficientnet: None,
            },
            causal: CausalConfig {
                queries: 4,
                d_model: 48,
                d_kv: 12,
                d_ff: 96,
                layers: 2,
                heads: 4,
                buckets: 32,
                max_distance: 128,
                norm_eps: 1e-6,
                raster: false,
            },
            lm: LmConfig {
                vocab: 304,
                width: 64,
                ffn: 172,
                layers: 2,
                heads: 4,
                kv_heads: 4,
                head_size: 16,
                context: 2048,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: false,
            },
            adapter: None,
            special: SpecialTokens {
                bos: 1,
                eos: 2,
                pad: 300,
                img: 301,
                end_img: 302,
                image: 303,
                user: None,
                assistant: None,
            },
            image: ImageConfig::default(),
            prompts: PromptConfig::default(),
        }
    }
}
