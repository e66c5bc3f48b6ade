//! Sizes of the UNet.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::ConfigError;
use crate::diffusion::foreign::Foreign;

/// Layers of one UNet level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Residual blocks.
    Plain,
    /// Residual blocks, each followed by a transformer with cross-attention to the condition.
    CrossAttention,
}

/// Sizes of the UNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each level, highest resolution first.
    pub channels: Vec<usize>,
    /// Levels of the down path, highest resolution first.
    pub down: Vec<BlockKind>,
    /// Levels of the up path, lowest resolution first.
    pub up: Vec<BlockKind>,
    /// Residual blocks per level of the down path; one more in the up path.
    pub layers_per_block: usize,
    /// Attention heads of each level, highest resolution first (`attention_head_dim` in diffusers).
    pub heads: Vec<usize>,
    /// Width of the condition.
    pub context_width: usize,
    /// Groups of the group norms.
    pub norm_groups: usize,
    /// Eps of the residual blocks' group norms; the transformers' is 1e-6.
    pub norm_eps: f64,
    /// Zero padding `(before, after)` of the downsampling convolutions.
    #[serde(default = "one_each")]
    pub downsample_padding: (usize, usize),
    /// The sinusoidal time embedding has its cosines before its sines.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the divisor of the exponent.
    #[serde(default)]
    pub freq_shift: f64,
}

fn one_each() -> (usize, usize) {
    (1, 1)
}

fn yes() -> bool {
    true
}

impl UnetConfig {
    /// The UNet of Stable Diffusion 1.5 with the condition width of Emu-14B.
    pub fn emu_14b() -> Self {
        use BlockKind::{CrossAttention, Plain};
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: vec![320, 640, 1280, 1280],
            down: vec![CrossAttention, CrossAttention, CrossAttention, Plain],
            up: vec![Plain, CrossAttention, CrossAttention, CrossAttention],
            layers_per_block: 2,
            heads: vec![8; 4],
            context_width: 5120,
            norm_groups: 32,
            norm_eps: 1e-5,
            downsample_padding: (1, 1),
            flip_sin_to_cos: true,
            freq_shift: 0.0,
        }
    }

    /// A small UNet for latents of 16x16 with transformers at 8x8 and 4x4.
    pub fn emu_mini(context_width: usize) -> Self {
        use BlockKind::{CrossAttention, Plain};
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: vec![48, 96, 160],
            down: vec![Plain, CrossAttention, CrossAttention],
            up: vec![CrossAttention, CrossAttention, Plain],
            layers_per_block: 1,
            heads: vec![2, 3, 5],
            context_width,
            norm_groups: 16,
            ..Self::emu_14b()
        }
    }

    /// Reads the `config.json` of a diffusers UNet.
    ///
    /// # Errors
    /// Names the first field that has an unexpected type or requests an unsupported feature.
    pub fn from_diffusers(value: &Value) -> Result<Self, ConfigError> {
        let mut from = Foreign::new("the UNet's config.json", value)?;
        let kind = |name: &str, plain: &str, cross: &str| match name {
            name if name == plain => Ok(BlockKind::Plain),
            name if name == cross => Ok(BlockKind::CrossAttention),
            _ => Err(ConfigError(format!(
                "the UNet's block type {name} is not supported ({plain} and {cross} are)"
            ))),
        };
        let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        let down = from.texts("down_block_types", &[down, down, down, "DownBlock2D"])?;
        let up = from.texts("up_block_types", &["UpBlock2D", up, up, up])?;
        let channels = from.sizes("block_out_channels", &[320, 640, 1280, 1280])?;
        let heads = match from.get("attention_head_dim") {
            Some(Value::Array(_)) => from.sizes("attention_head_dim", &[])?,
            _ => vec![from.usize("attention_head_dim", 8)?; channels.len()],
        };
        let padding = from.usize("downsample_padding", 1)?;

        from.only("act_fn", &["\"silu\"", "\"swish\""])?;
        from.only("attention_type", &["\"default\""])?;
        from.only("center_input_sample", &["false"])?;
        from.only("conv_in_kernel", &["3"])?;
        from.only("conv_out_kernel", &["3"])?;
        from.only("dropout", &["0"])?;
        from.only("mid_block_scale_factor", &["1"])?;
        from.only("mid_block_type", &["\"UNetMidBlock2DCrossAttn\""])?;
        from.only("resnet_out_scale_factor", &["1"])?;
        from.only("resnet_time_scale_shift", &["\"default\""])?;
        from.only("time_embedding_type", &["\"positional\""])?;
        from.only("transformer_layers_per_block", &["1"])?;
        // `sample_size`: the caller chooses the image size. `upcast_attention`: attention is always in f32 here.
        // `addition_embed_type_num_heads`: belongs to a feature whose own switch (`addition_embed_type`) is checked.
        from.ignore(&[
            "sample_size",
            "upcast_attention",
            "addition_embed_type_num_heads",
        ]);

        let config = Self {
            in_channels: from.usize("in_channels", 4)?,
            out_channels: from.usize("out_channels", 4)?,
            down: down
                .iter()
                .map(|n| kind(n, "DownBlock2D", "CrossAttnDownBlock2D"))
                .collect::<Result<_, _>>()?,
            up: up
                .iter()
                .map(|n| kind(n, "UpBlock2D", "CrossAttnUpBlock2D"))
                .collect::<Result<_, _>>()?,
            channels,
            layers_per_block: from.usize("layers_per_block", 2)?,
            heads,
            context_width: from.usize("cross_attention_dim", 1280)?,
            norm_groups: from.usize("norm_num_groups", 32)?,
            norm_eps: from.f64("norm_eps", 1e-5)?,
            // diffusers implements 0 as an explicit padding of one row and one column at the far sides.
            downsample_padding: if padding == 0 {
                (0, 1)
            } else {
                (padding, padding)
            },
            flip_sin_to_cos: from.bool("flip_sin_to_cos", true)?,
            freq_shift: from.f64("freq_shift", 0.0)?,
        };
        from.finish()?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the invariants of the network.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError(format!("unet: {what}")));
        let levels = self.channels.len();
        if levels == 0 || levels > 16 {
            return wrong(format!(
                "it has {levels} levels, where 1 to 16 are possible"
            ));
        }
        if [self.down.len(), self.up.len(), self.heads.len()] != [levels; 3] {
            return wrong(format!(
                "channels, down, up and heads must have as many entries, {levels}"
            ));
        }
        let sizes = [
            self.in_channels,
            self.out_channels,
            self.layers_per_block,
            self.context_width,
            self.norm_groups,
        ];
        if sizes
            .iter()
            .chain(&self.channels)
            .chain(&self.heads)
            .any(|n| *n == 0 || *n > 1 << 20)
        {
            return wrong("a size is 0, or larger than any model has".into());
        }
        if let Some(c) = self.channels.iter().find(|c| *c % self.norm_groups != 0) {
            return wrong(format!(
                "{c} channels are no multiple of {} groups",
                self.norm_groups
            ));
        }
        if let Some((c, h)) = self
            .channels
            .iter()
            .zip(&self.heads)
            .find(|(c, h)| *c % *h != 0)
        {
            return wrong(format!("{c} channels are no multiple of {h} heads"));
        }
        if self.time_frequencies() == 0 || self.channels.first().is_some_and(|c| c % 2 != 0) {
            return wrong(
                "the first level needs an even number of channels for the time embedding".into(),
            );
        }
        if !(self.freq_shift.is_finite() && self.freq_shift < self.time_frequencies() as f64) {
            return wrong(format!(
                "freq_shift {} leaves no frequencies",
                self.freq_shift
            ));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return wrong(format!("norm_eps {} is not between 0 and 1", self.norm_eps));
        }
        if self.downsample_padding.0 > 2 || self.downsample_padding.1 > 2 {
            return wrong(format!(
                "downsample_padding {:?} is larger than the kernel",
                self.downsample_padding
            ));
        }
        Ok(())
    }

    /// Channels of the level with the highest resolution.
    pub fn first_channels(&self) -> usize {
        self.channels.first().copied().unwrap_or(0)
    }

    /// Width of the time embedding.
    pub fn time_width(&self) -> usize {
        4 * self.first_channels()
    }

    /// Number of frequencies of the sinusoidal time embedding.
    pub fn time_frequencies(&self) -> usize {
        self.first_channels() / 2
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_diffusers() {
        let read = UnetConfig::from_diffusers(&json!({"cross_attention_dim": 5120})).unwrap();
        assert_eq!(read, UnetConfig::emu_14b());
    }

    #[test]
    fn other_mixes_of_blocks_are_read() {
        let config = UnetConfig::from_diffusers(&json!({
            "block_out_channels": [32, 64, 64], "norm_num_groups": 8, "attention_head_dim": [2, 4, 8],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        }));
        let config = config.unwrap();
        assert_eq!(config.heads, [2, 4, 8]);
        assert_eq!(config.down[0], BlockKind::Plain);
    }

    #[test]
    fn unsupported_features_are_named() {
        for (value, needle) in [
            (
                json!({"use_linear_projection": true}),
                "use_linear_projection",
            ),
            (json!({"act_fn": "gelu"}), "act_fn"),
            (
                json!({"time_embedding_type": "fourier"}),
                "time_embedding_type",
            ),
            (
                json!({"down_block_types": ["AttnDownBlock2D"]}),
                "AttnDownBlock2D",
            ),
            (json!({"class_embed_type": "timestep"}), "class_embed_type"),
            (
                json!({"mid_block_type": "UNetMidBlock2D"}),
                "mid_block_type",
            ),
            (json!({"layers_per_block": [1, 2]}), "layers_per_block"),
            (json!({"attention_head_dim": 7}), "heads"),
            (json!({"block_out_channels": []}), "levels"),
            (json!({"norm_num_groups": 0}), "size is 0"),
            (json!({"norm_num_groups": 48}), "groups"),
            (json!(null), "no JSON object"),
        ] {
            let error = UnetConfig::from_diffusers(&value).unwrap_err().to_string();
            assert!(error.contains(needle), "{value}: {error}");
        }
    }

    #[test]
    fn survives_json() {
        let config = UnetConfig::emu_mini(192);
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<UnetConfig>(&text).unwrap(), config);
    }
}
