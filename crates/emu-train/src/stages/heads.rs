//! Names for what a frozen encoder sees, in closed form: one linear head over the square roots of its mean features, fitted
//! to single drawings ([`crate::lda`]). No gradient, one pass over the pictures; features are kept beside the run, so that a
//! pass that was interrupted goes on where it stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use emu_model::config::{ImageConfig, VisionConfig};
use emu_model::efficientnet::{self, EfficientNet};
use emu_pack::convert::open_weights;
use emu_pack::{SafetensorsFile, TensorData, TensorSource};
use serde::Deserialize;

use super::corpus::{image_tensor, open_set, pixels};
use crate::checkpoint::replace_tensors;
use crate::data::ShardDataset;
use crate::data::record::Record;
use crate::lda::Lda;
use crate::{RunOptions, TrainConfig, TrainError, TrainEvent};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Weights of EfficientNet-Lite2 as they are published.
    encoder: PathBuf,
    /// Added to the diagonal of the covariance of standardised features.
    #[serde(default = "one")]
    shrinkage: f64,
    /// Folders of held-out drawings.
    #[serde(default)]
    evaluate: Vec<PathBuf>,
}

fn one() -> f64 {
    1.0
}

/// Preprocessing of the published network.
const IMAGE: ImageConfig = ImageConfig::efficientnet_lite();
/// Pictures whose features are kept in one file.
const CHUNK: usize = 256;
/// The file of the heads in the folder of the run.
pub const FILE: &str = "heads.safetensors";

/// Features and names of a data set's drawings.
struct Seen {
    width: usize,
    features: Vec<f32>,
    names: Vec<String>,
}

/// Fits the head, measures it, and writes it into the run's folder with the names in their order.
///
/// # Errors
/// Where the configuration, the data or the encoder cannot be used, or a file cannot be written.
pub fn run(
    config: &TrainConfig,
    device: &Device,
    options: &mut RunOptions,
) -> Result<(PathBuf, Vec<String>), TrainError> {
    let settings: Options = config.options()?;
    let vision = VisionConfig::efficientnet_lite2();
    let (Some(sizes), size) = (&vision.efficientnet, vision.image_size) else {
        return Err(TrainError::config(
            "options.encoder",
            "it is no EfficientNet",
        ));
    };
    let weights = open_weights(&settings.encoder)?;
    let net = efficientnet::load(sizes, size, weights, device)?;
    let [data] = config.data.as_slice() else {
        return Err(TrainError::config(
            "data",
            "this stage reads one set of drawings",
        ));
    };
    let see = |path: &Path, kind: Option<&str>| -> Result<Seen, TrainError> {
        let set = open_set(path, kind.or(Some("drawings")))?;
        let split = path.file_name().unwrap_or_default().to_string_lossy();
        seen(
            &net,
            &set,
            size,
            &config.out.join("features"),
            &split,
            device,
        )
    };

    // 1. the head
    let train = see(&data.path, data.kind.as_deref())?;
    let mut places = BTreeMap::new();
    for name in &train.names {
        let next = places.len();
        places.entry(name.clone()).or_insert(next);
    }
    let labels: Vec<usize> = train.names.iter().map(|name| places[name]).collect();
    let lda = Lda::fit(&train.features, &labels, places.len(), settings.shrinkage)?;
    let mut names = vec![String::new(); places.len()];
    for (name, &place) in &places {
        names[place].clone_from(name);
    }

    // 2. what it names of drawings that it was not fitted to
    let mut figures = vec![];
    for path in &settings.evaluate {
        let held_out = see(path, None)?;
        let split = path.file_name().unwrap_or_default().to_string_lossy();
        for n in [1, 5] {
            let rows = held_out.features.chunks_exact(held_out.width);
            let right = rows.zip(&held_out.names).filter(|(row, name)| {
                let place = places.get(name.as_str());
                place.is_some_and(|&place| lda.is_among(row, place, n))
            });
            let share = right.count() as f32 / held_out.names.len().max(1) as f32;
            figures.push((format!("{split}.top{n}"), share));
        }
    }
    if let Some(on_event) = &mut options.on_event {
        on_event(TrainEvent::Evaluated {
            step: 1,
            figures: &figures,
        });
    }
    let tensors = [
        TensorData::from_f32("names.weight", vec![names.len(), lda.width], &lda.weight)?,
        TensorData::from_f32("names.bias", vec![names.len()], &lda.bias)?,
    ];
    let path = config.out.join(FILE);
    replace_tensors(&path, &tensors)?;
    Ok((path, names))
}

/// Square roots of the mean features of every drawing: kept in files, which are read where they are there.
fn seen(
    net: &EfficientNet,
    set: &ShardDataset,
    size: usize,
    folder: &Path,
    split: &str,
    device: &Device,
) -> Result<Seen, TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    let mut all = Seen {
        width: 0,
        features: vec![],
        names: vec![],
    };
    for first in (0..set.len()).step_by(CHUNK) {
        let last = (first + CHUNK).min(set.len());
        for i in first..last {
            match set.record(i)? {
                Record::Drawing(drawing) => all.names.push(drawing.object.name),
                _ => {
                    let reason = format!("sample {i} of {split} is no single drawing");
                    return Err(TrainError::config("data", reason));
                }
            }
        }
        let path = folder.join(format!("{split}-{:05}.safetensors", first / CHUNK));
        if let Some((width, values)) = kept(&path, last - first) {
            all.width = width;
            all.features.extend(values);
            continue;
        }
        let mut values: Vec<f32> = vec![];
        for i in first..last {
            let sample = set.get(i)?;
            let picture = sample
                .images
                .first()
                .ok_or_else(|| sample.refuse("it has no picture"))?;
            let picture = pixels(picture, size, &IMAGE).map_err(|e| sample.refuse(e))?;
            let features = net.features(image_tensor(picture, size, device));
            let [_, channels, h, w] = features.dims();
            let mean = features
                .reshape([channels, h * w])
                .mean_dim(1)
                .clamp_min(0.0);
            values.extend(mean.sqrt().into_data().iter::<f32>());
        }
        all.width = values.len() / (last - first);
        let shape = vec![last - first, all.width];
        replace_tensors(&path, &[TensorData::from_f32("features", shape, &values)?])?;
        all.features.extend(values);
    }
    Ok(all)
}

/// The features of `rows` drawings in a file that is whole.
fn kept(path: &Path, rows: usize) -> Option<(usize, Vec<f32>)> {
    let tensor = SafetensorsFile::open(path).ok()?.read("features").ok()?;
    match *tensor.info.shape.as_slice() {
        [n, width] if n == rows => Some((width, tensor.to_f32().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_features_must_be_of_as_many_drawings() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("train-00000.safetensors");
        assert!(kept(&path, 2).is_none(), "there is no file");
        let tensor = TensorData::from_f32("features", vec![2, 3], &[1.0; 6]).expect("fits");
        replace_tensors(&path, &[tensor]).expect("writes");
        assert_eq!(kept(&path, 2), Some((3, vec![1.0; 6])));
        assert!(kept(&path, 3).is_none());
        std::fs::write(&path, b"cut").expect("writes");
        assert!(kept(&path, 2).is_none());
    }
}
