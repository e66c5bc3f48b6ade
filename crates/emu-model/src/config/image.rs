//! Image normalisation.

use serde::{Deserialize, Serialize};

/// Image normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Mean of each channel, for values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

impl ImageConfig {
    /// Published values of EfficientNet-Lite.
    pub const fn efficientnet_lite() -> Self {
        Self {
            mean: [0.498; 3],
            std: [0.502; 3],
        }
    }
}

impl Default for ImageConfig {
    /// Values of CLIP.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_72],
            std: [0.268_629_55, 0.261_302_6, 0.275_777_1],
        }
    }
}
