//! Building blocks shared by UNet and VAE.
//!
//! B batch, C channels, H height, W width, E width of the time embedding.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::ops::{self, ConvExtras};
use emu_kernels::{Conv2d, Conv2dConfig, GroupNorm, QLinear};

/// Residual block: (norm, SiLU, convolution) twice, plus the input.
#[derive(Module, Debug)]
pub struct Resnet {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// 3x3.
    pub conv1: Conv2d,
    /// Projects the time embedding to a shift per channel; absent in the VAE.
    pub time_emb_proj: Option<QLinear>,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// 3x3.
    pub conv2: Conv2d,
    /// 1x1 shortcut if the number of channels changes.
    pub conv_shortcut: Option<Conv2d>,
}

/// Sizes of a [`Resnet`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetConfig {
    pub inputs: usize,
    pub outputs: usize,
    pub groups: usize,
    pub eps: f64,
    /// Width of the time embedding; `None` in the VAE.
    pub time: Option<usize>,
}

impl ResnetConfig {
    pub fn init(&self, device: &Device) -> Resnet {
        let Self {
            inputs,
            outputs,
            groups,
            eps,
            time,
        } = *self;
        Resnet {
            norm1: GroupNorm::new(groups, inputs, eps, device),
            conv1: Conv2dConfig::same(inputs, outputs, 3).init(device),
            time_emb_proj: time.map(|width| QLinear::new(width, outputs, true, device)),
            norm2: GroupNorm::new(groups, outputs, eps, device),
            conv2: Conv2dConfig::same(outputs, outputs, 3).init(device),
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2dConfig::same(inputs, outputs, 1).init(device)),
        }
    }
}

impl Resnet {
    /// # Shapes
    /// - `x`: `[B, C, H, W]`; `time`: `[B or 1, E]`, SiLU applied
    /// - returns `[B, C', H, W]`
    pub fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        self.forward_beside(x, None, time)
    }

    /// As [`Resnet::forward`], on `x` and the skip connection `skip` concatenated along the channels.
    pub fn forward_beside(
        &self,
        x: Tensor<4>,
        skip: Option<Tensor<4>>,
        time: Option<&Tensor<2>>,
    ) -> Tensor<4> {
        let (x, skip) = match skip {
            Some(skip) => ops::split_skip(x, skip),
            None => (x, None),
        };
        let shift = { self.time_emb_proj.as_ref().zip(time) }
            .map(|(project, time)| project.forward(time.clone())); // [B or 1, C]
        let h = self.norm1.forward_silu_with_skip(x.clone(), skip.clone());
        let extras = ConvExtras {
            shift,
            ..Default::default()
        };
        let h = self.conv1.forward_with(h, extras);
        let residual = match (&self.conv_shortcut, skip) {
            (Some(shortcut), skip) => {
                let extras = ConvExtras {
                    skip,
                    ..Default::default()
                };
                shortcut.forward_with(x, extras)
            }
            (None, Some(skip)) => Tensor::cat(vec![x, skip], 1),
            (None, None) => x,
        };
        let extras = ConvExtras {
            residual: Some(residual),
            ..Default::default()
        };
        self.conv2.forward_with(self.norm2.forward_silu(h), extras)
    }
}

/// Halves height and width.
#[derive(Module, Debug)]
pub struct Downsample {
    /// 3x3, stride 2.
    pub conv: Conv2d,
}

impl Downsample {
    /// `padding` is `(before, after)`: (1, 1) in the UNet, (0, 1) in the VAE.
    pub(crate) fn new(channels: usize, padding: (usize, usize), device: &Device) -> Self {
        let conv = Conv2dConfig::same(channels, channels, 3)
            .with_stride(2)
            .with_padding(padding.0, padding.1);
        Self {
            conv: conv.init(device),
        }
    }

    /// `[B, C, H, W]` to `[B, C, ⌈H/2⌉, ⌈W/2⌉]` (with padding (0, 1): `⌊H/2⌋`).
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
}

/// Doubles height and width.
#[derive(Module, Debug)]
pub struct Upsample {
    /// 3x3.
    pub conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::same(channels, channels, 3).init(device),
        }
    }

    /// `[B, C, H, W]` to `[B, C, 2H, 2W]`, or to `size` if that is one less: an odd size that was halved on the way
    /// down is restored. (Nearest-neighbour resizing to an odd size equals the upsampled image without its last row or
    /// column.)
    pub fn forward(&self, x: Tensor<4>, size: Option<(usize, usize)>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let extras = ConvExtras {
            upsampled: Some(size.unwrap_or((2 * h, 2 * w))),
            ..Default::default()
        };
        self.conv.forward_with(x, extras)
    }
}
