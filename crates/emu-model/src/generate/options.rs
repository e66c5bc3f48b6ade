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
    match PENALTIES.contains(&penalty) {
        true => Ok(()),
        false => wrong(
            "repetition-penalty",
            penalty,
            "Give a number from 0.01 to 100; 1 changes nothing, 1.1 is usual.",
        ),
    }
}

fn sampling(sampling: &Sampling) -> Result<(), GenerateError> {
    let Sampling {
        temperature, top_p, ..
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
        sampling(&self.sampling)
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
        processors(&self.processors)
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
        assert_eq!(with(&|o| o.sampling.top_k = usize::MAX), None);
        assert_eq!(with(&|o| o.processors.no_repeat_ngram = usize::MAX), None);
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
