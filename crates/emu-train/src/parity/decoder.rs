//! Goldens of the diffusion decoder.

use std::path::PathBuf;

use emu_kernels::burn::tensor::Device;
use emu_model::parity::diffusion::{Published, Reference};
use emu_model::parity::{Goldens, Row};
use emu_pack::convert::ModelFolder;
use emu_pack::{PackError, SafetensorsFile, TensorSource};
use serde_json::Value;

use super::folder::{Files, FolderError, Report, read, read_json};

/// The files behind the decoder's goldens.
struct Parts {
    goldens: SafetensorsFile,
    json: Value,
    unet: ModelFolder,
    vae: ModelFolder,
    safety: ModelFolder,
    pndm: Value,
    ddim: Value,
    extractor: Vec<u8>,
}

/// Compares all goldens of the decoder, or reports which file the folder lacks.
pub(super) fn compare(files: &Files, device: &Device, report: &mut Report) {
    let prefix = files.stem.strip_suffix("emu").unwrap_or("tiny-");
    let at = |name: &str| -> PathBuf { files.folder.join(format!("{prefix}{name}")) };
    if !at("sd-golden.safetensors").is_file() {
        let absent = format!("{prefix}sd-golden.safetensors");
        return report.skipped.push(("picture decoder", absent));
    }
    let open = || -> Result<Parts, FolderError> {
        Ok(Parts {
            goldens: SafetensorsFile::open(at("sd-golden.safetensors"))?,
            json: read_json(&at("sd-golden.json"))?,
            unet: ModelFolder::open(at("unet"))?,
            vae: ModelFolder::open(at("vae"))?,
            safety: ModelFolder::open(at("safety-checker"))?,
            pndm: read_json(&at("schedulers/pndm/scheduler_config.json"))?,
            ddim: read_json(&at("schedulers/ddim/scheduler_config.json"))?,
            extractor: read(&at("feature-extractor/preprocessor_config.json"))?,
        })
    };
    match open() {
        Ok(parts) => parts.compare(device, report),
        Err(error) if is_absent(&error) => {
            report
                .skipped
                .push(("picture decoder", format!("{prefix}unet (weights)")));
        }
        Err(error) => report.rows.push(Row::failed("sd", error)),
    }
}

/// Whether a folder holds a configuration but no weight file of a known name.
fn is_absent(error: &FolderError) -> bool {
    match error {
        FolderError::Parity(emu_model::parity::ParityError::Pack(error)) => {
            matches!(error, PackError::NoWeights { .. })
        }
        _ => false,
    }
}

impl Parts {
    fn compare(&self, device: &Device, report: &mut Report) {
        let published = |folder| -> Published<'_> {
            let folder: &ModelFolder = folder;
            Published {
                config: &folder.config,
                weights: folder,
            }
        };
        let reference = Reference {
            goldens: Goldens {
                tensors: &self.goldens,
                json: &self.json,
            },
            unet: published(&self.unet),
            vae: published(&self.vae),
            safety: published(&self.safety),
            pndm: &self.pndm,
            ddim: &self.ddim,
            extractor: &self.extractor,
        };
        let before = report.rows.len();
        report.take("decoder", reference.forward(device));
        report.take("train", reference.training(&device.clone().autodiff()));
        let compared: Vec<&str> = report.rows[before..]
            .iter()
            .map(|r| r.tensor.as_str())
            .collect();
        let left = self.goldens.tensors().iter().map(|info| info.name.as_str());
        let left: Vec<String> = left
            .filter(|name| !compared.contains(name) && !Reference::inputs().contains(name))
            .map(str::to_owned)
            .collect();
        report.uncompared.extend(left);
    }
}
