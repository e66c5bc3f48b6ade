//! Key maps: names of checkpoint tensors to names of this crate's parameters, as data.
//!
//! Field names follow the checkpoints wherever Rust allows, so few rules are needed.

use emu_pack::{KeyMap, PackError, Rule};

/// Key map of a UNet's `diffusion_pytorch_model`.
///
/// # Errors
/// If a rule below is malformed; otherwise never.
pub fn unet() -> Result<KeyMap, PackError> {
    let attention = |name: &str| {
        let old =
            format!("{{level}}_blocks.{{i}}.attentions.{{j}}.transformer_blocks.{{k}}.{name}");
        let mid = format!("mid_block.attentions.{{j}}.transformer_blocks.{{k}}.{name}");
        [old, mid]
    };
    let mut rules = vec![];
    for (theirs, ours) in [
        ("attn{a}.to_out.0.{p}", "attn{a}.to_out.{p}"),
        ("ff.net.0.proj.{p}", "ff.gated.{p}"),
        ("ff.net.2.{p}", "ff.out.{p}"),
    ] {
        rules.extend(
            attention(theirs)
                .into_iter()
                .zip(attention(ours))
                .map(|(theirs, ours)| Rule::new(theirs, ours)),
        );
    }
    rules.push(Rule::same("{all..}"));
    KeyMap::new(rules, [])
}

/// Key map of an AutoencoderKL's `diffusion_pytorch_model`. The attention of the mid block has old and new names.
///
/// # Errors
/// If a rule below is malformed; otherwise never.
pub fn vae() -> Result<KeyMap, PackError> {
    let mut rules = vec![];
    for (older, newer, ours) in [
        ("query", "to_q", "to_q"),
        ("key", "to_k", "to_k"),
        ("value", "to_v", "to_v"),
        ("proj_attn", "to_out.0", "to_out"),
    ] {
        let at = |name: &str| format!("{{part}}.mid_block.attentions.{{i}}.{name}.{{p}}");
        rules.push(Rule::new(at(older), at(ours)));
        rules.push(Rule::alias(at(newer), at(ours)));
    }
    rules.push(Rule::same("{all..}"));
    KeyMap::new(rules, [])
}

/// Key map of a StableDiffusionSafetyChecker's `model.safetensors`.
///
/// # Errors
/// If a rule below is malformed; otherwise never.
pub fn safety() -> Result<KeyMap, PackError> {
    KeyMap::new(
        [
            Rule::new(
                "vision_model.vision_model.encoder.layers.{rest..}",
                "vision_model.layers.{rest..}",
            ),
            Rule::new(
                "vision_model.vision_model.embeddings.class_embedding",
                "vision_model.class_embedding",
            ),
            Rule::new(
                "vision_model.vision_model.embeddings.{what}_embedding.weight",
                "vision_model.{what}_embedding.weight",
            ),
            Rule::new(
                "vision_model.vision_model.{rest..}",
                "vision_model.{rest..}",
            ),
            Rule::same("{name}"),
            Rule::same("visual_projection.weight"),
        ],
        // Buffer with the position ids 0, 1, 2, .. that older versions of transformers save.
        ["vision_model.vision_model.embeddings.position_ids"],
    )
}
