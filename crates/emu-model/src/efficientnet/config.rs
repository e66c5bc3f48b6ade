//! Sizes of the network.

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Sizes of the network; channels are those after any scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetConfig {
    /// Channels after the first convolution.
    pub stem: usize,
    /// Stages of blocks.
    pub stages: Vec<EfficientNetStage>,
    /// Channels of the features.
    pub features: usize,
    /// Classes of the classifier that it was trained with, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
}

/// A stage of blocks of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetStage {
    /// Number of blocks.
    pub repeats: usize,
    /// Kernel size.
    pub kernel: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Expansion factor of the channels inside a block.
    pub expand: usize,
    /// Output channels.
    pub outputs: usize,
}

/// Largest accepted size.
const MOST: usize = 1 << 16;

impl EfficientNetConfig {
    /// EfficientNet-Lite2 for images of 260 pixels, with the classifier of ImageNet's 1,000 classes.
    pub fn lite2() -> Self {
        let stage = |(repeats, kernel, stride, expand, outputs)| EfficientNetStage {
            repeats,
            kernel,
            stride,
            expand,
            outputs,
        };
        let stages = [
            (1, 3, 1, 1, 16),
            (3, 3, 2, 6, 24),
            (3, 5, 2, 6, 48),
            (4, 3, 2, 6, 88),
            (4, 5, 1, 6, 120),
            (5, 5, 2, 6, 208),
            (1, 3, 1, 6, 352),
        ];
        Self {
            stem: 32,
            stages: stages.map(stage).to_vec(),
            features: 1280,
            classes: Some(1000),
        }
    }

    /// Pixels per feature along a side.
    pub fn stride(&self) -> usize {
        let strides = self.stages.iter().map(|stage| stage.stride);
        strides.fold(2, usize::saturating_mul)
    }

    /// Elements of the largest activation for an image of this side.
    pub fn largest_activation(&self, image_size: usize) -> u64 {
        let values = |side: usize, channels: usize| (side * side * channels) as u64;
        let (mut side, mut inputs) = (image_size.div_ceil(2), self.stem);
        let mut largest = values(side, inputs);
        for stage in &self.stages {
            for repeat in 0..stage.repeats {
                largest = largest.max(values(side, inputs * stage.expand));
                if repeat == 0 {
                    side = side.div_ceil(stage.stride);
                }
                inputs = stage.outputs;
            }
        }
        largest.max(values(side, self.features))
    }

    /// Checks the invariants of the network.
    ///
    /// # Errors
    /// Names the first invalid value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut sizes = vec![("stem", self.stem), ("features", self.features)];
        sizes.extend(self.classes.map(|n| ("classes", n)));
        for stage in &self.stages {
            sizes.extend([
                ("stages.repeats", stage.repeats),
                ("stages.kernel", stage.kernel),
                ("stages.stride", stage.stride),
                ("stages.expand", stage.expand),
                ("stages.outputs", stage.outputs),
            ]);
        }
        let wrong =
            |name, what: String| Err(ConfigError(format!("vision.efficientnet.{name} {what}")));
        match sizes.iter().find(|(_, n)| *n == 0 || *n > MOST) {
            Some((name, n)) => return wrong(*name, format!("is {n}, not 1 to {MOST}")),
            None if self.stages.is_empty() => return wrong("stages", "has no stage".into()),
            None => {}
        }
        match self.stages.iter().find(|stage| stage.kernel % 2 == 0) {
            Some(stage) => wrong("stages.kernel", format!("is {}, not odd", stage.kernel)),
            None => Ok(()),
        }
    }
}
