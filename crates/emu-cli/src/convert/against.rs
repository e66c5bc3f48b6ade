//! A pack against the checkpoint it came from: error per tensor, agreement of outputs.

use std::path::Path;

use anyhow::Result;
use emu_kernels::burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_kernels::random::{Philox, Stream};
use emu_model::lm::Visibility;
use emu_model::pack::{self, ModelConfig};
use emu_model::parity::{Bound, Row, compare};
use emu_model::{Emu as Model, EmuConfig, weights};
use emu_pack::{Dtype, PackReader, TensorData, TensorSource};

use super::{Drawing, Emu, Source};
use crate::runtime::open_pack;

/// Text tokens after the picture of the common prompt.
const TOKENS: usize = 24;

/// Compares every tensor, and what encoder and language model compute of the same prompt.
///
/// # Errors
/// Where pack or checkpoint cannot be read, or are not of the same sizes.
pub fn run(pack: &Path, source: &Path, device: &Device) -> Result<Vec<Row>> {
    let reader = open_pack(Some(pack))?;
    let config = ModelConfig::from_value(&reader.manifest().config)?;
    let source = Source::with_decoder(source, config.decoder.is_some())?;
    let emu = Emu::open(&source)?;
    let mut rows = vec![];
    let mut hold = |tensor: TensorData| -> Result<()> {
        let name = &tensor.info.name;
        let (want, got) = (tensor.to_f32()?, reader.read_logical(name)?.to_f32()?);
        let absmax = want.iter().fold(0f32, |max, v| max.max(v.abs()));
        let bound = bound(&reader, name, absmax);
        rows.push(compare(name, &got, &want, Bound::Absolute(bound)));
        Ok(())
    };
    for name in emu.names() {
        hold(emu.read(name)?)?;
    }
    if let Some(folders) = &source.decoder {
        Drawing::open(folders, &emu.config)?.each(|_, tensor| hold(tensor))?;
    }

    let ours = pack::load_emu(&reader, &config.emu, device)?;
    let theirs = emu.config.init(device)?;
    let theirs = weights::load(theirs, device, |name| emu.read(name))?;
    rows.extend(outputs(&ours, &theirs, &config.emu, device)?);
    Ok(rows)
}

/// What rounding to the stored type may cost.
fn bound(reader: &PackReader, name: &str, absmax: f32) -> f64 {
    let absmax = f64::from(absmax);
    if let Some(scheme) = reader.scheme(name) {
        // Half a step of the coarsest block, whose scale is rounded to f16 as well.
        let steps = if scheme.name() == "q8" { 127.0 } else { 7.0 };
        return absmax / steps * 1.1;
    }
    match reader.info(name).map(|info| info.dtype) {
        Some(Dtype::F16) => absmax * 2f64.powi(-11) + 2f64.powi(-24),
        Some(Dtype::BF16) => absmax * 2f64.powi(-8),
        _ => 0.0,
    }
}

/// Logits of a prompt of noise: a picture, then tokens drawn by chance.
fn outputs(ours: &Model, theirs: &Model, config: &EmuConfig, device: &Device) -> Result<Vec<Row>> {
    let (side, q) = (config.vision.image_size, config.causal.queries);
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
        // Not a test: what a precision costs is for the reader to judge.
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
