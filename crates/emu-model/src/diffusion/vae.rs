//! The autoencoder between images and latents (diffusers' `AutoencoderKL`).
//!
//! B batch, L latent channels, H, W height and width of the image, F pixels per latent along a side.

use core::fmt::Arguments;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::{Conv2d, Conv2dConfig, GroupNorm, QLinear};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blocks::{Downsample, Resnet, ResnetConfig, Upsample};
use super::foreign::Foreign;
use crate::config::ConfigError;
use crate::probe::Probe;

/// Sizes of the autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of a decoded image.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of each level, highest resolution first; all but the last are followed by a downsampling by 2.
    pub channels: Vec<usize>,
    /// Residual blocks per encoder level; one more per decoder level.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_groups: usize,
    /// Latents are multiplied by this for the UNet.
    pub scaling_factor: f64,
    /// Whether encoder and decoder have mid blocks.
    #[serde(default = "yes")]
    pub mid_block: bool,
    /// Self-attention in the mid blocks.
    #[serde(default = "yes")]
    pub mid_attention: bool,
    /// Side of the pixel patches that are moved to channels before the first convolution and back after the last one:
    /// otherwise small models spend most of their time at full resolution.
    #[serde(default = "one")]
    pub patch: usize,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// Eps of every norm in the autoencoder.
const NORM_EPS: f64 = 1e-6;

/// Clamp range of the posterior's log-variance.
const LOG_VARIANCE: (f64, f64) = (-30.0, 20.0);

impl VaeConfig {
    /// The autoencoder of Stable Diffusion 1.5.
    pub fn emu_14b() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_groups: 32,
            scaling_factor: 0.18215,
            mid_block: true,
            mid_attention: true,
            patch: 1,
        }
    }

    /// A small autoencoder with 4x4 pixels per latent.
    pub fn emu_mini() -> Self {
        Self {
            channels: vec![32, 64],
            layers_per_block: 1,
            norm_groups: 8,
            scaling_factor: 1.0,
            mid_block: false,
            mid_attention: false,
            patch: 2,
            ..Self::emu_14b()
        }
    }

    /// Reads the `config.json` of a diffusers AutoencoderKL.
    ///
    /// # Errors
    /// Names the first field that has an unexpected type or requests an unsupported feature.
    pub fn from_diffusers(value: &Value) -> Result<Self, ConfigError> {
        let mut from = Foreign::new("the VAE's config.json", value)?;
        let channels = from.sizes("block_out_channels", &[64])?;
        for (key, kind) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let types = from.texts(key, &[kind])?;
            if types.len() != channels.len() || types.iter().any(|t| *t != kind) {
                return Err(from.wrong(
                    key,
                    &format!("{kind} for each of {} levels", channels.len()),
                ));
            }
        }
        from.only("act_fn", &["\"silu\"", "\"swish\""])?;
        from.only("use_quant_conv", &["true"])?;
        from.only("use_post_quant_conv", &["true"])?;
        from.only("shift_factor", &["0"])?;
        // The caller chooses the image size; everything is computed in f32 here.
        from.ignore(&["sample_size", "force_upcast"]);
        let config = Self {
            in_channels: from.usize("in_channels", 3)?,
            out_channels: from.usize("out_channels", 3)?,
            latent_channels: from.usize("latent_channels", 4)?,
            channels,
            layers_per_block: from.usize("layers_per_block", 1)?,
            norm_groups: from.usize("norm_num_groups", 32)?,
            scaling_factor: from.f64("scaling_factor", 0.18215)?,
            mid_block: true,
            mid_attention: from.bool("mid_block_add_attention", true)?,
            patch: 1,
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
        let wrong = |what: String| Err(ConfigError(format!("vae: {what}")));
        let levels = self.channels.len();
        if levels == 0 || levels > 8 {
            return wrong(format!("it has {levels} levels, where 1 to 8 are possible"));
        }
        let sizes = [
            self.in_channels,
            self.out_channels,
            self.latent_channels,
            self.layers_per_block,
            self.norm_groups,
        ];
        if sizes
            .iter()
            .chain(&self.channels)
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
        if self.mid_attention && !self.mid_block {
            return wrong("mid_attention needs mid_block".into());
        }
        if !(1..=16).contains(&self.patch) {
            return wrong(format!(
                "patch is {}, where 1 to 16 are possible",
                self.patch
            ));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return wrong(format!(
                "scaling_factor {} is no number to multiply by",
                self.scaling_factor
            ));
        }
        Ok(())
    }

    /// Pixels per latent along a side.
    pub fn factor(&self) -> usize {
        self.patch << self.channels.len().saturating_sub(1)
    }

    /// Creates the autoencoder; weights are allocated lazily.
    ///
    /// # Errors
    /// As [`VaeConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Vae, ConfigError> {
        self.validate()?;
        let latent = self.latent_channels;
        Ok(Vae {
            encoder: self.init_encoder(device),
            decoder: self.init_decoder(device),
            quant_conv: Conv2dConfig::same(2 * latent, 2 * latent, 1).init(device),
            post_quant_conv: Conv2dConfig::same(latent, latent, 1).init(device),
            patch: self.patch,
        })
    }

    fn init_encoder(&self, device: &Device) -> Encoder {
        let (first, last) = self.ends();
        let mut inputs = first;
        let levels = self.channels.len();
        let down_blocks = self.channels.iter().enumerate().map(|(i, &channels)| {
            let resnet = |j| {
                self.resnet(if j == 0 { inputs } else { channels }, channels)
                    .init(device)
            };
            let block = EncoderBlock {
                resnets: (0..self.layers_per_block).map(resnet).collect(),
                downsamplers: (i + 1 < levels)
                    .then(|| Downsample::new(channels, (0, 1), device))
                    .into_iter()
                    .collect(),
            };
            inputs = channels;
            block
        });
        Encoder {
            conv_in: Conv2dConfig::same(self.in_channels * self.patch * self.patch, first, 3)
                .init(device),
            down_blocks: down_blocks.collect(),
            mid_block: self.init_mid(last, device),
            conv_norm_out: GroupNorm::new(self.norm_groups, last, NORM_EPS, device),
            conv_out: Conv2dConfig::same(last, 2 * self.latent_channels, 3).init(device),
        }
    }

    fn init_decoder(&self, device: &Device) -> Decoder {
        let (first, last) = self.ends();
        let mut inputs = last;
        let levels = self.channels.len();
        let up_blocks = self
            .channels
            .iter()
            .rev()
            .enumerate()
            .map(|(i, &channels)| {
                let resnet = |j| {
                    self.resnet(if j == 0 { inputs } else { channels }, channels)
                        .init(device)
                };
                let block = DecoderBlock {
                    resnets: (0..self.layers_per_block + 1).map(resnet).collect(),
                    upsamplers: (i + 1 < levels)
                        .then(|| Upsample::new(channels, device))
                        .into_iter()
                        .collect(),
                };
                inputs = channels;
                block
            });
        Decoder {
            conv_in: Conv2dConfig::same(self.latent_channels, last, 3).init(device),
            mid_block: self.init_mid(last, device),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(self.norm_groups, first, NORM_EPS, device),
            conv_out: Conv2dConfig::same(first, self.out_channels * self.patch * self.patch, 3)
                .init(device),
        }
    }

    fn init_mid(&self, channels: usize, device: &Device) -> MidBlock {
        let linear = || QLinear::new(channels, channels, true, device);
        let attention = || PixelAttention {
            group_norm: GroupNorm::new(self.norm_groups, channels, NORM_EPS, device),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: linear(),
        };
        MidBlock {
            resnets: (0..if self.mid_block { 2 } else { 0 })
                .map(|_| self.resnet(channels, channels).init(device))
                .collect(),
            attentions: self.mid_attention.then(attention).into_iter().collect(),
        }
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        ResnetConfig {
            inputs,
            outputs,
            groups: self.norm_groups,
            eps: NORM_EPS,
            time: None,
        }
    }

    fn ends(&self) -> (usize, usize) {
        (
            self.channels.first().copied().unwrap_or(0),
            self.channels.last().copied().unwrap_or(0),
        )
    }
}

/// The autoencoder.
#[derive(Module, Debug)]
pub struct Vae {
    /// Images to the posterior.
    pub encoder: Encoder,
    /// Latents to images.
    pub decoder: Decoder,
    /// 1x1, after the encoder.
    pub quant_conv: Conv2d,
    /// 1x1, before the decoder.
    pub post_quant_conv: Conv2d,
    /// See [`VaeConfig::patch`].
    pub patch: usize,
}

/// Images to the posterior.
#[derive(Module, Debug)]
pub struct Encoder {
    /// 3x3.
    pub conv_in: Conv2d,
    /// Levels, highest resolution first.
    pub down_blocks: Vec<EncoderBlock>,
    /// Mid block at the lowest resolution.
    pub mid_block: MidBlock,
    /// Output norm.
    pub conv_norm_out: GroupNorm,
    /// 3x3.
    pub conv_out: Conv2d,
}

/// A level of the encoder.
#[derive(Module, Debug)]
pub struct EncoderBlock {
    /// Residual blocks.
    pub resnets: Vec<Resnet>,
    /// At most one.
    pub downsamplers: Vec<Downsample>,
}

/// Latents to images.
#[derive(Module, Debug)]
pub struct Decoder {
    /// 3x3.
    pub conv_in: Conv2d,
    /// Mid block at the lowest resolution.
    pub mid_block: MidBlock,
    /// Levels, lowest resolution first.
    pub up_blocks: Vec<DecoderBlock>,
    /// Output norm.
    pub conv_norm_out: GroupNorm,
    /// 3x3.
    pub conv_out: Conv2d,
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    /// Residual blocks.
    pub resnets: Vec<Resnet>,
    /// At most one.
    pub upsamplers: Vec<Upsample>,
}

/// Residual block, attention (if the model has it), residual block.
#[derive(Module, Debug)]
pub struct MidBlock {
    /// Two, or none.
    pub resnets: Vec<Resnet>,
    /// At most one.
    pub attentions: Vec<PixelAttention>,
}

/// Single-head self-attention over the pixels, added to its input.
#[derive(Module, Debug)]
pub struct PixelAttention {
    /// Before the attention.
    pub group_norm: GroupNorm,
    /// Queries, `[C, C]` as the three below.
    pub to_q: QLinear,
    /// Keys.
    pub to_k: QLinear,
    /// Values.
    pub to_v: QLinear,
    /// Output.
    pub to_out: QLinear,
}

/// The encoder's posterior: a normal distribution over latents.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// `[B, L, H/F, W/F]`
    pub mean: Tensor<4>,
    /// Logarithm of the variance, of the same shape.
    pub log_variance: Tensor<4>,
}

impl Posterior {
    /// Samples latents with this standard normal noise.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.log_variance.clone().mul_scalar(0.5).exp() * noise
    }

    /// KL divergence from the standard normal, summed over an image's latents and averaged over images: `[1]`.
    pub fn kl(&self) -> Tensor<1> {
        let [b, ..] = self.mean.dims();
        let (mean, log_variance) = (self.mean.clone(), self.log_variance.clone());
        (mean.square() + log_variance.clone().exp() - log_variance)
            .sub_scalar(1.0)
            .sum()
            .mul_scalar(0.5 / b as f64)
    }
}

impl Vae {
    /// # Shapes
    /// - `pictures`: `[B, 3, H, W]`, values from -1 to 1, H and W multiples of F
    pub fn encode(&self, pictures: Tensor<4>) -> Posterior {
        self.encode_probed(pictures, &mut Probe::off())
    }

    /// As [`Vae::encode`], reporting intermediate tensors to the probe.
    pub fn encode_probed(&self, pictures: Tensor<4>, probe: &mut Probe) -> Posterior {
        let moments = self.quant_conv.forward(
            self.encoder
                .forward(pixels_to_channels(pictures, self.patch), probe),
        );
        let [_, channels, _, _] = moments.dims();
        let mean = moments.clone().narrow(1, 0, channels / 2);
        let log_variance = moments
            .narrow(1, channels / 2, channels / 2)
            .clamp(LOG_VARIANCE.0, LOG_VARIANCE.1);
        probe.see(format_args!("vae.mean"), &mean);
        probe.see(format_args!("vae.logvar"), &log_variance);
        Posterior { mean, log_variance }
    }

    /// # Shapes
    /// - `latents`: `[B, L, H/F, W/F]`, already divided by the scaling factor
    /// - returns `[B, 3, H, W]`, nominally from -1 to 1
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decode_probed(latents, &mut Probe::off())
    }

    /// As [`Vae::decode`], reporting intermediate tensors to the probe.
    pub fn decode_probed(&self, latents: Tensor<4>, probe: &mut Probe) -> Tensor<4> {
        let pictures = self
            .decoder
            .forward(self.post_quant_conv.forward(latents), probe);
        let pictures = channels_to_pixels(pictures, self.patch);
        probe.see(format_args!("vae.decode"), &pictures);
        pictures
    }
}

/// Pixel unshuffle (space to depth): P by P pixels to channels, `[B, C, H, W]` to `[B, C·P², H/P, W/P]`.
fn pixels_to_channels(x: Tensor<4>, p: usize) -> Tensor<4> {
    if p == 1 {
        return x;
    }
    let [b, c, h, w] = x.dims();
    let squares = x
        .reshape([b, c, h / p, p, w / p, p])
        .permute([0, 1, 3, 5, 2, 4]); // [B, C, P, P, H/P, W/P]
    squares.reshape([b, c * p * p, h / p, w / p])
}

/// The inverse of [`pixels_to_channels`].
fn channels_to_pixels(x: Tensor<4>, p: usize) -> Tensor<4> {
    if p == 1 {
        return x;
    }
    let [b, c, h, w] = x.dims();
    let c = c / (p * p);
    let rows = x.reshape([b, c, p, p, h, w]).permute([0, 1, 4, 2, 5, 3]); // [B, C, H, P, W, P]
    rows.reshape([b, c, h * p, w * p])
}

impl Encoder {
    fn forward(&self, pictures: Tensor<4>, probe: &mut Probe) -> Tensor<4> {
        let mut x = self.conv_in.forward(pictures);
        probe.see(format_args!("vae.encoder.conv_in"), &x);
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block
                .resnets
                .iter()
                .fold(x, |x, resnet| resnet.forward(x, None));
            x = block
                .downsamplers
                .iter()
                .fold(x, |x, downsample| downsample.forward(x));
            probe.see(format_args!("vae.encoder.block{i}"), &x);
        }
        x = self
            .mid_block
            .forward(x, format_args!("vae.encoder.mid"), probe);
        let x = self.conv_out.forward(self.conv_norm_out.forward_silu(x));
        probe.see(format_args!("vae.encoder.out"), &x);
        x
    }
}

impl Decoder {
    fn forward(&self, latents: Tensor<4>, probe: &mut Probe) -> Tensor<4> {
        let mut x = self.conv_in.forward(latents);
        probe.see(format_args!("vae.decoder.conv_in"), &x);
        x = self
            .mid_block
            .forward(x, format_args!("vae.decoder.mid"), probe);
        for (i, block) in self.up_blocks.iter().enumerate() {
            x = block
                .resnets
                .iter()
                .fold(x, |x, resnet| resnet.forward(x, None));
            x = block
                .upsamplers
                .iter()
                .fold(x, |x, upsample| upsample.forward(x, None));
            probe.see(format_args!("vae.decoder.block{i}"), &x);
        }
        let x = self.conv_out.forward(self.conv_norm_out.forward_silu(x));
        probe.see(format_args!("vae.decoder.out"), &x);
        x
    }
}

impl MidBlock {
    fn forward(&self, mut x: Tensor<4>, name: Arguments<'_>, probe: &mut Probe) -> Tensor<4> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, None);
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(x);
                probe.see(format_args!("{name}.attn"), &x);
            }
        }
        probe.see(format_args!("{name}"), &x);
        x
    }
}

impl PixelAttention {
    /// `[B, C, H, W]`, returned in the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let pixels = self
            .group_norm
            .forward(x.clone())
            .reshape([b, c, h * w])
            .swap_dims(1, 2); // [B, HW, C]
        let head = |y: Tensor<3>| y.reshape([b, 1, h * w, c]);
        let (q, k) = (
            self.to_q.forward(pixels.clone()),
            self.to_k.forward(pixels.clone()),
        );
        let y = ops::attention(
            head(q),
            head(k),
            head(self.to_v.forward(pixels)),
            AttentionOptions::default(),
        );
        let y = self.to_out.forward(y.reshape([b, h * w, c])); // [B, HW, C]
        x + y.swap_dims(1, 2).reshape([b, c, h, w])
    }
}

#[cfg(test)]
mod tests;
