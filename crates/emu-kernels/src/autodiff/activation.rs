//! Autodiff nodes of activations and gates.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::activation::{ActivationBackend, ActivationGradient};

/// Node of a SiLU gate. Parents: gate, up.
#[derive(Debug)]
struct SiluGateNode;

impl<B: ActivationGradient> Backward<B, 2> for SiluGateNode {
    type State = (NodeId, NodeId);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let gate = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(ops.state.0);
        let up = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(ops.state.1);
        let (at_gate, at_up) = B::emu_silu_gate_backward(gate, up, grad);
        for (node, grad) in ops.parents.into_iter().zip([at_gate, at_up]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// Node of GELU.
#[derive(Debug)]
struct GeluNode;

impl<B: ActivationGradient> Backward<B, 1> for GeluNode {
    type State = NodeId;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(ops.state);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::emu_gelu_backward(x, grad));
        }
    }
}

impl<B: ActivationGradient, C: CheckpointStrategy> ActivationBackend for Autodiff<B, C> {
    fn emu_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let y = || B::emu_silu_gate(gate.primitive().clone(), up.primitive().clone());
        match SiluGateNode
            .prepare::<C>([gate.node(), up.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&gate), prep.checkpoint(&up));
                prep.finish(state, y())
            }
            OpsKind::UnTracked(prep) => prep.finish(y()),
        }
    }

    fn emu_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let y = || B::emu_gelu(x.primitive().clone());
        match GeluNode.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, y())
            }
            OpsKind::UnTracked(prep) => prep.finish(y()),
        }
    }
}
