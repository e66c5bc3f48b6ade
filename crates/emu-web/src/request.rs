//! What JavaScript asks for, validated.

use emu_kernels::sample::{Processors, Sampling};
use emu_model::diffusion::{DecoderConfig, DrawOptions, SamplerKind};
use emu_model::generate::{BeamOptions, TextOptions};
use emu_model::image::{Limits, RgbImage, decode};
use js_sys::{Array, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Deserialize;
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

/// How text is made; the defaults are those of the command line.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Text {
    max_new_tokens: usize,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition_penalty: f32,
    no_repeat_ngram: usize,
    pub beams: usize,
    length_penalty: f32,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            beams: 1,
            length_penalty: -1.0,
        }
    }
}

impl Text {
    /// Positions that are kept for what follows a prompt.
    pub fn room(&self, images: bool, context: usize) -> usize {
        match images {
            true => context,
            false => self.max_new_tokens.min(context),
        }
    }

    fn processors(&self) -> Processors {
        Processors {
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram: self.no_repeat_ngram,
            min_length: 0,
        }
    }

    /// For a generation of one sequence.
    pub fn options(&self, seed: u64, images: bool) -> TextOptions {
        TextOptions {
            max_new_tokens: self.max_new_tokens,
            processors: self.processors(),
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
            },
            seed,
            images,
            // Where a picture would begin that nobody draws, the text is at its end.
            ban_images: false,
            ..Default::default()
        }
    }

    /// For a search.
    pub fn search(&self) -> BeamOptions {
        BeamOptions {
            beams: self.beams,
            max_new_tokens: self.max_new_tokens,
            length_penalty: self.length_penalty,
            processors: self.processors(),
            ban_images: true,
        }
    }
}

/// How a picture is drawn; what is absent is the model's own choice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Draw {
    width: Option<usize>,
    height: Option<usize>,
    steps: Option<usize>,
    scheduler: Option<SamplerKind>,
    guidance: Option<f64>,
    pub negative: Option<String>,
    /// A preview with every so manieth step; 0: none.
    pub preview_every: usize,
}

impl Draw {
    /// With the model's own choices where nothing was said.
    pub fn options(&self, config: &DecoderConfig, seed: u64) -> DrawOptions {
        let own = DrawOptions::new(config, seed);
        DrawOptions {
            width: self.width.unwrap_or(own.width),
            height: self.height.unwrap_or(own.height),
            steps: self.steps.unwrap_or(own.steps),
            sampler: self.scheduler.unwrap_or(own.sampler),
            guidance: self.guidance.unwrap_or(own.guidance),
            seed,
        }
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
    if rgba.len() != width as usize * height as usize * 4 {
        return Err(wrong());
    }
    let rgb = { rgba.chunks_exact(4) }
        .flat_map(|p| [p[0], p[1], p[2]].map(|colour| over_white(colour, p[3])))
        .collect();
    RgbImage::from_raw(width, height, rgb).ok_or_else(wrong)
}

/// A colour as it shows over white, as everywhere a picture comes in.
fn over_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
