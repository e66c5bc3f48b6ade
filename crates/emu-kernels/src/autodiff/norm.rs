//! Autodiff nodes of norms.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::Shape;

use super::weighted::{State, weighted};
use crate::ops::norm::{NormBackend, NormGradient};
use crate::spec::GroupNormSpec;

/// Parents: x, weight, bias.
#[derive(Debug)]
struct GroupNormNode;

impl<B: NormGradient> Backward<B, 3> for GroupNormNode {
    type State = State<GroupNormSpec>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node_x, node_weight, node_bias] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, bias, spec) = ops.state;
        let x = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(x);
        let weight = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(weight);
        let bias = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(bias);
        if node_weight.is_some() || node_bias.is_some() {
            let both = B::emu_group_norm_affine_backward(
                x.clone(),
                weight.clone(),
                bias.clone(),
                grad.clone(),
                spec,
            );
            let channels = weight.shape().num_elements();
            let row = |i: usize| {
                let row = B::float_slice(both.clone(), &[(i..i + 1).into(), (0..channels).into()]);
                B::float_reshape(row, Shape::new([channels]))
            };
            if let Some(node) = node_weight {
                grads.register::<B>(node.id, row(0));
            }
            if let Some(node) = node_bias {
                grads.register::<B>(node.id, row(1));
            }
        }
        if let Some(node) = node_x {
            grads.register::<B>(
                node.id,
                B::emu_group_norm_x_backward(x, weight, bias, grad, spec),
            );
        }
    }
}

impl<B: NormGradient, C: CheckpointStrategy> NormBackend for Autodiff<B, C> {
    fn emu_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        <Self as ModuleOps<Self>>::layer_norm(x, weight, Some(bias), eps)
    }

    /// Composed of Burn's operations. The gradient of Burn's square root uses a power, which software GPUs compute to only four
    /// digits. Instead, one Newton step from the detached root is taken: it has the value and the derivative of the root.
    fn emu_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let [_, d] = x.shape().dims::<2>();
        let square = Self::float_mul(x.clone(), x.clone());
        let mean = Self::float_add_scalar(Self::float_mean_dim(square, 1), eps.into());
        let root = Self::float_sqrt(Self::float_detach(mean.clone()));
        let root = Self::float_add(Self::float_div(mean, root.clone()), root);
        let root = Self::float_mul_scalar(root, 0.5.into());
        let weight = Self::float_reshape(weight, Shape::new([1, d]));
        Self::float_mul(Self::float_div(x, root), weight)
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        weighted::<B, C, _, _>(GroupNormNode, [x, weight, bias], spec, B::emu_group_norm)
    }
}
