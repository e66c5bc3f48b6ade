//! Pillow's 8-bit bicubic resize, bit-exact.
//!
//! Each output pixel is a weighted sum over a window that widens with the downscaling factor (antialiasing). The weights of
//! the cubic kernel with a = -0.5 are normalised in f64, then rounded to 22-bit fixed point. The horizontal pass runs
//! first; its output is rounded and clipped to u8 before the vertical pass, as in Pillow.

use std::borrow::Cow;

use super::{ImageError, RgbImage};

/// Fraction bits of the weights.
const PRECISION_BITS: u32 = 22;
/// Kernel radius, in input pixels at scale 1.
const SUPPORT: f64 = 2.0;
/// Upper bound on the output size, so that a wrong size cannot exhaust memory.
const MAX_PIXELS: u64 = 1 << 28;

/// One output position: input pixels `start..start + weights.len()` and their fixed-point weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// The cubic convolution kernel with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The windows of all output positions along one axis.
fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    // multiply by the inverse instead of dividing, as Pillow does: it can change the last bit of a weight
    let inverse = 1.0 / filter_scale;
    (0..output)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            // `as` truncates towards zero and saturates negatives to 0, as Pillow's clipping does
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let raw: Vec<f64> = (start..end)
                .map(|x| cubic((x as f64 - center + 0.5) * inverse))
                .collect();
            let sum: f64 = raw.iter().sum();
            let one = f64::from(1u32 << PRECISION_BITS);
            let weights = raw
                .iter()
                .map(|w| {
                    let w = if sum == 0.0 { *w } else { w / sum };
                    (w * one + if w < 0.0 { -0.5 } else { 0.5 }) as i32
                })
                .collect();
            Window { start, weights }
        })
        .collect()
}

/// Rounds a fixed-point sum and clips it to a byte.
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `src` holds `rows` rows of `width` RGB pixels; returns rows of `windows.len()` pixels.
fn horizontal(src: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(src.len() / width * windows.len());
    for row in src.chunks_exact(width * 3) {
        for window in windows {
            let mut sums = [1i32 << (PRECISION_BITS - 1); 3];
            for (pixel, weight) in row[window.start * 3..].chunks_exact(3).zip(&window.weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(to_u8));
        }
    }
    out
}

/// `src` holds rows of `width` RGB pixels; returns `windows.len()` such rows.
fn vertical(src: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let stride = width * 3;
    let mut out = Vec::with_capacity(stride * windows.len());
    let mut sums = vec![0i32; stride];
    for window in windows {
        sums.fill(1 << (PRECISION_BITS - 1));
        for (row, weight) in src[window.start * stride..]
            .chunks_exact(stride)
            .zip(&window.weights)
        {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| to_u8(*sum)));
    }
    out
}

/// Resizes to exactly `width` x `height`, ignoring the aspect ratio; bit-exact with Pillow's `Image.resize(.., BICUBIC)`.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage, ImageError> {
    let (from_width, from_height) = image.dimensions();
    for (width, height) in [(from_width, from_height), (width, height)] {
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSized { width, height });
        }
    }
    // the intermediate picture between the passes counts too
    if u64::from(width) * u64::from(height.max(from_height)) > MAX_PIXELS {
        return Err(ImageError::TooManyPixels {
            width,
            height: height.max(from_height),
            max_pixels: MAX_PIXELS,
        });
    }
    // Borrowed while possible, to avoid copying a large picture.
    let mut pixels = Cow::Borrowed(image.as_raw().as_slice());
    if width != from_width {
        pixels = Cow::Owned(horizontal(
            &pixels,
            from_width as usize,
            &windows(from_width as usize, width as usize),
        ));
    }
    if height != from_height {
        pixels = Cow::Owned(vertical(
            &pixels,
            width as usize,
            &windows(from_height as usize, height as usize),
        ));
    }
    let (expected, actual) = (width as usize * height as usize * 3, pixels.len());
    RgbImage::from_raw(width, height, pixels.into_owned()).ok_or(ImageError::WrongLength {
        width,
        height,
        expected,
        actual,
    })
}
