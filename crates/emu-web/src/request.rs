//! What JavaScript asks for, validated.

use emu_kernels::sample::{Processors, Sampling};
use emu_model::config::GenerationConfig;
use emu_model::diffusion::{DecoderConfig, DrawOptions, SchedulerKind};
use emu_model::generate::{BeamOptions, GenerateError, TextOptions};
use emu_model::image::{Limits, RgbImage, decode, over_white};
use js_sys::{Array, Reflect, Uint8Array, Uint8ClampedArray};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use wasm_bindgen::{JsCast, JsValue};

use crate::error::Failure;

/// A call, as `WasmRequest` of the package.
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
        draw: Draw,
        #[serde(default)]
        seed: u64,
    },
    /// Describe the one picture.
    Caption {
        #[serde(default)]
        text: Text,
        #[serde(default)]
        seed: u64,
    },
    /// Draw what the parts ask for.
    Image {
        parts: Vec<Part>,
        #[serde(default)]
        draw: Draw,
        #[serde(default)]
        seed: u64,
    },
    /// The visual embeddings of the one picture.
    Embed {},
}

/// A turn.
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

/// A piece of a turn; pictures are indices into those given beside the request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Part {
    Text(String),
    Image(usize),
    Video(Vec<usize>),
}

/// An option as it was given: JSON has no NaN and no infinities, which come as null.
type Given = Option<Value>;

/// Also null is something that was given.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Given, D::Error> {
    Value::deserialize(from).map(Some)
}

/// An option of another kind than it should be, in the words of the model's own complaint.
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

/// A number; NaN where JSON could not say which.
fn number(option: &'static str, given: &Given, default: f64) -> Result<f64, Failure> {
    match given {
        None => Ok(default),
        Some(Value::Null) => Ok(f64::NAN),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| wrong(option, value, "Give a number.")),
    }
}

/// A whole number from 0 on.
fn whole(option: &'static str, given: &Given, default: usize) -> Result<usize, Failure> {
    // JSON of JavaScript writes whole numbers without a fraction up to 10^21.
    match given {
        None => Ok(default),
        Some(value) => { value.as_u64() }
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong(option, value, "Give a whole number that is not negative.")),
    }
}

/// How text is made; the defaults are the model's, or those of the command line.
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
}

impl Text {
    /// Tokens at most where the caller does not say.
    const TOKENS: usize = 128;

    fn processors(&self, model: &GenerationConfig) -> Result<Processors, Failure> {
        let penalty = f64::from(model.repetition_penalty.unwrap_or(1.0));
        Ok(Processors {
            repetition_penalty: number("repetitionPenalty", &self.repetition_penalty, penalty)?
                as f32,
            no_repeat_ngram: whole("noRepeatNgram", &self.no_repeat_ngram, 0)?,
            min_length: 0,
        })
    }

    /// For a generation of one sequence.
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
            },
            seed,
            images,
            // Where a picture would begin that nobody draws, the text is at its end.
            ban_images: false,
            ..Default::default()
        };
        options.validate()?;
        Ok(options)
    }

    /// For a search.
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

/// How a picture is drawn; what is absent is the model's own choice.
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
    /// With the model's own choices where nothing was said.
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

    /// A preview with every so manieth step; 0: none.
    ///
    /// # Errors
    /// `bad-request` where it is no whole number.
    pub fn preview_every(&self) -> Result<usize, Failure> {
        whole("previewEvery", &self.preview_every, 0)
    }
}

/// Reads a request.
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

/// Reads the pictures beside a request: encoded bytes, or `{ rgba, width, height }`.
///
/// # Errors
/// `bad-image` where one does not decode or has another size than it says.
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
