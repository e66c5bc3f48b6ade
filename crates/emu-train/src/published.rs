//! Published models as initial weights: a UNet or an autoencoder in a folder of diffusers, such as those of Stable
//! Diffusion 1.5.

use std::path::Path;

use burn::tensor::Device;
use emu_model::diffusion::{UnetConfig, VaeConfig, keys};
use emu_model::weights;
use emu_pack::convert::ModelFolder;
use emu_pack::{PackError, Plan, TensorData, TensorSource, check};

use crate::TrainError;

/// The weights of a folder, under the names of our parameters.
pub(crate) struct Published {
    folder: ModelFolder,
    plan: Plan,
}

impl Published {
    /// Whether a folder holds a published model rather than a run.
    pub fn is_one(folder: &Path) -> bool {
        folder.join("config.json").is_file()
    }

    /// Opens a folder, and checks its weights strictly against its own configuration.
    ///
    /// # Errors
    /// If it is neither a UNet nor an autoencoder, or its weights do not fit its configuration.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let device = Device::flex();
        let wrong = |e| TrainError::other("config", e);
        let folder = ModelFolder::open(path)?;
        let class = folder.config.get("_class_name");
        let (parameters, map) = match class.and_then(serde_json::Value::as_str) {
            Some("UNet2DConditionModel") => {
                let sizes = UnetConfig::from_diffusers(&folder.config).map_err(wrong)?;
                let model = sizes.init(&device).map_err(wrong)?;
                (weights::parameters(&model), keys::unet()?)
            }
            Some("AutoencoderKL") => {
                let sizes = VaeConfig::from_diffusers(&folder.config).map_err(wrong)?;
                let model = sizes.init(&device).map_err(wrong)?;
                (weights::parameters(&model), keys::vae()?)
            }
            _ => {
                return Err(TrainError::Checkpoint {
                    path: path.into(),
                    reason:
                        "its config.json names neither a UNet2DConditionModel nor an AutoencoderKL"
                            .into(),
                });
            }
        };
        let folder = folder.unwrapped(&map)?;
        let plan = check(folder.tensors(), &parameters, &map)?;
        Ok(Self { folder, plan })
    }

    /// Whether it has a parameter.
    pub fn has(&self, name: &str) -> bool {
        self.plan.source_key(name).is_some()
    }

    /// Reads a parameter by our name.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn read(&self, name: &str) -> Result<TensorData, PackError> {
        self.plan.read(&self.folder, name)
    }
}

/// Whether a parameter of a UNet reads the condition: keys and values of cross-attention. Their width is that of the
/// condition, so that those of another text encoder cannot be taken over.
pub(crate) fn reads_condition(name: &str) -> bool {
    let has = |wanted: &str| name.split('.').any(|element| element == wanted);
    has("attn2") && (has("to_k") || has("to_v"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_of_cross_attention_read_the_condition() {
        let layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0";
        for (name, reads) in [
            ("attn2.to_k.weight", true),
            ("attn2.to_v.weight", true),
            ("attn2.to_q.weight", false),
            ("attn1.to_k.weight", false),
        ] {
            assert_eq!(reads_condition(&format!("{layer}.{name}")), reads, "{name}");
        }
    }

    #[test]
    fn other_models_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Published::is_one(folder.path()));
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"_class_name": "CLIPModel"}"#,
        )
        .unwrap();
        assert!(Published::is_one(folder.path()));
        assert!(Published::open(folder.path()).is_err());
    }
}
