//! Pictures as raw bytes, and their codecs.

use emu_media::image::{Limits, decode};
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use crate::DataError;

/// An RGB picture, row by row from the top left, three bytes per pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

impl Picture {
    /// A picture with these bytes.
    ///
    /// # Errors
    /// If the number of bytes is not `width * height * 3`, or a side is zero.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, DataError> {
        let wanted = u64::from(width) * u64::from(height) * 3;
        if wanted == 0 || rgb.len() as u64 != wanted {
            return Err(DataError::Picture(format!(
                "{} bytes were given for {width} x {height} pixels",
                rgb.len()
            )));
        }
        Ok(Self { width, height, rgb })
    }

    /// Decodes a picture file with the model's own decoder, so that training and inference see the same pixels.
    ///
    /// # Errors
    /// If the format is not supported, or the bytes are truncated or exceed the limits.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, DataError> {
        let rgb = decode(bytes, limits).map_err(|error| DataError::Picture(error.to_string()))?;
        let (width, height) = rgb.dimensions();
        Self::new(width, height, rgb.into_raw())
    }

    /// Encodes the picture as PNG. The bytes depend on the pixels only.
    ///
    /// # Errors
    /// If the size does not match the number of bytes.
    pub fn to_png(&self) -> Result<Vec<u8>, DataError> {
        let mut png = Vec::new();
        PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
            .write_image(
                &self.rgb,
                self.width,
                self.height,
                image::ExtendedColorType::Rgb8,
            )
            .map_err(|error| DataError::Picture(error.to_string()))?;
        Ok(png)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_round_trip_and_limits() {
        let picture = Picture::new(3, 2, (0..18).collect()).expect("consistent");
        let png = picture.to_png().expect("encodes");
        let limits = Limits::default();
        assert_eq!(Picture::decode(&png, &limits).expect("decodes"), picture);
        let small = Limits {
            max_pixels: 1,
            ..limits
        };
        assert!(Picture::decode(&png, &small).is_err(), "over the limit");
        assert!(
            Picture::decode(&png[..png.len() / 2], &limits).is_err(),
            "cut"
        );
        assert!(Picture::decode(b"no picture", &limits).is_err());
        assert!(Picture::new(2, 2, vec![0; 11]).is_err());
        assert!(Picture::new(0, 2, vec![]).is_err());
    }
}
