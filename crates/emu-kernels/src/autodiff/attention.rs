//! Autodiff node of attention.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};

use crate::ops::attention::{AttentionBackend, AttentionGradient};
use crate::spec::AttentionSpec;

/// Parents: q, k, v, bias.
#[derive(Debug)]
struct AttentionNode;

/// State saved for attention's backward pass.
#[derive(Clone, Debug)]
struct AttentionState<B: Backend> {
    inputs: [NodeId; 3],
    mask: B::BoolTensorPrimitive,
    bias: B::FloatTensorPrimitive,
    y: B::FloatTensorPrimitive,
    saved: B::FloatTensorPrimitive,
    spec: AttentionSpec,
}

impl<B: AttentionGradient> Backward<B, 4> for AttentionNode {
    type State = AttentionState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [node_q, node_k, node_v, node_bias] = ops.parents;
        let AttentionState {
            inputs,
            mask,
            bias,
            y,
            saved,
            spec,
        } = ops.state;
        let shape = bias.shape();
        let node_bias = node_bias.filter(|_| spec.bias);
        let [q, k, v] =
            inputs.map(|node| checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(node));
        let spec = AttentionSpec {
            score_gradient: node_bias.is_some(),
            ..spec
        };
        let (at_q, at_k, at_v, at_scores) =
            B::emu_attention_backward(q, k, v, mask, bias, y, saved, grad, spec);
        for (node, grad) in [(node_q, at_q), (node_k, at_k), (node_v, at_v)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
        if let Some(node) = node_bias {
            let (full, mut sum) = (at_scores.shape().dims::<4>(), at_scores);
            for (axis, (n, all)) in shape.dims::<4>().into_iter().zip(full).enumerate() {
                if n != all {
                    sum = B::float_sum_dim(sum, axis);
                }
            }
            grads.register::<B>(node.id, sum);
        }
    }
}

impl<B: AttentionGradient, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn emu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), k.node(), v.node(), bias.node()];
        let inner = |x: &FloatTensor<Self>| x.primitive().clone();
        let (iq, ik, iv, ib) = (inner(&q), inner(&k), inner(&v), inner(&bias));
        match AttentionNode.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [
                    prep.checkpoint(&q),
                    prep.checkpoint(&k),
                    prep.checkpoint(&v),
                ];
                let (y, saved) =
                    B::emu_attention_saving(iq, ik, iv, mask.clone(), ib.clone(), spec);
                let state = AttentionState {
                    inputs,
                    mask,
                    bias: ib,
                    y: y.clone(),
                    saved,
                    spec,
                };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::emu_attention(iq, ik, iv, mask, ib, spec)),
        }
    }
}
