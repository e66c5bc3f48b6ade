//! Bodies of the fuzz targets: each accepts any bytes and must return.

use crate::image::{self, Limits};
use crate::video;

/// Limits that keep a run short.
const SMALL: Limits = Limits {
    max_pixels: 1 << 16,
    max_bytes: 1 << 20,
};

/// Decodes and preprocesses an image file.
pub fn image(data: &[u8]) {
    let size = image::dimensions(data, &SMALL);
    if let Ok(picture) = image::decode(data, &SMALL) {
        assert_eq!(size.ok(), Some(picture.dimensions()));
        let _ = image::process_img(&picture, 28);
    }
}

/// Samples the frames of a video file.
pub fn video(data: &[u8]) {
    if let Ok(video) = video::sample_frames(data, 8, &SMALL) {
        assert_eq!((video.frames.len(), video.offsets.len()), (8, 8));
    }
}

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate::mutate;

    #[test]
    fn image() {
        mutate("image", 300, super::image);
    }

    #[test]
    fn video() {
        mutate("video", 60, super::video);
    }
}
