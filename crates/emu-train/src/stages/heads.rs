//! Fits a classifier of names to a frozen encoder, in closed form: a linear head over its pooled features (square roots
//! of mean features for an EfficientNet, the first token for a CLIP), fitted to single drawings ([`crate::lda`]). It
//! takes one pass over the pictures and no gradients. Features are cached beside the run, so that an interrupted pass
//! can be resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use emu_media::image::{Limits, decode};
use emu_model::config::ImageConfig;
use emu_model::vision::Vision;
use emu_pack::{SafetensorsFile, TensorData, TensorSource};
use serde::Deserialize;

use super::corpus::{image_tensor, open_set, pixels};
use crate::checkpoint::replace_tensors;
use crate::data::record::Record;
use crate::data::{DataError, Picture, ShardDataset};
use crate::eyes::Eyes;
use crate::lda::Lda;
use crate::logistic::{Calibrated, Examples, Logistic};
use crate::{RunOptions, TrainConfig, TrainError, TrainEvent};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// A published encoder: the file of an EfficientNet-Lite2, or the folder of a CLIP.
    encoder: PathBuf,
    /// Added to the diagonal of the covariance of the standardised features.
    #[serde(default = "one")]
    shrinkage: f64,
    /// Folders of held-out drawings.
    #[serde(default)]
    evaluate: Vec<PathBuf>,
    /// Folder of photographs, to train a gate that separates them from drawings. Every second one is held out.
    #[serde(default)]
    photos: Option<PathBuf>,
}

fn one() -> f64 {
    1.0
}

/// Number of pictures per feature file.
const CHUNK: usize = 256;
/// Name of the heads' file in the run's folder.
pub const FILE: &str = "heads.safetensors";

/// Features and names of the drawings of a data set.
struct Seen {
    width: usize,
    features: Vec<f32>,
    names: Vec<String>,
}

/// Fits the head, evaluates it, and writes it into the run's folder. Returns the path and the names by class index.
///
/// # Errors
/// If the configuration, the data or the encoder cannot be used, or a file cannot be written.
pub fn run(
    config: &TrainConfig,
    device: &Device,
    options: &mut RunOptions,
) -> Result<(PathBuf, Vec<String>), TrainError> {
    let settings: Options = config.options()?;
    let encoder = Encoder::open(&settings.encoder, device)?;
    let [data] = config.data.as_slice() else {
        return Err(TrainError::config(
            "data",
            "this stage reads one set of drawings",
        ));
    };
    let see = |path: &Path, kind: Option<&str>| -> Result<Seen, TrainError> {
        let set = open_set(path, kind.or(Some("drawings")))?;
        let split = path.file_name().unwrap_or_default().to_string_lossy();
        seen(&encoder, &set, &config.out.join("features"), &split)
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

    // 2. accuracy on held-out drawings
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
    let mut tensors = vec![
        TensorData::from_f32("names.weight", vec![names.len(), lda.width], &lda.weight)?,
        TensorData::from_f32("names.bias", vec![names.len()], &lda.bias)?,
    ];

    // 3. the gate for photographs
    if let Some(folder) = &settings.photos {
        let photos = photographs(folder, |picture| encoder.look(picture))?;
        let gate = gate(&photos, &train, &mut figures)?;
        let weight = TensorData::from_f32("gate.weight", vec![1, lda.width], &gate.weight)?;
        let bias = TensorData::from_f32("gate.bias", vec![1], &[gate.bias])?;
        tensors.extend([weight, bias]);
    }
    if let Some(on_event) = &mut options.on_event {
        on_event(TrainEvent::Evaluated {
            step: 1,
            figures: &figures,
        });
    }
    let path = config.out.join(FILE);
    replace_tensors(&path, &tensors)?;
    Ok((path, names))
}

/// Features of every drawing, cached in files.
fn seen(
    encoder: &Encoder,
    set: &ShardDataset,
    folder: &Path,
    split: &str,
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
            values.extend(encoder.look(picture).map_err(|e| sample.refuse(e))?);
        }
        all.width = values.len() / (last - first);
        let shape = vec![last - first, all.width];
        replace_tensors(&path, &[TensorData::from_f32("features", shape, &values)?])?;
        all.features.extend(values);
    }
    Ok(all)
}

/// A published encoder with its preprocessing.
struct Encoder {
    net: Vision,
    size: usize,
    image: ImageConfig,
    roots: bool,
    device: Device,
}

impl Encoder {
    fn open(path: &Path, device: &Device) -> Result<Self, TrainError> {
        let eyes = Eyes::open(path)?;
        Ok(Self {
            net: eyes.load(device)?,
            size: eyes.vision.image_size,
            image: eyes.image,
            roots: eyes.roots,
            device: device.clone(),
        })
    }

    /// The features of a picture for the classifier.
    fn look(&self, picture: &Picture) -> Result<Vec<f32>, DataError> {
        let picture = pixels(picture, self.size, &self.image)?;
        let tokens = self
            .net
            .forward(image_tensor(picture, self.size, &self.device));
        let first = tokens.narrow(1, 0, 1);
        let features = match self.roots {
            true => first.clamp_min(0.0).sqrt(),
            false => first,
        };
        Ok(features.into_data().iter().collect())
    }
}

/// The features of all pictures in a folder and its subfolders, in order of their paths.
fn photographs(
    folder: &Path,
    look: impl Fn(&Picture) -> Result<Vec<f32>, DataError>,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let (mut folders, mut files) = (vec![folder.to_owned()], vec![]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(TrainError::io("read", &folder))?;
        for entry in entries {
            let path = entry.map_err(TrainError::io("read", &folder))?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let mut found = vec![];
    for path in files {
        let bytes = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
        // Other files are skipped.
        let Ok(rgb) = decode(&bytes, &Limits::default()) else {
            tracing::info!("{} is no picture", path.display());
            continue;
        };
        let (width, height) = rgb.dimensions();
        let picture = Picture {
            width,
            height,
            rgb: rgb.into_raw(),
        };
        let features = look(&picture);
        found.push(features.map_err(|e| TrainError::other("data", e))?);
    }
    match found.len() {
        0..4 => Err(TrainError::config(
            "options.photos",
            format!("{} holds fewer than four pictures", folder.display()),
        )),
        _ => Ok(found),
    }
}

/// Fits the gate that separates photographs from drawings. Every second example of either is held out for evaluation.
fn gate(
    photos: &[Vec<f32>],
    drawings: &Seen,
    figures: &mut Vec<(String, f32)>,
) -> Result<Logistic, TrainError> {
    let photos = photos.iter().map(|row| (row.as_slice(), true));
    let drawings = { drawings.features.chunks_exact(drawings.width) }.map(|row| (row, false));
    let (mut learnt, mut held_out) = (vec![], vec![]);
    for (i, example) in photos.enumerate().chain(drawings.enumerate()) {
        if i % 2 == 0 {
            learnt.push(example);
        } else {
            held_out.push(example);
        }
    }
    let rows: Vec<f32> = learnt
        .iter()
        .flat_map(|(row, _)| row.iter().copied())
        .collect();
    let labels: Vec<bool> = learnt.iter().map(|(_, photo)| *photo).collect();
    let groups: Vec<usize> = (0..learnt.len()).collect();
    let examples = Examples {
        rows: &rows,
        used: 0,
        labels: &labels,
        groups: &groups,
    };
    let width = rows.len() / labels.len().max(1);
    let found = Calibrated::fit(&examples, &[width], &GATE_PENALTIES, GATE_FALSE_ALARMS)?;
    for (name, photo) in [("photos", true), ("drawings", false)] {
        let of = held_out.iter().filter(|(_, is)| *is == photo);
        let right = of
            .clone()
            .filter(|(row, _)| (found.classifier.score(row) > 0.0) == photo);
        let share = right.count() as f32 / of.count().max(1) as f32;
        figures.push((format!("gate.{name}"), share));
    }
    Ok(found.classifier)
}

/// Penalties to try for the gate.
const GATE_PENALTIES: [f64; 2] = [1e-2, 1e-1];
/// Maximum share of drawings classified as photographs.
const GATE_FALSE_ALARMS: f64 = 0.005;

/// Reads the features of `rows` drawings, if the file is complete.
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
