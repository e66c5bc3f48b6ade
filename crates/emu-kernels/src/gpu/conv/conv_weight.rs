//! Gradients of a convolution's weights and bias.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, kernel};
use crate::gpu::{MANY_WORKGROUPS, apart, into_contiguous, output};
use crate::spec::ConvSpec;

/// Tile of the weight gradient per workgroup: output channels, patch elements, and at least so many pixels.
const PART: [usize; 3] = [32, 64, 1024];

kernel! {
    /// Gradients of a convolution's weights and bias.
    ConvWeightKernel, "conv_weight" ["conv/conv_weight.wgsl"]
    {
        /// C
        channels: usize,
        /// H, of x
        height: usize,
        /// W, of x
        width: usize,
        /// K, the kernel's height and width.
        kernel: usize,
        /// Stride of the forward pass.
        stride: usize,
        /// Zero rows and columns before x.
        padding: usize,
        /// O, output channels.
        out: usize,
        /// Height of y.
        out_height: usize,
        /// Width of y.
        out_width: usize,
        /// B
        batch: usize,
        /// Pixels per part.
        depth: usize,
        /// Strides of x.
        x_batch: usize,
        x_channel: usize,
        x_row: usize,
        x_column: usize,
        /// Strides of the gradient.
        grad_batch: usize,
        grad_channel: usize,
        grad_row: usize,
        grad_column: usize,
    }
    |key| { invocations: 64, }
    /// `[B, C, H, W]`, the gradient of y; the results, `[parts, O, C, K, K]` and `[parts, O]`.
    ConvWeightBuffers { x, grad, at_weight, at_bias, }
}

/// Gradients of the weights `[O, C, k, k]` and of the bias `[O]`: one launch, and two more that add up partial sums if there
/// are few weights and many pixels, so that pixels are split among workgroups.
pub fn conv_weight(
    x: CubeTensor,
    [out, channels, kernel, _]: [usize; 4],
    grad: CubeTensor,
    spec: ConvSpec,
) -> [CubeTensor; 2] {
    let rows = |x: CubeTensor| {
        if x.meta.is_tiled() {
            into_contiguous(x)
        } else {
            x
        }
    };
    let x = rows(x);
    let grad = apart(rows(grad), &x);
    let [batch, _, height, width] = x.shape().dims::<4>();
    let [_, _, out_height, out_width] = grad.shape().dims::<4>();
    let (places, pixels) = (channels * kernel * kernel, batch * out_height * out_width);
    let tiles = [places.div_ceil(PART[1]), out.div_ceil(PART[0])];
    let most = pixels.div_ceil(PART[2]).max(1);
    let parts = MANY_WORKGROUPS.div_ceil(tiles[0] * tiles[1]).min(most);
    let depth = pixels.div_ceil(parts);
    let weights = output(&x, Shape::new([parts, out * places]));
    let biases = output(&x, Shape::new([parts, out]));
    let (of_x, of_grad) = (x.meta.strides(), grad.meta.strides());
    let key = ConvWeightKernel {
        channels,
        height,
        width,
        kernel,
        stride: spec.stride,
        padding: spec.padding.0,
        out,
        out_height,
        out_width,
        batch,
        depth,
        x_batch: of_x[0],
        x_channel: of_x[1],
        x_row: of_x[2],
        x_column: of_x[3],
        grad_batch: of_grad[0],
        grad_channel: of_grad[1],
        grad_row: of_grad[2],
        grad_column: of_grad[3],
    };
    let buffers = ConvWeightBuffers {
        x: &x,
        grad: &grad,
        at_weight: &weights,
        at_bias: &biases,
    };
    key.launch([tiles[0], tiles[1], parts], buffers, &[]);
    [
        (weights, vec![out, channels, kernel, kernel]),
        (biases, vec![out]),
    ]
    .map(|(sums, shape)| {
        let sum = if parts > 1 {
            Cube::float_sum_dim(sums, 0)
        } else {
            sums
        };
        Cube::float_reshape(sum, Shape::from(shape))
    })
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    checked.check(ConvWeightKernel {
        channels: 3,
        height: 9,
        width: 8,
        kernel: 3,
        stride: 2,
        padding: 1,
        out: 5,
        out_height: 5,
        out_width: 4,
        batch: 2,
        depth: 40,
        x_batch: 216,
        x_channel: 72,
        x_row: 8,
        x_column: 1,
        grad_batch: 100,
        grad_channel: 20,
        grad_row: 4,
        grad_column: 1,
    });
}
