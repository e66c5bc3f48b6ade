//! The UNet module and its forward pass.

use core::fmt::Arguments;

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::throttle::Throttle;
use emu_kernels::{Conv2d, Conv2dConfig, GroupNorm, QLinear, count};

use super::config::{BlockKind, UnetConfig};
use crate::config::ConfigError;
use crate::diffusion::blocks::{Downsample, Resnet, ResnetConfig, Upsample};
use crate::diffusion::transformer::{CrossKv, SpatialTransformer, TransformerConfig};
use crate::probe::Probe;

/// The UNet.
#[derive(Module, Debug)]
pub struct Unet {
    /// Latents to channels, 3x3.
    pub conv_in: Conv2d,
    /// MLP on the sinusoidal embedding of the timestep.
    pub time_embedding: TimeEmbedding,
    /// Down path, highest resolution first.
    pub down_blocks: Vec<DownBlock>,
    /// Mid block at the lowest resolution.
    pub mid_block: MidBlock,
    /// Up path, lowest resolution first.
    pub up_blocks: Vec<UpBlock>,
    /// Output norm.
    pub conv_norm_out: GroupNorm,
    /// Channels to prediction, 3x3.
    pub conv_out: Conv2d,
    /// See [`UnetConfig::flip_sin_to_cos`].
    pub flip_sin_to_cos: bool,
    /// See [`UnetConfig::freq_shift`].
    pub freq_shift: f64,
    /// Throttle of denoising steps.
    #[module(skip)]
    pub throttle: Throttle,
}

/// Linear, SiLU, linear.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    /// C to 4C.
    pub linear_1: QLinear,
    /// 4C to 4C.
    pub linear_2: QLinear,
}

/// One level of the down path.
#[derive(Module, Debug)]
pub struct DownBlock {
    /// Residual blocks.
    pub resnets: Vec<Resnet>,
    /// One after each residual block, or none.
    pub attentions: Vec<SpatialTransformer>,
    /// At most one.
    pub downsamplers: Vec<Downsample>,
}

/// Mid block: residual block, transformer, residual block.
#[derive(Module, Debug)]
pub struct MidBlock {
    /// One more than `attentions`.
    pub resnets: Vec<Resnet>,
    /// Between the residual blocks.
    pub attentions: Vec<SpatialTransformer>,
}

/// One level of the up path; each residual block also takes a skip connection.
#[derive(Module, Debug)]
pub struct UpBlock {
    /// Residual blocks.
    pub resnets: Vec<Resnet>,
    /// One after each residual block, or none.
    pub attentions: Vec<SpatialTransformer>,
    /// At most one.
    pub upsamplers: Vec<Upsample>,
}

/// Cross-attention keys and values of the condition for every transformer: computed once per image, reused at every
/// step.
#[derive(Clone, Debug)]
pub struct Context {
    down: Vec<Vec<Vec<CrossKv>>>,
    mid: Vec<Vec<CrossKv>>,
    up: Vec<Vec<Vec<CrossKv>>>,
}

impl UnetConfig {
    /// Creates the UNet; weights are allocated lazily.
    ///
    /// # Errors
    /// As [`UnetConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Unet, ConfigError> {
        self.validate()?;
        let (first, last) = (
            self.first_channels(),
            self.channels.last().copied().unwrap_or(0),
        );
        let time = self.time_width();
        let levels: Vec<(usize, usize)> = self
            .channels
            .iter()
            .copied()
            .zip(self.heads.iter().copied())
            .collect();

        // Down path: the first residual block of a level takes the channels of the level before.
        let mut inputs = first;
        let down_blocks =
            levels
                .iter()
                .zip(&self.down)
                .enumerate()
                .map(|(i, (&(channels, heads), kind))| {
                    let resnet = |j| {
                        self.resnet(if j == 0 { inputs } else { channels }, channels)
                            .init(device)
                    };
                    let padding = self.downsample_padding;
                    let halve = i + 1 < levels.len();
                    let block = DownBlock {
                        resnets: (0..self.layers_per_block).map(resnet).collect(),
                        attentions: self.transformers(
                            *kind,
                            self.layers_per_block,
                            channels,
                            heads,
                            device,
                        ),
                        downsamplers: halve
                            .then(|| Downsample::new(channels, padding, device))
                            .into_iter()
                            .collect(),
                    };
                    inputs = channels;
                    block
                });
        let down_blocks = down_blocks.collect();

        let mid_heads = self.heads.last().copied().unwrap_or(1);
        let mid_block = MidBlock {
            resnets: (0..2)
                .map(|_| self.resnet(last, last).init(device))
                .collect(),
            attentions: self.transformers(BlockKind::CrossAttention, 1, last, mid_heads, device),
        };

        // Up path: skip connections have the channels of this level, the last one those of the next finer level.
        let mut previous = last;
        let finer = |i: usize| {
            levels
                .iter()
                .rev()
                .nth(i + 1)
                .map_or(first, |(channels, _)| *channels)
        };
        let up_blocks =
            levels
                .iter()
                .rev()
                .zip(&self.up)
                .enumerate()
                .map(|(i, (&(channels, heads), kind))| {
                    let layers = self.layers_per_block + 1;
                    let resnet = |j| {
                        let skip = if j + 1 == layers { finer(i) } else { channels };
                        let below = if j == 0 { previous } else { channels };
                        self.resnet(below + skip, channels).init(device)
                    };
                    let double = i + 1 < levels.len();
                    let block = UpBlock {
                        resnets: (0..layers).map(resnet).collect(),
                        attentions: self.transformers(*kind, layers, channels, heads, device),
                        upsamplers: double
                            .then(|| Upsample::new(channels, device))
                            .into_iter()
                            .collect(),
                    };
                    previous = channels;
                    block
                });
        let up_blocks = up_blocks.collect();

        Ok(Unet {
            conv_in: Conv2dConfig::same(self.in_channels, first, 3).init(device),
            time_embedding: TimeEmbedding {
                linear_1: QLinear::new(first, time, true, device),
                linear_2: QLinear::new(time, time, true, device),
            },
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(self.norm_groups, first, self.norm_eps, device),
            conv_out: Conv2dConfig::same(first, self.out_channels, 3).init(device),
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            throttle: Throttle::default(),
        })
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        let (groups, eps, time) = (self.norm_groups, self.norm_eps, Some(self.time_width()));
        ResnetConfig {
            inputs,
            outputs,
            groups,
            eps,
            time,
        }
    }

    fn transformers(
        &self,
        kind: BlockKind,
        layers: usize,
        channels: usize,
        heads: usize,
        device: &Device,
    ) -> Vec<SpatialTransformer> {
        let config = TransformerConfig {
            channels,
            context: self.context_width,
            heads,
            groups: self.norm_groups,
        };
        match kind {
            BlockKind::Plain => vec![],
            BlockKind::CrossAttention => (0..layers).map(|_| config.init(device)).collect(),
        }
    }
}

/// Longest period of the timestep sinusoids.
const MAX_PERIOD: f32 = 10_000.0;

impl Unet {
    /// Predicts noise or velocity for noisy latents.
    ///
    /// # Shapes
    /// - `latents`: `[B, L, H, W]`; `timesteps`: B numbers, or one for all; `context`: `[B, N, D]`
    /// - returns `[B, L', H, W]`
    pub fn forward(&self, latents: Tensor<4>, timesteps: &[f32], context: Tensor<3>) -> Tensor<4> {
        let context = self.prepare_context(context);
        self.forward_prepared(latents, timesteps, &context)
    }

    /// Computes the keys and values of a condition for [`Unet::forward_prepared`].
    ///
    /// # Shapes
    /// - `context`: `[B, N, D]`
    pub fn prepare_context(&self, context: Tensor<3>) -> Context {
        let level = |attentions: &[SpatialTransformer]| {
            attentions.iter().map(|a| a.prepare(&context)).collect()
        };
        Context {
            down: self
                .down_blocks
                .iter()
                .map(|block| level(&block.attentions))
                .collect(),
            mid: level(&self.mid_block.attentions),
            up: self
                .up_blocks
                .iter()
                .map(|block| level(&block.attentions))
                .collect(),
        }
    }

    /// As [`Unet::forward`], with precomputed keys and values of the condition.
    pub fn forward_prepared(
        &self,
        latents: Tensor<4>,
        timesteps: &[f32],
        context: &Context,
    ) -> Tensor<4> {
        self.forward_probed(latents, timesteps, context, &mut Probe::off())
    }

    /// As [`Unet::forward_prepared`], reporting intermediate tensors to the probe.
    pub fn forward_probed(
        &self,
        latents: Tensor<4>,
        timesteps: &[f32],
        context: &Context,
        probe: &mut Probe,
    ) -> Tensor<4> {
        // 1. time embedding
        let time = self.time_proj(timesteps, &latents.device()); // [B or 1, C]
        probe.see(format_args!("unet.time_proj"), &time);
        let time = self
            .time_embedding
            .linear_2
            .forward(silu(self.time_embedding.linear_1.forward(time)));
        probe.see(format_args!("unet.time_embedding"), &time);
        let time = silu(time); // applied once here instead of in every residual block

        // 2. down path, collecting the skip connections
        let mut x = self.conv_in.forward(latents);
        probe.see(format_args!("unet.conv_in"), &x);
        let mut skips = vec![x.clone()];
        for (i, (block, context)) in self.down_blocks.iter().zip(&context.down).enumerate() {
            x = block.forward(
                x,
                &time,
                context,
                &mut skips,
                format_args!("unet.down{i}"),
                probe,
            );
        }

        // 3. mid block
        x = self.mid_block.forward(x, &time, &context.mid, probe);

        // 4. up path, consuming the skip connections
        for (i, (block, context)) in self.up_blocks.iter().zip(&context.up).enumerate() {
            x = block.forward(
                x,
                &time,
                context,
                &mut skips,
                format_args!("unet.up{i}"),
                probe,
            );
        }

        // 5. output
        if probe.is_on() {
            probe.see(
                format_args!("unet.conv_norm_out"),
                &self.conv_norm_out.forward(x.clone()),
            );
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }

    /// Sinusoidal embedding of the timesteps, `[timesteps, C]`. Computed on the host: GPUs lose precision in the sine
    /// of large arguments.
    pub fn time_proj(&self, timesteps: &[f32], device: &Device) -> Tensor<2> {
        let [_, width] = self.time_embedding.linear_1.weight.lazy_shape().dims();
        let half = width / 2;
        let spacing = half as f32 - self.freq_shift as f32;
        let frequency = |i: usize| libm::expf(-libm::logf(MAX_PERIOD) * i as f32 / spacing);
        let mut values = Vec::with_capacity(timesteps.len() * width);
        for t in timesteps {
            let angle = |i: usize| t * frequency(i);
            let sines = (0..half).map(|i| libm::sinf(angle(i)));
            let cosines = (0..half).map(|i| libm::cosf(angle(i)));
            if self.flip_sin_to_cos {
                values.extend(cosines.chain(sines));
            } else {
                values.extend(sines.chain(cosines));
            }
        }
        count::flushed();
        Tensor::from_data(TensorData::new(values, [timesteps.len(), width]), device)
    }
}

impl DownBlock {
    fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        context: &[Vec<CrossKv>],
        skips: &mut Vec<Tensor<4>>,
        name: Arguments<'_>,
        probe: &mut Probe,
    ) -> Tensor<4> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(time));
            probe.see(format_args!("{name}.resnet{j}"), &x);
            if let (Some(attention), Some(context)) = (self.attentions.get(j), context.get(j)) {
                x = attention.forward(x, context, format_args!("{name}.attn{j}"), probe);
                probe.see(format_args!("{name}.attn{j}"), &x);
            }
            skips.push(x.clone());
        }
        for downsample in &self.downsamplers {
            x = downsample.forward(x);
            probe.see(format_args!("{name}.downsample0"), &x);
            skips.push(x.clone());
        }
        probe.see(format_args!("{name}.out"), &x);
        x
    }
}

impl MidBlock {
    fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        context: &[Vec<CrossKv>],
        probe: &mut Probe,
    ) -> Tensor<4> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(time));
            probe.see(format_args!("unet.mid.resnet{j}"), &x);
            if let (Some(attention), Some(context)) = (self.attentions.get(j), context.get(j)) {
                x = attention.forward(x, context, format_args!("unet.mid.attn{j}"), probe);
                probe.see(format_args!("unet.mid.attn{j}"), &x);
            }
        }
        probe.see(format_args!("unet.mid.out"), &x);
        x
    }
}

impl UpBlock {
    fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        context: &[Vec<CrossKv>],
        skips: &mut Vec<Tensor<4>>,
        name: Arguments<'_>,
        probe: &mut Probe,
    ) -> Tensor<4> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward_beside(x, skips.pop(), Some(time));
            probe.see(format_args!("{name}.resnet{j}"), &x);
            if let (Some(attention), Some(context)) = (self.attentions.get(j), context.get(j)) {
                x = attention.forward(x, context, format_args!("{name}.attn{j}"), probe);
                probe.see(format_args!("{name}.attn{j}"), &x);
            }
        }
        for upsample in &self.upsamplers {
            let size = skips.last().map(|skip| {
                let [_, _, h, w] = skip.dims();
                (h, w)
            });
            x = upsample.forward(x, size);
            probe.see(format_args!("{name}.upsample0"), &x);
        }
        probe.see(format_args!("{name}.out"), &x);
        x
    }
}
