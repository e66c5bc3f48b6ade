//! Published encoders: an EfficientNet-Lite2, or CLIP's vision tower in the folder layout of transformers.

use std::path::Path;

use burn::tensor::Device;
use emu_model::clip::{ClipConfig, clip_vision};
use emu_model::config::{ConfigError, ImageConfig, VisionConfig};
use emu_model::efficientnet::{Folded, efficientnet_lite};
use emu_model::vision::Vision;
use emu_model::weights;
use emu_pack::convert::{ModelFolder, Weights, open_weights};
use emu_pack::{PackError, Plan, TensorData, TensorSource, check};
use serde_json::Value;

use crate::TrainError;

/// A published encoder.
pub struct Eyes {
    /// Its sizes.
    pub vision: VisionConfig,
    /// Preprocessing of pictures.
    pub image: ImageConfig,
    /// Whether the name classifier reads the square roots of its features.
    pub roots: bool,
    names: Vec<String>,
    weights: Kind,
}

enum Kind {
    EfficientNet(Folded<Weights>),
    Clip(Plan, Weights),
}

impl Eyes {
    /// Opens the encoder at a path: a file is an EfficientNet-Lite2, a folder a CLIP.
    ///
    /// # Errors
    /// If it is neither, or a tensor is missing, unused or has the wrong shape.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        match path.is_dir() {
            true => Self::clip(path),
            false => Self::efficientnet(path),
        }
    }

    fn efficientnet(path: &Path) -> Result<Self, TrainError> {
        let mut vision = VisionConfig::efficientnet_lite2();
        let size = vision.image_size;
        let sizes = vision
            .efficientnet
            .as_mut()
            .ok_or_else(|| other("no sizes"))?;
        let net = sizes.init(size, &Device::flex());
        let map = efficientnet_lite()?;
        let folded = Folded::new(open_weights(path)?, &weights::parameters(&net), &map)?;
        // The model's vision encoder has no classifier head.
        sizes.classes = None;
        Ok(Self {
            names: names(&vision),
            vision,
            image: ImageConfig::efficientnet_lite(),
            roots: true,
            weights: Kind::EfficientNet(folded),
        })
    }

    fn clip(path: &Path) -> Result<Self, TrainError> {
        let folder = ModelFolder::open(path)?;
        let wrong = |ConfigError(what): ConfigError| {
            TrainError::config("encoder", format!("{}/config.json: {what}", path.display()))
        };
        let sizes = folder.config.get("vision_config").unwrap_or(&folder.config);
        let config = ClipConfig::from_transformers(sizes).map_err(wrong)?;
        let tower = config.init(&Device::flex());
        let map = clip_vision()?;
        let folder = folder.unwrapped(&map)?;
        let plan = check(folder.weights.tensors(), &weights::parameters(&tower), &map)?;
        let vision = VisionConfig::of_clip(&config);
        Ok(Self {
            names: names(&vision),
            image: preprocessing(&path.join("preprocessor_config.json")),
            vision,
            roots: false,
            weights: Kind::Clip(plan, folder.weights),
        })
    }

    /// Names of its parameters, relative to the encoder.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// One of its parameters.
    ///
    /// # Errors
    /// If the file is damaged there.
    pub fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let own = name.split_once('.').map_or(name, |(_, own)| own);
        let tensor = match &self.weights {
            Kind::EfficientNet(folded) => folded.read(own)?,
            Kind::Clip(plan, weights) => plan.read(weights, own)?,
        };
        Ok(tensor.renamed(name))
    }

    /// The encoder with its weights.
    ///
    /// # Errors
    /// As [`Eyes::read`].
    pub fn load(&self, device: &Device) -> Result<Vision, TrainError> {
        let vision = self.vision.init(device);
        Ok(weights::load(vision, device, |name| self.read(name))?)
    }

    /// Weight and bias of its original classifier, if it has one.
    ///
    /// # Errors
    /// As [`Eyes::read`].
    pub fn classifier(&self) -> Result<Option<[TensorData; 2]>, PackError> {
        match &self.weights {
            Kind::EfficientNet(folded) => Ok(Some([
                folded.read("classifier.weight")?,
                folded.read("classifier.bias")?,
            ])),
            Kind::Clip(..) => Ok(None),
        }
    }
}

fn other(what: &str) -> TrainError {
    TrainError::Stage(format!("The encoder cannot be used: {what}."))
}

fn names(vision: &VisionConfig) -> Vec<String> {
    let parameters = weights::parameters(&vision.init(&Device::flex()));
    parameters.into_iter().map(|(name, _)| name).collect()
}

/// Mean and standard deviation from a `preprocessor_config.json`; CLIP's own if it has none.
fn preprocessing(path: &Path) -> ImageConfig {
    let mut image = ImageConfig::default();
    let value: Option<Value> =
        { std::fs::read(path).ok() }.and_then(|text| serde_json::from_slice(&text).ok());
    let three = |key: &str| -> Option<[f32; 3]> {
        serde_json::from_value(value.as_ref()?.get(key)?.clone()).ok()
    };
    image.mean = three("image_mean").unwrap_or(image.mean);
    image.std = three("image_std").unwrap_or(image.std);
    image
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use burn::tensor::{Tensor, TensorData as BurnData};
    use emu_kernels::device::{DeviceChoice, open};
    use emu_pack::SafetensorsFile;

    use super::*;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/clip")
    }

    /// Difference between the tower on a device and transformers' reference values (`tests/peers/clip.py`): over all
    /// tokens, and over the first one, which transformers calls the pooled output.
    fn apart(device: &Device) -> [f32; 2] {
        let eyes = Eyes::open(&fixture()).expect("a CLIP");
        let golden = SafetensorsFile::open(fixture().join("golden.safetensors")).expect("a file");
        let read = |name: &str| {
            let tensor = golden.read(name).expect("a tensor");
            (tensor.to_f32().expect("numbers"), tensor.info.shape)
        };
        let (pixels, shape) = read("pixels");
        let images = Tensor::<4>::from_data(BurnData::new(pixels, shape), device);
        let seen = eyes.load(device).expect("loaded").forward(images);
        let first = seen.clone().narrow(1, 0, 1);
        let far = |seen: Tensor<3>, name: &str| {
            let found = seen.into_data().convert::<f32>();
            let found = found.try_to_vec::<f32>().expect("numbers");
            let (wanted, _) = read(name);
            assert_eq!(found.len(), wanted.len());
            let each = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
            each.fold(0.0, f32::max)
        };
        [far(seen, "tokens"), far(first, "pooled")]
    }

    #[test]
    fn a_clip_sees_what_transformers_sees() {
        for far in apart(&Device::flex()) {
            assert!(far < 1e-4, "{far}");
        }
    }

    #[test]
    fn a_clip_sees_the_same_on_a_gpu() {
        if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
            println!("SKIP gpu: EMU_TEST_GPU is not 1");
            return;
        }
        let opened = open(DeviceChoice::Gpu).expect("a GPU");
        for far in apart(&opened.device) {
            assert!(far < 1e-3, "{far}");
        }
    }

    #[test]
    fn published_sizes_are_known_and_what_is_missing_is_told() {
        let sizes = |vision: Value| ClipConfig::from_transformers(&vision).expect("sizes");
        let base = sizes(serde_json::json!({}));
        assert_eq!((base.width, base.patch_size, base.layers), (768, 32, 12));
        let large = serde_json::json!({"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
            "num_hidden_layers": 24, "patch_size": 14});
        let large = VisionConfig::of_clip(&sizes(large));
        assert_eq!((large.tokens(), large.mlp_width()), (257, 4096));
        let odd = ClipConfig {
            width: 48,
            heads: 3,
            mlp_width: 131,
            ..base
        };
        let round = VisionConfig::of_clip(&odd).clip_config().expect("a CLIP");
        assert_eq!(round.mlp_width, 131);

        let folder = tempfile::tempdir().expect("a folder");
        let error = |what: &str| match Eyes::open(folder.path()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{what}"),
        };
        assert!(error("empty").contains("config.json"));
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"vision_config": {"hidden_act": "gelu"}}"#,
        )
        .expect("written");
        std::fs::copy(
            fixture().join("model.safetensors"),
            folder.path().join("model.safetensors"),
        )
        .expect("copied");
        assert!(error("another activation").contains("quick_gelu"));
        std::fs::write(folder.path().join("config.json"), "{}").expect("written");
        assert!(!error("other sizes").is_empty());
    }
}
