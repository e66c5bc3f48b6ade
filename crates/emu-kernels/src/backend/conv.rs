//! Convolutions.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;

use crate::spec::{ConvFusion, ConvSpec};

/// Convolutions. Shapes as in [`crate::ops::conv`].
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

    /// The same with what the fusion says; what it does not say is a placeholder.
    #[allow(clippy::too_many_arguments)]
    fn emu_conv2d_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: ConvSpec,
        fusion: ConvFusion,
    ) -> FloatTensor<Self> {
        let x = match fusion.doubled {
            Some(size) => doubled::<Self>(x, size),
            None if fusion.beside => Self::float_cat(vec![x, beside], 1),
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

/// Doubles height and width by repeating pixels, then cuts them.
fn doubled<B: Backend>(x: FloatTensor<B>, (height, width): (usize, usize)) -> FloatTensor<B> {
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

/// Their backward passes.
#[cfg(not(target_family = "wasm"))]
pub trait ConvGradient: ConvBackend {
    /// The gradient at `x`.
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self>;

    /// The gradients at weight and bias.
    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}
