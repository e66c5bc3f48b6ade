//! The embeddings that the language model regresses for an empty prompt, which a pack stores for guidance.
//!
//! The model is never in memory as a whole: every step goes through the layers one after the other, each read from the
//! checkpoint when its turn comes.

use anyhow::{Context, Result};
use emu_kernels::burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_model::config::LmConfig;
use emu_model::lm::{Layer, Lm};
use emu_model::weights;
use emu_pack::{PackError, TensorData};
use indicatif::ProgressBar;

use super::{Emu, empty_prompt};

/// Regresses them as a tensor of the decoder, `[1, Q, D]`.
///
/// # Errors
/// Where a tensor cannot be read.
pub fn regress(emu: &Emu, bar: &ProgressBar) -> Result<TensorData> {
    let device = Device::flex();
    let config = &emu.config;
    let ids = empty_prompt(config)?;
    let queries = config.causal.queries;
    // Nothing of it is allocated but what is replaced below.
    let mut lm = config.lm.init(config.adapter.as_ref(), &device);
    lm.norm = part(emu, lm.norm, "lm.norm", &device)?;
    lm.stu_regress_head = part(emu, lm.stu_regress_head, "lm.stu_regress_head", &device)?;
    let mut cache = lm.cache(1, ids.len() + queries);
    bar.inc_length(queries as u64);

    let mut x = embed(emu, &ids, config.lm.width, &device)?; // [1, T, D]
    let mut embeddings = Vec::with_capacity(queries);
    for _ in 0..queries {
        let [_, t, _] = x.dims();
        let tables = lm.tables_after(&cache, t, &device);
        for (i, cache) in cache.layers.iter_mut().enumerate() {
            let layer = layer(emu, i, &device)?;
            x = layer.step(x, &tables, cache);
        }
        x = lm.regress(lm.norm.forward(x).narrow(1, t - 1, 1)); // [1, 1, D]
        embeddings.push(x.clone());
        bar.inc(1);
    }
    let all = Tensor::cat(embeddings, 1);
    let shape = all.dims().to_vec();
    let values: Vec<f32> = all.into_data().iter::<f32>().collect();
    Ok(TensorData::from_f32("null_prompt", shape, &values)?)
}

/// A module of the language model with its weights.
fn part<M: emu_kernels::burn::module::Module>(
    emu: &Emu,
    module: M,
    prefix: &str,
    device: &Device,
) -> Result<M, PackError> {
    weights::load(module, device, |name| emu.read(&format!("{prefix}.{name}")))
}

fn layer(emu: &Emu, i: usize, device: &Device) -> Result<Layer> {
    let one = LmConfig {
        layers: 1,
        ..emu.config.lm.clone()
    };
    let Lm { mut layers, .. } = one.init(emu.config.adapter.as_ref(), device);
    let empty = layers
        .pop()
        .context("The language model has no layers. Check the configuration")?;
    Ok(part(emu, empty, &format!("lm.layers.{i}"), device)?)
}

/// Rows of the embedding table, `[1, T, D]`.
fn embed(emu: &Emu, ids: &[u32], width: usize, device: &Device) -> Result<Tensor<3>> {
    let table = emu.read("lm.embed_tokens.weight")?.to_f32()?;
    let rows = ids.iter().filter_map(|&id| {
        let start = id as usize * width;
        table.get(start..start + width)
    });
    let values: Vec<f32> = rows.flatten().copied().collect();
    let steps = values.len() / width.max(1);
    Ok(Tensor::from_data(
        BurnData::new(values, [1, steps, width]),
        device,
    ))
}
