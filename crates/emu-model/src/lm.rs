//! The multimodal language model: a LLaMA with a second head that regresses the next visual embedding.
//!
//! B batch, T tokens, D width, H query heads, G key/value heads, E head size.

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use emu_kernels::cache::{CacheFull, KvCache, LayerCache};
use emu_kernels::decode_session::DecodeModel;
use emu_kernels::init::{Init, twins};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::packed::{self, Activations, Packed, Scheme};
use emu_kernels::rope::{Rope, RopeTables};
use emu_kernels::throttle::Throttle;
use emu_kernels::{LoraConfig, QEmbedding, QLinear, RmsNorm};

use crate::config::{AdapterConfig, LmConfig, LmInit};
use crate::probe::Probe;

/// The language model.
#[derive(Module, Debug)]
pub struct Lm {
    /// Token embeddings.
    pub embed_tokens: QEmbedding,
    /// Transformer layers.
    pub layers: Vec<Layer>,
    /// Final norm.
    pub norm: RmsNorm,
    /// Next-token head; `None` if it shares the embedding table.
    pub lm_head: Option<QLinear>,
    /// Regression head of the next visual embedding; `None` in a text-only model.
    pub stu_regress_head: Option<QLinear>,
    /// RoPE base and divisors of its frequencies.
    #[module(skip)]
    pub rope: Rope,
    /// E
    pub head_size: usize,
    /// G
    pub kv_heads: usize,
    /// Throttle of prefills.
    #[module(skip)]
    pub throttle: Throttle,
}

/// A transformer layer.
#[derive(Module, Debug)]
pub struct Layer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Causal self-attention.
    pub self_attn: Attention,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// Gated feed-forward.
    pub mlp: Mlp,
}

/// Causal self-attention with RoPE.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[H·E, D]`
    pub q_proj: QLinear,
    /// `[G·E, D]`
    pub k_proj: QLinear,
    /// `[G·E, D]`
    pub v_proj: QLinear,
    /// `[D, H·E]`
    pub o_proj: QLinear,
    /// Fused QKV weights, `[(H + 2 G)·E, D]`, if [`Lm::fuse`] fused them.
    #[module(skip)]
    pub fused_qkv: Option<Packed>,
    /// H
    pub heads: usize,
    /// G
    pub kv_heads: usize,
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[F, D]`
    pub gate_proj: QLinear,
    /// `[F, D]`
    pub up_proj: QLinear,
    /// `[D, F]`
    pub down_proj: QLinear,
    /// Fused gate and up weights, `[2 F, D]`, if [`Lm::fuse`] fused them.
    #[module(skip)]
    pub fused_gate_up: Option<Packed>,
}

/// Attention mask in addition to the causal mask.
#[derive(Clone, Debug, Default)]
pub enum Visibility {
    /// No further mask.
    #[default]
    All,
    /// Masks the keys that are true, `[B, 1, 1, T]`: padding.
    Padding(Tensor<4, Bool>),
    /// Masks the keys that are true, `[B, 1, T, T]`: segments that must not attend to each other.
    Blocks(Tensor<4, Bool>),
}

/// The language model has no head that regresses visual embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "This language model regresses no visual embeddings. Use a model with a regression head (stu_regress_head)."
)]
pub struct NoRegressionHead;

impl LmConfig {
    /// Creates a language model.
    pub fn init(&self, adapter: Option<&AdapterConfig>, device: &Device) -> Lm {
        self.init_with(&LmInit::default(), adapter, device)
    }

    /// As [`LmConfig::init`], with a choice of the initial weights, which [`LmInit::validate`] accepts.
    pub fn init_with(
        &self,
        start: &LmInit,
        adapter: Option<&AdapterConfig>,
        device: &Device,
    ) -> Lm {
        let d = self.width;
        // The last linear layers of residual branches start small, as in GPT-2.
        let out = Init::Normal(0.02 / (2.0 * self.layers as f32).sqrt());
        let lora = adapter.map(|a| LoraConfig {
            rank: a.rank,
            alpha: a.alpha,
        });
        let adapted = |linear: QLinear| match &lora {
            Some(lora) => linear.with_lora(lora, device),
            None => linear,
        };
        let linear = |heads: usize| QLinear::new(d, heads * self.head_size, false, device);
        let layer = |i: usize| {
            let (q_proj, k_proj) = match start.equal_query_key.filter(|_| i == 0) {
                Some(deviation) => {
                    let normal = Init::Normal(deviation / (d as f32).sqrt());
                    let outputs = self.heads * self.head_size;
                    twins(|| QLinear::with_init(d, outputs, false, normal, device))
                }
                None => (linear(self.heads), linear(self.kv_heads)),
            };
            Layer {
                input_layernorm: RmsNorm::new(d, self.norm_eps, device),
                self_attn: Attention {
                    q_proj: adapted(q_proj),
                    k_proj: adapted(k_proj),
                    v_proj: adapted(linear(self.kv_heads)),
                    o_proj: adapted(QLinear::with_init(
                        self.heads * self.head_size,
                        d,
                        false,
                        out,
                        device,
                    )),
                    fused_qkv: None,
                    heads: self.heads,
                    kv_heads: self.kv_heads,
                },
                post_attention_layernorm: RmsNorm::new(d, self.norm_eps, device),
                mlp: Mlp {
                    gate_proj: QLinear::new(d, self.ffn, false, device),
                    up_proj: QLinear::new(d, self.ffn, false, device),
                    down_proj: QLinear::with_init(self.ffn, d, false, out, device),
                    fused_gate_up: None,
                },
            }
        };
        Lm {
            // Rows of about unit norm, since a tied head multiplies normalised hidden states with them.
            embed_tokens: QEmbedding::new(self.vocab, d, (d as f32).powf(-0.5), device),
            layers: (0..self.layers).map(layer).collect(),
            norm: RmsNorm::new(d, self.norm_eps, device),
            lm_head: (!self.tied).then(|| QLinear::new(d, self.vocab, false, device)),
            stu_regress_head: Some(QLinear::new(d, d, false, device)),
            rope: self.rope_base.into(),
            head_size: self.head_size,
            kv_heads: self.kv_heads,
            throttle: Throttle::default(),
        }
    }
}

impl DecodeModel for Lm {
    fn decode(&self, token: Tensor<1, Int>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull> {
        // For non-finite logits the sampler writes -1 as the token, which is reported at its read-back.
        let token = match self.embed_tokens.is_packed() {
            true => token,
            false => token.clamp_min(0),
        };
        self.step_tokens(token.reshape([1, 1]), cache)
    }

    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        Lm::logits(self, hidden)
    }
}

impl Lm {
    /// Sets the dropout probability of the LoRA adapters' inputs in training.
    pub fn with_lora_dropout(mut self, probability: f64) -> Self {
        for layer in &mut self.layers {
            let attention = &mut layer.self_attn;
            let projections = [
                &mut attention.q_proj,
                &mut attention.k_proj,
                &mut attention.v_proj,
                &mut attention.o_proj,
            ];
            for lora in projections.into_iter().filter_map(|p| p.lora.as_mut()) {
                lora.dropout = probability;
            }
        }
        self
    }

    /// Fuses packed weights that share an input (QKV; gate and up), so that they take one matmul. If no other clone of
    /// the model exists, this needs device memory for one additional layer.
    pub fn fuse(mut self) -> Self {
        let device = self.norm.weight.lazy_device();
        for Layer { self_attn, mlp, .. } in &mut self.layers {
            let Attention {
                q_proj,
                k_proj,
                v_proj,
                ..
            } = self_attn;
            self_attn.fused_qkv =
                QLinear::fuse([q_proj, k_proj, v_proj]).or(self_attn.fused_qkv.take());
            let Mlp {
                gate_proj, up_proj, ..
            } = mlp;
            mlp.fused_gate_up = QLinear::fuse([gate_proj, up_proj]).or(mlp.fused_gate_up.take());
            // The parts are freed, and no later tensor has their sizes.
            device.memory_cleanup();
        }
        self
    }

    /// Sets how matmuls with packed weights treat their activations, by the scheme of the weights: for the layers and
    /// the logits. The regression head's activations stay unquantized, since its outputs condition the image decoder.
    pub fn with_activations(mut self, choose: fn(Scheme) -> Activations) -> Self {
        let fused = |packed: &mut Option<Packed>| {
            *packed = packed
                .take()
                .map(|packed| packed.with_activations_by(choose));
        };
        for Layer { self_attn, mlp, .. } in &mut self.layers {
            let linears = [
                &mut self_attn.q_proj,
                &mut self_attn.k_proj,
                &mut self_attn.v_proj,
                &mut self_attn.o_proj,
                &mut mlp.gate_proj,
                &mut mlp.up_proj,
                &mut mlp.down_proj,
            ];
            for linear in linears {
                packed::set_activations(&mut linear.weight, choose);
            }
            fused(&mut self_attn.fused_qkv);
            fused(&mut mlp.fused_gate_up);
        }
        if let Some(head) = &mut self.lm_head {
            packed::set_activations(&mut head.weight, choose);
        }
        packed::set_activations(&mut self.embed_tokens.weight, choose);
        self
    }

    /// Whether layers may quantize activations. The last bits of a sum, which depend on the number of positions that are
    /// computed together, then decide between two bytes, and may turn an answer.
    pub fn rounds(&self) -> bool {
        self.layers.iter().any(|Layer { self_attn, mlp, .. }| {
            let fused = [&self_attn.fused_qkv, &mlp.fused_gate_up];
            let plain = [
                &self_attn.q_proj,
                &self_attn.k_proj,
                &self_attn.v_proj,
                &self_attn.o_proj,
                &mlp.gate_proj,
                &mlp.up_proj,
                &mlp.down_proj,
            ];
            let fused = fused.into_iter().flatten().any(Packed::rounds);
            let plain = plain.iter().any(|linear| packed::rounds(&linear.weight));
            fused || plain
        })
    }

    /// Bytes of weights that one token reads: all layers, the final norm, the head.
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(
            |Layer {
                 self_attn: a,
                 mlp: m,
                 ..
             }| {
                let linears = [
                    &a.q_proj,
                    &a.k_proj,
                    &a.v_proj,
                    &a.o_proj,
                    &m.gate_proj,
                    &m.up_proj,
                    &m.down_proj,
                ];
                let fused = [&a.fused_qkv, &m.fused_gate_up].into_iter().flatten();
                linears.map(QLinear::bytes).iter().sum::<u64>()
                    + fused.map(Packed::bytes).sum::<u64>()
            },
        );
        let head = match &self.lm_head {
            Some(head) => head.bytes(),
            None => packed::bytes(&self.embed_tokens.weight),
        };
        let width = self.norm.weight.lazy_shape().num_elements();
        layers.sum::<u64>() + head + 4 * (width * (2 * self.layers.len() + 1)) as u64
    }

    /// Token embeddings, `[B, T]` to `[B, T, D]`.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Next-token logits of final hidden states, `[B, T, D]` to `[B, T, vocab]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => self.embed_tokens.project(hidden),
        }
    }

    /// Removes the regression head: a text-only language model.
    pub fn alone(mut self) -> Self {
        self.stu_regress_head = None;
        self
    }

    /// Sets the divisors of the RoPE frequencies: one for each, or none.
    pub fn with_rope_divisors(mut self, divisors: Vec<f64>) -> Self {
        self.rope.divisors = divisors;
        self
    }

    /// Regresses the next visual embeddings from final hidden states, `[B, T, D]`.
    ///
    /// # Errors
    /// If the model has no regression head.
    pub fn regress(&self, hidden: Tensor<3>) -> Result<Tensor<3>, NoRegressionHead> {
        let head = self.stu_regress_head.as_ref().ok_or(NoRegressionHead)?;
        Ok(head.forward(hidden))
    }

    /// An empty KV cache.
    pub fn cache(&self, batch: usize, capacity: usize) -> KvCache {
        let device = self.embed_tokens.weight.lazy_device();
        let dims = [batch, self.kv_heads, capacity, self.head_size];
        KvCache::new(self.layers.len(), dims, self.rope.clone(), &device)
    }

    /// Final hidden states of whole sequences, without a cache.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]`; `positions`: B rows (or one for all) of T
    /// - returns `[B, T, D]`, after the final norm
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: &[Vec<usize>],
        visibility: &Visibility,
    ) -> Tensor<3> {
        self.forward_probed(x, positions, visibility, &mut Probe::off())
    }

    /// As [`Lm::forward`], reporting intermediate tensors to the probe.
    pub fn forward_probed(
        &self,
        mut x: Tensor<3>,
        positions: &[Vec<usize>],
        visibility: &Visibility,
        probe: &mut Probe,
    ) -> Tensor<3> {
        let tables = RopeTables::new(positions, self.head_size, self.rope.clone(), &x.device());
        for (i, layer) in self.layers.iter().enumerate() {
            let h = layer.self_attn.forward(
                layer.input_layernorm.forward(x.clone()),
                &tables,
                visibility,
            );
            probe.see(format_args!("layer{i}.attn"), &h);
            x = x + h;
            let h = layer
                .mlp
                .forward(layer.post_attention_layernorm.forward(x.clone()));
            probe.see(format_args!("layer{i}.mlp"), &h);
            x = x + h;
            probe.see(format_args!("layer{i}.out"), &x);
        }
        let x = self.norm.forward(x);
        probe.see(format_args!("final_norm"), &x);
        x
    }

    /// Appends T positions to the KV cache and returns their final hidden states. Positions continue from the cache's
    /// length.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]`, returned in the same shape
    ///
    /// # Errors
    /// If the cache is full.
    pub fn step(&self, x: Tensor<3>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull> {
        let [_, t, _] = x.dims();
        cache.extend(t)?;
        self.layers(x, cache)
    }

    /// As [`Lm::step`], for token ids, `[B, T]` to `[B, T, D]`. Consecutive single-token steps upload nothing: with the
    /// ids on the device, a step is one submission.
    ///
    /// # Errors
    /// If the cache is full.
    pub fn step_tokens(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Result<Tensor<3>, CacheFull> {
        let [_, t] = ids.dims();
        cache.extend(t)?;
        self.layers(self.embed(ids), cache)
    }

    fn layers(&self, mut x: Tensor<3>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull> {
        for (layer, keys) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.step(x, &cache.rope, keys)?;
        }
        Ok(self.norm.forward(x))
    }
}

impl Layer {
    /// Appends positions to this layer's cache: `[B, T, D]` in and out.
    ///
    /// # Errors
    /// If the cache is full.
    pub fn step(
        &self,
        x: Tensor<3>,
        tables: &RopeTables,
        cache: &mut LayerCache,
    ) -> Result<Tensor<3>, CacheFull> {
        let qkv = self.self_attn.qkv(self.input_layernorm.forward(x.clone()));
        let q = ops::rope_append(qkv, tables, cache)?;
        let h = ops::decode_attention(q, cache, None);
        let x = self.self_attn.o_proj.forward_add(h, x);
        let h = self
            .mlp
            .gate(self.post_attention_layernorm.forward(x.clone()));
        Ok(self.mlp.down_proj.forward_add(h, x))
    }
}

impl Attention {
    /// Fused QKV projection, `[B, T, (H + 2 G)·E]`.
    fn qkv(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.fused_qkv {
            Some(fused) => fused.linear(x, None),
            None => {
                let parts = [&self.q_proj, &self.k_proj, &self.v_proj];
                Tensor::cat(parts.map(|part| part.forward(x.clone())).to_vec(), 2)
            }
        }
    }

    fn project(&self, x: Tensor<3>) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let [b, t, _] = x.dims();
        if self.fused_qkv.is_some() {
            let qkv = self.qkv(x);
            let e = qkv.dims()[2] / (self.heads + 2 * self.kv_heads);
            let part = |from: usize, heads: usize| {
                let part = qkv.clone().narrow(2, from * e, heads * e);
                part.reshape([b, t, heads, e]).swap_dims(1, 2) // [B, n, T, E]
            };
            let (h, g) = (self.heads, self.kv_heads);
            return (part(0, h), part(h, g), part(h + g, g));
        }
        let heads = |y: Tensor<3>, n: usize| {
            let [_, _, inner] = y.dims();
            y.reshape([b, t, n, inner / n]).swap_dims(1, 2) // [B, n, T, E]
        };
        (
            heads(self.q_proj.forward(x.clone()), self.heads),
            heads(self.k_proj.forward(x.clone()), self.kv_heads),
            heads(self.v_proj.forward(x), self.kv_heads),
        )
    }

    fn merge(&self, y: Tensor<4>) -> Tensor<3> {
        let [b, h, t, e] = y.dims();
        self.o_proj
            .forward(y.swap_dims(1, 2).reshape([b, t, h * e]))
    }

    fn forward(&self, x: Tensor<3>, tables: &RopeTables, visibility: &Visibility) -> Tensor<3> {
        let (q, k, v) = self.project(x);
        let mask = match visibility {
            Visibility::All => None,
            Visibility::Padding(mask) | Visibility::Blocks(mask) => Some(mask.clone()),
        };
        let options = AttentionOptions {
            causal: true,
            mask,
            ..Default::default()
        };
        self.merge(ops::attention(
            tables.rotate(q),
            tables.rotate(k),
            v,
            options,
        ))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down_proj.forward(self.gate(x))
    }

    /// `silu(gate(x)) * up(x)`
    fn gate(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.fused_gate_up {
            Some(fused) => fused.gated(x),
            None => ops::silu_gate(self.gate_proj.forward(x.clone()), self.up_proj.forward(x)),
        }
    }
}
