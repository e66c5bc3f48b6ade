//! Requests from JavaScript, and their validation.

use emu_kernels::sample::{Processors, Sampling};
use emu_media::image::{Limits, RgbImage, decode, over_white};
use emu_model::config::GenerationConfig;
use emu_model::diffusion::{DecoderConfig, DrawOptions, SchedulerKind};
use emu_model::generate::{BeamOptions, GenerateError, TextOptions, options};
use js_sys::{Array, Reflect, Uint8Array, Uint8ClampedArray};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::Failure;

/// A request, matching `WasmRequest` of the package.
#[derive(Debug, Deserialize)]
#[serde(tag = "task", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Continue a conversation.
    Chat {
        messages: Vec<Message>,
        #[serde(default)]
        text: Text,
        #[serde(default)]
        images: bool,
        #[serde(default)]
        draw: Box<Draw>,
        #[serde(default)]
        seed: u64,
    },
    /// Describe one picture.
    Caption {
        #[serde(default)]
        text: Text,
        #[serde(default)]
        seed: u64,
    },
    /// Draw a picture from a prompt of text and pictures.
    Image {
        parts: Vec<Part>,
        #[serde(default)]
        draw: Draw,
        #[serde(default)]
        seed: u64,
    },
    /// Visual embeddings of one picture.
    Embed {},
}

/// A message of a conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// A part of a message; pictures are indices into those passed beside the request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Part {
    Text(String),
    Image(usize),
    Video(Vec<usize>),
}

/// A raw option value. JSON has no NaN and no infinities; they arrive as null.
type Given = Option<Value>;

/// Deserializes null as a given value.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Given, D::Error> {
    Value::deserialize(from).map(Some)
}

/// The error for an option of the wrong type, worded like the model's own option errors.
fn wrong(option: &'static str, value: &Value, advice: &'static str) -> Failure {
    let value = match value {
        Value::Null => "not a number".to_owned(),
        value => value.to_string(),
    };
    let wrong = GenerateError::Option {
        option,
        value,
        advice,
    };
    Failure::new("bad-request", wrong.to_string())
}

/// Parses a number; null becomes NaN.
fn number(option: &'static str, given: &Given, default: f64) -> Result<f64, Failure> {
    match given {
        None => Ok(default),
        Some(Value::Null) => Ok(f64::NAN),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| wrong(option, value, "Give a number.")),
    }
}

/// Parses a non-negative integer.
fn whole(option: &'static str, given: &Given, default: usize) -> Result<usize, Failure> {
    // JavaScript's JSON writes integers below 10^21 without a fraction.
    match given {
        None => Ok(default),
        Some(value) => { value.as_u64() }
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong(option, value, "Give a whole number that is not negative.")),
    }
}

/// Text generation options. Defaults are those of the model, or of the command line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Text {
    #[serde(deserialize_with = "given")]
    max_new_tokens: Given,
    #[serde(deserialize_with = "given")]
    temperature: Given,
    #[serde(deserialize_with = "given")]
    top_k: Given,
    #[serde(deserialize_with = "given")]
    top_p: Given,
    #[serde(deserialize_with = "given")]
    repetition_penalty: Given,
    #[serde(deserialize_with = "given")]
    no_repeat_ngram: Given,
    #[serde(deserialize_with = "given")]
    beams: Given,
    #[serde(deserialize_with = "given")]
    length_penalty: Given,
    #[serde(deserialize_with = "given")]
    min_p: Given,
    #[serde(deserialize_with = "given")]
    presence_penalty: Given,
    #[serde(deserialize_with = "given")]
    frequency_penalty: Given,
    logit_bias: Map<String, Value>,
    #[serde(deserialize_with = "given")]
    top_logprobs: Given,
    #[serde(deserialize_with = "given")]
    n: Given,
    /// Texts at which an answer ends.
    pub stop: Vec<String>,
}

impl Text {
    /// Default of `maxNewTokens`.
    const TOKENS: usize = 128;

    /// Number of answers.
    ///
    /// # Errors
    /// `bad-request` if it is out of range.
    pub fn answers(&self) -> Result<usize, Failure> {
        match whole("n", &self.n, 1)? {
            n @ 1..=128 => Ok(n),
            n => Err(wrong(
                "n",
                &Value::from(n),
                "Give a whole number from 1 to 128.",
            )),
        }
    }

    /// Whether log-probabilities are wanted.
    pub fn wants_logprobs(&self) -> bool {
        self.top_logprobs.is_some()
    }

    fn biases(&self) -> Result<Vec<(u32, f32)>, Failure> {
        let one = |(token, bias): (&String, &Value)| -> Result<(u32, f32), Failure> {
            let id = token.parse().map_err(|_| {
                let token = Value::from(token.as_str());
                wrong("logitBias", &token, "Give ids of tokens as keys.")
            })?;
            // Null stands for a number that JSON lacks.
            let value = number("logitBias", &Some(bias.clone()), 0.0)?;
            Ok((id, value as f32))
        };
        self.logit_bias.iter().map(one).collect()
    }

    fn processors(&self, model: &GenerationConfig) -> Result<Processors, Failure> {
        let penalty = f64::from(model.repetition_penalty.unwrap_or(1.0));
        Ok(Processors {
            repetition_penalty: number("repetitionPenalty", &self.repetition_penalty, penalty)?
                as f32,
            presence_penalty: number("presencePenalty", &self.presence_penalty, 0.0)? as f32,
            frequency_penalty: number("frequencyPenalty", &self.frequency_penalty, 0.0)? as f32,
            logit_bias: self.biases()?,
            no_repeat_ngram: whole("noRepeatNgram", &self.no_repeat_ngram, 0)?,
            min_length: 0,
        })
    }

    /// Options for sampling one sequence.
    ///
    /// # Errors
    /// `bad-option` names an option that is out of range.
    pub fn options(
        &self,
        model: &GenerationConfig,
        seed: u64,
        images: bool,
    ) -> Result<TextOptions, Failure> {
        let options = TextOptions {
            max_new_tokens: whole("maxNewTokens", &self.max_new_tokens, Self::TOKENS)?,
            processors: self.processors(model)?,
            sampling: Sampling {
                temperature: number("temperature", &self.temperature, 0.0)? as f32,
                top_k: whole("topK", &self.top_k, 0)?,
                top_p: number("topP", &self.top_p, 1.0)? as f32,
                min_p: number("minP", &self.min_p, 0.0)? as f32,
            },
            logprobs: match self.wants_logprobs() {
                true => Some(whole("topLogprobs", &self.top_logprobs, 0)?),
                false => None,
            },
            seed,
            images,
            // Without drawing, the start of a picture ends the text.
            ban_images: false,
            ..Default::default()
        };
        options.validate()?;
        options::stops(&self.stop)?;
        Ok(options)
    }

    /// Options for beam search.
    ///
    /// # Errors
    /// `bad-option` names an option that is out of range.
    pub fn search(&self, model: &GenerationConfig) -> Result<BeamOptions, Failure> {
        let options = BeamOptions {
            beams: whole("beams", &self.beams, 1)?,
            max_new_tokens: whole("maxNewTokens", &self.max_new_tokens, Self::TOKENS)?,
            length_penalty: number("lengthPenalty", &self.length_penalty, -1.0)? as f32,
            processors: self.processors(model)?,
            ban_images: true,
        };
        options.validate()?;
        Ok(options)
    }
}

/// Drawing options; missing ones use the model's defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Draw {
    #[serde(deserialize_with = "given")]
    width: Given,
    #[serde(deserialize_with = "given")]
    height: Given,
    #[serde(deserialize_with = "given")]
    steps: Given,
    scheduler: Option<SchedulerKind>,
    #[serde(deserialize_with = "given")]
    guidance: Given,
    pub negative: Option<String>,
    #[serde(deserialize_with = "given")]
    preview_every: Given,
}

impl Draw {
    /// Resolves the options with the model's defaults.
    ///
    /// # Errors
    /// `bad-option` or `picture-size` names an option that is out of range.
    pub fn options(&self, config: &DecoderConfig, seed: u64) -> Result<DrawOptions, Failure> {
        let own = DrawOptions::new(config, seed);
        let options = DrawOptions {
            width: whole("width", &self.width, own.width)?,
            height: whole("height", &self.height, own.height)?,
            steps: whole("steps", &self.steps, own.steps)?,
            sampler: self.scheduler.unwrap_or(own.sampler),
            guidance: number("guidance", &self.guidance, own.guidance)?,
            seed,
        };
        self.preview_every()?;
        options.validate(config)?;
        Ok(options)
    }

    /// Preview interval in steps; 0 disables previews.
    ///
    /// # Errors
    /// `bad-request` if it is not a non-negative integer.
    pub fn preview_every(&self) -> Result<usize, Failure> {
        whole("previewEvery", &self.preview_every, 0)
    }
}

/// Parses a request.
///
/// # Errors
/// `bad-request` says what is wrong with it.
pub fn parse(request: &JsValue) -> Result<Request, Failure> {
    let json = js_sys::JSON::stringify(request)
        .ok()
        .and_then(|json| json.as_string())
        .unwrap_or_default();
    serde_json::from_str(&json).map_err(|e| {
        let what = format!(
            "The request cannot be understood: {e}. Compare it with the types of the package."
        );
        Failure::new("bad-request", what)
    })
}

/// Decodes the pictures of a request: encoded bytes, or `{ rgba, width, height }`.
///
/// # Errors
/// `bad-image` if encoded bytes cannot be decoded, or if pixels do not match their size or are too many.
pub fn pictures(given: &Array) -> Result<Vec<RgbImage>, Failure> {
    given.iter().map(|value| picture(&value)).collect()
}

fn picture(value: &JsValue) -> Result<RgbImage, Failure> {
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Ok(decode(&bytes.to_vec(), &Limits::default())?);
    }
    let field = |name: &str| Reflect::get(value, &JsValue::from_str(name)).unwrap_or_default();
    let side = |name: &str| field(name).as_f64().filter(|n| *n >= 1.0 && *n <= 65_535.0);
    let pixels = field("rgba").dyn_into::<Uint8ClampedArray>();
    let wrong = || {
        Failure::new(
            "bad-image",
            "A picture's pixels do not fit its size. Give 4 bytes for each of width times height pixels.",
        )
    };
    let (Ok(pixels), Some(width), Some(height)) = (pixels, side("width"), side("height")) else {
        return Err(wrong());
    };
    let (width, height) = (width as u32, height as u32);
    let limits = Limits::default();
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(Failure::new(
            "bad-image",
            format!(
                "This picture has {width} x {height} pixels, more than the {} that are read. Make it smaller first.",
                limits.max_pixels
            ),
        ));
    }
    let rgba = pixels.to_vec();
    over_white(&rgba, width, height).ok_or_else(wrong)
}
