//! Compares a pack with the checkpoint it was converted from, or with another pack: error per tensor, agreement of outputs.

use std::path::Path;

use anyhow::{Result, bail};
use emu_kernels::burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_kernels::random::{Philox, Stream};
use emu_model::lm::Visibility;
use emu_model::pack::{self, ModelConfig};
use emu_model::parity::{Bound, Row, compare};
use emu_model::{Emu as Model, EmuConfig, weights};
use emu_pack::convert::Loss;
use emu_pack::{Dtype, PackReader, Scheme, TensorData, TensorSource};

use super::null_prompt::NULL_PROMPT;
use super::repack::is_pack;
use super::{Drawing, Emu, Source};
use crate::environment::memory_available;
use crate::output::bytes;
use crate::runtime::open_pack;

/// Number of text tokens after the picture in the test prompt.
const TOKENS: usize = 24;

/// Compares every tensor, and the outputs of encoder and language model for the same prompt.
///
/// # Errors
/// Where pack or checkpoint cannot be read, or their sizes differ.
pub fn run(pack: &Path, source: &Path, device: &Device) -> Result<Vec<Row>> {
    let reader = open_pack(Some(pack))?;
    let config = ModelConfig::from_value(&reader.manifest().config)?;
    let mut rows = vec![];
    let other = if is_pack(source) {
        let other = PackReader::open(source)?;
        let theirs = ModelConfig::from_value(&other.manifest().config)?;
        if theirs != config {
            bail!(
                "{} and {} have different configurations. Compare packs of the same model.",
                pack.display(),
                source.display()
            );
        }
        for tensor in reader.manifest().logical_tensors() {
            // The null prompt's embeddings depend on the quantized weights of each pack, so they differ anyway.
            if tensor.name != NULL_PROMPT {
                let theirs = other.read_logical(&tensor.name)?;
                rows.push(row(&reader, &theirs, Some(&other))?);
            }
        }
        Theirs::Pack(Box::new(other))
    } else {
        let source = Source::with_decoder(source, config.decoder.is_some())?;
        let emu = Emu::open(&source)?;
        for name in emu.names() {
            rows.push(row(&reader, &emu.read(name)?, None)?);
        }
        if let Some(folders) = &source.decoder {
            Drawing::open(folders, &emu.config)?.each(|tensor| {
                rows.push(row(&reader, &tensor, None)?);
                Ok(())
            })?;
        }
        Theirs::Checkpoint(Box::new(emu))
    };

    // The comparison loads both models in f32.
    let parts = [pack::VISION, pack::LM];
    let tensors = reader.manifest().tensors.iter();
    let tensors = tensors.filter(|t| parts.contains(&t.component.as_str()));
    let needed: u64 = 8 * tensors.map(|t| values(&reader, t)).sum::<u64>();
    if let Some(free) = memory_available().filter(|free| *free < needed) {
        let mut row = Row::new("outputs", 0.0, f64::INFINITY);
        row.note = Some(format!(
            "not compared: both models take {} of memory, and {} are free",
            bytes(needed),
            bytes(free)
        ));
        rows.push(row);
        return Ok(rows);
    }
    let ours = pack::load_emu(&reader, &config.emu, device)?;
    let theirs = match other {
        Theirs::Pack(other) => pack::load_emu(&other, &config.emu, device)?,
        Theirs::Checkpoint(emu) => {
            let theirs = emu.config.init(device)?;
            weights::load(theirs, device, |name| emu.read(name))?
        }
    };
    rows.extend(outputs(&ours, &theirs, &config.emu, device)?);
    Ok(rows)
}

enum Theirs {
    Pack(Box<PackReader>),
    Checkpoint(Box<Emu>),
}

fn values(reader: &PackReader, tensor: &emu_pack::TensorEntry) -> u64 {
    let shape = reader.manifest().logical_shape(tensor);
    shape.iter().map(|&n| n as u64).product()
}

/// Compares a tensor of the pack with its original, or with that of another pack, which may be rounded too.
fn row(reader: &PackReader, tensor: &TensorData, other: Option<&PackReader>) -> Result<Row> {
    let name = &tensor.info.name;
    let stored = reader.read_logical(name)?;
    if stored.info.shape != tensor.info.shape {
        let (ours, theirs) = (&stored.info.shape, &tensor.info.shape);
        return Ok(Row::failed(
            name,
            format!("its shape is {ours:?} instead of {theirs:?}"),
        ));
    }
    let (want, got) = (tensor.to_f32()?, stored.to_f32()?);
    let absmax = want.iter().fold(0f32, |max, v| max.max(v.abs()));
    let readers = std::iter::once(reader).chain(other);
    let bound = readers
        .map(|reader| bound(reader, name, absmax.into()))
        .sum();
    let mut row = compare(name, &got, &want, Bound::Absolute(bound));
    let loss = Loss::between(want.into_iter().zip(got));
    let stored = reader.scheme(name).map_or_else(
        || stored.info.dtype.name().to_owned(),
        |scheme| scheme.name().to_owned(),
    );
    row.note = Some(format!("{stored}, relative error {:.2e}", loss.relative()));
    Ok(row)
}

/// Maximum rounding error of the stored type. For a quantized type: one step of the coarsest block, plus the f16 rounding
/// of its scale.
fn bound(reader: &PackReader, name: &str, absmax: f64) -> f64 {
    match reader.scheme(name) {
        Some(Scheme::Q8) => return absmax / 127.0 * 1.1,
        Some(Scheme::Q4) => return absmax / 8.0 * 1.1,
        // The values of a block may span the full range from -absmax to absmax.
        Some(Scheme::Q4_1) => return 2.0 * absmax / 15.0 * 1.1,
        None => {}
    }
    match reader.info(name).map(|info| info.dtype) {
        Some(Dtype::F16) => absmax * 2f64.powi(-11) + 2f64.powi(-24),
        Some(Dtype::BF16) => absmax * 2f64.powi(-8),
        _ => 0.0,
    }
}

/// Compares outputs for a random prompt: a noise picture, then random tokens.
fn outputs(ours: &Model, theirs: &Model, config: &EmuConfig, device: &Device) -> Result<Vec<Row>> {
    let (side, q) = (config.vision.image_size, config.queries());
    let mut random = Philox::new(0, Stream::Tokens, 0);
    let special = &config.special;
    let mut ids = vec![special.bos, special.img];
    ids.extend(std::iter::repeat_n(special.image, q));
    ids.push(special.end_img);
    let text = special.pad as usize;
    ids.extend((0..TOKENS).map(|_| random.below(text) as u32));
    ids.truncate(config.lm.context);
    let pixels = Philox::new(0, Stream::Latents, 0).normals(3 * side * side);

    let run = |model: &Model| -> Result<(Vec<f32>, Vec<f32>)> {
        let picture =
            Tensor::<4>::from_data(BurnData::new(pixels.clone(), [1, 3, side, side]), device);
        let visual = model.embed_images(picture);
        let embeds = model.splice(&[ids.clone()], Some(visual.clone()), special.image)?;
        let positions = [(0..ids.len()).collect()];
        let hidden = model.lm.forward(embeds, &positions, &Visibility::All);
        let floats = |data: BurnData| data.iter::<f32>().collect();
        Ok((
            floats(visual.into_data()),
            floats(model.lm.logits(hidden).into_data()),
        ))
    };
    let ((our_visual, our_logits), (visual, logits)) = (run(ours)?, run(theirs)?);
    let vocab = config.lm.vocab.max(1);
    let best = |row: &[f32]| emu_kernels::sample::argmax(row);
    let pairs = our_logits.chunks(vocab).zip(logits.chunks(vocab));
    let same = pairs.filter(|(a, b)| best(a) == best(b)).count();
    let mut rows = vec![];
    for (name, got, want) in [
        ("outputs: visual embeddings", our_visual, visual),
        ("outputs: logits", our_logits, logits),
    ] {
        // No pass/fail bound: the reader judges the cost of a precision.
        let mut row = compare(name, &got, &want, Bound::Absolute(f64::INFINITY));
        if name.ends_with("logits") {
            row.note = Some(format!(
                "the same most likely token at {same} of {} positions",
                ids.len()
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}
