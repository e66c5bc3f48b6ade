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
#[cfg(feature = "wgpu")]
use crate::gpu;

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

/// What is fused with a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvFusion {
    /// The input is doubled by repeating pixels, then cut to this height and width.
    pub doubled: Option<(usize, usize)>,
    /// Whether the channels of `beside` follow those of the input, which then is not doubled; where not, the tensor is a
    /// placeholder, as the others.
    pub beside: bool,
    /// Whether `shift`, `[B or 1, out]`, is added to the channels.
    pub shift: bool,
    /// Whether `residual`, of the output's shape, is added.
    pub residual: bool,
    /// Whether the output had better lie in memory with its channels last. Its shape stays; backends may ignore this.
    pub channels_last: bool,
}

impl ConvSpec {
    /// The output's size along an axis of size `n`.
    #[cfg(feature = "wgpu")]
    pub(crate) fn out(&self, n: usize, kernel: usize) -> usize {
        (n + self.padding.0 + self.padding.1 - kernel) / self.stride + 1
    }

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

    /// A convolution with what the fusion says.
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
            Some(size) => composed::doubled::<Self>(x, size),
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

    /// The gradients at weight and bias.
    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let at_bias = Self::conv2d_bias_backward(x.clone(), bias, grad.clone());
        let at_weight = Self::emu_conv2d_weight_backward(x, weight, grad, spec);
        (at_weight, at_bias)
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        composed::group_norm::<Self>(x, weight, bias, spec)
    }

    /// Group norm of the channels of `x` and then those of `beside`.
    fn emu_group_norm_beside(
        x: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        Self::emu_group_norm(Self::float_cat(vec![x, beside], 1), weight, bias, spec)
    }

    /// The exact GELU of `[rows, D]`; with `gated`, of `[rows, 2 D]` the first half times the GELU of the second.
    fn emu_gelu_rows(x: FloatTensor<Self>, gated: bool) -> FloatTensor<Self> {
        let [rows, width] = x.shape().dims::<2>();
        if !gated {
            return Self::gelu(x);
        }
        let half = |first: usize| {
            let columns = first..first + width / 2;
            Self::float_slice(x.clone(), &[(0..rows).into(), columns.into()])
        };
        Self::float_mul(half(0), Self::gelu(half(width / 2)))
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
impl EmuBackend for burn::backend::Cube {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        let none = [(); 3].map(|()| x.clone());
        gpu::conv::forward(x, weight, bias, none, spec, ConvFusion::default())
    }

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
        gpu::conv::forward(x, weight, bias, [beside, shift, residual], spec, fusion)
    }

    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        // Padding beyond the kernel's reach.
        if spec.padding.0 >= weight.shape()[2] {
            use burn::backend::ops::ModuleOps;
            return <Self as ModuleOps<Self>>::conv2d_x_backward(x, weight, grad, spec.options());
        }
        gpu::conv::x_backward(x.shape().dims(), weight, grad, spec)
    }

    #[cfg(not(target_family = "wasm"))]
    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        _bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gpu::conv::parameters_backward(x, weight.shape().dims(), grad, spec).into()
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        gpu::group_norm::forward(x, None, weight, bias, spec)
    }

    fn emu_group_norm_beside(
        x: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        gpu::group_norm::forward(x, Some(beside), weight, bias, spec)
    }

    fn emu_group_norm_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        gpu::group_norm::backward([x, weight, bias, grad], false, spec)
    }

    fn emu_group_norm_affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        gpu::group_norm::backward([x, weight, bias, grad], true, spec)
    }

    fn emu_gelu_rows(x: FloatTensor<Self>, gated: bool) -> FloatTensor<Self> {
        gpu::group_norm::gelu(x, gated)
    }
}

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

    /// Doubles height and width by repeating pixels, then cuts them.
    pub fn doubled<B: Backend>(
        x: FloatTensor<B>,
        (height, width): (usize, usize),
    ) -> FloatTensor<B> {
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
