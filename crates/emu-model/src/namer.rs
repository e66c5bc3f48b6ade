//! Namer: converts features of the vision encoder to words of the language model, which replace visual embeddings.
//!
//! A linear head scores the names; the token embeddings of all names ([`crate::spelling`]) are averaged with their
//! probabilities. The result lies in the space of the language model's own token embeddings, so it needs no training to
//! read them. The colour of the image's border is named likewise, by its distance to reference colours.
//!
//! B batch, S side of the image, F features, N names, T tokens per name, C colours, D width of the language model.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::init::{Init, param};
use emu_kernels::{QEmbedding, QLinear};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ImageConfig};
use crate::photos::{Photos, PhotosConfig};
use crate::spelling::SpellingConfig;

/// Configuration of the namer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamerConfig {
    /// Number of names.
    pub names: usize,
    /// Their spelling. The LM reads the first object; the decoder draws from all of them.
    pub spelling: SpellingConfig,
    /// Temperature of the logits: below 1 sharpens the distribution.
    pub temperature: f64,
    /// Number of border colours.
    pub colours: usize,
    /// Spread of a border's colour, as a standard deviation of RGB in 0..1.
    pub colour_spread: f64,
    /// Classify the square roots of features, which suits an EfficientNet; CLIP's features have signs and are used as
    /// they are.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub roots: bool,
    /// Namer of photographs; without it they are named like drawings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photos: Option<PhotosConfig>,
}

fn yes() -> bool {
    true
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Largest number of names and of colours.
const MOST: usize = 1 << 16;
/// The border's width is this fraction of the side.
const BORDER: usize = 16;
/// Minimum total probability of the names that fill a token position, for it to count as filled.
const THERE: f64 = 0.5;

impl NamerConfig {
    /// Embeddings per image: one for each token of its name, one for its colour.
    pub fn embeddings(&self) -> usize {
        self.spelling.tokens + 1
    }

    /// Validates the sizes.
    ///
    /// # Errors
    /// Names the first invalid value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.spelling.validate()?;
        for (name, n) in [("names", self.names), ("colours", self.colours)] {
            if n == 0 || n > MOST {
                return Err(ConfigError(format!("namer.{name} is {n}, not 1 to {MOST}")));
            }
        }
        let numbers = [
            ("temperature", self.temperature),
            ("colour_spread", self.colour_spread),
        ];
        if let Some(photos) = &self.photos {
            photos.validate()?;
        }
        match numbers.iter().find(|(_, v)| !(1e-3..=1e3).contains(v)) {
            Some((name, v)) => Err(ConfigError(format!(
                "namer.{name} is {v}, not 0.001 to 1000"
            ))),
            None => Ok(()),
        }
    }

    /// Creates a namer of features of this width for a language model of width D.
    pub fn init(
        &self,
        features: usize,
        width: usize,
        image: &ImageConfig,
        device: &Device,
    ) -> Namer {
        let spelled = [self.names, self.spelling.tokens * width];
        Namer {
            head: QLinear::new(features, self.names, true, device),
            words: param(spelled, Init::Normal(0.02), device),
            colours: param([self.colours, CHANNELS], Init::Uniform(1.0), device),
            colour_words: param([self.colours, width], Init::Normal(0.02), device),
            tokens: self.spelling.tokens,
            temperature: self.temperature,
            colour_spread: self.colour_spread,
            photos: { self.photos }
                .map(|photos| photos.init(features, self.spelling.tokens, device)),
            roots: self.roots,
            image: image.clone(),
        }
    }
}

/// Red, green, blue.
const CHANNELS: usize = 3;

/// Converts image features to words.
#[derive(Module, Debug)]
pub struct Namer {
    /// Mean features (or their square roots) to name logits, `[N, F]`.
    pub head: QLinear,
    /// Token embeddings of the names, `[N, T·D]`; zeros where a name is shorter.
    pub words: Param<Tensor<2>>,
    /// Border colours, RGB in 0..1, `[C, 3]`.
    pub colours: Param<Tensor<2>>,
    /// Token embeddings of the colours, `[C, D]`.
    pub colour_words: Param<Tensor<2>>,
    /// T
    pub tokens: usize,
    /// Temperature of the logits.
    pub temperature: f64,
    /// See [`NamerConfig::colour_spread`].
    pub colour_spread: f64,
    /// See [`NamerConfig::roots`].
    pub roots: bool,
    /// Namer of photographs.
    pub photos: Option<Photos>,
    /// Normalisation of the input images.
    #[module(skip)]
    pub image: ImageConfig,
}

impl Namer {
    /// Logits of the names.
    ///
    /// # Shapes
    /// - `features`: `[B, 1 + P, F]`, their mean first
    /// - returns `[B, N]`
    pub fn logits(&self, features: Tensor<3>) -> Tensor<2> {
        let [b, _, f] = features.dims();
        let mean = features.narrow(1, 0, 1).reshape([b, f]);
        self.head.forward(match self.roots {
            true => mean.clamp_min(0.0).sqrt(),
            false => mean,
        })
    }

    /// Embeddings of images for the language model. Token positions that most of the probability leaves empty are
    /// zeros: leaving them out would make the prompt wait for a read-back of their number. A language model ignores
    /// zeros (SmolLM2 repeats 48 of 49 names that are spelled with them, 49 without).
    ///
    /// # Shapes
    /// - `images`: `[B, 3, S, S]`, normalised; `features`: `[B, 1 + P, F]`, their mean first
    /// - `table`: the language model's token embeddings
    /// - returns `[B, T + 1, D]`
    pub fn forward(&self, images: Tensor<4>, features: Tensor<3>, table: &QEmbedding) -> Tensor<3> {
        let [b, _, f] = features.dims();
        let mean = features.clone().narrow(1, 0, 1).reshape([b, f]);
        let words = self.words.val();
        let [n, spelled] = words.dims();
        let (t, d) = (self.tokens, spelled / self.tokens.max(1));

        // 1. probability of each name
        let logits = self.logits(features) / self.temperature;
        let likely = softmax(logits, 1); // [B, N]

        // 2. expected token embeddings; at each position, averaged over the names that fill it
        let there = words.clone().reshape([n, t, d]).abs().sum_dim(2); // [N, T, 1]
        let there = there.greater_elem(0.0).float().reshape([n, t]);
        let share = likely.clone().matmul(there); // [B, T]
        let filled = share.clone().greater_equal_elem(THERE).float();
        let scale = filled / share.clamp_min(THERE);
        let name = likely.matmul(words).reshape([b, t, d]) * scale.reshape([b, t, 1]);

        // 3. embedding of the border's colour
        let colour = self.colour(border(images)).reshape([b, 1, d]);
        let drawing = Tensor::cat(vec![name, colour], 1);

        // 4. photographs: replace all of it
        let Some(photos) = &self.photos else {
            return drawing;
        };
        let read = photos.read(mean, table);
        let background = read.background.reshape([1, 1, d]).expand([b, 1, d]);
        let seen = Tensor::cat(vec![read.name, background], 1);
        let photo = read.photo.reshape([b, 1, 1]);
        drawing.clone() + (seen - drawing) * photo
    }

    /// Embeddings of colours: `[B, 3]`, normalised like the images, to `[B, D]`.
    fn colour(&self, normalised: Tensor<2>) -> Tensor<2> {
        let [b, _] = normalised.dims();
        let colours = self.colours.val();
        let [c, channels] = colours.dims();
        let device = normalised.device();
        let row = |values: [f32; CHANNELS]| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values.to_vec(), [1, CHANNELS]), &device)
        };
        let rgb = normalised * row(self.image.std) + row(self.image.mean);
        let apart = rgb.reshape([b, 1, channels]) - colours.reshape([1, c, channels]); // [B, C, 3]
        let squares = (apart.clone() * apart).sum_dim(2).reshape([b, c]);
        let spread = 2.0 * self.colour_spread * self.colour_spread;
        softmax(squares / -spread, 1).matmul(self.colour_words.val())
    }
}

/// Mean of the border's pixels, `[B, 3, H, W]` to `[B, 3]`.
fn border(images: Tensor<4>) -> Tensor<2> {
    let [b, c, h, w] = images.dims();
    let ring = (h.min(w) / BORDER).max(1);
    let [inner_h, inner_w] = [h, w].map(|side| side.saturating_sub(2 * ring));
    let sum =
        |part: Tensor<4>, pixels: usize| part.reshape([b, c, pixels]).sum_dim(2).reshape([b, c]);
    let inside = match inner_h * inner_w {
        0 => None,
        _ => Some(
            images
                .clone()
                .narrow(2, ring, inner_h)
                .narrow(3, ring, inner_w),
        ),
    };
    let whole = sum(images, h * w);
    match inside {
        None => whole / (h * w) as f64,
        Some(inside) => {
            let rest = h * w - inner_h * inner_w;
            (whole - sum(inside, inner_h * inner_w)) / rest as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: NamerConfig = NamerConfig {
        names: 3,
        spelling: SpellingConfig {
            objects: 2,
            tokens: 2,
        },
        temperature: 0.5,
        colours: 2,
        colour_spread: 0.1,
        roots: true,
        photos: None,
    };

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Three names of two dimensions: "a", "b c", "b d"; red is (1, 0), gray (0, 1).
    fn namer() -> Namer {
        let image = ImageConfig {
            mean: [0.5; 3],
            std: [0.25; 3],
        };
        let mut namer = CONFIG.init(3, 2, &image, &Device::flex());
        let set = |values: &[f32], shape| {
            Param::initialized(burn::module::ParamId::new(), tensor(values, shape))
        };
        namer.head.weight = set(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [3, 3]);
        namer.words = set(
            &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 4.0, 0.0],
            [3, 4],
        );
        namer.colours = set(&[1.0, 0.0, 0.0, 0.5, 0.5, 0.5], [2, 3]);
        namer.colour_words = set(&[1.0, 0.0, 0.0, 1.0], [2, 2]);
        namer
    }

    /// Embeddings of a single-coloured image with these mean features.
    fn named(features: [f32; 3], rgb: [f32; 3]) -> Vec<f32> {
        let pixels = rgb.map(|v| [(v - 0.5) / 0.25; 16]).concat();
        // Rows after the mean are ignored.
        let features = [features, [9.0; 3]].concat();
        let images = tensor(&pixels, [1, 3, 4, 4]);
        let found = namer().forward(images, tensor(&features, [1, 2, 3]), &table());
        assert_eq!(found.dims(), [1, 3, 2]);
        found.into_data().iter::<f32>().collect()
    }

    /// Used for photographs only.
    fn table() -> QEmbedding {
        QEmbedding {
            weight: Param::initialized(burn::module::ParamId::new(), tensor(&[0.0; 2], [1, 2])),
        }
    }

    fn close(found: &[f32], expected: &[f32]) {
        let far = found
            .iter()
            .zip(expected)
            .any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(
            !far && found.len() == expected.len(),
            "{found:?} {expected:?}"
        );
    }

    #[test]
    fn likely_names_are_mixed_and_short_ones_leave_places_empty() {
        // Logit margin sqrt(100) / 0.5 = 20: certain.
        close(
            &named([100.0, 0.0, 0.0], [0.5; 3]),
            &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        );
        close(
            &named([0.0, 100.0, 0.0], [0.5; 3]),
            &[0.0, 1.0, 2.0, 0.0, 0.0, 1.0],
        );
        // Two equally likely names share the first token; the second is the mean of theirs.
        close(
            &named([0.0, 100.0, 100.0], [0.5; 3]),
            &[0.0, 1.0, 3.0, 0.0, 0.0, 1.0],
        );
        // One third of the probability has no second token: the second is the mean over the names that have one.
        close(
            &named([1.0, 1.0, 1.0], [0.5; 3]),
            &[1.0 / 3.0, 2.0 / 3.0, 3.0, 0.0, 0.0, 1.0],
        );
    }

    #[test]
    fn the_border_has_the_nearest_colours_word() {
        let found = named([100.0, 0.0, 0.0], [1.0, 0.0, 0.0]);
        close(&found[4..], &[1.0, 0.0]);
        // Halfway between both.
        let found = named([100.0, 0.0, 0.0], [0.75, 0.25, 0.25]);
        close(&found[4..], &[0.5, 0.5]);
        // The interior is ignored.
        let mut pixels = vec![0.0; 48 * 48];
        for y in 4..44 {
            pixels[y * 48 + 4..y * 48 + 44].fill(1e3);
        }
        let found = border(tensor(&pixels.repeat(3), [1, 3, 48, 48]));
        let found: Vec<f32> = found.into_data().iter::<f32>().collect();
        close(&found, &[0.0; 3]);
        let tiny = border(tensor(&[2.0; 3 * 4], [1, 3, 2, 2]));
        close(
            &tiny.into_data().iter::<f32>().collect::<Vec<f32>>(),
            &[2.0; 3],
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        assert!(CONFIG.validate().is_ok());
        assert_eq!(CONFIG.embeddings(), 3);
        for (config, words) in [
            (NamerConfig { names: 0, ..CONFIG }, "namer.names is 0"),
            (
                NamerConfig {
                    colours: 1 << 20,
                    ..CONFIG
                },
                "namer.colours",
            ),
            (
                NamerConfig {
                    temperature: 0.0,
                    ..CONFIG
                },
                "namer.temperature is 0",
            ),
            (
                NamerConfig {
                    colour_spread: f64::NAN,
                    ..CONFIG
                },
                "namer.colour_spread",
            ),
        ] {
            let error = config.validate().expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
