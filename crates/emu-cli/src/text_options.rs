//! Options of text generation and beam search from the command line, and the log-probabilities that it prints.

use anyhow::{Result, bail};
use emu_kernels::sample::{Logprobs, Processors, Sampling};
use emu_model::config::GenerationConfig;
use emu_model::generate::{BeamOptions, TextOptions, options};
use emu_tokenizer::DecodeStream;
use serde_json::{Value, json};

use crate::args::TextArgs;

/// Logits processors from the arguments; the model's defaults fill the gaps.
fn processors(args: &TextArgs, model: &GenerationConfig) -> Processors {
    let penalty = args.repetition_penalty.or(model.repetition_penalty);
    Processors {
        repetition_penalty: penalty.unwrap_or(1.0),
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        logit_bias: args.logit_bias.clone(),
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
    options::stops(&args.stop)?;
    let samples = args.temperature != 0.0 || args.top_k > 0 || args.top_p < 1.0 || args.min_p > 0.0;
    if args.beams > 1 && samples {
        bail!(
            "A beam search does not sample. Leave out --temperature, --top-k, --top-p and --min-p, or use one beam."
        );
    }
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
            min_p: args.min_p,
        },
        seed,
        images,
        // Image tokens are not banned: without drawing, the caller ends the text there.
        ban_images: false,
        ..Default::default()
    }
}

/// The log-probabilities of a token, as they are printed.
pub fn logprobs_json(logprobs: &Logprobs, decoder: &DecodeStream) -> Value {
    let token = |token: u32, logprob: f32| {
        // Ids without text exist where a vocabulary is padded.
        let bytes = decoder.bytes(token).unwrap_or_default();
        json!({
            "id": token, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob,
        })
    };
    let mut chosen = token(logprobs.token, logprobs.logprob);
    let top = logprobs.top.iter().map(|&(id, logprob)| token(id, logprob));
    chosen["top"] = top.collect();
    chosen
}
