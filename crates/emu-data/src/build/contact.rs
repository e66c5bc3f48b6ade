//! The contact sheet: pictures of samples that lie evenly over a data set.

use std::path::Path;

use emu_media::image::{RgbImage, encode_png, resize_bicubic};

use super::Index;
use crate::writer::write_atomically;
use crate::{DataError, Picture, ShardDataset};

/// Pictures in a row. Samples with several pictures take a row each.
const COLUMNS: usize = 8;
/// Rows at most.
const ROWS: usize = 6;
/// Side of a picture's cell in pixels, with its margin.
const CELL: u32 = 104;
const MARGIN: u32 = 4;
const BACKGROUND: u8 = 255;

/// Writes `contact.png` for the samples of a data set. Without pictures (conversations may have none) there is no sheet.
pub(super) fn write(folder: &Path, index: &Index) -> Result<(), DataError> {
    let path = folder.join("contact.png");
    let rows = rows(folder, index)?;
    if rows.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DataError::io("remove", &path)(error))
            }
            _ => Ok(()),
        };
    }
    let wide = rows.iter().map(Vec::len).max().unwrap_or(1) as u32;
    let mut sheet = RgbImage::from_pixel(
        wide * CELL + MARGIN,
        rows.len() as u32 * CELL + MARGIN,
        image::Rgb([BACKGROUND; 3]),
    );
    for (y, row) in rows.iter().enumerate() {
        for (x, picture) in row.iter().enumerate() {
            let left = x as u32 * CELL + MARGIN + (CELL - MARGIN - picture.width()) / 2;
            let top = y as u32 * CELL + MARGIN + (CELL - MARGIN - picture.height()) / 2;
            image::imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
        }
    }
    let png = encode_png(&sheet).map_err(|error| DataError::Picture(error.to_string()))?;
    write_atomically(&path, &png)
}

/// The cells of the sheet by row.
fn rows(folder: &Path, index: &Index) -> Result<Vec<Vec<RgbImage>>, DataError> {
    let total: usize = index.shards.iter().map(|shard| shard.samples).sum();
    let wanted = (ROWS * COLUMNS).min(total);
    let mut rows: Vec<Vec<RgbImage>> = vec![];
    let mut open: Option<(usize, ShardDataset)> = None;
    for i in 0..wanted {
        // 1. the sample at this share of the data set, and its shard
        let mut at = i * total / wanted;
        let mut shard = 0;
        while at >= index.shards[shard].samples {
            at -= index.shards[shard].samples;
            shard += 1;
        }
        let set = match open.take() {
            Some((number, set)) if number == shard => set,
            _ => ShardDataset::open(folder.join(&index.shards[shard].file))?,
        };
        let sample = set.get(at)?;
        open = Some((shard, set));

        // 2. its pictures: alone in the row being filled, or several in a row of their own
        match sample.images.as_slice() {
            [] => {}
            [picture] => {
                let room = rows
                    .last_mut()
                    .filter(|_| index.kind == "pairs" || index.kind == "instruct")
                    .filter(|row| row.len() < COLUMNS);
                match room {
                    Some(row) => row.push(thumbnail(picture, CELL - MARGIN)?),
                    None => rows.push(vec![thumbnail(picture, CELL - MARGIN)?]),
                }
            }
            several => rows.push(
                several
                    .iter()
                    .take(COLUMNS)
                    .map(|picture| thumbnail(picture, CELL - MARGIN))
                    .collect::<Result<_, _>>()?,
            ),
        }
        if rows.len() > ROWS {
            rows.truncate(ROWS);
            break;
        }
    }
    Ok(rows)
}

/// A picture that fits into a square of this side.
pub(crate) fn thumbnail(picture: &Picture, side: u32) -> Result<RgbImage, DataError> {
    let failed = |message: String| DataError::Picture(message);
    let image = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone())
        .ok_or_else(|| failed("its bytes do not fit its size".into()))?;
    let long = f64::from(picture.width.max(picture.height));
    let scale = |length: u32| {
        let scaled = (f64::from(length) * f64::from(side) / long).round() as u32;
        scaled.clamp(1, side)
    };
    let (width, height) = (scale(picture.width), scale(picture.height));
    resize_bicubic(&image, width, height).map_err(|error| failed(error.to_string()))
}
