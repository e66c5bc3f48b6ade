//! LoRA adapters of trained models, apart from the weights that they adapt, and merged into them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use emu_model::EmuConfig;
use emu_model::config::AdapterConfig;
use emu_pack::{PackError, TensorData, TensorSource};
use rayon::prelude::*;

use crate::TrainError;
use crate::checkpoint::Checkpoint;
use crate::parts::belongs;
use crate::stages::read_model_file;

/// The adapters of a model.
#[derive(Debug)]
pub struct Adapters {
    /// Their rank and scale.
    pub config: AdapterConfig,
    /// `a`, `[rank, in]`, and `b`, `[out, rank]`, by the name of the layer that they adapt.
    layers: BTreeMap<String, [TensorData; 2]>,
    source: PathBuf,
}

impl Adapters {
    /// The adapters of a training run, of its best or its newest checkpoint.
    ///
    /// # Errors
    /// If there is no run, it has no adapters, or a file is damaged.
    pub fn of_run(folder: &Path, best: bool) -> Result<Self, TrainError> {
        let config = sizes_of_run(folder)?;
        Self::of_checkpoint(folder, config, &chosen(folder, best)?)
    }

    /// The adapters of a training run in which nothing else learned, for the model that it began from.
    ///
    /// # Errors
    /// As [`Adapters::of_run`], and if other parts learned too: on the old ones these adapters mean something else.
    pub fn of_run_alone(folder: &Path, best: bool) -> Result<Self, TrainError> {
        let config = sizes_of_run(folder)?;
        let checkpoint = chosen(folder, best)?;
        let learning = checkpoint.learning()?;
        let others: BTreeSet<&str> = learning
            .iter()
            .filter(|name| !belongs(name, "*.lora"))
            .filter_map(|name| name.split('.').next())
            .collect();
        if !others.is_empty() {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            return Err(TrainError::NotAlone {
                path: folder.into(),
                others,
            });
        }
        Self::of_checkpoint(folder, config, &checkpoint)
    }

    fn of_checkpoint(
        folder: &Path,
        config: AdapterConfig,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TrainError> {
        let weights = checkpoint.weights()?;
        let names: Vec<String> = weights.tensors().iter().map(|t| t.name.clone()).collect();
        Self::read(folder, config, names.iter().map(String::as_str), |name| {
            weights.read(name)
        })
    }

    /// The adapters among these tensors of `source`.
    ///
    /// # Errors
    /// If there are none, one is incomplete or of another rank, or a tensor cannot be read.
    pub fn read<'n>(
        source: &Path,
        config: AdapterConfig,
        names: impl IntoIterator<Item = &'n str>,
        mut read: impl FnMut(&str) -> Result<TensorData, PackError>,
    ) -> Result<Self, TrainError> {
        let mut layers = BTreeMap::new();
        for layer in names.into_iter().filter_map(|name| name.strip_suffix(A)) {
            let [a, b] = [read(&format!("{layer}{A}"))?, read(&format!("{layer}{B}"))?];
            for tensor in [&a, &b] {
                tensor.check_finite()?;
            }
            let rank = config.rank;
            let fits =
                |t: &TensorData, axis: usize| t.info.shape.len() == 2 && t.info.shape[axis] == rank;
            if !(fits(&a, 0) && fits(&b, 1)) {
                return Err(unusable(
                    source,
                    format!("the adapter of `{layer}` is not of rank {rank}"),
                ));
            }
            layers.insert(layer.to_string(), [a, b]);
        }
        match layers.is_empty() {
            true => Err(unusable(source, NONE.into())),
            false => Ok(Self {
                config,
                layers,
                source: source.into(),
            }),
        }
    }

    /// Checks that each adapts a matrix of a model. `shape` gives the shape of a tensor of it.
    ///
    /// # Errors
    /// Names the first matrix that is missing or has another shape.
    pub fn check(&self, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<(), TrainError> {
        for (layer, [a, b]) in &self.layers {
            let weight = format!("{layer}.weight");
            let wanted = [b.info.shape[0], a.info.shape[1]];
            let found = shape(&weight);
            if found.as_deref() != Some(&wanted[..]) {
                let found = found.map_or("nothing".into(), |found| format!("{found:?}"));
                let reason =
                    format!("it adapts `{weight}` of {wanted:?}, and the model has {found}");
                return Err(unusable(&self.source, reason));
            }
        }
        Ok(())
    }

    /// Names of the adapters' tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers
            .values()
            .flatten()
            .map(|tensor| tensor.info.name.as_str())
    }

    /// A tensor of an adapter by its name.
    pub fn get(&self, name: &str) -> Option<&TensorData> {
        let layer = name.strip_suffix(A).or_else(|| name.strip_suffix(B))?;
        self.layers
            .get(layer)?
            .iter()
            .find(|tensor| tensor.info.name == name)
    }

    /// A tensor of the model with its adapter's update added, if it has one; otherwise as it is.
    ///
    /// # Errors
    /// If the shapes do not match, or the tensor holds no numbers.
    pub fn merge(&self, tensor: TensorData) -> Result<TensorData, PackError> {
        let layer = tensor.info.name.strip_suffix(".weight");
        let Some([a, b]) = layer.and_then(|layer| self.layers.get(layer)) else {
            return Ok(tensor);
        };
        let shape = vec![b.info.shape[0], a.info.shape[1]];
        if tensor.info.shape != shape {
            return Err(PackError::Misshapen {
                file: self.source.display().to_string(),
                tensor: tensor.info.name,
                expected: format!("{:?}", tensor.info.shape),
                found: format!("{shape:?}"),
            });
        }
        let scale = self.config.alpha / self.config.rank as f64;
        let (a, b, width) = (a.to_f32()?, b.to_f32()?, shape[1]);
        let mut values = tensor.to_f32()?;
        values
            .par_chunks_mut(width)
            .zip(b.par_chunks(self.config.rank))
            .for_each(|(row, factors)| {
                for (factor, basis) in factors.iter().zip(a.chunks(width)) {
                    let factor = (f64::from(*factor) * scale) as f32;
                    row.iter_mut()
                        .zip(basis)
                        .for_each(|(w, x)| *w += factor * x);
                }
            });
        TensorData::from_f32(tensor.info.name, shape, &values)
    }
}

/// Endings of the names of an adapter's tensors.
const A: &str = ".lora.a";
const B: &str = ".lora.b";

const NONE: &str = "it has no LoRA adapters";

/// Rank and scale of a run's adapters.
fn sizes_of_run(folder: &Path) -> Result<AdapterConfig, TrainError> {
    let sizes = read_model_file(folder)?;
    let sizes: EmuConfig = serde_json::from_value(sizes.get("emu").cloned().unwrap_or_default())
        .map_err(|e| unusable(folder, format!("its sizes are not those of an Emu: {e}")))?;
    sizes.adapter.ok_or_else(|| unusable(folder, NONE.into()))
}

/// The best or the newest checkpoint of a run.
fn chosen(folder: &Path, best: bool) -> Result<Checkpoint, TrainError> {
    match best {
        true => Checkpoint::best(folder),
        false => Checkpoint::find(folder),
    }
}

fn unusable(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, RunState, Tensors};
    use crate::stages::MODEL_FILE;

    const LAYER: &str = "lm.layers.0.self_attn.q_proj";

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> TensorData {
        TensorData::from_f32(format!("{LAYER}.{name}"), shape.to_vec(), values).unwrap()
    }

    fn adapters(rank: usize) -> Result<Adapters, TrainError> {
        let all = [
            tensor("lora.a", &[2, 3], &[1.0, 0.0, 2.0, 0.0, 1.0, 0.0]),
            tensor("lora.b", &[2, 2], &[1.0, 0.0, 1.0, -1.0]),
            tensor("weight", &[2, 3], &[0.0; 6]),
        ];
        let config = AdapterConfig { rank, alpha: 4.0 };
        let names = all.iter().map(|tensor| tensor.info.name.as_str());
        Adapters::read(Path::new("run"), config, names, |name| {
            let found = all.iter().find(|tensor| tensor.info.name == name);
            Ok(found.cloned().unwrap())
        })
    }

    #[test]
    fn a_merged_weight_has_the_scaled_product_added() {
        let adapters = adapters(2).unwrap();
        let merged = adapters
            .merge(tensor("weight", &[2, 3], &[10.0; 6]))
            .unwrap();
        // 4 / 2 of [[1, 0, 2], [1, -1, 2]]
        assert_eq!(
            merged.to_f32().unwrap(),
            [12.0, 10.0, 14.0, 12.0, 8.0, 14.0]
        );
        assert_eq!(merged.info.shape, [2, 3]);
        // What has no adapter stays.
        let other = tensor("bias", &[2], &[1.0, 2.0]);
        assert_eq!(
            adapters.merge(other.clone()).unwrap().to_f32().unwrap(),
            other.to_f32().unwrap()
        );
        assert!(
            adapters
                .merge(tensor("weight", &[3, 2], &[0.0; 6]))
                .is_err()
        );
    }

    #[test]
    fn adapters_that_do_not_fit_are_refused() {
        let found = adapters(2).unwrap();
        let names: Vec<&str> = found.names().collect();
        assert_eq!(
            names,
            [format!("{LAYER}.lora.a"), format!("{LAYER}.lora.b")]
        );
        assert!(found.get(names[1]).is_some() && found.get("x.lora.a").is_none());
        found
            .check(|name| name.ends_with("q_proj.weight").then(|| vec![2, 3]))
            .unwrap();
        let error = found.check(|_| Some(vec![2, 4])).unwrap_err().to_string();
        assert!(
            error.contains("[2, 3]") && error.contains("[2, 4]"),
            "{error}"
        );
        let error = found.check(|_| None).unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
        let error = adapters(3).unwrap_err().to_string();
        assert!(error.contains("rank 3"), "{error}");
        let config = AdapterConfig {
            rank: 1,
            alpha: 1.0,
        };
        let none = Adapters::read(
            Path::new("run"),
            config,
            ["lm.norm.gamma"],
            |_| unreachable!(),
        );
        assert!(none.unwrap_err().to_string().contains("no LoRA adapters"));
    }

    #[test]
    fn adapters_of_a_run_in_which_more_learned_are_not_taken_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut emu = EmuConfig::tiny();
        emu.adapter = Some(AdapterConfig {
            rank: 2,
            alpha: 4.0,
        });
        let run = |name: &str, learning: &[&str]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let sizes = serde_json::json!({ "emu": emu });
            std::fs::write(path.join(MODEL_FILE), sizes.to_string()).unwrap();
            let moment =
                |name: &&str| TensorData::from_f32(format!("{name}.m"), vec![1], &[0.0]).unwrap();
            let tensors = Tensors {
                model: vec![
                    tensor("lora.a", &[2, 3], &[0.0; 6]),
                    tensor("lora.b", &[2, 2], &[0.0; 4]),
                ],
                optimiser: learning.iter().map(moment).collect(),
                ..Default::default()
            };
            let state = RunState::new(1, 1, "pretrain", BTreeMap::new());
            checkpoint::write(&path, state, &tensors, &checkpoint::create_file).unwrap();
            path
        };
        let adapter = format!("{LAYER}.lora.a");
        let alone = run("alone", &[adapter.as_str()]);
        let found = Adapters::of_run_alone(&alone, false).unwrap();
        assert_eq!(found.names().count(), 2);
        let more = run(
            "more",
            &["cformer.norm.weight", adapter.as_str(), "cformer.b"],
        );
        let error = Adapters::of_run_alone(&more, false).unwrap_err();
        assert_eq!(error.code(), "adapters-not-alone");
        let error = error.to_string();
        assert!(error.contains("but cformer too"), "{error}");
        // With the rest of the run they are what was trained.
        assert!(Adapters::of_run(&more, false).is_ok());
    }
}
