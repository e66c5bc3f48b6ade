//! Contact sheets: grids of pictures as PNG files.

use std::path::Path;

use burn::tensor::Tensor;
use emu_media::image::picture_from_decoded;
use image::RgbImage;

use crate::TrainError;

/// Converts `[B, 3, S, S]` in -1..1 to pictures.
///
/// # Errors
/// If the values do not form pictures.
pub fn pictures_of(images: Tensor<4>) -> Result<Vec<RgbImage>, TrainError> {
    let [_, c, h, w] = images.dims();
    let values = images
        .into_data()
        .try_to_vec::<f32>()
        .map_err(|e| TrainError::Stage(format!("{e:?}")))?;
    values
        .chunks(c * h * w)
        .map(|v| {
            picture_from_decoded(v, w as u32, h as u32)
                .map_err(|e| TrainError::Stage(e.to_string()))
        })
        .collect()
}

/// Writes pictures in rows of `columns`, with a gap of two pixels.
///
/// # Errors
/// If the file cannot be written.
pub fn contact_sheet(pictures: &[RgbImage], columns: usize, path: &Path) -> Result<(), TrainError> {
    const GAP: u32 = 2;
    let Some(first) = pictures.first() else {
        return Ok(());
    };
    let (w, h) = (first.width() + GAP, first.height() + GAP);
    let columns = columns.clamp(1, pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns as u32 * w + GAP,
        rows as u32 * h + GAP,
        image::Rgb([255, 255, 255]),
    );
    for (i, picture) in pictures.iter().enumerate() {
        let (x, y) = (
            (i % columns) as u32 * w + GAP,
            (i / columns) as u32 * h + GAP,
        );
        image::imageops::replace(&mut sheet, picture, i64::from(x), i64::from(y));
    }
    sheet
        .save(path)
        .map_err(|e| TrainError::Stage(format!("{} cannot be written: {e}.", path.display())))
}
