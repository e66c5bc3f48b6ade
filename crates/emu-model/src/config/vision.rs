//! Sizes of the vision encoder.

use serde::{Deserialize, Serialize};

use crate::clip::ClipConfig;
use crate::efficientnet::EfficientNetConfig;

/// The vision encoder (EVA-01-CLIP).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels. With a stem: pixels per token along a side.
    pub patch_size: usize,
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Head size; there are `width / head_width` heads.
    pub head_width: usize,
    /// The MLP is `int(width * mlp_ratio)` wide.
    pub mlp_ratio: f64,
    /// A convolutional stem instead of the patch embedding (small models trained from scratch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemConfig>,
    /// An EfficientNet instead of EVA: its features are the tokens, their mean replaces the class token, and there are
    /// no transformer blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficientnet: Option<EfficientNetConfig>,
    /// CLIP's vision tower instead of EVA: the sizes have the same meaning, and its norms have this eps.
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
    /// Groups of its group norms.
    pub groups: usize,
}

impl VisionConfig {
    /// Tokens per image, including the class token.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image_size.div_ceil(self.patch_size)
    }

    /// The published EfficientNet-Lite2: 260 px, 9 x 9 tokens of width 1,280.
    pub fn efficientnet_lite2() -> Self {
        Self::of_efficientnet(EfficientNetConfig::lite2(), 260)
    }

    /// An EfficientNet as the encoder of square images of `image_size` pixels.
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

    /// CLIP's vision tower as the encoder.
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

    /// Sizes of the CLIP tower, if the encoder is one.
    pub fn clip_config(&self) -> Option<ClipConfig> {
        Some(ClipConfig {
            image_size: self.image_size,
            patch_size: self.patch_size,
            width: self.width,
            // Exact: the ratio is a quotient of whole numbers.
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
