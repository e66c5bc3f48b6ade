//! The safety checker of Stable Diffusion: a CLIP vision tower whose embedding is compared with fixed concepts.
//!
//! B batch, D width, E width of the joint space, K concepts.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::QLinear;
use emu_kernels::init::{Init, param};
use emu_media::image::{ClipFeatureExtractor, ImageError, RgbImage};
use image::imageops;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clip::{self, ClipConfig, ClipVision};
use crate::config::ConfigError;
use crate::generate::{GenerateError, read};
use crate::probe::Probe;

/// Sizes of the checker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafetyConfig {
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub width: usize,
    /// Width of the MLP.
    pub mlp_width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of the joint embedding space of images and concepts.
    pub joint_width: usize,
    /// Eps of its norms.
    pub norm_eps: f64,
    /// Number of concepts that flag an image.
    #[serde(default = "concepts")]
    pub concepts: usize,
    /// Number of special-care concepts, which only make the others stricter.
    #[serde(default = "special_care")]
    pub special_care: usize,
}

fn concepts() -> usize {
    17
}

fn special_care() -> usize {
    3
}

impl SafetyConfig {
    /// The checker of Stable Diffusion 1.5, on CLIP ViT-L/14.
    pub fn emu_14b() -> Self {
        Self {
            image_size: 224,
            patch_size: 14,
            width: 1024,
            mlp_width: 4096,
            layers: 24,
            heads: 16,
            joint_width: 768,
            norm_eps: 1e-5,
            concepts: concepts(),
            special_care: special_care(),
        }
    }

    /// Reads the `config.json` of a StableDiffusionSafetyChecker.
    ///
    /// # Errors
    /// Names the first field that is missing, has an unexpected type or is not supported.
    pub fn from_transformers(value: &Value) -> Result<Self, ConfigError> {
        let told = |ConfigError(what): ConfigError| {
            ConfigError(format!("the safety checker's config.json: {what}"))
        };
        let vision = value
            .get("vision_config")
            .ok_or_else(|| told(ConfigError("`vision_config` is missing".into())))?;
        let ClipConfig {
            image_size,
            patch_size,
            width,
            mlp_width,
            layers,
            heads,
            norm_eps,
        } = ClipConfig::from_transformers(vision).map_err(told)?;
        let config = Self {
            image_size,
            patch_size,
            width,
            mlp_width,
            layers,
            heads,
            joint_width: clip::size(value, "projection_dim").map_err(told)?,
            norm_eps,
            concepts: concepts(),
            special_care: special_care(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the invariants of the network.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| ConfigError(format!("safety: {what}"));
        let sizes = [self.joint_width, self.concepts, self.special_care];
        if sizes.iter().any(|n| *n == 0 || *n > clip::MOST) {
            return Err(wrong("a size is 0, or larger than any model has".into()));
        }
        self.tower()
            .validate()
            .map_err(|ConfigError(what)| wrong(what))
    }

    /// Configuration of the vision tower.
    fn tower(&self) -> ClipConfig {
        ClipConfig {
            image_size: self.image_size,
            patch_size: self.patch_size,
            width: self.width,
            mlp_width: self.mlp_width,
            layers: self.layers,
            heads: self.heads,
            norm_eps: self.norm_eps,
        }
    }

    /// Creates the checker; weights are allocated lazily.
    ///
    /// # Errors
    /// As [`SafetyConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<SafetyChecker, ConfigError> {
        self.validate()?;
        let (d, joint) = (self.width, self.joint_width);
        Ok(SafetyChecker {
            vision_model: self.tower().init(device),
            visual_projection: QLinear::new(d, joint, false, device),
            concept_embeds: param([self.concepts, joint], Init::Normal(1.0), device),
            special_care_embeds: param([self.special_care, joint], Init::Normal(1.0), device),
            concept_embeds_weights: param([self.concepts], Init::Ones, device),
            special_care_embeds_weights: param([self.special_care], Init::Ones, device),
        })
    }
}

/// The safety checker.
#[derive(Module, Debug)]
pub struct SafetyChecker {
    /// The vision tower.
    pub vision_model: ClipVision,
    /// `[E, D]`
    pub visual_projection: QLinear,
    /// `[K, E]`
    pub concept_embeds: Param<Tensor<2>>,
    /// Special-care concepts, `[K', E]`
    pub special_care_embeds: Param<Tensor<2>>,
    /// Threshold of each concept, `[K]`
    pub concept_embeds_weights: Param<Tensor<1>>,
    /// Threshold of each special-care concept, `[K']`
    pub special_care_embeds_weights: Param<Tensor<1>>,
}

/// Cosine similarities of images and concepts.
#[derive(Clone, Debug)]
pub struct Cosines {
    /// `[B, K]`
    pub concepts: Tensor<2>,
    /// `[B, K']`
    pub special_care: Tensor<2>,
}

impl SafetyChecker {
    /// # Shapes
    /// - `images`: `[B, 3, S, S]`, from CLIP's feature extractor
    pub fn cosines(&self, images: Tensor<4>) -> Cosines {
        self.cosines_probed(images, &mut Probe::off())
    }

    /// As [`SafetyChecker::cosines`], reporting intermediate tensors to the probe.
    pub fn cosines_probed(&self, images: Tensor<4>, probe: &mut Probe) -> Cosines {
        let pooled = self.vision_model.pooled(images, probe); // [B, D]
        probe.see(format_args!("safety.pooled"), &pooled);
        let embeds = self.visual_projection.forward(pooled); // [B, E]
        probe.see(format_args!("safety.image_embeds"), &embeds);
        let concepts = cosine(embeds.clone(), self.concept_embeds.val());
        let special_care = cosine(embeds, self.special_care_embeds.val());
        probe.see(format_args!("safety.cos"), &concepts);
        probe.see(format_args!("safety.special_cos"), &special_care);
        Cosines {
            concepts,
            special_care,
        }
    }

    /// Dequantizes the tables that are used as dense tensors, so that no request is the first to do it. Parameters
    /// cache the dense values, and during a page's warm-up the GPU computes nothing.
    pub fn dequantize_once(&self) {
        for table in self.tables() {
            drop(table.val());
        }
    }

    /// Tables that are used as dense tensors.
    fn tables(&self) -> [&Param<Tensor<2>>; 3] {
        [
            &self.concept_embeds,
            &self.special_care_embeds,
            &self.vision_model.position_embedding.weight,
        ]
    }

    /// Whether each image is flagged; shapes as in [`SafetyChecker::cosines`].
    ///
    /// # Errors
    /// If the read-back of the cosines fails, or one of them is not finite: nothing is then known about the image.
    pub async fn flagged(&self, images: Tensor<4>) -> Result<Vec<bool>, GenerateError> {
        let Cosines {
            concepts,
            special_care,
        } = self.cosines(images);
        let [_, k] = concepts.dims();
        let [_, k2] = special_care.dims();
        let concepts = read(concepts).await?;
        let special_care = read(special_care).await?;
        let thresholds = read(self.concept_embeds_weights.val()).await?;
        let special_thresholds = read(self.special_care_embeds_weights.val()).await?;
        let scores = [&concepts, &special_care, &thresholds, &special_thresholds];
        if scores.into_iter().flatten().any(|score| !score.is_finite()) {
            return Err(GenerateError::NotFinite);
        }
        let rows = concepts.chunks(k).zip(special_care.chunks(k2));
        Ok(rows
            .map(|(row, special)| is_flagged(row, &thresholds, special, &special_thresholds))
            .collect())
    }

    /// Whether a generated image is flagged.
    ///
    /// # Errors
    /// If it cannot be resized, or the device fails.
    pub async fn check(
        &self,
        picture: &RgbImage,
        config: &SafetyConfig,
        device: &Device,
    ) -> Result<bool, CheckError> {
        let side = config.image_size as u32;
        let extractor = ClipFeatureExtractor {
            shortest_edge: Some(side),
            crop: Some((side, side)),
            ..Default::default()
        };
        let (values, height, width) = extractor.apply(picture)?;
        let data = TensorData::new(values, [1, 3, height as usize, width as usize]);
        let flags = self.flagged(Tensor::from_data(data, device)).await?;
        Ok(flags.first().copied().unwrap_or(true))
    }
}

/// Why a generated image could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be resized.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] GenerateError),
}

/// Resolution of a blurred preview, pixels along a side.
const BLURRED: u32 = 6;

/// Added to all further scores once a special-care concept matched.
const SPECIAL_CARE: f64 = 0.01;

/// The rule of the reference implementation: a score is the cosine minus the threshold, rounded to three digits before
/// it is compared with zero; a matching special-care concept raises all scores after it. A non-finite score flags the
/// image.
pub fn is_flagged(
    concepts: &[f32],
    thresholds: &[f32],
    special: &[f32],
    special_thresholds: &[f32],
) -> bool {
    let positive = |cosine: f32, threshold: f32, adjustment: f64| {
        let score = f64::from(cosine) - f64::from(threshold) + adjustment;
        !score.is_finite() || libm::rint(score * 1000.0) > 0.0
    };
    let mut adjustment = 0.0;
    for (cosine, threshold) in special.iter().zip(special_thresholds) {
        if positive(*cosine, *threshold, adjustment) {
            adjustment = SPECIAL_CARE;
        }
    }
    concepts
        .iter()
        .zip(thresholds)
        .any(|(cosine, threshold)| positive(*cosine, *threshold, adjustment))
}

/// Blurs a preview beyond recognition, for display before an image was checked. Its colours and their positions remain.
pub fn blur(preview: &RgbImage) -> RgbImage {
    let (width, height) = preview.dimensions();
    let cells = |side: u32| side.clamp(1, BLURRED);
    let small = imageops::resize(
        preview,
        cells(width),
        cells(height),
        imageops::FilterType::Triangle,
    );
    imageops::resize(&small, width, height, imageops::FilterType::Triangle)
}

/// Blacks out the flagged images of a list of 8-bit images.
pub fn black_out<'a>(pictures: impl IntoIterator<Item = &'a mut [u8]>, flagged: &[bool]) {
    pictures
        .into_iter()
        .zip(flagged)
        .filter(|(_, flagged)| **flagged)
        .for_each(|(picture, _)| picture.fill(0));
}

/// Cosine similarity of every row of `x` with every row of `y`: `[B, E]`, `[K, E]` to `[B, K]`.
fn cosine(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    let normed = |x: Tensor<2>| {
        let norm = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        x.div(norm)
    };
    normed(x).matmul(normed(y).transpose())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scores_round_to_three_digits() {
        // A score of 0.0003 rounds to 0 and passes; 0.0006 rounds up and flags.
        assert!(!is_flagged(&[0.2003], &[0.2], &[0.0], &[1.0]));
        assert!(is_flagged(&[0.2006], &[0.2], &[0.0], &[1.0]));
        assert!(!is_flagged(&[0.195], &[0.2], &[0.0], &[1.0]));
        // Below the threshold, but flagged with special care.
        assert!(is_flagged(&[0.195], &[0.2], &[0.5], &[0.3]));
        // Special care raises the scores of later special-care concepts, but is added only once.
        assert!(!is_flagged(&[0.1895], &[0.2], &[0.5, 0.5], &[0.3, 0.3]));
    }

    #[test]
    fn a_score_that_is_not_finite_flags() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(is_flagged(&[odd], &[0.2], &[], &[]), "{odd}");
            assert!(is_flagged(&[0.0, odd, 0.0], &[0.2; 3], &[0.0], &[1.0]));
            assert!(is_flagged(&[0.0], &[odd], &[], &[]), "{odd}");
            // In a special-care concept it makes the others stricter.
            assert!(is_flagged(&[0.195], &[0.2], &[odd], &[0.3]), "{odd}");
        }
    }

    #[test]
    fn a_checker_that_computes_no_numbers_clears_nothing() {
        let device = Device::flex();
        let config = SafetyConfig::from_transformers(&tiny()).unwrap();
        let mut checker = config.init(&device).unwrap();
        let picture = RgbImage::from_pixel(40, 30, [9, 90, 200].into());
        let check = |checker: &SafetyChecker| {
            burn::tensor::read_sync(checker.check(&picture, &config, &device))
        };
        assert!(check(&checker).is_ok());
        let broken = |param: Param<Tensor<1>>| param.map(|values| values.mul_scalar(f32::NAN));
        let mut other = checker.clone();
        other.concept_embeds_weights = broken(other.concept_embeds_weights);
        let error = check(&other).expect_err("thresholds that are no numbers");
        assert!(error.to_string().contains("not finite"), "{error}");
        let norm = &mut checker.vision_model.post_layernorm;
        norm.weight = broken(norm.weight.clone());
        let error = check(&checker).expect_err("cosines that are no numbers");
        assert!(error.to_string().contains("not finite"), "{error}");
    }

    #[test]
    fn blurred_previews_show_no_details() {
        // Stripes of two pixels disappear, two halves do not.
        let striped = RgbImage::from_fn(96, 64, |x, y| {
            let shade = if x / 2 % 2 == 0 { 255 } else { 0 };
            [shade, if y < 32 { 200 } else { 20 }, shade].into()
        });
        let blurred = blur(&striped);
        assert_eq!(blurred.dimensions(), (96, 64));
        let reds: Vec<u8> = blurred.pixels().map(|p| p.0[0]).collect();
        let (least, most) = (reds.iter().min().unwrap(), reds.iter().max().unwrap());
        assert!(most - least < 24, "{least} to {most}");
        assert!(blurred.get_pixel(48, 4).0[1] > 150 && blurred.get_pixel(48, 60).0[1] < 70);
        // Size of a rough preview of a small image.
        assert_eq!(blur(&RgbImage::new(1, 3)).dimensions(), (1, 3));
    }

    fn tiny() -> Value {
        json!({"projection_dim": 32, "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "image_size": 28, "patch_size": 14}})
    }

    #[test]
    fn settled_tables_are_unpacked() {
        use emu_kernels::packed::{self, Packed, Scheme};

        let device = Device::flex();
        let config = SafetyConfig::from_transformers(&tiny()).unwrap();
        let mut checker = config.init(&device).unwrap();
        let pack = |param: &mut Param<Tensor<2>>| {
            let [out, width] = param.lazy_shape().dims();
            let words = vec![0x0403_0201; out * width / 4];
            let scales = vec![0x3c00; out * width / 32];
            let whole = Packed::new(Scheme::Q8, [out, width], &words, &scales, None, &device);
            *param = packed::attach(param.id, whole.unwrap());
        };
        pack(&mut checker.concept_embeds);
        pack(&mut checker.special_care_embeds);
        pack(&mut checker.vision_model.position_embedding.weight);
        let there = |checker: &SafetyChecker| checker.tables().map(|table| table.is_initialized());
        assert_eq!(there(&checker), [false; 3]);
        // A request holds a clone.
        checker.clone().dequantize_once();
        assert_eq!(there(&checker), [true; 3]);
    }

    #[test]
    fn flagged_pictures_are_black() {
        let mut pictures = [vec![7u8; 6], vec![9u8; 6]];
        black_out(pictures.iter_mut().map(Vec::as_mut_slice), &[false, true]);
        assert_eq!(pictures, [vec![7u8; 6], vec![0u8; 6]]);
    }

    #[test]
    fn bad_configurations_are_named() {
        let good = json!({"projection_dim": 24, "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 56, "patch_size": 14}});
        assert!(SafetyConfig::from_transformers(&good).is_ok());
        for (key, value) in [
            ("hidden_act", json!("gelu")),
            ("num_channels", json!(1)),
            ("image_size", json!(57)),
            ("num_attention_heads", json!(5)),
            ("hidden_size", json!("wide")),
            ("num_hidden_layers", json!(0)),
        ] {
            let mut bad = good.clone();
            bad["vision_config"][key] = value;
            assert!(SafetyConfig::from_transformers(&bad).is_err(), "{key}");
        }
        assert!(SafetyConfig::from_transformers(&json!({})).is_err());
    }
}
