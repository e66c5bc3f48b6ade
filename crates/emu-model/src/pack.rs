//! Contents of a pack of this model: its configuration, the component of each tensor, and loading.
//!
//! Tensors have the names of the modules' parameters: `visual..`, `ln_visual..` and `cformer..`, or `namer..`, in
//! [`VISION`]; `lm..` in [`LM`], with `persona..` and `requests..`; `unet..`, `vae..` and `null_prompt` in [`DECODER`];
//! `safety..` in [`SAFETY`].

use burn::module::Module;
use burn::tensor::Device;
use emu_pack::{PackError, PackReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Emu;
use crate::config::{ConfigError, EmuConfig};
use crate::diffusion::{Decoder, DecoderConfig};
use crate::safety::{SafetyChecker, SafetyConfig};
use crate::weights;

/// Vision encoder and causal former, or namer.
pub const VISION: &str = "vision";
/// Language model with regression head, or with soft prompt and request reader.
pub const LM: &str = "lm";
/// UNet, VAE, null prompt.
pub const DECODER: &str = "decoder";
/// Safety checker.
pub const SAFETY: &str = "safety";
/// File name of the tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";

/// `config` of a pack's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Vision encoder, causal former, language model.
    pub emu: EmuConfig,
    /// Diffusion decoder, if the pack has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderConfig>,
    /// Safety checker, if the pack has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<SafetyConfig>,
}

impl ModelConfig {
    /// Reads and validates the configuration of a manifest.
    ///
    /// # Errors
    /// If an entry is absent, unknown or invalid, or parts are inconsistent with each other.
    pub fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let config: Self =
            serde_json::from_value(value.clone()).map_err(|e| ConfigError(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Validates all parts and their consistency.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.emu.validate()?;
        if let Some(decoder) = &self.decoder {
            decoder.validate()?;
            let (tokens, width) = (self.emu.drawn(), self.emu.lm.width);
            if (decoder.tokens, decoder.unet.context_width) != (tokens, width) {
                return Err(ConfigError(format!(
                    "the decoder wants {} embeddings of width {}, the language model gives {tokens} of width {width}",
                    decoder.tokens, decoder.unet.context_width
                )));
            }
        }
        match &self.safety {
            Some(safety) => safety.validate(),
            None => Ok(()),
        }
    }
}

/// Component of a tensor, by its name.
pub fn component(name: &str) -> &'static str {
    match name.split('.').next() {
        Some("lm" | "persona" | "requests") => LM,
        Some("unet" | "vae" | "null_prompt") => DECODER,
        Some("safety") => SAFETY,
        _ => VISION,
    }
}

/// Loads vision encoder, causal former and language model.
///
/// # Errors
/// A missing, misshapen or damaged tensor.
pub fn load_emu(
    reader: &PackReader,
    config: &EmuConfig,
    device: &Device,
) -> Result<Emu, LoadError> {
    let mut emu: Emu = load(config.init(device)?, "", reader, device)?;
    emu.lm = emu.lm.fuse().with_activations(config.lm_activations());
    Ok(emu)
}

/// Loads the diffusion decoder.
///
/// # Errors
/// As [`load_emu`].
pub fn load_decoder(
    reader: &PackReader,
    config: &DecoderConfig,
    device: &Device,
) -> Result<Decoder, LoadError> {
    load(config.init(device)?, "", reader, device)
}

/// Loads the safety checker.
///
/// # Errors
/// As [`load_emu`].
pub fn load_safety(
    reader: &PackReader,
    config: &SafetyConfig,
    device: &Device,
) -> Result<SafetyChecker, LoadError> {
    load(config.init(device)?, "safety.", reader, device)
}

fn load<M: Module>(
    module: M,
    prefix: &str,
    reader: &PackReader,
    device: &Device,
) -> Result<M, LoadError> {
    Ok(weights::load(module, device, |name| {
        reader.read_stored(&format!("{prefix}{name}"))
    })?)
}

/// Why a pack cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor or file is invalid.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The pack has no such component.
    #[error("This pack has no component {component}, which this needs. Use a pack that has one.")]
    NoComponent {
        /// Its name.
        component: String,
    },
    /// A required component is not loaded.
    #[error("The component {component} is not loaded. Load it first.")]
    NotLoaded {
        /// Its name.
        component: String,
    },
}

impl LoadError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Pack(error) => error.code(),
            Self::NoComponent { .. } => "no-component",
            Self::NotLoaded { .. } => "not-loaded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mini() -> ModelConfig {
        let special = EmuConfig::tiny().special;
        let emu = EmuConfig::emu_mini(400, special);
        ModelConfig {
            decoder: Some(DecoderConfig::emu_mini(emu.queries(), emu.lm.width)),
            emu,
            safety: None,
        }
    }

    #[test]
    fn configurations_survive_json_and_contradictions_are_named() {
        let config = mini();
        let value = serde_json::to_value(&config).expect("JSON");
        assert_eq!(ModelConfig::from_value(&value).expect("a config"), config);

        let mut wrong = mini();
        if let Some(decoder) = &mut wrong.decoder {
            decoder.tokens += 1;
        }
        let message = wrong.validate().expect_err("too many").to_string();
        assert!(message.contains("17 embeddings"), "{message}");
        let unknown = serde_json::json!({"emu": value["emu"], "encoder": {}});
        let message = ModelConfig::from_value(&unknown)
            .expect_err("unknown")
            .to_string();
        assert!(message.contains("encoder"), "{message}");
    }

    #[test]
    fn every_parameter_has_its_component() {
        let config = mini();
        let device = Device::flex();
        let emu = config.emu.init(&device).expect("a model");
        for (name, _) in weights::parameters(&emu) {
            let lm = name.starts_with("lm.");
            assert_eq!(component(&name), if lm { LM } else { VISION }, "{name}");
        }
        let decoder = config.decoder.expect("one").init(&device).expect("a model");
        for (name, _) in weights::parameters(&decoder) {
            assert_eq!(component(&name), DECODER, "{name}");
        }
        assert_eq!(component("safety.visual_projection.weight"), SAFETY);
    }
}
