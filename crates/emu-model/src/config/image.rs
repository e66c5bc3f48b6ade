//! How pictures become tensors.

use serde::{Deserialize, Serialize};

/// How pictures become tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Mean of each channel, of values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

impl ImageConfig {
    /// Of EfficientNet-Lite, as it is published.
    pub const fn efficientnet_lite() -> Self {
        Self {
            mean: [0.498; 3],
            std: [0.502; 3],
        }
    }
}

impl Default for ImageConfig {
    /// CLIP's.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_72],
            std: [0.268_629_55, 0.261_302_6, 0.275_777_1],
        }
    }
}
