//! Intermediate tensors of vision encoder, causal former and LM against the goldens.

use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::{Bound, Goldens, ParityError, Row, compare_kept, exact};
use crate::Emu;
use crate::causal::{CausalFormer, bucket};
use crate::config::ConfigError;
use crate::config::EmuConfig;
use crate::lm::Visibility;
use crate::probe::Probe;

/// A model with the reference's weights.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The networks.
    pub emu: &'a Emu,
    /// Its configuration.
    pub config: &'a EmuConfig,
    /// Its device.
    pub device: &'a Device,
}

/// A padded batch of the goldens: `<prefix>.input_ids` and `<prefix>.attention_mask`.
pub struct Batch {
    /// B rows of T token ids.
    pub ids: Vec<Vec<u32>>,
    /// B rows of T: false for padding.
    pub real: Vec<Vec<bool>>,
}

impl Batch {
    /// Reads a batch.
    ///
    /// # Errors
    /// If one of the two tensors is absent, or their shapes differ.
    pub fn read(goldens: &Goldens<'_>, prefix: &str) -> Result<Self, ParityError> {
        let ids = goldens.token_rows(&format!("{prefix}.input_ids"))?;
        let name = format!("{prefix}.attention_mask");
        let mask = goldens.rows(&name)?;
        let lengths = |n: usize, row: usize| vec![n, row];
        if mask.len() != ids.len() || mask.iter().zip(&ids).any(|(m, i)| m.len() != i.len()) {
            let shape = lengths(mask.len(), mask.first().map_or(0, Vec::len));
            return Err(ParityError::Shape {
                tensor: name,
                shape,
            });
        }
        let real = mask.iter().map(|row| row.iter().map(|&m| m != 0).collect());
        Ok(Self {
            real: real.collect(),
            ids,
        })
    }

    /// Tokens per row.
    pub fn steps(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }

    /// Mask of the padding for every query.
    pub fn visibility(&self, device: &Device) -> Visibility {
        let hidden: Vec<bool> = self.real.iter().flatten().map(|real| !real).collect();
        let shape = [self.ids.len(), 1, 1, self.steps()];
        let hidden: Tensor<4, Bool> = Tensor::from_data(TensorData::new(hidden, shape), device);
        Visibility::Padding(hidden)
    }

    /// One flag per token, row by row.
    pub fn kept(&self) -> Vec<bool> {
        self.real.iter().flatten().copied().collect()
    }

    /// Number of `<image>` tokens in all rows.
    pub fn image_tokens(&self, image: u32) -> usize {
        self.ids.iter().flatten().filter(|&&id| id == image).count()
    }
}

/// Vision encoder and causal former on the goldens' images, then every padded batch of the pretrained model.
///
/// # Errors
/// If the images are absent or of another size than the model's.
pub fn forward(subject: Subject<'_>, goldens: &Goldens<'_>) -> Result<Vec<Row>, ParityError> {
    let mut rows = vec![];
    let visual = vision(subject, goldens, &mut rows)?;
    more_queries(subject, goldens, &mut rows)?;
    for name in goldens.names() {
        let Some(prefix) = name.strip_suffix(".inputs_embeds") else {
            continue;
        };
        if prefix != "instruct" {
            batch(subject, goldens, prefix, &visual, &mut rows)?;
        }
    }
    Ok(rows)
}

/// Visual embeddings of the goldens' images, `[B, Q, D]`.
///
/// # Errors
/// If there are none.
pub fn embeddings(subject: Subject<'_>, goldens: &Goldens<'_>) -> Result<Tensor<3>, ParityError> {
    let images = goldens.tensor::<4>("images", subject.device)?;
    check_images(subject, &images)?;
    Ok(subject.emu.embed_images(images))
}

fn check_images(subject: Subject<'_>, images: &Tensor<4>) -> Result<(), ParityError> {
    let side = subject.config.vision.image_size;
    let dims = images.dims();
    match dims[1..] == [3, side, side] {
        true => Ok(()),
        false => Err(ParityError::Shape {
            tensor: "images".into(),
            shape: dims.to_vec(),
        }),
    }
}

fn vision(
    subject: Subject<'_>,
    goldens: &Goldens<'_>,
    rows: &mut Vec<Row>,
) -> Result<Tensor<3>, ParityError> {
    let images = goldens.tensor::<4>("images", subject.device)?;
    check_images(subject, &images)?;
    let mut probe = Probe::on("");
    let tokens = subject.emu.encode(images, &mut probe);
    let former = former(subject)?;
    let visual = former.forward_probed(tokens, former.causal_tokens.val(), &mut probe);
    let seen = probe.into_seen();
    for name in goldens.names() {
        if name.starts_with("eva.") || name.starts_with("cformer.") || name == "ln_visual" {
            rows.push(match seen.get(name) {
                Some(got) => goldens.compare_data(name, got, Bound::Forward),
                None => Row::failed(name, "the model has no such stage"),
            });
        }
    }
    Ok(visual)
}

/// The causal former, which the goldens are of.
fn former<'a>(subject: Subject<'a>) -> Result<&'a CausalFormer, ParityError> {
    let none = || ConfigError("it has no causal former to compare".into());
    Ok(subject.emu.cformer.as_ref().ok_or_else(none)?)
}

/// The causal former with another number of queries than the model's: its relative bias and its buckets.
fn more_queries(
    subject: Subject<'_>,
    goldens: &Goldens<'_>,
    rows: &mut Vec<Row>,
) -> Result<(), ParityError> {
    let former = former(subject)?;
    for name in goldens.names() {
        let Some(prefix) = name
            .strip_suffix(".causal_tokens")
            .filter(|p| !p.contains('/'))
        else {
            continue;
        };
        let queries = goldens.tensor::<3>(name, subject.device)?;
        let tokens = goldens.tensor::<3>("ln_visual", subject.device)?;
        let [_, n, _] = queries.dims();
        let out = former.forward_probed(tokens, queries, &mut Probe::off());
        rows.push(goldens.compare(&format!("{prefix}.out"), &out, Bound::Forward));
        let bias = format!("{prefix}.position_bias");
        if goldens.has(&bias) {
            // Above the diagonal the original's values are masked anyway, and all in bucket 0, as here.
            rows.push(goldens.compare(&bias, &former.position_bias(n), Bound::Forward));
        }
        let buckets = format!("{prefix}.buckets");
        if goldens.has(&buckets) {
            let (_, want) = goldens.ints(&buckets)?;
            let of = |distance| bucket(distance, former.buckets, former.max_distance) as i64;
            let got: Vec<i64> = (0..want.len()).map(of).collect();
            rows.push(exact(&buckets, &got, &want));
        }
    }
    Ok(())
}

/// Intermediate tensors of the LM on a padded batch, with the positions of training and, if listed, those of
/// generation.
///
/// # Errors
/// If the batch is incomplete.
pub fn batch(
    subject: Subject<'_>,
    goldens: &Goldens<'_>,
    prefix: &str,
    visual: &Tensor<3>,
    rows: &mut Vec<Row>,
) -> Result<(), ParityError> {
    let batch = Batch::read(goldens, prefix)?;
    let positions = [(0..batch.steps()).collect()];
    stages(subject, goldens, prefix, &batch, visual, &positions, rows)?;
    let generation = format!("{prefix}.generate_position_ids");
    if goldens.has(&generation) {
        let ids = goldens.rows(&generation)?;
        let positions: Vec<Vec<usize>> = ids
            .iter()
            .map(|row| row.iter().map(|&p| p.max(0) as usize).collect())
            .collect();
        let prefix = format!("{prefix}_gen");
        stages(subject, goldens, &prefix, &batch, visual, &positions, rows)?;
    }
    Ok(())
}

fn stages(
    subject: Subject<'_>,
    goldens: &Goldens<'_>,
    prefix: &str,
    batch: &Batch,
    visual: &Tensor<3>,
    positions: &[Vec<usize>],
    rows: &mut Vec<Row>,
) -> Result<(), ParityError> {
    let lm = &subject.emu.lm;
    let [_, q, _] = visual.dims();
    let pictures = batch.image_tokens(subject.config.special.image) / q.max(1);
    let visual = (pictures > 0).then(|| {
        let [held, _, _] = visual.dims();
        visual.clone().narrow(0, 0, pictures.min(held))
    });
    let embeds = subject
        .emu
        .splice(&batch.ids, visual, subject.config.special.image)?;
    let mut probe = Probe::on(&format!("{prefix}."));
    probe.see(format_args!("inputs_embeds"), &embeds);
    let hidden = lm.forward_probed(
        embeds,
        positions,
        &batch.visibility(subject.device),
        &mut probe,
    );
    probe.see(format_args!("logits"), &lm.logits(hidden.clone()));
    if let Ok(regressed) = lm.regress(hidden) {
        probe.see(format_args!("regress"), &regressed);
    }

    let kept = batch.kept();
    for (name, got) in probe.into_seen() {
        if !goldens.has(&name) {
            continue;
        }
        let (_, want) = goldens.floats(&name)?;
        let got: Vec<f32> = got.iter::<f32>().collect();
        rows.push(compare_kept(&name, &got, &want, &kept, Bound::Forward));
    }
    Ok(())
}

/// Weights with merged LoRA adapters: `instruct.merged_<projection>_layer<i>`.
pub fn merged(subject: Subject<'_>, goldens: &Goldens<'_>) -> Vec<Row> {
    let mut rows = vec![];
    for name in goldens.names() {
        let Some((projection, layer)) = name
            .strip_prefix("instruct.merged_")
            .and_then(|rest| rest.rsplit_once("_layer"))
        else {
            continue;
        };
        let layer = layer
            .parse()
            .ok()
            .and_then(|i: usize| subject.emu.lm.layers.get(i));
        let linear = layer
            .map(|layer| &layer.self_attn)
            .and_then(|attn| match projection {
                "q_proj" => Some(&attn.q_proj),
                "k_proj" => Some(&attn.k_proj),
                "v_proj" => Some(&attn.v_proj),
                "o_proj" => Some(&attn.o_proj),
                _ => None,
            });
        rows.push(match linear {
            Some(linear) => goldens.compare(name, &linear.merged_weight(), Bound::Forward),
            None => Row::failed(name, "the model has no such projection"),
        });
    }
    rows
}
