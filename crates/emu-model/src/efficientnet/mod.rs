//! EfficientNet-Lite, a convolutional encoder for pictures (Tan and Le, 2019; the Lite variants have ReLU6 and no
//! squeeze-and-excitation).
//!
//! B batch, S side of the picture, C channels, P side of the features, K classes. Batch norms are folded into the
//! convolutions before them where weights are read ([`Folded`]).

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
    /// Halves the picture.
    pub stem: Conv2d,
    /// All blocks, stage after stage.
    pub blocks: Vec<MbConv>,
    /// To the features' channels.
    pub head: Conv2d,
    /// Of the classes that it was trained on, where they are kept.
    pub classifier: Option<QLinear>,
}

/// An inverted bottleneck: to more channels, a convolution of each, and back.
#[derive(Module, Debug)]
pub struct MbConv {
    /// 1x1 to more channels, in all stages but those that stay as they are.
    pub expand: Option<Conv2d>,
    /// Every channel by itself.
    pub depthwise: DepthwiseConv2d,
    /// 1x1 to the stage's channels.
    pub project: Conv2d,
    /// Whether the input is added to the output.
    pub skip: bool,
}

/// Zeros before and after an axis of `size`, so that a stride divides it rounding up ("same" of TensorFlow).
fn same(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let out = size.div_ceil(stride);
    let padding = ((out - 1) * stride + kernel).saturating_sub(size);
    (padding / 2, padding - padding / 2)
}

impl EfficientNetConfig {
    /// A new network for pictures of this side.
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

    /// What the classifier says of features, where it is kept.
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

/// The network with published weights, the batch norms folded.
///
/// # Errors
/// Where a tensor is missing, unused, misshapen or damaged.
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
