//! Sizes of the causal former and the language model.

use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// The causal former between encoder and LM (a T5 decoder). Fields also accept the names of transformers' `T5Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CausalConfig {
    /// Visual embeddings per image.
    pub queries: usize,
    /// Width.
    pub d_model: usize,
    /// Size of a head.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of blocks.
    #[serde(alias = "num_layers")]
    pub layers: usize,
    /// Number of heads.
    #[serde(alias = "num_heads")]
    pub heads: usize,
    /// Buckets of the relative position bias.
    #[serde(alias = "relative_attention_num_buckets")]
    pub buckets: usize,
    /// Distance from which all positions share the last bucket.
    #[serde(alias = "relative_attention_max_distance")]
    pub max_distance: usize,
    /// Eps of its norms, added to the mean square.
    #[serde(alias = "layer_norm_epsilon")]
    pub norm_eps: f64,
    /// Adds to each query the projected encoder token at its raster position (small models; needs as many queries as
    /// patches).
    #[serde(default)]
    pub raster: bool,
}

/// The language model (LLaMA family). Fields also accept the names of transformers' `LlamaConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmConfig {
    /// Vocabulary size, including special tokens.
    #[serde(alias = "vocab_size")]
    pub vocab: usize,
    /// Width.
    #[serde(alias = "hidden_size")]
    pub width: usize,
    /// Width of the feed-forward layer.
    #[serde(alias = "intermediate_size")]
    pub ffn: usize,
    /// Number of layers.
    #[serde(alias = "num_hidden_layers")]
    pub layers: usize,
    /// Query heads.
    #[serde(alias = "num_attention_heads")]
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    #[serde(alias = "num_key_value_heads")]
    pub kv_heads: usize,
    /// Size of a head.
    #[serde(alias = "head_dim")]
    pub head_size: usize,
    /// Context length.
    #[serde(alias = "max_position_embeddings")]
    pub context: usize,
    /// Base of the rotary embedding.
    #[serde(alias = "rope_theta")]
    pub rope_base: f64,
    /// Eps of its norms, added to the mean square.
    #[serde(alias = "rms_norm_eps")]
    pub norm_eps: f64,
    /// The output head shares the embedding table (tied embeddings).
    #[serde(default, alias = "tie_word_embeddings")]
    pub tied: bool,
}

/// Initial weights of a language model that is trained from scratch, where they differ from the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LmInit {
    /// Query and key weights of the first layer are equal, with this standard deviation times sqrt(D). Needs as many key/value
    /// heads as query heads.
    pub equal_query_key: Option<f32>,
}

impl LmInit {
    /// Checks that a language model can start so.
    ///
    /// # Errors
    /// It has fewer key/value heads than query heads, or the deviation is no positive number.
    pub fn validate(&self, sizes: &LmConfig) -> Result<(), ConfigError> {
        let Some(deviation) = self.equal_query_key else {
            return Ok(());
        };
        if !(deviation > 0.0 && deviation.is_finite()) {
            return Err(ConfigError(format!(
                "equal_query_key is {deviation}, which is no positive number"
            )));
        }
        if sizes.heads != sizes.kv_heads {
            return Err(ConfigError(format!(
                "equal_query_key needs as many key/value heads as query heads, and there are {} and {}",
                sizes.kv_heads, sizes.heads
            )));
        }
        Ok(())
    }
}

impl LmConfig {
    /// Elements per position of a layer's widest activation: fused QKV, or fused gate and up projection.
    pub fn widest(&self) -> usize {
        (2 * self.ffn).max((self.heads + 2 * self.kv_heads) * self.head_size)
    }
}

/// LoRA adapters on the LM's attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Rank.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_transformers_too() {
        let theirs = serde_json::json!({
            "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 2, "max_position_embeddings": 16, "rope_theta": 1e4,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        });
        let read: LmConfig = serde_json::from_value(theirs).expect("a configuration");
        let ours = serde_json::to_value(&read).expect("JSON");
        let names = [
            "vocab",
            "width",
            "ffn",
            "layers",
            "heads",
            "kv_heads",
            "head_size",
            "context",
            "rope_base",
            "norm_eps",
            "tied",
        ];
        assert!(names.iter().all(|name| ours.get(name).is_some()), "{ours}");
        let again: LmConfig = serde_json::from_value(ours).expect("a configuration");
        assert_eq!(again, read);
        assert_eq!((read.heads, read.kv_heads, read.tied), (2, 1, true));
    }

    #[test]
    fn equal_queries_and_keys_need_as_many_heads_of_both() {
        let mut sizes = crate::config::EmuConfig::tiny().lm;
        assert_eq!(sizes.heads, sizes.kv_heads);
        let start = |equal_query_key| LmInit { equal_query_key };
        assert_eq!(start(Some(4.0)).validate(&sizes), Ok(()));
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(start(Some(wrong)).validate(&sizes).is_err(), "{wrong}");
        }
        sizes.kv_heads = 1;
        assert!(start(Some(4.0)).validate(&sizes).is_err());
        assert_eq!(start(None).validate(&sizes), Ok(()));
    }

    #[test]
    fn queries_equal_keys_only_where_asked_for_and_in_the_first_layer() {
        let device = burn::tensor::Device::flex();
        let sizes = crate::config::EmuConfig::tiny().lm;
        let equal = |start: &LmInit| -> Vec<bool> {
            let _sequence = emu_kernels::init::seed(2);
            let lm = sizes.init_with(start, None, &device);
            let layers = lm.layers.iter().map(|layer| &layer.self_attn);
            layers
                .map(|attention| {
                    let weights = [&attention.q_proj, &attention.k_proj];
                    let [q, k] = weights.map(|linear| -> Vec<f32> {
                        linear.weight.val().into_data().iter::<f32>().collect()
                    });
                    q == k
                })
                .collect()
        };
        let mut first = vec![false; sizes.layers];
        assert_eq!(equal(&LmInit::default()), first);
        first[0] = true;
        let start = LmInit {
            equal_query_key: Some(4.0),
        };
        assert_eq!(equal(&start), first);
    }
}
