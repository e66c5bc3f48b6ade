//! Small pictures for reports.

use std::io::Cursor;

use emu_eval::tasks::{Media, MediaKind, Thumbnail};
use emu_media::image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::media;

/// Largest side, in pixels.
const SIDE: u32 = 240;

/// A small JPEG of a picture file, or of the first frame of a video. `None` if there is none: the report then names the file.
pub fn of_file(medium: &Media) -> Option<Thumbnail> {
    let picture = match medium.kind {
        MediaKind::Picture => media::picture(&medium.path).ok()?,
        MediaKind::Video => media::video(&medium.path).ok()?.frames.into_iter().next()?,
    };
    of_picture(&picture)
}

/// A small JPEG of a picture.
pub fn of_picture(picture: &RgbImage) -> Option<Thumbnail> {
    let (width, height) = picture.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height).max(1));
    let side = |n: u32| ((f64::from(n) * scale.min(1.0)).round() as u32).max(1);
    let small = image::imageops::thumbnail(picture, side(width), side(height));
    let mut bytes = Cursor::new(vec![]);
    small
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 75))
        .ok()?;
    Some(Thumbnail {
        mime: "image/jpeg",
        bytes: bytes.into_inner(),
    })
}
