//! Autodiff node of convolution.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::tensor::FloatTensor;

use super::weighted::{State, weighted};
use crate::ops::conv::{ConvBackend, ConvGradient};
use crate::spec::ConvSpec;

/// Parents: x, weight, bias.
#[derive(Debug)]
struct Conv2dNode;

impl<B: ConvGradient> Backward<B, 3> for Conv2dNode {
    type State = State<ConvSpec>;

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
        // The bias gradient alone needs no matrix product.
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

impl<B: ConvGradient, C: CheckpointStrategy> ConvBackend for Autodiff<B, C> {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        weighted::<B, C, _, _>(Conv2dNode, [x, weight, bias], spec, B::emu_conv2d)
    }
}
