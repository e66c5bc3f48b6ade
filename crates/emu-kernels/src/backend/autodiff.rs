//! Backward passes of the extension, where Burn differentiates: natively.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::Shape;

use super::{ConvSpec, EmuBackend, GroupNormSpec};

/// A convolution in the graph: x, weight, bias.
#[derive(Debug)]
struct Conv2dNode;

impl<B: EmuBackend> Backward<B, 3> for Conv2dNode {
    type State = (NodeId, NodeId, NodeId, ConvSpec);

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
        if let Some(node) = node_x {
            let grad = B::emu_conv2d_x_backward(x.clone(), weight.clone(), grad.clone(), spec);
            grads.register::<B>(node.id, grad);
        }
        // A bias alone needs no product.
        match (node_weight, node_bias) {
            (Some(of_weight), of_bias) => {
                let (at_weight, at_bias) =
                    B::emu_conv2d_parameters_backward(x, weight, bias, grad, spec);
                grads.register::<B>(of_weight.id, at_weight);
                if let Some(of_bias) = of_bias {
                    grads.register::<B>(of_bias.id, at_bias);
                }
            }
            (None, Some(of_bias)) => {
                grads.register::<B>(of_bias.id, B::conv2d_bias_backward(x, bias, grad));
            }
            (None, None) => {}
        }
    }
}

/// A group norm in the graph: x, weight, bias.
#[derive(Debug)]
struct GroupNormNode;

impl<B: EmuBackend> Backward<B, 3> for GroupNormNode {
    type State = (NodeId, NodeId, NodeId, GroupNormSpec);

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

impl<B: EmuBackend, C: CheckpointStrategy> EmuBackend for Autodiff<B, C> {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        match Conv2dNode
            .prepare::<C>([x.node(), weight.node(), bias.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (
                    prep.checkpoint(&x),
                    prep.checkpoint(&weight),
                    prep.checkpoint(&bias),
                    spec,
                );
                let y = B::emu_conv2d(
                    x.primitive().clone(),
                    weight.primitive().clone(),
                    bias.primitive().clone(),
                    spec,
                );
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::emu_conv2d(
                x.primitive().clone(),
                weight.primitive().clone(),
                bias.primitive().clone(),
                spec,
            )),
        }
    }

    fn emu_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: GroupNormSpec,
    ) -> FloatTensor<Self> {
        match GroupNormNode
            .prepare::<C>([x.node(), weight.node(), bias.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (
                    prep.checkpoint(&x),
                    prep.checkpoint(&weight),
                    prep.checkpoint(&bias),
                    spec,
                );
                let y = B::emu_group_norm(
                    x.primitive().clone(),
                    weight.primitive().clone(),
                    bias.primitive().clone(),
                    spec,
                );
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::emu_group_norm(
                x.primitive().clone(),
                weight.primitive().clone(),
                bias.primitive().clone(),
                spec,
            )),
        }
    }
}
