//! The pixel buffer of row-by-row decoders. A picture with more pixels than the limit is downscaled by two while it is
//! read, so that memory is bounded by the limit and not by the file.

use super::{ImageError, Limits, RgbImage};

/// Downscaling factor, in both directions, of pictures over the limit.
const REDUCTION: u32 = 2;

/// The order in which rows arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// From top to bottom, each once.
    InOrder,
    /// In any order, some columns at a time.
    Interlaced,
}

/// A picture under construction.
pub(super) struct Canvas {
    /// Size of the picture in the file, in pixels.
    width: usize,
    height: usize,
    /// 1, or [`REDUCTION`].
    factor: usize,
    /// Output pixels.
    rgb: Vec<u8>,
    /// Channel sums over the source pixels of each output pixel, if downscaling: one output row, or all of them if interlaced.
    sums: Vec<u16>,
    rows: Rows,
    /// The output row that `sums` accumulates, if it holds one row only.
    summed: usize,
}

/// Downscaling factor for a picture of this size, for the formats that are read row by row.
pub(super) fn factor(width: u32, height: u32, limits: &Limits) -> Result<u32, ImageError> {
    let over = limits.check_pixels(width, height);
    match over {
        Ok(()) => Ok(1),
        Err(ImageError::TooManyPixels { .. }) => {
            let square = u64::from(REDUCTION * REDUCTION);
            let larger = Limits {
                max_pixels: limits.max_pixels.saturating_mul(square),
                ..*limits
            };
            larger.check_pixels(width, height).map(|()| REDUCTION)
        }
        Err(other) => Err(other),
    }
}

/// Output size after downscaling by `factor`.
pub(super) fn reduced(width: u32, height: u32, factor: u32) -> (u32, u32) {
    (width.div_ceil(factor), height.div_ceil(factor))
}

/// Allocates `count` copies of a value; fails with [`ImageError::OutOfMemory`] if the allocation fails (likely in a page).
pub(super) fn filled<T: Clone>(
    count: usize,
    value: T,
    (width, height): (u32, u32),
) -> Result<Vec<T>, ImageError> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| ImageError::OutOfMemory { width, height })?;
    values.resize(count, value);
    Ok(values)
}

impl Canvas {
    /// A black canvas of this size. The size is checked before anything is allocated.
    pub fn new(width: u32, height: u32, rows: Rows, limits: &Limits) -> Result<Self, ImageError> {
        let factor = factor(width, height, limits)?;
        let (out_width, out_height) = reduced(width, height, factor);
        let line = out_width as usize * 3;
        let sums = match (factor, rows) {
            (1, _) => 0,
            (_, Rows::InOrder) => line,
            (_, Rows::Interlaced) => line * out_height as usize,
        };
        Ok(Self {
            width: width as usize,
            height: height as usize,
            factor: factor as usize,
            rgb: filled(line * out_height as usize, 0, (width, height))?,
            sums: filled(sums, 0, (width, height))?,
            rows,
            summed: 0,
        })
    }

    /// Writes pixels into row `y` from column `start` on, `step` columns apart. Pixels outside the picture are dropped.
    pub fn put(
        &mut self,
        y: usize,
        start: usize,
        step: usize,
        pixels: impl Iterator<Item = [u8; 3]>,
    ) {
        if y >= self.height {
            return;
        }
        let columns = (start..self.width).step_by(step.max(1));
        if self.factor == 1 {
            let line = &mut self.rgb[y * self.width * 3..(y + 1) * self.width * 3];
            for (x, pixel) in columns.zip(pixels) {
                line[x * 3..x * 3 + 3].copy_from_slice(&pixel);
            }
            return;
        }
        let row = y / self.factor;
        let line = self.width.div_ceil(self.factor) * 3;
        if self.rows == Rows::InOrder && row != self.summed {
            self.flush(self.summed, 0);
            self.summed = row;
        }
        let base = if self.rows == Rows::InOrder {
            0
        } else {
            row * line
        };
        for (x, pixel) in columns.zip(pixels) {
            let at = base + x / self.factor * 3;
            for (sum, value) in self.sums[at..at + 3].iter_mut().zip(pixel) {
                *sum += u16::from(value);
            }
        }
    }

    /// Writes the averages of one output row, whose sums begin at `from`, and clears the sums.
    fn flush(&mut self, row: usize, from: usize) {
        let line = self.width.div_ceil(self.factor) * 3;
        let down = self.factor.min(self.height - row * self.factor);
        let sums = self.sums[from..from + line].chunks_exact_mut(3);
        let out = self.rgb[row * line..(row + 1) * line].chunks_exact_mut(3);
        for (x, (sums, out)) in sums.zip(out).enumerate() {
            let across = self.factor.min(self.width - x * self.factor);
            // At most four pixels; fewer at an odd edge.
            let count = (across * down) as u16;
            for (sum, value) in sums.iter_mut().zip(out) {
                *value = ((*sum + count / 2) / count) as u8;
                *sum = 0;
            }
        }
    }

    /// Flushes pending sums and returns the picture.
    pub fn finish(mut self) -> RgbImage {
        let (width, height) = (
            self.width.div_ceil(self.factor),
            self.height.div_ceil(self.factor),
        );
        match (self.factor, self.rows) {
            (1, _) => {}
            (_, Rows::InOrder) => self.flush(self.summed, 0),
            (_, Rows::Interlaced) => (0..height).for_each(|row| self.flush(row, row * width * 3)),
        }
        let (width, height) = (width as u32, height as u32);
        RgbImage::from_raw(width, height, self.rgb).unwrap_or_else(|| RgbImage::new(width, height))
    }
}
