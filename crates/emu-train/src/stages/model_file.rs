//! The model files in run folders: sizes and weights; and the pixel range of the autoencoder.

use std::path::Path;

use burn::tensor::Device;
use emu_model::config::ImageConfig;
use emu_model::{Emu, EmuConfig, weights};
use emu_pack::TensorSource;

use crate::TrainError;

/// Name of the file beside a run's checkpoints that holds the sizes of its model.
pub const MODEL_FILE: &str = "model.json";

/// Loads the encoder and LM of a run from its folder, with EMA weights if it has them.
///
/// # Errors
/// If the folder holds no run of an Emu, or the weights do not match the sizes.
pub fn load_emu(folder: &Path, device: &Device) -> Result<(Emu, EmuConfig), TrainError> {
    let sizes = read_emu_sizes(folder)?;
    let model = sizes
        .init(device)
        .map_err(|e| TrainError::other("config", e))?;
    let source = crate::checkpoint::Checkpoint::find(folder)?.weights()?;
    let model = weights::load(model, device, |name| source.read(name))?;
    Ok((model, sizes))
}

/// The sizes of the encoder and LM of a run.
pub(super) fn read_emu_sizes(folder: &Path) -> Result<EmuConfig, TrainError> {
    let value = read_model_file(folder)?;
    serde_json::from_value(value.get("emu").cloned().unwrap_or_default()).map_err(|e| {
        TrainError::Checkpoint {
            path: folder.join(MODEL_FILE),
            reason: e.to_string(),
        }
    })
}

/// Reads the sizes of a part from a JSON file in the configuration.
pub(super) fn read_sizes<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    serde_json::from_str(&text)
        .map_err(|e| TrainError::config("options.sizes", format!("{}: {e}", path.display())))
}

/// Reads the sizes of a model from the file beside its checkpoints.
///
/// # Errors
/// If they cannot be read.
pub fn read_model_file(folder: &Path) -> Result<serde_json::Value, TrainError> {
    let path = folder.join(MODEL_FILE);
    let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    serde_json::from_str(&text).map_err(|e| TrainError::Checkpoint {
        path,
        reason: e.to_string(),
    })
}

/// Writes the sizes of a model into the file beside its checkpoints.
pub(super) fn write_model_file(out: &Path, value: &serde_json::Value) -> Result<(), TrainError> {
    std::fs::create_dir_all(out).map_err(TrainError::io("create", out))?;
    let path = out.join(MODEL_FILE);
    let text = serde_json::to_string_pretty(value).map_err(|e| TrainError::Stage(e.to_string()))?;
    std::fs::write(&path, text).map_err(TrainError::io("write", &path))
}

/// Normalisation to -1..1, the pixel range of the autoencoder.
pub const PLAIN: ImageConfig = ImageConfig {
    mean: [0.5; 3],
    std: [0.5; 3],
};
