//! From the folders of finished runs to a pack.

use std::path::PathBuf;

use emu_model::config::PromptConfig;
use emu_model::pack::{ModelConfig, TOKENIZER, component};
use emu_pack::convert::{Outcome, PackMeta, PackWriter, WriteOptions};
use emu_pack::{Manifest, TensorSource};

use crate::TrainError;
use crate::checkpoint::Checkpoint;
use crate::stages::read_model_file;

/// What goes into a pack.
#[derive(Clone, Debug)]
pub struct Export {
    /// Run of encoder and LM.
    pub emu: PathBuf,
    /// Run of the picture decoder, where the pack is to draw.
    pub decoder: Option<PathBuf>,
    /// `tokenizer.json` of the training data.
    pub tokenizer: PathBuf,
    /// Further files that go beside the weights.
    pub files: Vec<PathBuf>,
    /// Name, licence and attribution; the configuration is taken from the runs.
    pub meta: PackMeta,
    /// How tensors are stored.
    pub options: WriteOptions,
}

impl Export {
    /// Writes the pack and says what became of each tensor; averaged weights where a run kept them. A pack that was there before stays until the new one is
    /// whole.
    ///
    /// # Errors
    /// Where a run has no checkpoint, the parts do not fit each other, or the pack cannot be written.
    pub fn write(
        mut self,
        out: impl Into<PathBuf>,
    ) -> Result<(Manifest, Vec<Outcome>), TrainError> {
        let model = read_model_file(self.decoder.as_ref().unwrap_or(&self.emu))?;
        let mut config =
            ModelConfig::from_value(&model).map_err(|e| TrainError::other("config", e))?;
        // The training's own code says how its prompts are put, not what a run of long ago noted down.
        config.emu.prompts = PromptConfig::trained();
        self.meta.config =
            serde_json::to_value(&config).map_err(|e| TrainError::Stage(e.to_string()))?;
        let tokenizer =
            std::fs::read(&self.tokenizer).map_err(TrainError::io("read", &self.tokenizer))?;

        let mut writer = PackWriter::create(out.into(), self.meta, self.options)?;
        for run in std::iter::once(&self.emu).chain(&self.decoder) {
            let weights = Checkpoint::find(run)?.weights()?;
            let names: Vec<String> = weights.tensors().iter().map(|t| t.name.clone()).collect();
            for name in names {
                let tensor = weights.read(&name)?;
                tensor.check_finite()?;
                writer.add(component(&name), tensor)?;
            }
        }
        writer.add_file(TOKENIZER, &tokenizer)?;
        for file in &self.files {
            writer.copy_file(file)?;
        }
        Ok(writer.finish_with_outcomes()?)
    }
}
