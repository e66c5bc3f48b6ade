//! Operations below the tensor: what a backend does itself instead of composing Burn's operations.
//!
//! Every method has a default that any backend can run. Flex (the CPU) has its own in [`crate::cpu`], and autodiff has
//! backward passes that stay on the same footing: a backend's forward and backward are one another's business.

#[cfg(feature = "flex")]
use burn::backend::Flex;
use burn::backend::ops::ConvOptions;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;

#[cfg(feature = "flex")]
use crate::cpu;

#[cfg(not(target_family = "wasm"))]
mod autodiff;

/// Stride and padding `(before, after)` of a convolution with square kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Step of the kernel.
    pub stride: usize,
    /// Zero rows and columns added.
    pub padding: (usize, usize),
}

impl ConvSpec {
    fn options(&self) -> ConvOptions<2> {
        let mut options = ConvOptions::new([self.stride; 2], [self.padding.0; 2], [1; 2], 1);
        options.padding = [self.padding; 2];
        options
    }
}

/// Groups, eps and the activation of a group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormSpec {
    /// Groups that the channels are divided into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// The extension of Burn's backends. Shapes as in [`crate::ops`].
#[allow(missing_docs)]
#[cfg_attr(not(target_family = "wasm"), backend_extension(Cube, Flex, Autodiff))]
#[cfg_attr(all(target_family = "wasm", feature = "wgpu"), backend_extension(Cube))]
#[cfg_attr(all(target_family = "wasm", feature = "flex"), backend_extension(Flex))]
pub trait EmuBackend: Backend {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, Some(bias), spec.options())
    }

    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(x, weight, grad, spec.options())
    }

    fn emu_conv2d_weight_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(x, weight, grad, spec.options())
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        composed::group_norm::<Self>(x, weight, bias, spec)
    }

    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        composed::group_norm_x_backward::<Self>(x, weight, bias, grad, spec)
    }

    /// Gradients of weight and bias, `[2, C]`.
    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        composed::group_norm_affine_backward::<Self>(x, weight, bias, grad, spec)
    }
}

#[cfg(feature = "wgpu")]
impl EmuBackend for burn::backend::Cube {}

#[cfg(feature = "flex")]
impl EmuBackend for Flex {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        cpu::conv::forward(x, weight, bias, spec)
    }

    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        cpu::conv::x_backward(x, weight, grad, spec)
    }

    fn emu_conv2d_weight_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        cpu::conv::weight_backward(x, weight, grad, spec)
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        cpu::group_norm::forward(x, weight, bias, spec)
    }

    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        cpu::group_norm::x_backward(x, weight, bias, grad, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        cpu::group_norm::affine_backward(x, weight, bias, grad, spec)
    }
}

/// Group norm of Burn's operations.
///
/// With `n = (x - mean) / std` per group, `z = n · weight + bias` and `y = silu(z)` or `z`.
mod composed {
    use super::*;

    struct Parts<B: Backend> {
        normal: FloatTensor<B>, // [B, G, R], n
        std: FloatTensor<B>,    // [B, G, 1]
        z: FloatTensor<B>,      // [B, C, H, W]
        dims: [usize; 4],
    }

    fn channelwise<B: Backend>(v: FloatTensor<B>, c: usize) -> FloatTensor<B> {
        B::float_reshape(v, Shape::new([1, c, 1, 1]))
    }

    fn parts<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        spec: GroupNormSpec,
    ) -> Parts<B> {
        let dims @ [b, c, h, w] = x.shape().dims::<4>();
        let rows = B::float_reshape(x, Shape::new([b, spec.groups, c / spec.groups * h * w]));
        let centred = B::float_sub(rows.clone(), B::float_mean_dim(rows, 2));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 2);
        let std = B::float_sqrt(B::float_add_scalar(variance, spec.eps.into()));
        let normal = B::float_div(centred, std.clone());
        let flat = B::float_reshape(normal.clone(), Shape::new(dims));
        let z = B::float_add(
            B::float_mul(flat, channelwise::<B>(weight, c)),
            channelwise::<B>(bias, c),
        );
        Parts {
            normal,
            std,
            z,
            dims,
        }
    }

    /// Gradient at `z`.
    fn before_silu<B: Backend>(
        z: FloatTensor<B>,
        grad: FloatTensor<B>,
        spec: GroupNormSpec,
    ) -> FloatTensor<B> {
        if !spec.silu {
            return grad;
        }
        // d/dz (z s(z)) = s (1 + z (1 - s))
        let s = B::sigmoid(z.clone());
        let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
        let slope = B::float_mul(s, B::float_add_scalar(B::float_mul(z, rest), 1.0.into()));
        B::float_mul(grad, slope)
    }

    pub fn group_norm<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        spec: GroupNormSpec,
    ) -> FloatTensor<B> {
        let z = parts::<B>(x, weight, bias, spec).z;
        if spec.silu {
            B::float_mul(z.clone(), B::sigmoid(z))
        } else {
            z
        }
    }

    pub fn group_norm_x_backward<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        grad: FloatTensor<B>,
        spec: GroupNormSpec,
    ) -> FloatTensor<B> {
        let Parts {
            normal,
            std,
            z,
            dims,
        } = parts::<B>(x, weight.clone(), bias, spec);
        let grad = before_silu::<B>(z, grad, spec);
        let grad = B::float_mul(grad, channelwise::<B>(weight, dims[1]));
        let grad = B::float_reshape(grad, normal.shape());
        let mean = B::float_mean_dim(grad.clone(), 2);
        let along = B::float_mean_dim(B::float_mul(grad.clone(), normal.clone()), 2);
        let rest = B::float_sub(B::float_sub(grad, mean), B::float_mul(normal, along));
        B::float_reshape(B::float_div(rest, std), Shape::new(dims))
    }

    pub fn group_norm_affine_backward<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        grad: FloatTensor<B>,
        spec: GroupNormSpec,
    ) -> FloatTensor<B> {
        let Parts {
            normal,
            z,
            dims: dims @ [b, c, h, w],
            ..
        } = parts::<B>(x, weight, bias, spec);
        let grad = before_silu::<B>(z, grad, spec);
        let normal = B::float_reshape(normal, Shape::new(dims));
        let sum = |v: FloatTensor<B>| {
            let rows = B::float_reshape(B::float_swap_dims(v, 0, 1), Shape::new([c, b * h * w]));
            B::float_reshape(B::float_sum_dim(rows, 1), Shape::new([1, c]))
        };
        B::float_cat(vec![sum(B::float_mul(grad.clone(), normal)), sum(grad)], 0)
    }
}
