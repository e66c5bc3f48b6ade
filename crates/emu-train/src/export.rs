//! Exports finished runs as a pack.

use std::collections::HashSet;
use std::path::PathBuf;

use emu_model::config::PromptConfig;
use emu_model::pack::{DECODER, ModelConfig, TOKENIZER, component};
use emu_pack::convert::{Outcome, PackMeta, PackWriter, WriteOptions};
use emu_pack::{MANIFEST_FILE, Manifest, PackReader, TensorSource};

use crate::TrainError;
use crate::adapter::Adapters;
use crate::checkpoint::Checkpoint;
use crate::parts::belongs;
use crate::stages::read_model_file;

/// Contents of a pack.
#[derive(Clone, Debug)]
pub struct Export {
    /// Run folder of encoder and LM.
    pub emu: PathBuf,
    /// Run folder of the diffusion decoder, or a pack whose decoder is copied. `None` for a pack without a decoder.
    pub decoder: Option<PathBuf>,
    /// `tokenizer.json` of the training data.
    pub tokenizer: PathBuf,
    /// Of encoder and LM, take the checkpoint that the run kept as its best, not the newest.
    pub best: bool,
    /// Add the LoRA adapters to the weights that they adapt, instead of storing them.
    pub merge: bool,
    /// Further files to copy beside the weights.
    pub files: Vec<PathBuf>,
    /// Name, licence and attribution. The configuration comes from the runs.
    pub meta: PackMeta,
    /// Storage options of the tensors.
    pub options: WriteOptions,
}

impl Export {
    /// Writes the pack and reports the outcome for each tensor. EMA weights are used if a run kept them. An existing
    /// pack stays in place until the new one is complete.
    ///
    /// # Errors
    /// If a run has no checkpoint, or no adapters to merge, the parts do not match, or the pack cannot be written.
    pub fn write(
        mut self,
        out: impl Into<PathBuf>,
    ) -> Result<(Manifest, Vec<Outcome>), TrainError> {
        let drawing = match &self.decoder {
            Some(path) if path.join(MANIFEST_FILE).is_file() => Some(PackReader::open(path)?),
            _ => None,
        };
        let run = self.decoder.as_ref().filter(|_| drawing.is_none());
        let read =
            |value: &_| ModelConfig::from_value(value).map_err(|e| TrainError::other("config", e));
        let mut config = read(&read_model_file(run.unwrap_or(&self.emu))?)?;
        if let Some(pack) = &drawing {
            config.decoder = read(&pack.manifest().config)?.decoder;
            config
                .validate()
                .map_err(|e| TrainError::other("config", e))?;
        }
        // The prompts are those of the current training code, not those recorded by an old run; those of a run on
        // conversations are part of what it learned.
        if config.emu.prompts.answered.is_empty() {
            config.emu.prompts = PromptConfig::trained();
        }
        let adapters = match self.merge {
            true => Some(Adapters::of_run(&self.emu, self.best)?),
            false => None,
        };
        if adapters.is_some() {
            config.emu.adapter = None;
        }
        self.meta.config =
            serde_json::to_value(&config).map_err(|e| TrainError::Stage(e.to_string()))?;
        let tokenizer =
            std::fs::read(&self.tokenizer).map_err(TrainError::io("read", &self.tokenizer))?;

        let mut writer = PackWriter::create(out.into(), self.meta, self.options)?;
        for run in std::iter::once(&self.emu).chain(run) {
            let checkpoint = match self.best && *run == self.emu {
                true => Checkpoint::best(run)?,
                false => Checkpoint::find(run)?,
            };
            let weights = checkpoint.weights()?;
            let names: Vec<String> = weights.tensors().iter().map(|t| t.name.clone()).collect();
            for name in names {
                if adapters.is_some() && belongs(&name, "*.lora") {
                    continue;
                }
                let mut tensor = weights.read(&name)?;
                tensor.check_finite()?;
                if let Some(adapters) = &adapters {
                    tensor = adapters.merge(tensor)?;
                }
                writer.add(component(&name), tensor)?;
            }
        }
        if let Some(pack) = &drawing {
            let stored: HashSet<&str> = pack.component_tensors(DECODER).collect();
            for info in pack.manifest().logical_tensors() {
                if stored.contains(info.name.as_str()) {
                    writer.add(DECODER, pack.read_logical(&info.name)?)?;
                }
            }
        }
        writer.add_file(TOKENIZER, &tokenizer)?;
        for file in &self.files {
            writer.copy_file(file)?;
        }
        Ok(writer.finish_with_outcomes()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use emu_model::config::EmuConfig;
    use emu_model::diffusion::decoder::DecoderConfig;
    use emu_pack::TensorData;
    use emu_pack::convert::{Policy, Precision};
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{self, RunState, Tensors};
    use crate::stages::MODEL_FILE;

    fn tensor(name: &str, value: f32) -> TensorData {
        TensorData::from_f32(name, vec![2, 3], &[value; 6]).unwrap()
    }

    fn pack(out: &Path, config: &ModelConfig, tensors: &[TensorData]) -> Manifest {
        let meta = PackMeta {
            config: serde_json::to_value(config).unwrap(),
            ..Default::default()
        };
        let options = WriteOptions {
            policy: Policy::uniform(Precision::F16),
            ..Default::default()
        };
        let mut writer = PackWriter::create(out, meta, options).unwrap();
        for tensor in tensors {
            writer
                .add(component(&tensor.info.name), tensor.clone())
                .unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_packs_decoder_is_taken_over_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let emu = EmuConfig::tiny();
        let old = ModelConfig {
            decoder: Some(DecoderConfig::emu_mini(emu.queries(), emu.lm.width)),
            safety: None,
            emu,
        };
        // 0.1 is not representable in f16: copied tensors must not be rounded a second time.
        let before = [tensor("vae.a.weight", 0.1), tensor("lm.a.weight", 1.0)];
        let before = pack(&at("old"), &old, &before);

        let run = ModelConfig {
            decoder: None,
            ..old.clone()
        };
        std::fs::create_dir(at("run")).unwrap();
        std::fs::write(at("run").join(MODEL_FILE), json!(run).to_string()).unwrap();
        std::fs::write(at("tokenizer.json"), "{}").unwrap();
        let trained = Tensors {
            model: vec![tensor("lm.a.weight", 2.0)],
            ..Default::default()
        };
        let state = RunState::new(1, 1, "pretrain", BTreeMap::new());
        checkpoint::write(&at("run"), state, &trained, &checkpoint::create_file).unwrap();

        let export = Export {
            emu: at("run"),
            decoder: Some(at("old")),
            tokenizer: at("tokenizer.json"),
            best: false,
            merge: false,
            files: vec![],
            meta: PackMeta::default(),
            options: WriteOptions {
                policy: Policy::uniform(Precision::F16),
                ..Default::default()
            },
        };
        let (after, _) = export.write(at("new")).unwrap();
        let config = ModelConfig::from_value(&after.config).unwrap();
        assert_eq!(config.decoder, old.decoder);
        let hash = |manifest: &Manifest, part: &str| {
            let shard = manifest.shards.iter().find(|s| s.file.starts_with(part));
            shard.map(|s| s.sha256.clone()).unwrap()
        };
        assert_eq!(hash(&before, DECODER), hash(&after, DECODER));
        assert_ne!(hash(&before, "lm"), hash(&after, "lm"));
        let read = PackReader::open(at("new")).unwrap();
        let lm = read.read_logical("lm.a.weight").unwrap();
        assert_eq!(lm.to_f32().unwrap(), [2.0; 6]);
    }

    #[test]
    fn adapters_are_merged_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut emu = EmuConfig::tiny();
        emu.adapter = Some(emu_model::config::AdapterConfig {
            rank: 2,
            alpha: 4.0,
        });
        emu.prompts.answered = "</s>".into();
        let config = ModelConfig {
            emu,
            decoder: None,
            safety: None,
        };
        std::fs::create_dir(at("run")).unwrap();
        std::fs::write(at("run").join(MODEL_FILE), json!(config).to_string()).unwrap();
        std::fs::write(at("tokenizer.json"), "{}").unwrap();
        let layer = "lm.layers.0.self_attn.q_proj";
        let square = TensorData::from_f32(format!("{layer}.lora.b"), vec![2, 2], &[1.0; 4]);
        let trained = Tensors {
            model: vec![
                tensor(&format!("{layer}.weight"), 1.0),
                tensor(&format!("{layer}.lora.a"), 0.5),
                square.unwrap(),
            ],
            ..Default::default()
        };
        let state = RunState::new(1, 1, "instruct", BTreeMap::new());
        checkpoint::write(&at("run"), state, &trained, &checkpoint::create_file).unwrap();
        for (merge, out) in [(false, "apart"), (true, "merged")] {
            let export = Export {
                emu: at("run"),
                decoder: None,
                tokenizer: at("tokenizer.json"),
                best: false,
                merge,
                files: vec![],
                meta: PackMeta::default(),
                options: WriteOptions::default(),
            };
            let (manifest, _) = export.write(at(out)).unwrap();
            let written = ModelConfig::from_value(&manifest.config).unwrap();
            assert_eq!(written.emu.adapter.is_none(), merge);
            // The prompts of a run on conversations are its own.
            assert_eq!(written.emu.prompts, config.emu.prompts);
            assert_eq!(manifest.tensors.len(), if merge { 1 } else { 3 });
            let pack = PackReader::open(at(out)).unwrap();
            let weight = pack.read_logical(&format!("{layer}.weight")).unwrap();
            // 1 + 4 / 2 · (0.5 + 0.5)
            let expected = if merge { 3.0 } else { 1.0 };
            assert_eq!(weight.to_f32().unwrap(), [expected; 6]);
        }
    }
}
