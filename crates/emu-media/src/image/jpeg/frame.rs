//! The frame: a picture's components with their coefficients and samples.

use super::idct;
use super::plane::{Plane, damaged, unsupported};
use super::scan_header::ScanHeader;
use crate::image::canvas::filled;
use crate::image::{ImageError, Limits};

/// A component (colour plane) of the frame header, with its coefficients.
pub(super) struct Component {
    pub id: u8,
    /// Sampling factors, 1 to 4.
    pub h: usize,
    pub v: usize,
    pub quant_index: usize,
    /// The quantisation table in force at the component's first scan, in row-major order.
    pub quant: Option<[u16; 64]>,
    /// Size in samples.
    pub width: usize,
    pub height: usize,
    /// Size in blocks, without and with the padding blocks of the last MCUs.
    pub across: usize,
    pub down: usize,
    pub padded_across: usize,
    pub padded_down: usize,
    /// One entry per block including padding, row-major within the block; for all rows, or for one row of MCUs.
    pub coefficients: Vec<Block>,
    /// The row of blocks with which `coefficients` begins.
    pub first_row: usize,
    /// Samples; valid for the rows that went through the inverse DCT.
    samples: Vec<u8>,
    /// Whether a scan contained this component.
    pub seen: bool,
    /// Per coefficient, in zigzag order: low bits not yet sent by the scans so far; [`UNSENT`] before the first.
    bits_left: [u32; 64],
}

/// A block's coefficients.
type Block = [i16; 64];

/// Marks coefficients that no scan has sent yet.
const UNSENT: u32 = u32::MAX;

/// Limit on the coefficient memory of a picture that cannot be decoded row by row, in bytes per pixel of the limit.
const COEFFICIENT_BYTES: u64 = 12;

impl Component {
    fn blocks(&self) -> u64 {
        self.padded_across as u64 * self.padded_down as u64
    }

    /// Samples in a row of the plane.
    fn stride(&self) -> usize {
        self.padded_across * 8
    }

    /// Runs the inverse DCT over the buffered coefficients and zeroes them for the next row of MCUs.
    pub fn flush(&mut self) {
        let stride = self.stride();
        let quant = self.quant.unwrap_or([1; 64]);
        let rows = self
            .samples
            .chunks_exact_mut(stride * 8)
            .skip(self.first_row);
        for (row, blocks) in rows.zip(self.coefficients.chunks_exact_mut(self.padded_across)) {
            for (x, block) in blocks.iter_mut().enumerate() {
                idct::inverse(block, &quant, &mut row[x * 8..], stride);
                *block = [0; 64];
            }
        }
        self.first_row += self.v;
    }

    /// Returns the plane; remaining coefficients are transformed and freed.
    fn take_plane(&mut self, streamed: bool, size: (u32, u32)) -> Result<Plane, ImageError> {
        if !streamed {
            self.samples = filled(self.stride() * self.padded_down * 8, 0, size)?;
            self.flush();
        }
        self.coefficients = Vec::new();
        Ok(Plane {
            samples: std::mem::take(&mut self.samples),
            stride: self.stride(),
            width: self.width,
            height: self.height,
        })
    }
}

/// The frame header.
pub(super) struct Frame {
    pub width: usize,
    pub height: usize,
    pub progressive: bool,
    pub components: Vec<Component>,
    pub h_max: usize,
    pub v_max: usize,
    /// Whether a single scan holds all coefficients. Each row of MCUs is then transformed at once, and only one row of
    /// coefficients is in memory.
    pub streamed: bool,
}

/// A plane with its upsampling factors, horizontal and vertical.
pub type Sampled = (Plane, (usize, usize));

impl Frame {
    /// Reads the frame header.
    pub fn read(body: &[u8], progressive: bool) -> Result<Self, ImageError> {
        let [precision, h1, h0, w1, w0, count, parts @ ..] = body else {
            return Err(damaged("the frame header is cut short"));
        };
        if *precision != 8 {
            return Err(unsupported(format!("{precision}-bit samples")));
        }
        let (width, height) = (
            usize::from(u16::from_be_bytes([*w1, *w0])),
            usize::from(u16::from_be_bytes([*h1, *h0])),
        );
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSized {
                width: width as u32,
                height: height as u32,
            });
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(format!("{count} colour planes")));
        }
        if parts.len() < usize::from(*count) * 3 {
            return Err(damaged("the frame header is cut short"));
        }
        let parts: Vec<_> = parts.chunks_exact(3).take(usize::from(*count)).collect();
        let factors = |part: &[u8]| (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        let (h_max, v_max) = parts
            .iter()
            .map(|p| factors(p))
            .fold((1, 1), |max, f| (max.0.max(f.0), max.1.max(f.1)));
        let mut components = Vec::with_capacity(parts.len());
        for part in parts {
            let (h, v) = factors(part);
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(damaged("a sampling factor is not between 1 and 4"));
            }
            if h_max % h != 0 || v_max % v != 0 {
                return Err(unsupported(
                    "sampling factors that do not divide each other",
                ));
            }
            let (plane_width, plane_height) =
                ((width * h).div_ceil(h_max), (height * v).div_ceil(v_max));
            components.push(Component {
                id: part[0],
                h,
                v,
                quant_index: usize::from(part[2]),
                quant: None,
                width: plane_width,
                height: plane_height,
                across: plane_width.div_ceil(8),
                down: plane_height.div_ceil(8),
                padded_across: width.div_ceil(8 * h_max) * h,
                padded_down: height.div_ceil(8 * v_max) * v,
                coefficients: Vec::new(),
                first_row: 0,
                samples: Vec::new(),
                seen: false,
                bits_left: [UNSENT; 64],
            });
        }
        Ok(Frame {
            width,
            height,
            progressive,
            components,
            h_max,
            v_max,
            streamed: false,
        })
    }

    /// Allocates the coefficients and, if streamed, the samples. Does nothing after the first scan.
    pub fn allocate(&mut self, first: &ScanHeader, limits: &Limits) -> Result<(), ImageError> {
        if self.components.iter().any(|c| !c.coefficients.is_empty()) {
            return Ok(());
        }
        let size = (self.width as u32, self.height as u32);
        self.streamed = !self.progressive && first.components.len() == self.components.len();
        let bytes = self.blocks() * size_of::<Block>() as u64;
        if !self.streamed && bytes > limits.max_pixels.saturating_mul(COEFFICIENT_BYTES) {
            return Err(ImageError::TooManyPixels {
                width: size.0,
                height: size.1,
                max_pixels: limits.max_pixels,
            });
        }
        for component in &mut self.components {
            let rows = if self.streamed {
                component.v
            } else {
                component.padded_down
            };
            component.coefficients = filled(component.padded_across * rows, [0; 64], size)?;
            if self.streamed {
                component.samples =
                    filled(component.stride() * component.padded_down * 8, 0, size)?;
            }
        }
        Ok(())
    }

    /// Number of blocks of all components.
    pub fn blocks(&self) -> u64 {
        self.components.iter().map(Component::blocks).sum()
    }

    /// Number of blocks that a scan covers.
    pub fn blocks_of(&self, scan: &ScanHeader) -> u64 {
        let parts = scan.components.iter();
        let components = parts.filter_map(|part| self.components.get(part.index));
        components.map(Component::blocks).sum()
    }

    /// Records which coefficient bits a scan has sent.
    pub fn note(&mut self, scan: &ScanHeader) {
        for part in &scan.components {
            if let Some(component) = self.components.get_mut(part.index) {
                component.bits_left[scan.start..=scan.end].fill(scan.low);
            }
        }
    }

    /// Whether every coefficient of every component was sent, to its last bit.
    pub fn is_complete(&self) -> bool {
        let complete = |c: &Component| c.bits_left.iter().all(|left| *left == 0);
        self.components.iter().all(complete)
    }

    /// The planes, each with its upsampling factors.
    pub fn take_planes(&mut self) -> Result<Vec<Sampled>, ImageError> {
        let (streamed, size) = (self.streamed, (self.width as u32, self.height as u32));
        let (h_max, v_max) = (self.h_max, self.v_max);
        let planes = self.components.iter_mut().map(|component| {
            let factors = (h_max / component.h, v_max / component.v);
            Ok((component.take_plane(streamed, size)?, factors))
        });
        planes.collect()
    }
}
