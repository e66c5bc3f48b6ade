//! Emu's objective on one sequence of text tokens and visual embeddings: cross-entropy for tokens, l2 for embeddings.

use burn::tensor::Tensor;
use emu_model::Emu;
use emu_model::config::SpecialTokens;
use emu_model::generate::GenerateError;
use emu_model::lm::Visibility;

use super::{cross_entropy, rows};

/// Positions of a picture that are regressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Regression {
    /// The n embeddings, predicted from [IMG] and the first n - 1 embeddings.
    #[default]
    N,
    /// Also the embedding of [/IMG], predicted from the last one. The masks in the released code suggest this.
    NPlusOne,
}

/// Variants of the objective.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnifiedOptions {
    /// Also use [IMG] as a label, so that the LM learns when to draw. The paper's masks exclude it.
    pub predict_boi: bool,
    /// Positions that are regressed.
    pub regression: Regression,
}

/// Sequences of a batch.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// B rows of T token ids, padded on the right.
    pub ids: Vec<Vec<u32>>,
    /// B rows of T positions, or one shared row.
    pub positions: Vec<Vec<usize>>,
    /// Attention mask in addition to the causal one.
    pub visibility: Visibility,
    /// B rows of T: whether the token, or the embedding in its place, is a target (only answers, for example). `None`:
    /// all are.
    pub wanted: Option<Vec<Vec<bool>>>,
}

/// Terms of the objective.
#[derive(Clone, Debug)]
pub struct UnifiedLoss {
    /// Mean cross-entropy over the labelled tokens.
    pub text: Option<Tensor<1>>,
    /// Mean squared error over the regressed positions and the width.
    pub visual: Option<Tensor<1>>,
    /// `[N, D]`, the predicted embeddings.
    pub predicted: Option<Tensor<2>>,
    /// `[N, D]`, their targets, detached.
    pub target: Option<Tensor<2>>,
    /// B rows of T: the label of each position, if it has one.
    pub labels: Vec<Vec<Option<u32>>>,
    /// B rows of T: whether the position predicts the next embedding.
    pub regressed: Vec<Vec<bool>>,
}

impl UnifiedLoss {
    /// `text + weight · visual`; `None` for a batch with neither labels nor pictures.
    pub fn total(&self, visual_weight: f64) -> Option<Tensor<1>> {
        match (&self.text, &self.visual) {
            (Some(text), Some(visual)) => {
                Some(text.clone() + visual.clone().mul_scalar(visual_weight))
            }
            (Some(text), None) => Some(text.clone()),
            (None, Some(visual)) => Some(visual.clone().mul_scalar(visual_weight)),
            (None, None) => None,
        }
    }
}

/// The label of each token: the token itself, or `None` if it is not predicted.
pub fn labels(
    ids: &[Vec<u32>],
    special: &SpecialTokens,
    options: &UnifiedOptions,
) -> Vec<Vec<Option<u32>>> {
    let hidden = |id: u32| {
        id == special.pad
            || id == special.end_img
            || id == special.image
            || (id == special.img && !options.predict_boi)
    };
    ids.iter()
        .map(|row| row.iter().map(|&id| (!hidden(id)).then_some(id)).collect())
        .collect()
}

/// The objective on a batch.
///
/// # Shapes
/// - `visual`: `[pictures, Q, D]`, the causal former's embeddings in the order of the `<image>` tokens
/// - `seen`: the embeddings that the LM reads instead, with noise added so that it does not rely on them in regression
///
/// # Errors
/// If the number of embeddings differs from that of `<image>` tokens, or the model has no regression head.
pub fn unified(
    emu: &Emu,
    special: &SpecialTokens,
    batch: &Sequences,
    visual: Option<Tensor<3>>,
    seen: Option<Tensor<3>>,
    options: &UnifiedOptions,
) -> Result<UnifiedLoss, GenerateError> {
    let embeds = emu.splice(&batch.ids, seen.or_else(|| visual.clone()), special.image)?; // [B, T, D]
    let hidden = emu.lm.forward(embeds, &batch.positions, &batch.visibility); // [B, T, D]

    // 1. text: position t - 1 predicts the label of t
    let labels = labels(&batch.ids, special, options);
    let steps = batch.ids.first().map_or(0, Vec::len);
    let mut from = vec![];
    let mut targets = vec![];
    for (b, row) in labels.iter().enumerate() {
        for (t, label) in row.iter().enumerate().skip(1) {
            let wanted = batch.wanted.as_ref().is_none_or(|w| w[b][t]);
            if let (Some(label), true) = (label, wanted) {
                from.push(b * steps + t - 1);
                targets.push(*label);
            }
        }
    }
    let text = (!from.is_empty()).then(|| {
        let picked = rows(hidden.clone(), &from).unsqueeze_dim::<3>(0); // [1, N, D]
        let [_, n, _] = picked.dims();
        let logits = emu.lm.logits(picked);
        let [_, _, vocab] = logits.dims();
        cross_entropy(logits.reshape([n, vocab]), &targets)
    });

    // 2. pictures: each embedding is regressed from the position before it
    let [pictures, queries, d] = visual.as_ref().map_or([0; 3], |v| v.dims());
    let end_row = pictures * queries; // row index of the [/IMG] embedding, after the visual embeddings
    let mut regressed = vec![vec![false; steps]; batch.ids.len()];
    let (mut from, mut to, mut next) = (vec![], vec![], 0);
    for (b, row) in batch.ids.iter().enumerate() {
        for t in 0..row.len() {
            let target = if row[t] == special.image {
                next += 1;
                Some(next - 1)
            } else if row[t] == special.end_img && options.regression == Regression::NPlusOne {
                Some(end_row)
            } else {
                None
            };
            let wanted = batch.wanted.as_ref().is_none_or(|w| w[b][t]);
            if let (Some(target), true, 1..) = (target, wanted, t) {
                regressed[b][t - 1] = true;
                from.push(b * steps + t - 1);
                to.push(target);
            }
        }
    }
    let (mut predicted, mut target, mut loss) = (None, None, None);
    if let (Some(visual), false) = (visual, from.is_empty()) {
        let prediction = emu
            .lm
            .regress(rows(hidden, &from).unsqueeze_dim::<3>(0))?
            .squeeze_dim::<2>(0);
        let end = emu
            .lm
            .embed_tokens
            .weight
            .val()
            .narrow(0, special.end_img as usize, 1); // [1, D]
        let all = Tensor::cat(vec![visual.reshape([end_row, d]), end], 0).unsqueeze_dim::<3>(0);
        let wanted = rows(all, &to).detach();
        loss = Some((prediction.clone() - wanted.clone()).square().mean());
        predicted = Some(prediction);
        target = Some(wanted);
    }
    Ok(UnifiedLoss {
        text,
        visual: loss,
        predicted,
        target,
        labels,
        regressed,
    })
}
