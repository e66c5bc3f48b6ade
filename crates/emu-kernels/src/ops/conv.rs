//! Convolutions, upsampling and skip connections.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;
use burn::tensor::Tensor;

use crate::device::on_cpu;
use crate::spec::{ConvFusion, ConvSpec};

/// Operations fused with a convolution.
#[derive(Clone, Debug, Default)]
pub struct ConvExtras {
    /// Nearest-neighbour upsampling of the input, cropped to this height and width.
    pub upsampled: Option<(usize, usize)>,
    /// Skip connection, `[B, in - C, H, W]`: channels appended to the C of the input, which is then not upsampled.
    pub skip: Option<Tensor<4>>,
    /// `[B or 1, out]`, added per channel.
    pub shift: Option<Tensor<2>>,
    /// Added to the output; same shape.
    pub residual: Option<Tensor<4>>,
    /// Hint that a permutation to `[B, H', W', out]` follows, which NHWC output makes free.
    pub channels_last: bool,
}

/// Convolution with square kernels; `padding` is `(before, after)` on both axes.
///
/// # Shapes
/// - `x`: `[B, in, H, W]`, `weight`: `[out, in, k, k]`, `bias`: `[out]`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
) -> Tensor<4> {
    conv2d_with(x, weight, bias, stride, padding, ConvExtras::default())
}

/// [`conv2d`] with fused operations.
pub fn conv2d_with(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
    extras: ConvExtras,
) -> Tensor<4> {
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[0]], &weight.device()));
    let spec = ConvSpec { stride, padding };
    let fusion = ConvFusion {
        upsampled: extras.upsampled,
        skip: extras.skip.is_some(),
        shift: extras.shift.is_some(),
        residual: extras.residual.is_some(),
        channels_last: extras.channels_last,
    };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let bias = bias.into_dispatch();
    if fusion == ConvFusion::default() {
        return Tensor::from_dispatch(Dispatch::emu_conv2d(x, weight, bias, spec));
    }
    let or_x = |tensor: Option<Tensor<4>>| match tensor {
        Some(tensor) => tensor.into_dispatch(),
        None => x.clone(),
    };
    let (skip, residual) = (or_x(extras.skip), or_x(extras.residual));
    let shift = match extras.shift {
        Some(shift) => shift.into_dispatch(),
        None => x.clone(),
    };
    Tensor::from_dispatch(Dispatch::emu_conv2d_fused(
        x, weight, bias, skip, shift, residual, spec, fusion,
    ))
}

/// Concatenates the channels of `x` and `skip`, for operations with a `skip` argument: returns both tensors where kernels
/// read both, else one tensor, so that it is concatenated only once.
pub fn split_skip(x: Tensor<4>, skip: Tensor<4>) -> (Tensor<4>, Option<Tensor<4>>) {
    let device = x.device();
    if on_cpu(&device) || device.is_autodiff() {
        return (Tensor::cat(vec![x, skip], 1), None);
    }
    (x, Some(skip))
}

/// Nearest-neighbour upsampling by 2: `[B, C, H, W]` to `[B, C, 2H, 2W]`.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let wide = x
        .reshape([b, c * h, w, 1])
        .expand([b, c * h, w, 2])
        .reshape([b, c * h, 1, w * 2]);
    wide.expand([b, c * h, 2, w * 2])
        .reshape([b, c, h * 2, w * 2])
}

/// Convolutions. Shapes as above.
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait ConvBackend: Backend {
    /// `[B, in, H, W]`, `[out, in, k, k]`, `[out]` to `[B, out, H', W']`.
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self>;

    /// Same, with the operations that `fusion` enables; tensors of the others are placeholders.
    #[allow(clippy::too_many_arguments)]
    fn emu_conv2d_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: ConvSpec,
        fusion: ConvFusion,
    ) -> FloatTensor<Self> {
        let x = match fusion.upsampled {
            Some(size) => upsampled::<Self>(x, size),
            None if fusion.skip => Self::float_cat(vec![x, skip], 1),
            None => x,
        };
        let mut y = Self::emu_conv2d(x, weight, bias, spec);
        if fusion.shift {
            let [rows, out] = shift.shape().dims::<2>();
            let shift = Self::float_reshape(shift, Shape::new([rows, out, 1, 1]));
            y = Self::float_add(y, shift);
        }
        if fusion.residual {
            y = Self::float_add(residual, y);
        }
        y
    }
}

/// Nearest-neighbour upsampling by 2, then cropping.
fn upsampled<B: Backend>(x: FloatTensor<B>, (height, width): (usize, usize)) -> FloatTensor<B> {
    let [b, c, h, w] = x.shape().dims::<4>();
    let repeat = |x, from: [usize; 4], to: [usize; 4]| {
        B::float_expand(B::float_reshape(x, Shape::new(from)), Shape::new(to))
    };
    let wide = repeat(x, [b, c * h, w, 1], [b, c * h, w, 2]);
    let both = repeat(wide, [b, c * h, 1, 2 * w], [b, c * h, 2, 2 * w]);
    let both = B::float_reshape(both, Shape::new([b, c, 2 * h, 2 * w]));
    if (height, width) == (2 * h, 2 * w) {
        return both;
    }
    let ranges = [0..b, 0..c, 0..height, 0..width];
    B::float_slice(both, &ranges.map(Into::into))
}

/// Backward passes of convolutions.
#[cfg(not(target_family = "wasm"))]
pub trait ConvGradient: ConvBackend {
    /// Gradient of `x`.
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self>;

    /// Gradients of weight and bias.
    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}
