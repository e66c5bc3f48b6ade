//! Pictures: decoded by the model's decoder, resized once, encoded.

use emu_media::image::{Format, Limits, RgbImage, resize_bicubic};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::{Output, PictureFormat, Resize, Skip};
use crate::Picture;

/// An encoded picture.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub extension: &'static str,
    pub bytes: Vec<u8>,
}

/// Decodes a picture file and checks its size.
pub(crate) fn decode(bytes: &[u8], out: &Output) -> Result<RgbImage, Skip> {
    let picture = emu_media::image::decode(bytes, &Limits::default())
        .map_err(|error| Skip::new(format!("unusable picture ({})", error.code()), error))?;
    let (width, height) = picture.dimensions();
    let (short, long) = (width.min(height), width.max(height));
    let size = || format!("{width} x {height} pixels");
    if short < out.min_side {
        return Err(Skip::new("picture is too small", size()));
    }
    if out
        .max_aspect
        .is_some_and(|aspect| f64::from(long) > aspect * f64::from(short))
    {
        return Err(Skip::new("picture is too long or too tall", size()));
    }
    Ok(picture)
}

/// Decodes, resizes and encodes a picture file. A file that would only be encoded again is copied.
pub(crate) fn prepare(bytes: Vec<u8>, out: &Output) -> Result<Encoded, Skip> {
    let picture = decode(&bytes, out)?;
    let (format, extension) = match out.format {
        PictureFormat::Jpeg => (Format::Jpeg, "jpg"),
        PictureFormat::Png => (Format::Png, "png"),
    };
    if target(&picture, out.resize) == picture.dimensions() && Format::of(&bytes) == Some(format) {
        return Ok(Encoded { extension, bytes });
    }
    encode(&picture, out)
}

/// Resizes and encodes a picture.
pub(crate) fn encode(picture: &RgbImage, out: &Output) -> Result<Encoded, Skip> {
    let failed =
        |error: &dyn ToString| Skip::new("picture cannot be resized or encoded", error.to_string());
    let resized;
    let (width, height) = target(picture, out.resize);
    let picture = if (width, height) == picture.dimensions() {
        picture
    } else {
        resized = resize_bicubic(picture, width, height).map_err(|error| failed(&error))?;
        &resized
    };
    let (extension, bytes) = match out.format {
        PictureFormat::Jpeg => {
            let mut bytes = vec![];
            JpegEncoder::new_with_quality(&mut bytes, out.quality)
                .write_image(picture.as_raw(), width, height, ExtendedColorType::Rgb8)
                .map_err(|error| failed(&error))?;
            ("jpg", bytes)
        }
        PictureFormat::Png => {
            let png = Picture::new(width, height, picture.as_raw().clone())
                .and_then(|picture| picture.to_png());
            ("png", png.map_err(|error| failed(&error))?)
        }
    };
    Ok(Encoded { extension, bytes })
}

/// The size that a picture is to have.
fn target(picture: &RgbImage, resize: Resize) -> (u32, u32) {
    let (width, height) = picture.dimensions();
    match resize {
        Resize::Keep => (width, height),
        Resize::Square(side) => (side, side),
        Resize::Shorter(side) if width.min(height) <= side => (width, height),
        Resize::Shorter(side) => {
            let short = f64::from(width.min(height));
            let scale = |length: u32| {
                let scaled = (f64::from(length) * f64::from(side) / short).round() as u32;
                scaled.max(1)
            };
            (scale(width), scale(height))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let picture = RgbImage::new(300, 200);
        assert_eq!(target(&picture, Resize::Keep), (300, 200));
        assert_eq!(target(&picture, Resize::Shorter(100)), (150, 100));
        assert_eq!(target(&picture, Resize::Shorter(200)), (300, 200));
        assert_eq!(target(&picture, Resize::Shorter(400)), (300, 200));
        assert_eq!(target(&picture, Resize::Square(64)), (64, 64));
    }

    #[test]
    fn a_picture_in_the_right_format_is_copied_only_at_its_size() {
        let out = Output::new("unused", 1);
        let source = encode(&RgbImage::new(40, 30), &out).expect("encodes").bytes;
        assert_eq!(prepare(source.clone(), &out).expect("usable").bytes, source);
        let small = Output {
            resize: Resize::Square(16),
            ..out.clone()
        };
        let smaller = prepare(source.clone(), &small).expect("usable");
        let size = emu_media::image::dimensions(&smaller.bytes, &Limits::default());
        assert_eq!(size.expect("a picture"), (16, 16));
        let png = Output {
            format: PictureFormat::Png,
            ..out
        };
        let other = prepare(source, &png).expect("usable");
        assert_eq!(Format::of(&other.bytes), Some(Format::Png));
        assert_eq!(other.extension, "png");
    }

    #[test]
    fn small_long_and_damaged_pictures_are_skipped() {
        let out = Output::new("unused", 1);
        let source = encode(&RgbImage::new(40, 10), &out).expect("encodes").bytes;
        let reason = |out: &Output, bytes: &[u8]| {
            prepare(bytes.to_vec(), out)
                .map(|_| ())
                .expect_err("skipped")
                .reason
        };
        let small = Output {
            min_side: 11,
            ..out.clone()
        };
        assert_eq!(reason(&small, &source), "picture is too small");
        let long = Output {
            max_aspect: Some(3.9),
            ..out.clone()
        };
        assert_eq!(reason(&long, &source), "picture is too long or too tall");
        for bytes in [&source[..source.len() / 2], b"", b"<html></html>"] {
            assert!(reason(&out, bytes).starts_with("unusable picture"));
        }
    }
}
