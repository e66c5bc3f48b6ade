//! EfficientNet-Lite, a convolutional image encoder (Tan and Le, 2019; the Lite variants have ReLU6 and no
//! squeeze-and-excitation).
//!
//! B batch, S side of the image, C channels, P side of the feature map, K classes. Batch norms are folded into the
//! preceding convolutions when weights are read ([`Folded`]).

mod config;
mod keys;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::{Conv2d, Conv2dConfig, DepthwiseConv2d, QLinear};
use emu_pack::{PackError, TensorSource};

pub use config::{EfficientNetConfig, EfficientNetStage};
pub use keys::{Folded, efficientnet_lite};

use crate::weights;

/// The network.
#[derive(Module, Debug)]
pub struct EfficientNet {
    /// 3x3 convolution of stride 2.
    pub stem: Conv2d,
    /// Blocks of all stages.
    pub blocks: Vec<MbConv>,
    /// 1x1 convolution to the channels of the features.
    pub head: Conv2d,
    /// Classifier of its training classes, if it is kept.
    pub classifier: Option<QLinear>,
}

/// Inverted bottleneck: expansion, depthwise convolution, projection.
#[derive(Module, Debug)]
pub struct MbConv {
    /// 1x1 expansion; `None` if the stage does not expand.
    pub expand: Option<Conv2d>,
    /// Depthwise convolution.
    pub depthwise: DepthwiseConv2d,
    /// 1x1 projection to the stage's channels.
    pub project: Conv2d,
    /// Whether there is a residual connection.
    pub skip: bool,
}

/// Zero padding before and after an axis of `size`, such that the output is `size / stride` rounded up (TensorFlow's
/// "same").
fn same(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let out = size.div_ceil(stride);
    let padding = ((out - 1) * stride + kernel).saturating_sub(size);
    (padding / 2, padding - padding / 2)
}

impl EfficientNetConfig {
    /// Creates a network for images of this side.
    pub fn init(&self, image_size: usize, device: &Device) -> EfficientNet {
        let pointwise = |inputs, outputs| Conv2dConfig::same(inputs, outputs, 1).init(device);
        let mut size = image_size;
        let (before, after) = same(size, 3, 2);
        let stem = Conv2dConfig::same(3, self.stem, 3)
            .with_stride(2)
            .with_padding(before, after)
            .init(device);
        size = size.div_ceil(2);
        let (mut inputs, mut blocks) = (self.stem, vec![]);
        for stage in &self.stages {
            for repeat in 0..stage.repeats {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let wide = inputs * stage.expand;
                let padding = same(size, stage.kernel, stride);
                blocks.push(MbConv {
                    expand: (stage.expand > 1).then(|| pointwise(inputs, wide)),
                    depthwise: DepthwiseConv2d::new(wide, stage.kernel, stride, padding, device),
                    project: pointwise(wide, stage.outputs),
                    skip: stride == 1 && inputs == stage.outputs,
                });
                size = size.div_ceil(stride);
                inputs = stage.outputs;
            }
        }
        EfficientNet {
            stem,
            blocks,
            head: pointwise(inputs, self.features),
            classifier: { self.classes }
                .map(|classes| QLinear::new(self.features, classes, true, device)),
        }
    }
}

impl EfficientNet {
    /// # Shapes
    /// - `images`: `[B, 3, S, S]`, normalised
    /// - returns `[B, C, P, P]`
    pub fn features(&self, images: Tensor<4>) -> Tensor<4> {
        let x = relu6(self.stem.forward(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        relu6(self.head.forward(x))
    }

    /// Logits of the classifier, if it is kept.
    ///
    /// # Shapes
    /// - `features`: `[B, C, P, P]`
    /// - returns `[B, K]`
    pub fn classify(&self, features: Tensor<4>) -> Option<Tensor<2>> {
        let [b, c, h, w] = features.dims();
        let mean = features.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]);
        Some(self.classifier.as_ref()?.forward(mean))
    }
}

impl MbConv {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let wide = match &self.expand {
            Some(expand) => relu6(expand.forward(x.clone())),
            None => x.clone(),
        };
        let y = self.project.forward(relu6(self.depthwise.forward(wide)));
        if self.skip { x + y } else { y }
    }
}

/// Loads published weights with folded batch norms.
///
/// # Errors
/// If a tensor is missing, unused, misshapen or damaged.
pub fn load(
    config: &EfficientNetConfig,
    image_size: usize,
    source: impl TensorSource,
    device: &Device,
) -> Result<EfficientNet, PackError> {
    let net = config.init(image_size, device);
    let folded = Folded::new(source, &weights::parameters(&net), &efficientnet_lite()?)?;
    weights::load(net, device, |name| folded.read(name))
}

fn relu6(x: Tensor<4>) -> Tensor<4> {
    x.clamp(0.0, 6.0)
}

#[cfg(test)]
mod tests;
