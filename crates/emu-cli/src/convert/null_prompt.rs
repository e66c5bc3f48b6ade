//! The embeddings that the language model regresses for an empty prompt, which a pack stores for guidance.
//!
//! The model is never in memory as a whole: every step goes through the layers one after the other, each read when its
//! turn comes. They are read from the pack: that is the model which will draw, and where it is quantized there is much
//! less to read.

use anyhow::{Context, Result};
use emu_kernels::burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_model::config::{EmuConfig, LmConfig};
use emu_model::lm::{Layer, Lm};
use emu_model::weights;
use emu_pack::{PackError, PackReader, TensorData};
use indicatif::ProgressBar;

use super::empty_prompt;

/// Its name in packs.
pub const NULL_PROMPT: &str = "null_prompt";

/// Regresses them as a tensor of the decoder, `[1, Q, D]`.
///
/// # Errors
/// Where a tensor cannot be read.
pub fn regress(pack: &PackReader, config: &EmuConfig, bar: &ProgressBar) -> Result<TensorData> {
    let device = Device::flex();
    let ids = empty_prompt(config)?;
    let queries = config.causal.queries;
    // Nothing of it is allocated but what is replaced below.
    let mut lm = config.lm.init(config.adapter.as_ref(), &device);
    lm.norm = part(pack, lm.norm, "lm.norm", &device)?;
    lm.stu_regress_head = part(pack, lm.stu_regress_head, "lm.stu_regress_head", &device)?;
    let mut cache = lm.cache(1, ids.len() + queries);
    bar.inc_length(queries as u64);

    let mut x = embed(pack, &ids, config.lm.width, &device)?; // [1, T, D]
    let mut embeddings = Vec::with_capacity(queries);
    for _ in 0..queries {
        let [_, t, _] = x.dims();
        let tables = lm.tables_after(&cache, t, &device);
        for (i, cache) in cache.layers.iter_mut().enumerate() {
            let layer = layer(pack, config, i, &device)?;
            x = layer.step(x, &tables, cache);
        }
        x = lm.regress(lm.norm.forward(x).narrow(1, t - 1, 1)); // [1, 1, D]
        embeddings.push(x.clone());
        bar.inc(1);
    }
    let all = Tensor::cat(embeddings, 1);
    let shape = all.dims().to_vec();
    let values: Vec<f32> = all.into_data().iter::<f32>().collect();
    Ok(TensorData::from_f32(NULL_PROMPT, shape, &values)?)
}

/// A module of the language model with its weights.
fn part<M: emu_kernels::burn::module::Module>(
    pack: &PackReader,
    module: M,
    prefix: &str,
    device: &Device,
) -> Result<M, PackError> {
    weights::load(module, device, |name| {
        pack.read_logical(&format!("{prefix}.{name}"))
    })
}

fn layer(pack: &PackReader, config: &EmuConfig, i: usize, device: &Device) -> Result<Layer> {
    let one = LmConfig {
        layers: 1,
        ..config.lm.clone()
    };
    let Lm { mut layers, .. } = one.init(config.adapter.as_ref(), device);
    let empty = layers
        .pop()
        .context("The language model has no layers. Check the configuration")?;
    Ok(part(pack, empty, &format!("lm.layers.{i}"), device)?)
}

/// Rows of the embedding table, `[1, T, D]`.
fn embed(pack: &PackReader, ids: &[u32], width: usize, device: &Device) -> Result<Tensor<3>> {
    let table = pack.read_logical("lm.embed_tokens.weight")?;
    let (dtype, row) = (table.info.dtype, width * table.info.dtype.size());
    let mut values = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        let start = id as usize * row;
        // One row after the other: the whole table in f32 would be the largest thing in memory.
        let bytes = table.bytes.get(start..start + row).with_context(|| {
            format!("The token {id} is not in the embedding table. Check the configuration")
        })?;
        let row = TensorData::new("row", dtype, vec![width], bytes.to_vec())?;
        values.extend(row.to_f32()?);
    }
    Ok(Tensor::from_data(
        BurnData::new(values, [1, ids.len(), width]),
        device,
    ))
}
