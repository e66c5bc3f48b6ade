//! `--quantize`: the built-in quantization policies, under short names.

use emu_pack::PackError;
use emu_pack::convert::Policy;

/// Precisions of `--quantize`, the most accurate first.
pub const PRECISIONS: [&str; 4] = ["none", "f16", "q8", "q4"];

/// Name and TOML text of each policy.
const PRESETS: [(&str, &str); 2] = [
    ("q8", include_str!("../../../../configs/quantize/q8.toml")),
    ("q4", include_str!("../../../../configs/quantize/q4.toml")),
];

/// The policy of an argument: `none`, `f16`, `q8`, `q4`, or the path of a TOML file.
///
/// # Errors
/// An unknown name, or a file that cannot be read or is no policy.
pub fn policy(argument: &str) -> Result<Policy, PackError> {
    match PRESETS.iter().find(|(name, _)| *name == argument) {
        Some((_, text)) => Policy::from_toml(text),
        None => Policy::from_argument(argument),
    }
}

#[cfg(test)]
mod tests {
    use emu_pack::Scheme::{Q4, Q8};
    use emu_pack::convert::Precision::{F16, Quantized};

    use super::*;

    #[test]
    fn every_precision_has_a_policy() {
        for name in PRECISIONS {
            policy(name).expect(name);
        }
    }

    #[test]
    fn presets_say_what_the_documentation_says() {
        let (q8, q4) = (policy("q8").expect("q8"), policy("q4").expect("q4"));
        for (name, dims, eight, four) in [
            (
                "lm.layers.0.mlp.up_proj.weight",
                2,
                Quantized(Q8),
                Quantized(Q4),
            ),
            (
                "visual.blocks.0.attn.qkv.weight",
                2,
                Quantized(Q8),
                Quantized(Q4),
            ),
            ("lm.embed_tokens.weight", 2, Quantized(Q8), Quantized(Q8)),
            ("lm.lm_head.weight", 2, Quantized(Q8), Quantized(Q8)),
            (
                "lm.stu_regress_head.weight",
                2,
                Quantized(Q8),
                Quantized(Q8),
            ),
            (
                "unet.mid_block.resnets.0.conv1.weight",
                4,
                Quantized(Q8),
                Quantized(Q8),
            ),
            (
                "unet.mid_block.resnets.0.time_emb_proj.weight",
                2,
                Quantized(Q8),
                Quantized(Q4),
            ),
            ("vae.decoder.conv_in.weight", 4, F16, F16),
            (
                "vae.decoder.mid_block.attentions.0.to_q.weight",
                2,
                F16,
                F16,
            ),
            ("safety.concept_embeds", 2, F16, F16),
            (
                "safety.visual_projection.weight",
                2,
                Quantized(Q8),
                Quantized(Q8),
            ),
            ("lm.layers.3.self_attn.q_proj.lora.a", 2, F16, F16),
        ] {
            assert_eq!(q8.precision(name, dims), eight, "q8 {name}");
            assert_eq!(q4.precision(name, dims), four, "q4 {name}");
        }
        assert_eq!(policy("q5").expect_err("no such").code(), "bad-policy");
    }
}
