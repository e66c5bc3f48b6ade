//! Valid ranges of generation options. Every step machine checks them on creation; a program checks them before it
//! loads a model.

use std::fmt::Display;
use std::ops::RangeInclusive;

use emu_kernels::sample::{Processors, Sampling};

use super::{BeamOptions, GenerateError, TextOptions};

/// Largest number of beams: each has its own KV cache.
const MAX_BEAMS: usize = 32;
/// Temperatures other than 0. Below, logits divided by the temperature overflow; above, all tokens are equally likely.
const TEMPERATURES: RangeInclusive<f32> = 1e-3..=1e3;
/// Repetition penalties. Outside, products with logits overflow.
const PENALTIES: RangeInclusive<f32> = 0.01..=100.0;
/// Presence and frequency penalties, as in OpenAI's API.
const OCCURRENCE_PENALTIES: RangeInclusive<f32> = -2.0..=2.0;
/// Biases of tokens, as in OpenAI's API.
const BIASES: RangeInclusive<f32> = -100.0..=100.0;
/// Largest number of most likely tokens with log-probabilities, as in OpenAI's API.
const MAX_TOP_LOGPROBS: usize = 20;
/// Length penalties. Outside, powers of the length overflow.
const LENGTH_PENALTIES: RangeInclusive<f32> = -5.0..=5.0;

fn wrong(
    option: &'static str,
    value: impl Display,
    advice: &'static str,
) -> Result<(), GenerateError> {
    Err(GenerateError::Option {
        option,
        value: value.to_string(),
        advice,
    })
}

fn tokens(max_new_tokens: usize) -> Result<(), GenerateError> {
    match max_new_tokens {
        0 => wrong("max-new-tokens", 0, "Give at least 1."),
        _ => Ok(()),
    }
}

fn processors(processors: &Processors) -> Result<(), GenerateError> {
    let penalty = processors.repetition_penalty;
    if !PENALTIES.contains(&penalty) {
        return wrong(
            "repetition-penalty",
            penalty,
            "Give a number from 0.01 to 100; 1 changes nothing, 1.1 is usual.",
        );
    }
    for (option, penalty) in occurrence_penalties(processors) {
        if !OCCURRENCE_PENALTIES.contains(&penalty) {
            return wrong(
                option,
                penalty,
                "Give a number from -2 to 2; 0 changes nothing, and above 0 words repeat less.",
            );
        }
    }
    let mut biases = processors.logit_bias.iter();
    match biases.find(|(_, bias)| !BIASES.contains(bias)) {
        None => Ok(()),
        Some((token, bias)) => wrong(
            "logit-bias",
            format!("{bias} for the token {token}"),
            "Give numbers from -100, which bans a token, to 100.",
        ),
    }
}

fn occurrence_penalties(processors: &Processors) -> [(&'static str, f32); 2] {
    [
        ("presence-penalty", processors.presence_penalty),
        ("frequency-penalty", processors.frequency_penalty),
    ]
}

/// Checks stop strings, which the caller applies to the text.
///
/// # Errors
/// [`GenerateError::Option`] if one is empty.
pub fn stops(stops: &[String]) -> Result<(), GenerateError> {
    match stops.iter().any(String::is_empty) {
        true => wrong("stop", "\"\"", "Give strings of at least one character."),
        false => Ok(()),
    }
}

fn sampling(sampling: &Sampling) -> Result<(), GenerateError> {
    let Sampling {
        temperature,
        top_p,
        min_p,
        ..
    } = *sampling;
    if temperature != 0.0 && !TEMPERATURES.contains(&temperature) {
        return wrong(
            "temperature",
            temperature,
            "Give 0 for the most likely token, or a number from 0.001 to 1000.",
        );
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return wrong("top-p", top_p, "Give a number above 0 and at most 1.");
    }
    if !(0.0..=1.0).contains(&min_p) {
        return wrong(
            "min-p",
            min_p,
            "Give a number from 0 to 1; 0 changes nothing.",
        );
    }
    Ok(())
}

impl TextOptions {
    /// Checks everything that does not depend on a model.
    ///
    /// # Errors
    /// [`GenerateError::Option`] names the first option that is out of range.
    pub fn validate(&self) -> Result<(), GenerateError> {
        tokens(self.max_new_tokens)?;
        processors(&self.processors)?;
        sampling(&self.sampling)?;
        match self.logprobs {
            Some(top) if top > MAX_TOP_LOGPROBS => {
                wrong("top-logprobs", top, "Give a whole number from 0 to 20.")
            }
            _ => Ok(()),
        }
    }

    /// Checks that the biased tokens are in the vocabulary.
    pub(super) fn check_vocabulary(&self, vocab: usize) -> Result<(), GenerateError> {
        let mut biased = self.processors.logit_bias.iter();
        match biased.find(|(token, _)| *token as usize >= vocab) {
            None => Ok(()),
            Some((token, _)) => wrong(
                "logit-bias",
                format!("for the token {token}, which the model's vocabulary lacks"),
                "Give the ids of tokens that it has.",
            ),
        }
    }
}

impl BeamOptions {
    /// Checks everything that does not depend on a model.
    ///
    /// # Errors
    /// [`GenerateError::Option`] names the first option that is out of range.
    pub fn validate(&self) -> Result<(), GenerateError> {
        if !(1..=MAX_BEAMS).contains(&self.beams) {
            return wrong("beams", self.beams, "Give a whole number from 1 to 32.");
        }
        if !LENGTH_PENALTIES.contains(&self.length_penalty) {
            return wrong(
                "length-penalty",
                self.length_penalty,
                "Give a number from -5 to 5; -1 is usual for captions.",
            );
        }
        tokens(self.max_new_tokens)?;
        processors(&self.processors)?;
        match self.beams {
            1 => Ok(()),
            _ => self.check_search(),
        }
    }

    /// Checks that there is nothing that a beam search does not apply.
    pub(super) fn check_search(&self) -> Result<(), GenerateError> {
        const ADVICE: &str = "A beam search does not apply it. Leave it out, or use one beam.";
        for (option, penalty) in occurrence_penalties(&self.processors) {
            if penalty != 0.0 {
                return wrong(option, penalty, ADVICE);
            }
        }
        match self.processors.logit_bias.is_empty() {
            true => Ok(()),
            false => wrong("logit-bias", "given", ADVICE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONSENSE: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e30];

    /// Name of the rejected option, if any.
    fn named(result: Result<(), GenerateError>) -> Option<&'static str> {
        match result {
            Ok(()) => None,
            Err(error @ GenerateError::Option { .. }) => {
                assert_eq!(error.code(), "bad-option");
                let GenerateError::Option { option, .. } = error else {
                    return None;
                };
                Some(option)
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn options_of_texts_out_of_range_are_named() {
        let with = |change: &dyn Fn(&mut TextOptions)| {
            let mut options = TextOptions::default();
            change(&mut options);
            named(options.validate())
        };
        assert_eq!(with(&|_| ()), None);
        assert_eq!(with(&|o| o.max_new_tokens = 0), Some("max-new-tokens"));
        assert_eq!(with(&|o| o.max_new_tokens = usize::MAX), None);
        for value in NONSENSE.into_iter().chain([-0.1, 1e-20, 1e4]) {
            let found = with(&|o| o.sampling.temperature = value);
            assert_eq!(found, Some("temperature"), "{value}");
        }
        for value in [0.0, -0.0, 0.001, 0.7, 1000.0] {
            assert_eq!(with(&|o| o.sampling.temperature = value), None, "{value}");
        }
        for value in NONSENSE.into_iter().chain([0.0, -0.1, 1.001]) {
            let found = with(&|o| o.sampling.top_p = value);
            assert_eq!(found, Some("top-p"), "{value}");
        }
        for value in NONSENSE.into_iter().chain([0.0, -1.0, 1e-30, 101.0]) {
            let found = with(&|o| o.processors.repetition_penalty = value);
            assert_eq!(found, Some("repetition-penalty"), "{value}");
        }
        assert_eq!(with(&|o| o.processors.repetition_penalty = 0.5), None);
        for value in NONSENSE.into_iter().chain([-2.1, 2.5]) {
            let found = with(&|o| o.processors.presence_penalty = value);
            assert_eq!(found, Some("presence-penalty"), "{value}");
            let found = with(&|o| o.processors.frequency_penalty = value);
            assert_eq!(found, Some("frequency-penalty"), "{value}");
        }
        for value in [-2.0, 0.5, 2.0] {
            assert_eq!(with(&|o| o.processors.presence_penalty = value), None);
            assert_eq!(with(&|o| o.processors.frequency_penalty = value), None);
        }
        for value in NONSENSE.into_iter().chain([-100.5, 101.0]) {
            let found = with(&|o| o.processors.logit_bias = vec![(3, 1.0), (4, value)]);
            assert_eq!(found, Some("logit-bias"), "{value}");
        }
        let biases = vec![(3, 100.0), (4, -100.0)];
        assert_eq!(with(&|o| o.processors.logit_bias = biases.clone()), None);
        for value in NONSENSE.into_iter().chain([-0.1, 1.001]) {
            let found = with(&|o| o.sampling.min_p = value);
            assert_eq!(found, Some("min-p"), "{value}");
        }
        for value in [0.0, 0.05, 1.0] {
            assert_eq!(with(&|o| o.sampling.min_p = value), None, "{value}");
        }
        assert_eq!(with(&|o| o.logprobs = Some(21)), Some("top-logprobs"));
        assert_eq!(with(&|o| o.logprobs = Some(20)), None);
        assert_eq!(with(&|o| o.sampling.top_k = usize::MAX), None);
        assert_eq!(with(&|o| o.processors.no_repeat_ngram = usize::MAX), None);
    }

    #[test]
    fn biased_tokens_are_in_the_vocabulary() {
        let mut options = TextOptions::default();
        options.processors.logit_bias = vec![(0, 1.0), (9, 1.0)];
        assert_eq!(named(options.check_vocabulary(10)), None);
        assert_eq!(named(options.check_vocabulary(9)), Some("logit-bias"));
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let text = |text: &str| vec![text.to_owned()];
        assert_eq!(named(stops(&[])), None);
        assert_eq!(named(stops(&text("\n"))), None);
        assert_eq!(named(stops(&[text("a"), text("")].concat())), Some("stop"));
    }

    #[test]
    fn a_search_refuses_what_it_does_not_apply() {
        type Change = fn(&mut Processors);
        let changes: [(&str, Change); 3] = [
            ("presence-penalty", |p| p.presence_penalty = 0.5),
            ("frequency-penalty", |p| p.frequency_penalty = -0.5),
            ("logit-bias", |p| p.logit_bias = vec![(1, 2.0)]),
        ];
        for (option, change) in changes {
            let mut options = BeamOptions::default();
            change(&mut options.processors);
            assert_eq!(named(options.validate()), Some(option));
            // With one beam, the options may belong to another way of decoding. A search with one beam refuses them too.
            options.beams = 1;
            assert_eq!(named(options.validate()), None);
            assert_eq!(named(options.check_search()), Some(option));
        }
    }

    #[test]
    fn options_of_searches_out_of_range_are_named() {
        let with = |change: &dyn Fn(&mut BeamOptions)| {
            let mut options = BeamOptions::default();
            change(&mut options);
            named(options.validate())
        };
        assert_eq!(with(&|_| ()), None);
        for beams in [0, 33, 5000, usize::MAX] {
            assert_eq!(with(&|o| o.beams = beams), Some("beams"), "{beams}");
        }
        assert_eq!(with(&|o| o.beams = MAX_BEAMS), None);
        for value in NONSENSE.into_iter().chain([5.1, -6.0]) {
            let found = with(&|o| o.length_penalty = value);
            assert_eq!(found, Some("length-penalty"), "{value}");
        }
        assert_eq!(with(&|o| o.max_new_tokens = 0), Some("max-new-tokens"));
        for value in NONSENSE.into_iter().chain([0.0]) {
            let found = with(&|o| o.processors.repetition_penalty = value);
            assert_eq!(found, Some("repetition-penalty"), "{value}");
        }
    }
}
