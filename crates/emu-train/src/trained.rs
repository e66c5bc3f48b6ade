//! A trained part of a model, independent of its run: sizes and weights in two files. They can be kept with the source
//! code, and `emu assemble` accepts them in place of the run.

use std::path::{Path, PathBuf};

use emu_pack::{Dtype, PackError, SafetensorsFile, TensorData, TensorSource};
use half::f16;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::TrainError;
use crate::checkpoint::{Checkpoint, create_file, replace_file, replace_tensors};
use crate::stages::{MODEL_FILE, PERSONA, TRIGGER, read_model_file};

/// The file of the weights.
pub const WEIGHTS: &str = "weights.safetensors";

/// A trained part of a model.
#[derive(Debug)]
pub struct Trained {
    /// Its `model.json`.
    pub sizes: Value,
    /// Its weights, named as in a run.
    pub tensors: Vec<TensorData>,
    folder: PathBuf,
}

fn all(file: &impl TensorSource) -> Result<Vec<TensorData>, TrainError> {
    let infos = file.tensors().iter();
    let tensors = infos.map(|info| {
        let tensor = file.read(&info.name)?;
        tensor.check_finite()?;
        Ok(tensor)
    });
    tensors.collect()
}

/// The same tensor in f16.
fn half(tensor: &TensorData) -> Result<TensorData, PackError> {
    let values = tensor.to_f32()?;
    let bytes = values
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    let info = &tensor.info;
    TensorData::new(info.name.clone(), Dtype::F16, info.shape.clone(), bytes)
}

impl Trained {
    /// Reads a part, or the run of one. From a run it takes the newest valid checkpoint, with EMA weights if the run
    /// kept them; for a soft prompt, the best one; with a reader of requests, also its trigger.
    ///
    /// # Errors
    /// If the folder is neither, or a file is damaged.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let sizes = read_model_file(folder)?;
        let file = |name: &str| SafetensorsFile::open(folder.join(name));
        let tensors = if folder.join(WEIGHTS).is_file() {
            all(&file(WEIGHTS)?)?
        } else if sizes.get("persona").is_some() {
            all(&file(PERSONA)?)?
        } else {
            let mut tensors = all(&Checkpoint::find(folder)?.weights()?)?;
            if sizes.get("trigger").is_some() {
                tensors.extend(all(&file(TRIGGER)?)?);
            }
            tensors
        };
        Ok(Self {
            sizes,
            tensors,
            folder: folder.to_owned(),
        })
    }

    /// An entry of its sizes.
    ///
    /// # Errors
    /// If the entry is missing or has the wrong type.
    pub fn size<T: DeserializeOwned>(&self, name: &str) -> Result<T, TrainError> {
        let value = self.sizes.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| TrainError::Checkpoint {
            path: self.folder.join(MODEL_FILE),
            reason: format!("{name}: {e}"),
        })
    }

    /// Writes the part in f16.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        let halves: Vec<TensorData> = self.tensors.iter().map(half).collect::<Result<_, _>>()?;
        let sizes = serde_json::to_vec(&self.sizes).map_err(|e| TrainError::other("json", e))?;
        replace_tensors(&folder.join(WEIGHTS), &halves)?;
        replace_file(&folder.join(MODEL_FILE), &sizes, &create_file)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{self, RunState, Tensors};

    fn tensor(name: &str, value: f32) -> TensorData {
        TensorData::from_f32(name, vec![2], &[value; 2]).expect("a tensor")
    }

    fn run(folder: &Path, sizes: &Value) {
        let weights = Tensors {
            model: vec![tensor("a.weight", 0.1)],
            average: Some(vec![tensor("a.weight", 0.2)]),
            ..Default::default()
        };
        let state = RunState::new(1, 1, "reader", Default::default());
        checkpoint::write(folder, state, &weights, &create_file).expect("a checkpoint");
        std::fs::write(folder.join(MODEL_FILE), sizes.to_string()).expect("written");
    }

    fn values(part: &Trained) -> Vec<(String, f32)> {
        let of = |t: &TensorData| (t.info.name.clone(), t.to_f32().expect("numbers")[0]);
        part.tensors.iter().map(of).collect()
    }

    #[test]
    fn what_a_run_left_is_kept_in_two_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("run"), folder.path().join("part"));
        std::fs::create_dir(&from).expect("a folder");
        run(&from, &json!({"reader": {"depth": 3}, "trigger": {}}));
        let error = Trained::open(&from).expect_err("no trigger").to_string();
        assert!(error.contains(TRIGGER), "{error}");
        replace_tensors(&from.join(TRIGGER), &[tensor("trigger.bias", 0.5)]).expect("written");
        let part = Trained::open(&from).expect("a run");
        let expected = [("a.weight".into(), 0.2), ("trigger.bias".into(), 0.5)];
        assert_eq!(values(&part), expected);
        part.write(&to).expect("written");
        let kept = Trained::open(&to).expect("a part");
        assert_eq!(kept.sizes, part.sizes);
        let near =
            |(a, b): (&(String, f32), &(String, f32))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-3;
        assert!(values(&kept).iter().zip(&expected).all(near));
        assert_eq!(kept.tensors[0].info.dtype, Dtype::F16);

        #[derive(Debug, serde::Deserialize)]
        struct Sizes {
            depth: usize,
        }
        assert_eq!(kept.size::<Sizes>("reader").expect("sizes").depth, 3);
        let error = kept
            .size::<Sizes>("decoder")
            .expect_err("another")
            .to_string();
        assert!(error.contains("decoder"), "{error}");
    }

    #[test]
    fn of_a_soft_prompt_the_best_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        run(folder.path(), &json!({"persona": {}}));
        let best = [tensor("embeddings", 0.25)];
        replace_tensors(&folder.path().join(PERSONA), &best).expect("written");
        let part = Trained::open(folder.path()).expect("a run");
        assert_eq!(values(&part), [("embeddings".into(), 0.25)]);
    }
}
