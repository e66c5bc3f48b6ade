//! Fields that several endpoints share.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::random;
use crate::config::Config;
use crate::engine::{DrawOptions, Model, TextOptions};
use crate::error::ApiError;

/// Maximum number of stop strings, as in OpenAI's API.
const MAX_STOPS: usize = 4;
/// Maximum length of a stop string in bytes.
const MAX_STOP: usize = 1024;

/// A text, or an array.
#[derive(Debug)]
pub(super) enum TextOr<T> {
    Text(String),
    Many(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(TextOr::Many)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A seed: any integer of 64 bits, with or without sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integer;
        impl Visitor<'_> for Integer {
            type Value = Seed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_u64<E: Error>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed(seed))
            }
            fn visit_i64<E: Error>(self, seed: i64) -> Result<Seed, E> {
                Ok(Seed(seed.cast_unsigned()))
            }
        }
        deserializer.deserialize_any(Integer)
    }
}

impl Seed {
    /// The given seed, or a random one.
    pub fn or_random(seed: Option<Self>) -> u64 {
        // Fits the integers of JavaScript, so that a client can send it again.
        seed.map_or_else(|| random() >> 11, |seed| seed.0)
    }
}

/// `stream_options`
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// Options of text generation, of chats and of completions.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct TextFields {
    pub model: Option<String>,
    pub n: Option<usize>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub stop: Option<TextOr<String>>,
    seed: Option<Seed>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram: Option<usize>,
    beams: Option<usize>,
    length_penalty: Option<f32>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<Map<String, Value>>,
}

impl TextFields {
    /// Checks the options. The engine checks ranges that depend on the model.
    ///
    /// # Arguments
    /// - `logprobs`: number of alternatives per token, and the parameter that asked for them
    pub fn options(
        &self,
        logprobs: Option<(usize, &str)>,
        model: &Model,
    ) -> Result<TextOptions, ApiError> {
        if let Some((_, param)) = logprobs {
            if !model.logprobs {
                let message = "This model gives no log-probabilities. Leave the parameter out.";
                return Err(ApiError::unsupported(param, message));
            }
            if self.beams.is_some_and(|beams| beams > 1) {
                let message = "A beam search gives no log-probabilities. Leave out one of the two.";
                return Err(ApiError::unsupported(param, message));
            }
        }
        let (max_tokens, param) = match self.max_completion_tokens {
            Some(_) => (self.max_completion_tokens, "max_completion_tokens"),
            None => (self.max_tokens, "max_tokens"),
        };
        if max_tokens == Some(0) {
            return Err(ApiError::value(
                param,
                format!("{param} is 0. Give at least 1."),
            ));
        }
        within(
            "temperature",
            self.temperature,
            |t| (0.0..=2.0).contains(&t),
            "a number from 0 to 2",
        )?;
        within(
            "top_p",
            self.top_p,
            |p| p > 0.0 && p <= 1.0,
            "a number above 0 and at most 1",
        )?;
        within(
            "min_p",
            self.min_p,
            |p| (0.0..=1.0).contains(&p),
            "a number from 0 to 1",
        )?;
        for (param, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            within(
                param,
                value,
                |p| (-2.0..=2.0).contains(&p),
                "a number from -2 to 2",
            )?;
        }
        let logit_bias = self.biases()?;
        within(
            "repetition_penalty",
            self.repetition_penalty,
            |p| p > 0.0,
            "a number above 0",
        )?;
        within("length_penalty", self.length_penalty, |_| true, "a number")?;
        if self.beams == Some(0) {
            return Err(ApiError::value("beams", "beams is 0. Give at least 1."));
        }
        let presence_penalty = self.presence_penalty.unwrap_or(0.0);
        let frequency_penalty = self.frequency_penalty.unwrap_or(0.0);
        if self.beams.is_some_and(|beams| beams > 1) {
            for (param, given) in [
                ("presence_penalty", presence_penalty != 0.0),
                ("frequency_penalty", frequency_penalty != 0.0),
                ("logit_bias", !logit_bias.is_empty()),
            ] {
                if given {
                    let message =
                        format!("A beam search has no {param}. Leave out one of the two.");
                    return Err(ApiError::unsupported(param, message));
                }
            }
        }
        Ok(TextOptions {
            max_new_tokens: max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            min_p: self.min_p,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            no_repeat_ngram: self.no_repeat_ngram,
            beams: self.beams,
            length_penalty: self.length_penalty,
            seed: Seed::or_random(self.seed),
            logprobs: logprobs.map(|(top, _)| top),
        })
    }

    /// The tokens of `logit_bias` with their biases. The engine checks that the tokens exist.
    fn biases(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let one = |(token, bias): (&String, &Value)| {
            let id = token.parse().ok();
            // Within the range, the nearest f32 is too.
            let value = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
            id.zip(value.map(|value| value as f32)).ok_or_else(|| {
                let message = format!(
                    "logit_bias has {token:?}: {bias}. Give ids of tokens with numbers from -100 to 100."
                );
                ApiError::value("logit_bias", message)
            })
        };
        self.logit_bias.iter().flatten().map(one).collect()
    }

    /// Whether the response is a stream of events.
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether the stream ends with the usage.
    pub fn stream_usage(&self) -> bool {
        self.stream_options
            .and_then(|options| options.include_usage)
            == Some(true)
    }

    /// The stop strings.
    pub fn stops(&mut self) -> Result<Vec<String>, ApiError> {
        let stops = match self.stop.take() {
            None => vec![],
            Some(TextOr::Text(stop)) => vec![stop],
            Some(TextOr::Many(stops)) => stops,
        };
        let message = if stops.len() > MAX_STOPS {
            format!("There are more than {MAX_STOPS} stop strings. Send fewer.")
        } else if stops.iter().any(String::is_empty) {
            "A stop string is empty. Leave it out.".into()
        } else if stops.iter().any(|stop| stop.len() > MAX_STOP) {
            format!("A stop string is longer than {MAX_STOP} bytes. Send a shorter one.")
        } else {
            return Ok(stops);
        };
        Err(ApiError::value("stop", message))
    }
}

/// Checks a number.
fn within(
    param: &str,
    value: Option<f32>,
    fits: impl Fn(f32) -> bool,
    wanted: &str,
) -> Result<(), ApiError> {
    match value {
        Some(value) if !value.is_finite() || !fits(value) => Err(ApiError::value(
            param,
            format!("{param} is {value}. Give {wanted}."),
        )),
        _ => Ok(()),
    }
}

/// Checks `n`.
pub(super) fn choices(n: Option<usize>, config: &Config) -> Result<usize, ApiError> {
    let most = config.max_choices;
    match n.unwrap_or(1) {
        n if (1..=most).contains(&n) => Ok(n),
        n => Err(ApiError::value(
            "n",
            format!("n is {n}. Give a whole number from 1 to {most}."),
        )),
    }
}

/// Options of drawing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct DrawFields {
    size: Option<String>,
    seed: Option<Seed>,
    steps: Option<usize>,
    guidance: Option<f64>,
    negative_prompt: Option<String>,
}

impl DrawFields {
    /// Checks the options. The engine checks ranges that depend on the model.
    ///
    /// # Arguments
    /// - `seed`: the seed if these fields have none; `None` for a random one
    pub fn options(self, seed: Option<u64>) -> Result<DrawOptions, ApiError> {
        let size = match self.size.as_deref() {
            None | Some("auto") => None,
            Some(size) => Some(parse_size(size).ok_or_else(|| {
                ApiError::value(
                    "size",
                    format!("The size is {size:?}. Give width and height in pixels, as 512x512."),
                )
            })?),
        };
        if self.steps == Some(0) {
            return Err(ApiError::value("steps", "steps is 0. Give at least 1."));
        }
        if self.guidance.is_some_and(|guidance| !guidance.is_finite()) {
            return Err(ApiError::value(
                "guidance",
                "guidance is not a number. Give one from 1 to 100.",
            ));
        }
        Ok(DrawOptions {
            size,
            steps: self.steps,
            guidance: self.guidance,
            negative: self.negative_prompt,
            seed: Seed::or_random(self.seed.or(seed.map(Seed))),
        })
    }
}

fn parse_size(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once('x')?;
    let side = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|side| digits && *side > 0)
    };
    Some((side(width)?, side(height)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model(logprobs: bool) -> Model {
        Model {
            id: "m".into(),
            created: 0,
            owner: "o".into(),
            sees: true,
            draws: true,
            embeds: true,
            logprobs,
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let named = |fields: Value| {
            let fields: TextFields = serde_json::from_value(fields).expect("the right types");
            let error = fields.options(None, &model(false)).err()?;
            assert_eq!(error.status, 400);
            error.param
        };
        assert_eq!(named(json!({})), None);
        let fine = json!({"temperature": 0, "top_p": 1, "presence_penalty": 0, "logit_bias": {}, "seed": -1});
        assert_eq!(named(fine), None);
        for (param, value) in [
            ("temperature", json!(-0.1)),
            ("temperature", json!(2.1)),
            ("temperature", json!(1e300)),
            ("top_p", json!(0)),
            ("top_p", json!(1.1)),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!(0)),
            ("min_p", json!(-0.1)),
            ("min_p", json!(1.5)),
            ("frequency_penalty", json!(2.5)),
            ("presence_penalty", json!(-3)),
            ("logit_bias", json!({"1": 101})),
            ("logit_bias", json!({"1": "1"})),
            ("logit_bias", json!({"1": null})),
            ("logit_bias", json!({"a": 1})),
            ("logit_bias", json!({"-1": 1})),
            ("logit_bias", json!({"1.5": 1})),
            ("repetition_penalty", json!(0)),
            ("beams", json!(0)),
        ] {
            assert_eq!(
                named(json!({param: value})).as_deref(),
                Some(param),
                "{value}"
            );
        }
    }

    #[test]
    fn penalties_and_biases_are_read() {
        let options = |fields: Value| {
            let fields: TextFields = serde_json::from_value(fields).expect("the right types");
            fields.options(None, &model(false))
        };
        let given = json!({
            "min_p": 0.05, "presence_penalty": -0.5, "frequency_penalty": 2,
            "logit_bias": {"50": -100, "7": 1.5},
        });
        let read = options(given.clone()).expect("in range");
        assert_eq!(read.min_p, Some(0.05));
        assert_eq!((read.presence_penalty, read.frequency_penalty), (-0.5, 2.0));
        let mut biases = read.logit_bias;
        biases.sort_by_key(|(token, _)| *token);
        assert_eq!(biases, [(7, 1.5), (50, -100.0)]);
        let plain = options(json!({})).expect("in range");
        assert_eq!((plain.min_p, plain.presence_penalty), (None, 0.0));
        assert!(plain.logit_bias.is_empty());
        // A beam search applies none of them.
        for param in ["presence_penalty", "frequency_penalty", "logit_bias"] {
            let error = options(json!({"beams": 2, param: given[param]})).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param));
        }
        assert!(options(json!({"beams": 2, "presence_penalty": 0, "logit_bias": {}})).is_ok());
    }

    #[test]
    fn seeds_are_any_integer() {
        let seed = |value: Value| {
            serde_json::from_value::<Seed>(value)
                .ok()
                .map(|seed| seed.0)
        };
        assert_eq!(seed(json!(7)), Some(7));
        assert_eq!(seed(json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(seed(json!(-1)), Some(u64::MAX));
        for wrong in [json!(1.5), json!("7"), json!(null), json!(1e30)] {
            assert_eq!(seed(wrong), None);
        }
        assert!(Seed::or_random(None) < 1 << 53);
        assert_ne!(Seed::or_random(None), Seed::or_random(None));
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_size("512x384"), Some((512, 384)));
        for wrong in [
            "512",
            "x",
            "512x",
            "0x1",
            "-1x1",
            "+1x1",
            "1x1x1",
            " 1x1",
            "99999999999x1",
            "512X512",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn stop_strings_are_limited() {
        let stops = |stop: Value| {
            let mut fields: TextFields =
                serde_json::from_value(json!({"stop": stop})).expect("types");
            fields.stops().map_err(|error| error.param)
        };
        assert_eq!(stops(json!(null)), Ok(vec![]));
        assert_eq!(stops(json!("a")), Ok(vec!["a".to_owned()]));
        assert_eq!(
            stops(json!(["a", "b"])),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        for wrong in [
            json!(""),
            json!(["a", ""]),
            json!(["a", "b", "c", "d", "e"]),
            json!("x".repeat(1025)),
        ] {
            assert_eq!(stops(wrong), Err(Some("stop".to_owned())));
        }
    }

    #[test]
    fn a_model_without_log_probabilities_says_so() {
        let fields = TextFields::default();
        let error = fields
            .options(Some((3, "logprobs")), &model(false))
            .expect_err("refused");
        assert_eq!(
            (error.code.as_str(), error.param.as_deref()),
            ("unsupported_parameter", Some("logprobs"))
        );
        let options = fields
            .options(Some((3, "logprobs")), &model(true))
            .expect("given");
        assert_eq!(options.logprobs, Some(3));
    }
}
