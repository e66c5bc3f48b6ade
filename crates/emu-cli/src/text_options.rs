//! Options of text generation and beam search from the command line.

use anyhow::Result;
use emu_kernels::sample::{Processors, Sampling};
use emu_model::config::GenerationConfig;
use emu_model::generate::{BeamOptions, TextOptions};

use crate::args::TextArgs;

/// Logits processors from the arguments; the model's defaults fill the gaps.
fn processors(args: &TextArgs, model: &GenerationConfig) -> Processors {
    let penalty = args.repetition_penalty.or(model.repetition_penalty);
    Processors {
        repetition_penalty: penalty.unwrap_or(1.0),
        no_repeat_ngram: args.no_repeat_ngram,
        min_length: 0,
    }
}

/// Validates the text arguments before a model is loaded.
///
/// # Errors
/// Where an argument is out of range.
pub fn check(args: &TextArgs) -> Result<()> {
    let plain = GenerationConfig::default();
    text_options(args, &plain, 0, false).validate()?;
    Ok(beam_options(args, &plain).validate()?)
}

/// Beam search options from the arguments; the model's defaults fill the gaps.
pub fn beam_options(args: &TextArgs, model: &GenerationConfig) -> BeamOptions {
    BeamOptions {
        beams: args.beams,
        max_new_tokens: args.max_new_tokens,
        length_penalty: args.length_penalty,
        processors: processors(args, model),
        ban_images: true,
    }
}

/// Generation options from the arguments; the model's defaults fill the gaps.
pub fn text_options(
    args: &TextArgs,
    model: &GenerationConfig,
    seed: u64,
    images: bool,
) -> TextOptions {
    TextOptions {
        max_new_tokens: args.max_new_tokens,
        processors: processors(args, model),
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
        },
        seed,
        images,
        // Image tokens are not banned: without drawing, the caller ends the text there.
        ban_images: false,
        ..Default::default()
    }
}
