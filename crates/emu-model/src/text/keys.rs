//! The names of GGUF's tensors beside those of [`Lm`](crate::lm::Lm), and the order of their rows.

use emu_pack::{KeyMap, PackError, Rule, TensorData};

/// The output head, absent where it is the embedding table.
pub(super) const HEAD: &str = "output.weight";

/// What LLaMA 3 divides the frequencies of its rotary embedding by.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Of the architecture `llama`.
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
        // Read apart: no parameter.
        [ROPE_FACTORS],
    )
}

/// Puts the rows of a projection to queries or keys back in order; other tensors stay as they are.
///
/// llama.cpp rotates neighbouring elements of a head, and its converter therefore interleaves the two halves of each:
/// rows 0, E/2, 1, E/2 + 1, .. of a head of E. The rope here turns element i with element i + E/2, as LLaMA's own.
/// Rows move as wholes, so that this holds for every tensor of a packed matrix too: words, scales and minima.
///
/// `heads`: of queries, and of keys.
pub(super) fn rope_halves(
    mut tensor: TensorData,
    heads: (usize, usize),
) -> Result<TensorData, PackError> {
    let name = &tensor.info.name;
    let heads = if name.contains(".q_proj.") {
        heads.0
    } else if name.contains(".k_proj.") {
        heads.1
    } else {
        return Ok(tensor);
    };
    let rows = tensor.info.shape.first().copied().unwrap_or(0);
    let pair = 2 * heads;
    if pair == 0 || !rows.is_multiple_of(pair) || !tensor.bytes.len().is_multiple_of(rows.max(1)) {
        return Err(PackError::Misshapen {
            file: "weights".into(),
            tensor: name.clone(),
            expected: format!("{heads} heads of even size"),
            found: tensor.info.describe(),
        });
    }
    let (row, half) = (tensor.bytes.len() / rows.max(1), rows / pair);
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for head in 0..heads {
        for side in 0..2 {
            for i in 0..half {
                let from = (head * 2 * half + 2 * i + side) * row;
                bytes.extend_from_slice(tensor.bytes.get(from..from + row).unwrap_or_default());
            }
        }
    }
    tensor.bytes = bytes;
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights;
    use burn::tensor::Device;
    use emu_pack::Dtype;

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
    fn rows_of_queries_and_keys_get_their_order_back() {
        // Two heads of four rows, a byte each, as llama.cpp's converter writes 0..8.
        let interleaved = vec![0, 2, 1, 3, 4, 6, 5, 7];
        let tensor = |name: &str| {
            TensorData::new(name, Dtype::U8, vec![8, 1], interleaved.clone()).expect("a tensor")
        };
        let straight: Vec<u8> = (0..8).collect();
        let read = |name: &str, heads| rope_halves(tensor(name), heads).map(|t| t.bytes);
        let (q, k) = (
            "layers.0.self_attn.q_proj.weight",
            "layers.0.self_attn.k_proj.weight",
        );
        assert_eq!(read(q, (2, 1)).expect("rows"), straight);
        assert_eq!(read(k, (1, 2)).expect("rows"), straight);
        assert_eq!(
            read("layers.0.self_attn.v_proj.weight", (2, 2)).expect("rows"),
            interleaved
        );
        assert_eq!(read(q, (3, 1)).expect_err("odd").code(), "misshapen");
    }
}
