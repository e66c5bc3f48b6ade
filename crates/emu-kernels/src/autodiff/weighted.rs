//! Autodiff of operations with an input, a weight and a bias.

use burn::backend::Autodiff;
use burn::backend::Backend;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward, OpsKind};
use burn::backend::tensor::FloatTensor;

/// Saved state: the nodes of the three inputs, and the operation's spec.
pub type State<S> = (NodeId, NodeId, NodeId, S);

/// Runs `forward`, and records it in the graph if any input is tracked.
pub fn weighted<B, C, N, S>(
    node: N,
    [x, weight, bias]: [FloatTensor<Autodiff<B, C>>; 3],
    spec: S,
    forward: impl FnOnce(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, S) -> FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    N: Backward<B, 3, State = State<S>>,
    S: Copy + Clone + Send + core::fmt::Debug + 'static,
{
    let inner = |tensor: &FloatTensor<Autodiff<B, C>>| tensor.primitive().clone();
    let y = || forward(inner(&x), inner(&weight), inner(&bias), spec);
    match node
        .prepare::<C>([x.node(), weight.node(), bias.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let [x, weight, bias] = [&x, &weight, &bias].map(|tensor| prep.checkpoint(tensor));
            prep.finish((x, weight, bias, spec), y())
        }
        OpsKind::UnTracked(prep) => prep.finish(y()),
    }
}
