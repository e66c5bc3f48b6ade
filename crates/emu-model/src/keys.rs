//! Key maps of checkpoints: names of checkpoint tensors to names of this crate's parameters.
//!
//! A parameter is named by its field path. The rules of [`emu_pack::KeyMap`] below are data; the first match wins.

use emu_pack::{KeyMap, PackError, Rule};

/// peft's name of a projection of the LM's attention.
const PEFT: &str = "decoder.lm.base_model.model.model.layers.{i}.self_attn.{p}";

/// Key map of the released Emu checkpoints: pretrained, and instruct with peft's names (0.4 and newer).
///
/// # Errors
/// Never: the rules are constant and tested.
pub fn emu() -> Result<KeyMap, PackError> {
    let rules = [
        // causal former: the decoder of a T5
        Rule::new("cformer.causal_tokens", "cformer.causal_tokens"),
        Rule::new("cformer.projection.{rest..}", "cformer.projection.{rest..}"),
        Rule::new(
            "cformer.cformer.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "cformer.relative_bias.weight",
        ),
        Rule::new(
            "cformer.cformer.final_layer_norm.weight",
            "cformer.final_norm.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.0.SelfAttention.{p}.weight",
            "cformer.blocks.{i}.self_attn.{p}.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.0.layer_norm.weight",
            "cformer.blocks.{i}.self_norm.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.1.EncDecAttention.{p}.weight",
            "cformer.blocks.{i}.cross_attn.{p}.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.1.layer_norm.weight",
            "cformer.blocks.{i}.cross_norm.weight",
        ),
        // Listed individually: with a placeholder, the reverse mapping would also match the norms of a block.
        Rule::new(
            "cformer.cformer.block.{i}.layer.2.DenseReluDense.wi.weight",
            "cformer.blocks.{i}.wi.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.2.DenseReluDense.wo.weight",
            "cformer.blocks.{i}.wo.weight",
        ),
        Rule::new(
            "cformer.cformer.block.{i}.layer.2.layer_norm.weight",
            "cformer.blocks.{i}.ff_norm.weight",
        ),
        // language model with LoRA adapters
        Rule::new(
            format!("{PEFT}.lora_A.default.weight"),
            "lm.layers.{i}.self_attn.{p}.lora.a",
        ),
        Rule::new(
            format!("{PEFT}.lora_B.default.weight"),
            "lm.layers.{i}.self_attn.{p}.lora.b",
        ),
        Rule::alias(
            format!("{PEFT}.base_layer.weight"),
            "lm.layers.{i}.self_attn.{p}.weight",
        ),
        Rule::alias("decoder.lm.base_model.model.model.{rest..}", "lm.{rest..}"),
        Rule::alias(
            "decoder.lm.base_model.model.stu_regress_head.weight",
            "lm.stu_regress_head.weight",
        ),
        Rule::alias(
            "decoder.lm.base_model.model.lm_head.weight",
            "lm.lm_head.weight",
        ),
        // language model
        Rule::new(
            "decoder.lm.stu_regress_head.weight",
            "lm.stu_regress_head.weight",
        ),
        Rule::new("decoder.lm.lm_head.weight", "lm.lm_head.weight"),
        Rule::new("decoder.lm.model.{rest..}", "lm.{rest..}"),
        // vision encoder
        Rule::new("visual.{rest..}", "visual.{rest..}"),
        Rule::new("ln_visual.{rest..}", "ln_visual.{rest..}"),
    ];
    let ignored = [
        "visual.norm.{p}",
        "visual.head.{p}",
        "cformer.cformer.embed_tokens.weight",
        "decoder.lm.model.layers.{i}.self_attn.rotary_emb.inv_freq",
        "decoder.lm.base_model.model.model.layers.{i}.self_attn.rotary_emb.inv_freq",
    ];
    KeyMap::new(rules, ignored)
}

/// Key map of the instruct checkpoint: as [`emu`], but the reverse mapping uses peft's names.
///
/// # Errors
/// Never: the rules are constant and tested.
pub fn emu_instruct() -> Result<KeyMap, PackError> {
    let rules = [
        Rule::new(
            "decoder.lm.base_model.model.stu_regress_head.weight",
            "lm.stu_regress_head.weight",
        ),
        Rule::new(
            "decoder.lm.base_model.model.lm_head.weight",
            "lm.lm_head.weight",
        ),
        Rule::new(
            format!("{PEFT}.lora_A.default.weight"),
            "lm.layers.{i}.self_attn.{p}.lora.a",
        ),
        Rule::new(
            format!("{PEFT}.lora_B.default.weight"),
            "lm.layers.{i}.self_attn.{p}.lora.b",
        ),
        Rule::alias(
            format!("{PEFT}.base_layer.weight"),
            "lm.layers.{i}.self_attn.{p}.weight",
        ),
        Rule::new("decoder.lm.base_model.model.model.{rest..}", "lm.{rest..}"),
    ];
    Ok(KeyMap::new(rules, [])?.then(emu()?))
}
