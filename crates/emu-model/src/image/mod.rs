//! Pictures in, numbers out, and back: decoding, Pillow's resize, normalisation, PNG.
//!
//! Everything works on bytes and on [`RgbImage`]; nothing here touches a file. The results follow the released
//! code, which is Pillow and numpy: pictures are turned to RGB first, resized in 8 bits, and only then become floats.
//! Two rules are this project's own: pictures come out upright (EXIF orientation is applied), and transparent ones
//! are shown over white. `docs/inputs.md` lists what is read and what is refused.

mod alpha;
mod canvas;
mod codec;
mod decode;
mod error;
mod exif;
mod format;
mod gif;
mod jpeg;
mod kind;
mod limits;
mod output;
mod png;
mod resize;
pub mod scene;
mod tiff;
mod transform;
mod webp;

#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod tests;

pub use ::image::RgbImage;
pub use alpha::over_white;
pub use decode::{decode, dimensions};
pub use error::ImageError;
pub(crate) use exif::{Orientation, orientation, upright};
pub use format::Format;
pub(crate) use gif::GifFrames;
pub(crate) use kind::refusal;
pub use limits::Limits;
pub use output::{encode_png, picture_from_decoded};
pub use resize::resize_bicubic;
pub use transform::{
    CLIP_MEAN, CLIP_STD, ClipFeatureExtractor, normalize, process_img, process_img_with,
};
pub(crate) use webp::WebPFrames;
