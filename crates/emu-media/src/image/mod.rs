//! Picture preprocessing and output: decoding, Pillow's resize, normalisation, PNG encoding.
//!
//! Everything works on bytes and on [`RgbImage`]; nothing here touches the file system. The results follow the released
//! code, which uses Pillow and numpy: pictures are converted to RGB first, resized in 8 bits, and only then become floats.
//! Two rules differ: EXIF orientation is applied, and transparency is composited over white. `docs/inputs.md` lists the
//! supported and the rejected inputs.

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
