//! The embeddings that the language model regresses for the empty prompt. A pack stores them for classifier-free guidance.
//!
//! The model may be larger than memory, so it is not loaded. Each step multiplies with the stored matrices one after the
//! other. They are read from the pack: that is the model that will draw, and a quantized pack means much less to read. A
//! test compares this plain forward pass with the model itself.

use anyhow::{Context, Result, bail};
use emu_model::config::{EmuConfig, LmConfig};
use emu_pack::{Dtype, Manifest, PackError, PackReader, TensorData, TensorInfo, TensorSource};
use emu_tokenizer::names;
use indicatif::ProgressBar;

/// Name of the tensor in a pack.
pub const NULL_PROMPT: &str = "null_prompt";
/// Name of the table of token embeddings.
const TABLE: &str = "lm.embed_tokens.weight";
/// Bytes of an f32.
const F32: u64 = 4;

/// Name, type and shape of the tensor.
pub fn info(config: &EmuConfig) -> TensorInfo {
    TensorInfo {
        name: NULL_PROMPT.into(),
        dtype: Dtype::F32,
        shape: vec![1, config.queries(), config.lm.width],
    }
}

/// Bytes of memory that [`regress`] takes at most for a pack with this manifest: the table of token embeddings as stored, and
/// also in f32 if it is quantized. Every other matrix is smaller and multiplied as it is stored.
pub fn memory(pack: &Manifest) -> u64 {
    let parts = pack.tensors.iter();
    let parts = parts.filter(|tensor| tensor.name.starts_with(TABLE));
    let stored: u64 = parts
        .filter_map(|tensor| tensor.info().byte_len().ok())
        .map(|bytes| bytes as u64)
        .sum();
    let quantized = pack.tensors.iter().find(|tensor| tensor.name == TABLE);
    let quantized = quantized.filter(|_| pack.quantization.contains_key(TABLE));
    let dense = quantized.map_or(0, |table| {
        let sizes = pack.logical_shape(table).into_iter();
        sizes.map(|n| n as u64).product::<u64>() * F32
    });
    stored + dense
}

/// Regresses the embeddings as a tensor of the decoder, `[1, Q, D]`.
///
/// # Errors
/// Where a tensor cannot be read.
pub fn regress(pack: &PackReader, config: &EmuConfig, bar: &ProgressBar) -> Result<TensorData> {
    let ids = empty_prompt(config)?;
    let (queries, width) = (config.queries(), config.lm.width);
    let mut walk = Walk::new(pack, config);
    bar.inc_length((ids.len() + queries) as u64);

    let mut hidden = vec![];
    for x in embed(pack, &ids, width)? {
        hidden = walk.step(x)?;
        bar.inc(1);
    }
    let mut embeddings = Vec::with_capacity(queries * width);
    for n in 1..=queries {
        let next = pack.multiply("lm.stu_regress_head.weight", &hidden)?;
        embeddings.extend_from_slice(&next);
        if n < queries {
            hidden = walk.step(next)?;
        }
        bar.inc(1);
    }
    Ok(TensorData::from_f32(
        NULL_PROMPT,
        info(config).shape,
        &embeddings,
    )?)
}

/// The unconditional prompt of classifier-free guidance: no text, only the start of a picture.
fn empty_prompt(config: &EmuConfig) -> Result<Vec<u32>> {
    let special = &config.special;
    if config.queries() + 2 > config.lm.context {
        bail!(
            "A picture's {} embeddings do not fit the context of {}. Check {} in the configuration.",
            config.queries(),
            config.lm.context,
            names::IMAGE
        );
    }
    Ok(vec![special.bos, special.img])
}

/// Rows of the embedding table, one per id.
fn embed(pack: &PackReader, ids: &[u32], width: usize) -> Result<Vec<Vec<f32>>> {
    let table = pack.read_logical(TABLE)?;
    let (dtype, row) = (table.info.dtype, width * table.info.dtype.size());
    let rows = ids.iter().map(|&id| {
        let start = id as usize * row;
        // Row by row: the whole table in f32 would be the largest allocation.
        let bytes = table.bytes.get(start..start + row).with_context(|| {
            format!("The token {id} is not in the embedding table. Check the configuration")
        })?;
        Ok(TensorData::new("row", dtype, vec![width], bytes.to_vec())?.to_f32()?)
    });
    rows.collect()
}

/// Forward pass of the language model, token by token.
struct Walk<'a> {
    pack: &'a PackReader,
    lm: &'a LmConfig,
    /// Scale of the adapters, alpha / rank, if there are any.
    adapter: Option<f32>,
    /// Keys and values of each layer, `[T, G·E]`.
    cache: Vec<(Vec<f32>, Vec<f32>)>,
    position: usize,
}

impl<'a> Walk<'a> {
    fn new(pack: &'a PackReader, config: &'a EmuConfig) -> Self {
        let adapter = config.adapter.map(|a| (a.alpha / a.rank as f64) as f32);
        Self {
            pack,
            lm: &config.lm,
            adapter,
            cache: vec![Default::default(); config.lm.layers],
            position: 0,
        }
    }

    /// Appends one embedding and returns the final hidden state, `[D]` to `[D]`.
    fn step(&mut self, mut x: Vec<f32>) -> Result<Vec<f32>, PackError> {
        for i in 0..self.lm.layers {
            let name = format!("lm.layers.{i}");
            let h = self.norm(&format!("{name}.input_layernorm"), &x)?;
            let h = self.attend(i, &format!("{name}.self_attn"), &h)?;
            add(&mut x, &h);
            let h = self.norm(&format!("{name}.post_attention_layernorm"), &x)?;
            let gate = self
                .pack
                .multiply(&format!("{name}.mlp.gate_proj.weight"), &h)?;
            let mut up = self
                .pack
                .multiply(&format!("{name}.mlp.up_proj.weight"), &h)?;
            let silu = gate.iter().map(|g| g / (1.0 + (-g).exp()));
            up.iter_mut().zip(silu).for_each(|(up, gate)| *up *= gate);
            add(
                &mut x,
                &self
                    .pack
                    .multiply(&format!("{name}.mlp.down_proj.weight"), &up)?,
            );
        }
        self.position += 1;
        self.norm("lm.norm", &x)
    }

    /// Attention of layer `i` over all positions up to this one.
    fn attend(&mut self, i: usize, name: &str, x: &[f32]) -> Result<Vec<f32>, PackError> {
        let (size, heads, kv_heads) = (self.lm.head_size, self.lm.heads, self.lm.kv_heads);
        let mut q = self.project(&format!("{name}.q_proj"), x)?;
        let mut k = self.project(&format!("{name}.k_proj"), x)?;
        let v = self.project(&format!("{name}.v_proj"), x)?;
        self.rotate(&mut q);
        self.rotate(&mut k);
        let Some((keys, values)) = self.cache.get_mut(i) else {
            return Ok(vec![]);
        };
        keys.extend(k);
        values.extend(v);

        let scale = 1.0 / (size as f32).sqrt();
        let mut merged = vec![0.0; heads * size];
        for (h, (q, y)) in q.chunks(size).zip(merged.chunks_mut(size)).enumerate() {
            // Grouped-query attention: groups of heads share keys and values.
            let at = h / (heads / kv_heads).max(1) * size;
            let of = |rows: &'_ [f32], t: usize| -> Vec<f32> {
                let start = t * kv_heads * size + at;
                rows.get(start..start + size).unwrap_or_default().to_vec()
            };
            let dot = |t| q.iter().zip(of(keys, t)).map(|(q, k)| q * k).sum::<f32>() * scale;
            let scores: Vec<f32> = (0..=self.position).map(dot).collect();
            let most = scores.iter().fold(f32::MIN, |a, &b| a.max(b));
            let weights: Vec<f32> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f32 = weights.iter().sum();
            for (t, weight) in weights.iter().enumerate() {
                let values = of(values, t);
                y.iter_mut()
                    .zip(values)
                    .for_each(|(y, v)| *y += weight / sum * v);
            }
        }
        self.project(&format!("{name}.o_proj"), &merged)
    }

    /// A linear layer with its adapter.
    fn project(&self, name: &str, x: &[f32]) -> Result<Vec<f32>, PackError> {
        let mut y = self.pack.multiply(&format!("{name}.weight"), x)?;
        if let Some(scale) = self.adapter {
            let low = self.pack.multiply(&format!("{name}.lora.a"), x)?;
            let update = self.pack.multiply(&format!("{name}.lora.b"), &low)?;
            y.iter_mut().zip(update).for_each(|(y, u)| *y += scale * u);
        }
        Ok(y)
    }

    /// Rotary position embedding: rotates the halves of every head by the angles of this position.
    fn rotate(&self, x: &mut [f32]) {
        let half = self.lm.head_size / 2;
        for head in x.chunks_mut(self.lm.head_size) {
            let (low, high) = head.split_at_mut(half);
            for (i, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let power = -2.0 * i as f64 / self.lm.head_size as f64;
                let angle = self.position as f64 * self.lm.rope_base.powf(power);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    fn norm(&self, name: &str, x: &[f32]) -> Result<Vec<f32>, PackError> {
        let weight = self.pack.read(&format!("{name}.weight"))?.to_f32()?;
        let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len().max(1) as f32;
        let scale = 1.0 / (mean + self.lm.norm_eps as f32).sqrt();
        Ok(x.iter().zip(weight).map(|(x, w)| x * scale * w).collect())
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

#[cfg(test)]
mod tests {
    use emu_kernels::burn::tensor::{Device, Tensor, TensorData as BurnData};
    use emu_kernels::packed::Activations;
    use emu_model::config::AdapterConfig;
    use emu_model::{Emu, pack, weights};
    use emu_pack::convert::{PackMeta, PackWriter, WriteOptions};

    use super::super::presets::policy;
    use super::*;

    /// The same embeddings, computed by the model itself.
    fn by_the_model(emu: &Emu, config: &EmuConfig, device: &Device) -> Vec<f32> {
        let ids = empty_prompt(config).expect("a prompt");
        let queries = config.queries();
        let mut cache = emu.lm.cache(1, ids.len() + queries);
        let ids: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
        let shape = [1, ids.len()];
        let mut x = emu
            .lm
            .embed(Tensor::from_data(BurnData::new(ids, shape), device));
        let mut all = vec![];
        for _ in 0..queries {
            let [_, t, _] = x.dims();
            let hidden = emu.lm.step(x, &mut cache).expect("room");
            let next = emu.lm.regress(hidden.narrow(1, t - 1, 1));
            x = next.expect("a regression head"); // [1, 1, D]
            all.extend(x.clone().into_data().iter::<f32>());
        }
        all
    }

    #[test]
    fn the_walk_is_the_model() {
        let device = Device::flex();
        let _sequence = emu_kernels::init::seed(5);
        let folder = tempfile::tempdir().expect("a folder");
        let mut grouped = EmuConfig::tiny();
        grouped.lm.kv_heads = grouped.lm.heads / 2;
        let mut adapted = EmuConfig::tiny();
        adapted.adapter = Some(AdapterConfig {
            rank: 4,
            alpha: 6.0,
        });
        let cases = [
            ("plain", EmuConfig::tiny(), "none"),
            ("grouped", grouped, "f16"),
            ("adapted", adapted, "q8"),
            ("four", EmuConfig::tiny(), "q4"),
        ];
        for (name, config, quantize) in cases {
            let path = folder.path().join(name);
            let options = WriteOptions {
                policy: policy(quantize).expect("a policy"),
                ..WriteOptions::default()
            };
            let mut writer = PackWriter::create(&path, PackMeta::default(), options).expect("new");
            let model = config.init(&device).expect("a model");
            weights::export(&model, |mut tensor| {
                // Adapters start at zero, which would hide errors in them.
                if tensor.info.name.ends_with("lora.b") {
                    let count = tensor.info.elements()?;
                    let values: Vec<f32> = (0..count).map(|i| (i as f32).sin() * 0.1).collect();
                    tensor = TensorData::from_f32(tensor.info.name, tensor.info.shape, &values)?;
                }
                writer.add(pack::component(&tensor.info.name.clone()), tensor)
            })
            .expect("written");
            writer.finish().expect("finished");
            let reader = PackReader::open(&path).expect("a pack");
            let mut model = pack::load_emu(&reader, &config, &device).expect("the model");
            // The plain forward pass uses f32 activations with four-bit matrices, so the model does too.
            model.lm = model.lm.with_activations(|_| Activations::F32);
            let want = by_the_model(&model, &config, &device);
            let got = regress(&reader, &config, &ProgressBar::hidden()).expect("embeddings");
            let got = got.to_f32().expect("floats");
            assert_eq!(got.len(), want.len());
            let absmax = want.iter().fold(0f32, |max, v| v.abs().max(max));
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 1e-4 * absmax, "{name}: {got} {want}");
            }
        }
    }
}
