//! Two-dimensional convolution.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use crate::init::{Init, param};
use crate::ops::{self, ConvExtras};

/// Convolution with square kernels.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the kernel.
    pub stride: usize,
    /// Zero rows and columns added `(before, after)`, on both axes.
    pub padding: (usize, usize),
}

/// Sizes of a [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride of the kernel.
    pub stride: usize,
    /// Zero rows and columns added `(before, after)`, on both axes.
    pub padding: (usize, usize),
}

impl Conv2dConfig {
    /// Stride 1 and padding `kernel / 2` on each side, which for odd kernels keeps the size.
    pub fn same(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            inputs,
            outputs,
            kernel,
            stride: 1,
            padding: (kernel / 2, kernel / 2),
        }
    }

    /// Sets the stride.
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the padding, `(before, after)`.
    pub fn with_padding(self, before: usize, after: usize) -> Self {
        Self {
            padding: (before, after),
            ..self
        }
    }

    /// A convolution with bias; weights are normal with variance `1 / fan_in`.
    pub fn init(&self, device: &Device) -> Conv2d {
        let fan_in = self.inputs * self.kernel * self.kernel;
        self.init_with(Init::Normal(1.0 / (fan_in as f32).sqrt()), device)
    }

    /// A convolution with bias whose weights start as `init`.
    pub fn init_with(&self, init: Init, device: &Device) -> Conv2d {
        Conv2d {
            weight: param(
                [self.outputs, self.inputs, self.kernel, self.kernel],
                init,
                device,
            ),
            bias: Some(param([self.outputs], Init::Zeros, device)),
            stride: self.stride,
            padding: self.padding,
        }
    }
}

impl Conv2d {
    /// # Shapes
    /// - `x`: `[B, in, H, W]`
    /// - returns `[B, out, H', W']` with `H' = (H + before + after - k) / stride + 1`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_with(x, ConvExtras::default())
    }

    /// Like [`Conv2d::forward`], with fused operations before and after.
    pub fn forward_with(&self, x: Tensor<4>, extras: ConvExtras) -> Tensor<4> {
        ops::conv2d_with(
            x,
            self.weight.val(),
            self.bias.as_ref().map(Param::val),
            self.stride,
            self.padding,
            extras,
        )
    }
}

/// Depthwise convolution with square kernels: one kernel per channel.
#[derive(Module, Debug)]
pub struct DepthwiseConv2d {
    /// `[channels, 1, k, k]`
    pub weight: Param<Tensor<4>>,
    /// `[channels]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the kernel.
    pub stride: usize,
    /// Zero rows and columns added `(before, after)`, on both axes.
    pub padding: (usize, usize),
}

impl DepthwiseConv2d {
    /// A convolution with bias; weights are normal with variance `1 / fan_in`.
    pub fn new(
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: (usize, usize),
        device: &Device,
    ) -> Self {
        Self {
            weight: param(
                [channels, 1, kernel, kernel],
                Init::Normal(1.0 / kernel as f32),
                device,
            ),
            bias: Some(param([channels], Init::Zeros, device)),
            stride,
            padding,
        }
    }

    /// # Shapes
    /// - `x`: `[B, channels, H, W]`
    /// - returns `[B, channels, H', W']`, as [`Conv2d::forward`]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let mut options = ConvOptions::new([self.stride; 2], [0; 2], [1; 2], weight.dims()[0]);
        options.padding = [self.padding; 2];
        conv2d(x, weight, self.bias.as_ref().map(Param::val), options)
    }
}
