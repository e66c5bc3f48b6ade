//! Pictures in, numbers out, and back: decoding, Pillow's resize, normalisation, PNG.
//!
//! Everything works on bytes and on [`RgbImage`]; nothing here touches a file. The results follow the released
//! code, which is Pillow and numpy: pictures are turned to RGB first, resized in 8 bits, and only then become floats.
//! EXIF orientation is left alone, because the released code leaves it alone.

mod decode;
mod error;
mod gif;
mod jpeg;
mod output;
mod resize;
mod transform;

#[cfg(test)]
mod tests;

pub use ::image::RgbImage;
pub(crate) use decode::from_inner;
pub use decode::{Format, Limits, decode, dimensions};
pub use error::ImageError;
pub(crate) use gif::GifFrames;
pub use output::{encode_png, picture_from_decoded};
pub use resize::resize_bicubic;
pub use transform::{
    CLIP_MEAN, CLIP_STD, ClipFeatureExtractor, normalize, process_img, process_img_with,
};
