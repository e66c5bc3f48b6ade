//! EXIF orientation: the rotation and flip that make a picture upright. Cameras and phones write it.

use ::image::DynamicImage;
pub(crate) use ::image::metadata::Orientation;

use super::format::Format;
use super::{RgbImage, jpeg, webp};

/// Prefix that some encoders put before the EXIF data, in PNG and WebP as well.
const EXIF_NAME: &[u8] = b"Exif\0\0";

/// The orientation that a file states; [`Orientation::NoTransforms`] if it is absent or damaged.
pub(crate) fn orientation(format: Format, bytes: &[u8]) -> Orientation {
    let exif = match format {
        Format::Jpeg => jpeg::exif(bytes),
        Format::Png => png_chunk(bytes, b"eXIf"),
        Format::WebP => webp::chunk(bytes, b"EXIF"),
        // EXIF data are a TIFF structure, so a TIFF file has the tag in the same place.
        Format::Tiff => Some(bytes),
        Format::Gif | Format::Bmp => None,
    };
    let exif = exif.map(|e| e.strip_prefix(EXIF_NAME).unwrap_or(e));
    exif.and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}

/// Whether the orientation swaps width and height.
pub(super) fn is_transposed(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Rotates and flips a picture.
pub(crate) fn upright(picture: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return picture;
    }
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

/// The content of the first PNG chunk of this name. `eXIf` may follow the pixels.
fn png_chunk<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    const SIGNATURE: usize = 8;
    let mut rest = bytes.get(SIGNATURE..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (found, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        if found == name {
            return after.get(..length);
        }
        // a checksum of four bytes follows
        rest = after.get(length.checked_add(4)?..)?;
    }
}
