//! Key map from GGUF tensors to [`Lm`](crate::lm::Lm), and the row order of projections.

use emu_pack::{KeyMap, PackError, Rule};

/// The output head, absent if it is tied to the embedding table.
pub(super) const HEAD: &str = "output.weight";

/// LLaMA 3's divisors of the rotary frequencies.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Key map of the architecture `llama`.
pub(super) fn gguf() -> Result<KeyMap, PackError> {
    let layer = |gguf: &str, own: &str| {
        Rule::new(
            format!("blk.{{i}}.{gguf}.weight"),
            format!("layers.{{i}}.{own}.weight"),
        )
    };
    KeyMap::new(
        [
            Rule::new("token_embd.weight", "embed_tokens.weight"),
            Rule::new("output_norm.weight", "norm.weight"),
            Rule::new(HEAD, "lm_head.weight"),
            layer("attn_norm", "input_layernorm"),
            layer("attn_q", "self_attn.q_proj"),
            layer("attn_k", "self_attn.k_proj"),
            layer("attn_v", "self_attn.v_proj"),
            layer("attn_output", "self_attn.o_proj"),
            layer("ffn_norm", "post_attention_layernorm"),
            layer("ffn_gate", "mlp.gate_proj"),
            layer("ffn_up", "mlp.up_proj"),
            layer("ffn_down", "mlp.down_proj"),
        ],
        // Read separately: not a parameter.
        [ROPE_FACTORS],
    )
}

/// Number of heads of a query or key projection, whose rows the file interleaves in two halves per head; `None` for
/// other tensors.
///
/// llama.cpp rotates adjacent elements of a head, so its converter interleaves the two halves of each head. RoPE here
/// rotates element i with element i + E/2, as in LLaMA.
///
/// `heads`: number of query heads and of key heads.
pub(super) fn rope_halves(name: &str, heads: (usize, usize)) -> Option<usize> {
    if name.contains(".q_proj.") {
        Some(heads.0)
    } else if name.contains(".k_proj.") {
        Some(heads.1)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights;
    use burn::tensor::Device;

    #[test]
    fn every_parameter_has_a_name_in_the_file() {
        let config = crate::EmuConfig::tiny().lm;
        let map = gguf().expect("a map");
        let lm = config.init(None, &Device::flex()).alone();
        for (name, _) in weights::parameters(&lm) {
            assert!(map.to_checkpoint(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn queries_and_keys_alternate() {
        let halves = |name: &str| rope_halves(&format!("layers.0.self_attn.{name}.weight"), (9, 3));
        assert_eq!(halves("q_proj"), Some(9));
        assert_eq!(halves("k_proj"), Some(3));
        assert_eq!(halves("v_proj"), None);
    }
}
