//! Preprocessing for the encoders: from RGB pixels to normalised planes `[3, H, W]`, row-major.

use serde::Deserialize;

use super::{ImageError, RgbImage, resize_bicubic};

/// Per-channel mean (red, green, blue) of CLIP's training data, on a scale of 0 to 1.
pub const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Per-channel standard deviation, on the same scale.
pub const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// Normalises: `(value / 255 - mean) / std` per plane, in f64 and then rounded to f32, as numpy does in the released code.
///
/// # Shapes
/// - returns `[3, H, W]`
pub fn normalize(image: &RgbImage, mean: &[f64; 3], std: &[f64; 3]) -> Vec<f32> {
    planes(image, |value, plane| {
        ((f64::from(value) / 255.0 - mean[plane]) / std[plane]) as f32
    })
}

/// Applies `f(value, plane)` to every byte and deinterleaves pixels to planes.
fn planes(image: &RgbImage, f: impl Fn(u8, usize) -> f32) -> Vec<f32> {
    // three lookup tables of 256 entries replace a division per pixel
    (0..3)
        .flat_map(|plane| {
            let table: Vec<f32> = (0..=u8::MAX).map(|value| f(value, plane)).collect();
            let bytes = image.as_raw().iter().skip(plane).step_by(3);
            bytes.map(move |value| table[usize::from(*value)])
        })
        .collect()
}

/// Input of Emu's vision encoder: resized to `size` x `size` ignoring the aspect ratio, normalised with CLIP's mean and
/// standard deviation (`process_img` of the released code).
///
/// # Shapes
/// - returns `[3, size, size]`
pub fn process_img(image: &RgbImage, size: u32) -> Result<Vec<f32>, ImageError> {
    process_img_with(image, size, &CLIP_MEAN, &CLIP_STD)
}

/// [`process_img`] with another mean and standard deviation.
///
/// # Shapes
/// - returns `[3, size, size]`
pub fn process_img_with(
    image: &RgbImage,
    size: u32,
    mean: &[f64; 3],
    std: &[f64; 3],
) -> Result<Vec<f32>, ImageError> {
    Ok(normalize(&resize_bicubic(image, size, size)?, mean, std))
}

/// Preprocessing of the safety checker: `CLIPImageProcessor` of transformers 4.31, configured by its
/// `preprocessor_config.json`. Steps: resize the shortest edge, centre crop, rescale, normalise.
///
/// The checker takes the final 8-bit picture: pass the result of [`super::picture_from_decoded`].
#[derive(Debug, Clone, PartialEq)]
pub struct ClipFeatureExtractor {
    /// Target length of the shorter side; `None` skips the resize.
    pub shortest_edge: Option<u32>,
    /// Height and width of the centre crop; `None` skips it.
    pub crop: Option<(u32, u32)>,
    /// Factor applied to the bytes; `None` skips it.
    pub rescale: Option<f64>,
    /// Mean and standard deviation per plane; `None` skips normalisation.
    pub normalize: Option<([f64; 3], [f64; 3])>,
}

/// A size in a transformers configuration: a number, a shortest edge, or both sides.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeConfig {
    Edge(u32),
    Shortest { shortest_edge: u32 },
    Sides { height: u32, width: u32 },
}

#[derive(Deserialize)]
struct Config {
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_center_crop: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    size: Option<SizeConfig>,
    crop_size: Option<SizeConfig>,
    rescale_factor: Option<f64>,
    resample: Option<u32>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

fn yes() -> bool {
    true
}

/// Pillow's constant for bicubic resampling.
const RESAMPLE_BICUBIC: u32 = 3;
/// Longer sides are rejected as a broken configuration.
const MAX_EDGE: u32 = 1 << 14;

impl Default for ClipFeatureExtractor {
    /// The values of CLIP ViT-L/14: 224 pixels, CLIP's mean and standard deviation.
    fn default() -> Self {
        Self {
            shortest_edge: Some(224),
            crop: Some((224, 224)),
            rescale: Some(1.0 / 255.0),
            normalize: Some((CLIP_MEAN, CLIP_STD)),
        }
    }
}

impl ClipFeatureExtractor {
    /// Reads `preprocessor_config.json`. Missing fields take the defaults of transformers.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        let wrong = |reason: String| ImageError::Config { reason };
        let config: Config = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        let edge = |edge: u32| match edge {
            1..=MAX_EDGE => Ok(edge),
            _ => Err(wrong(format!("a side of {edge} pixels"))),
        };
        if config.do_resize && config.resample.is_some_and(|r| r != RESAMPLE_BICUBIC) {
            return Err(wrong("`resample` is not 3 (bicubic)".to_owned()));
        }
        let shortest_edge = match config.size {
            _ if !config.do_resize => None,
            None => Some(224),
            Some(SizeConfig::Edge(n) | SizeConfig::Shortest { shortest_edge: n }) => Some(edge(n)?),
            Some(SizeConfig::Sides { .. }) => {
                return Err(wrong(
                    "`size` gives both sides where `shortest_edge` is expected".to_owned(),
                ));
            }
        };
        let crop = match config.crop_size {
            _ if !config.do_center_crop => None,
            None => Some((224, 224)),
            Some(SizeConfig::Edge(n)) => Some((edge(n)?, edge(n)?)),
            Some(SizeConfig::Sides { height, width }) => Some((edge(height)?, edge(width)?)),
            Some(SizeConfig::Shortest { .. }) => {
                return Err(wrong(
                    "`crop_size` gives an edge where height and width are expected".to_owned(),
                ));
            }
        };
        let rescale = config.rescale_factor.unwrap_or(1.0 / 255.0);
        let (mean, std) = (
            config.image_mean.unwrap_or(CLIP_MEAN),
            config.image_std.unwrap_or(CLIP_STD),
        );
        if !rescale.is_finite()
            || mean.iter().chain(&std).any(|v| !v.is_finite())
            || std.contains(&0.0)
        {
            return Err(wrong(
                "a factor, mean or deviation is zero or not a number".to_owned(),
            ));
        }
        Ok(Self {
            shortest_edge,
            crop,
            rescale: config.do_rescale.then_some(rescale),
            normalize: config.do_normalize.then_some((mean, std)),
        })
    }

    /// Preprocesses a picture for the checker's CLIP.
    ///
    /// # Shapes
    /// - returns `([3, H, W], H, W)`
    pub fn apply(&self, image: &RgbImage) -> Result<(Vec<f32>, u32, u32), ImageError> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSized { width, height });
        }
        let mut picture = image.clone();
        if let Some(edge) = self.shortest_edge {
            // the long side is truncated, not rounded
            let long = |long: u32, short: u32| {
                (f64::from(edge) * f64::from(long) / f64::from(short)) as u32
            };
            let (w, h) = if width <= height {
                (edge, long(height, width))
            } else {
                (long(width, height), edge)
            };
            picture = resize_bicubic(&picture, w, h)?;
        }
        if let Some((crop_height, crop_width)) = self.crop {
            picture = center_crop(&picture, crop_width, crop_height);
        }
        let (width, height) = picture.dimensions();
        // rounded to f32 after each step, as in transformers
        let values = planes(&picture, |value, plane| {
            let value = self.rescale.map_or(f32::from(value), |factor| {
                (f64::from(value) * factor) as f32
            });
            self.normalize.map_or(value, |(mean, std)| {
                (value - mean[plane] as f32) / std[plane] as f32
            })
        });
        Ok((values, height, width))
    }
}

/// Centre crop; a smaller picture is padded with black.
fn center_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (i64::from(image.width()), i64::from(image.height()));
    // rounded down for both signs, as in transformers
    let offset = |from: i64, to: u32| (from - i64::from(to)).div_euclid(2);
    let (left, top) = (offset(from_width, width), offset(from_height, height));
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (i64::from(x) + left, i64::from(y) + top);
        if (0..from_width).contains(&x) && (0..from_height).contains(&y) {
            *image.get_pixel(x as u32, y as u32)
        } else {
            ::image::Rgb([0; 3])
        }
    })
}
