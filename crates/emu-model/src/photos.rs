//! Namer of photographs: the classifier's class if it is sure of one, else the most specific kind that it is sure of,
//! else a name for the unknown.
//!
//! The probability of a kind is the sum over its classes; kinds contain each other like WordNet's hypernyms. The most
//! specific class or kind whose probability reaches the threshold is spelled, and nothing else.
//!
//! B batch, F features, C classes, K kinds, T tokens per name, D width of the language model.

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor};
use emu_kernels::init::{Init, param};
use emu_kernels::{QEmbedding, QLinear};
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Configuration of the namer of photographs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhotosConfig {
    /// C
    pub classes: usize,
    /// K
    pub kinds: usize,
    /// Minimum probability of a class or kind to be spelled.
    pub threshold: f64,
    /// Probability that a classifier trained with label smoothing leaves for every class: subtracted before
    /// probabilities are summed.
    pub floor: f64,
}

/// Largest number of classes and of kinds.
const MOST: usize = 1 << 16;

impl PhotosConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// Names the first invalid value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (name, n) in [("classes", self.classes), ("kinds", self.kinds)] {
            if n == 0 || n > MOST {
                let what = format!("namer.photos.{name} is {n}, not 1 to {MOST}");
                return Err(ConfigError(what));
            }
        }
        // At 0.5 or less, two classes could reach the threshold at once.
        if !(self.threshold > 0.5 && self.threshold <= 1.0) {
            let threshold = self.threshold;
            let what = format!("namer.photos.threshold is {threshold}, not above 0.5 to 1");
            return Err(ConfigError(what));
        }
        if !(0.0..0.5).contains(&(self.floor * self.classes as f64)) {
            let floor = self.floor;
            return Err(ConfigError(format!(
                "namer.photos.floor is {floor}, which leaves nothing of {} classes",
                self.classes
            )));
        }
        Ok(())
    }

    /// Creates the networks for names of `tokens` tokens.
    pub fn init(&self, features: usize, tokens: usize, device: &Device) -> Photos {
        let all = self.classes + self.kinds;
        Photos {
            gate: QLinear::new(features, 1, true, device),
            classifier: QLinear::new(features, self.classes, true, device),
            members: param([self.classes, self.kinds], Init::Zeros, device),
            names: param([all + 1, tokens], Init::Zeros, device),
            natural: param([1, 1], Init::Zeros, device),
            threshold: self.threshold,
            floor: self.floor,
        }
    }
}

/// Namer of photographs.
#[derive(Module, Debug)]
pub struct Photos {
    /// Gate on the square roots of the mean features, `[1, F]`: above 0 for photographs.
    pub gate: QLinear,
    /// Mean features to class logits, `[C, F]`.
    pub classifier: QLinear,
    /// Class membership, `[C, K]`: 1 if a class belongs to a kind, else 0; the most general kind first.
    pub members: Param<Tensor<2>>,
    /// Token ids of the names of the unknown, the kinds and the classes: `[1 + K + C, T]`, -1 where a name is shorter.
    pub names: Param<Tensor<2>>,
    /// Id of the token for a photograph's background, `[1, 1]`.
    pub natural: Param<Tensor<2>>,
    /// See [`PhotosConfig::threshold`].
    pub threshold: f64,
    /// See [`PhotosConfig::floor`].
    pub floor: f64,
}

/// Result of reading a photograph.
#[derive(Debug)]
pub struct Read {
    /// 1 for photographs, 0 for other images, `[B, 1]`.
    pub photo: Tensor<2>,
    /// Token embeddings of the name, `[B, T, D]`; zeros where it is shorter.
    pub name: Tensor<3>,
    /// Embedding that replaces the colour's, `[1, D]`.
    pub background: Tensor<2>,
}

impl Photos {
    /// One-hot row of [`Photos::names`] for each image: 0 for the unknown, then kinds, then classes, `[B, 1 + K + C]`.
    fn choose(&self, mean: Tensor<2>) -> Tensor<2> {
        let likely = softmax(self.classifier.forward(mean), 1);
        let likely = relu(likely - self.floor);
        let likely = likely.clone() / likely.sum_dim(1); // [B, C]
        let members = self.members.val();
        let [b, _] = likely.dims();
        let unknown = Tensor::ones([b, 1], &likely.device());
        let all = Tensor::cat(vec![unknown, likely.clone().matmul(members), likely], 1);
        // If several reach the threshold, the last one is the most specific.
        let sure = all.greater_equal_elem(self.threshold).float();
        let [_, n] = sure.dims();
        let order = Tensor::<1, burn::tensor::Int>::arange(1..n as i64 + 1, &sure.device());
        let order = sure * order.float().reshape([1, n]);
        let best = order.clone().max_dim(1);
        order.equal(best.expand([b, n])).float()
    }

    /// Reads images.
    ///
    /// # Shapes
    /// - `mean`: `[B, F]`, the encoder's mean features
    /// - `table`: the language model's token embeddings
    pub fn read(&self, mean: Tensor<2>, table: &QEmbedding) -> Read {
        let gate = self.gate.forward(mean.clone().clamp_min(0.0).sqrt());
        let photo = gate.greater_elem(0.0).float();
        let ids = self.choose(mean).matmul(self.names.val()); // [B, T]
        let [b, t] = ids.dims();
        let there = ids.clone().greater_equal_elem(0.0).float();
        let embed = |ids: Tensor<2>| table.forward(ids.clamp_min(0.0).round().int());
        Read {
            photo,
            name: embed(ids) * there.reshape([b, t, 1]),
            background: embed(self.natural.val()).squeeze_dim::<2>(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::TensorData;

    use super::*;

    const CONFIG: PhotosConfig = PhotosConfig {
        classes: 3,
        kinds: 2,
        threshold: 0.7,
        floor: 0.001,
    };

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Kinds: "animal" (all three), "cat" (the first two). Logits are the features.
    fn photos() -> Photos {
        let mut photos = CONFIG.init(3, 2, &Device::flex());
        let set = |values: &[f32], shape| Param::initialized(ParamId::new(), tensor(values, shape));
        photos.gate.weight = set(&[1.0, 0.0, 0.0], [1, 3]);
        photos.classifier.weight = set(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [3, 3]);
        photos.members = set(&[1.0, 1.0, 1.0, 1.0, 1.0, 0.0], [3, 2]);
        let names = [
            0.0, 1.0, 2.0, -1.0, 3.0, -1.0, 4.0, 3.0, 5.0, 3.0, 6.0, -1.0,
        ];
        photos.names = set(&names, [6, 2]);
        photos.natural = set(&[7.0], [1, 1]);
        photos
    }

    fn table() -> QEmbedding {
        let rows: Vec<f32> = (0..8).map(|v| v as f32 + 10.0).collect();
        QEmbedding {
            weight: Param::initialized(ParamId::new(), tensor(&rows, [8, 1])),
        }
    }

    #[test]
    fn the_most_specific_name_that_is_sure_is_spelled() {
        let photos = photos();
        let named = |logits: [f32; 3]| -> Vec<f32> {
            let read = photos.read(tensor(&logits, [1, 3]), &table());
            read.name.into_data().iter::<f32>().collect()
        };
        // A class; two classes of a common kind; two classes that share only the most general kind.
        assert_eq!(named([9.0, 1.0, 1.0]), [14.0, 13.0]);
        assert_eq!(named([1.0, 1.0, 9.0]), [16.0, 0.0]);
        assert_eq!(named([9.0, 9.0, 1.0]), [13.0, 0.0]);
        assert_eq!(named([9.0, 1.0, 9.0]), [12.0, 0.0]);
        // No kind contains all classes: unknown.
        let mut photos = photos;
        photos.members = Param::initialized(ParamId::new(), tensor(&[0.0; 6], [3, 2]));
        let read = photos.read(tensor(&[9.0, 1.0, 9.0, 1.0, 9.0, 1.0], [2, 3]), &table());
        let name: Vec<f32> = read.name.into_data().iter::<f32>().collect();
        assert_eq!(name, [10.0, 11.0, 15.0, 13.0]);
        let background: Vec<f32> = read.background.into_data().iter::<f32>().collect();
        assert_eq!(background, [17.0]);
        let photo: Vec<f32> = read.photo.into_data().iter::<f32>().collect();
        assert_eq!(photo, [1.0, 1.0]);
    }

    #[test]
    fn what_everybody_is_given_counts_for_nothing() {
        let mut photos = photos();
        // Softmax: 0.58, 0.21, 0.21. Less 0.2 each and normalised: 0.95, 0.02, 0.02.
        let logits = [1.0, 0.0, 0.0];
        let first = |photos: &Photos| -> f32 {
            let chosen = photos.choose(tensor(&logits, [1, 3]));
            chosen.into_data().iter::<f32>().collect::<Vec<f32>>()[3]
        };
        assert_eq!(first(&photos), 0.0);
        photos.floor = 0.2;
        assert_eq!(first(&photos), 1.0);
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        assert!(CONFIG.validate().is_ok());
        let wrong = |config: PhotosConfig, words: &str| {
            let error = config.validate().expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        wrong(
            PhotosConfig {
                classes: 0,
                ..CONFIG
            },
            "photos.classes is 0",
        );
        wrong(
            PhotosConfig {
                threshold: 0.5,
                ..CONFIG
            },
            "photos.threshold",
        );
        wrong(
            PhotosConfig {
                threshold: f64::NAN,
                ..CONFIG
            },
            "photos.threshold",
        );
        wrong(
            PhotosConfig {
                floor: 0.4,
                ..CONFIG
            },
            "photos.floor",
        );
    }
}
