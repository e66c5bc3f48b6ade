//! Entropy decoding of one scan, sequential or progressive, into the coefficient buffers.

use super::frame::{Component, Frame};
use super::header::{Tables, ZIGZAG};
use super::huffman::{Bits, HuffmanTable};
use super::plane::damaged;
use super::scan_header::{ScanComponent, ScanHeader};
use crate::image::ImageError;

/// A block's 64 coefficients, row-major.
type Block = [i16; 64];

/// One component's Huffman tables in this scan; `None` if the scan does not need the table.
struct Part<'t> {
    index: usize,
    dc: Option<&'t HuffmanTable>,
    ac: Option<&'t HuffmanTable>,
    /// DC predictor: the DC value of the previous block.
    predictor: i32,
}

/// A scan being decoded.
pub(super) struct Scan<'a> {
    header: &'a ScanHeader,
    parts: Vec<Part<'a>>,
    bits: Bits<'a>,
    progressive: bool,
    restart_interval: usize,
    /// Blocks left in an end-of-band run.
    end_of_band: u32,
}

impl<'a> Scan<'a> {
    pub fn new(
        header: &'a ScanHeader,
        tables: &'a Tables,
        frame: &Frame,
        data: &'a [u8],
    ) -> Result<Self, ImageError> {
        let needs_dc = header.start == 0 && header.high == 0;
        let needs_ac = header.end > 0;
        let part = |component: &ScanComponent| {
            let dc = tables.dc.get(component.dc).and_then(Option::as_ref);
            let ac = tables.ac.get(component.ac).and_then(Option::as_ref);
            if (needs_dc && dc.is_none()) || (needs_ac && ac.is_none()) {
                return Err(damaged("a Huffman table is missing"));
            }
            Ok(Part {
                index: component.index,
                dc,
                ac,
                predictor: 0,
            })
        };
        Ok(Self {
            header,
            parts: header
                .components
                .iter()
                .map(part)
                .collect::<Result<_, _>>()?,
            bits: Bits::new(data),
            progressive: frame.progressive,
            restart_interval: tables.restart_interval,
            end_of_band: 0,
        })
    }

    /// Decodes all blocks; returns the number of bytes consumed. If the data end early within the last row of MCUs and little
    /// is missing, the remaining coefficients stay zero, which is grey, as in libjpeg and browsers.
    pub fn decode(mut self, frame: &mut Frame) -> Result<usize, ImageError> {
        // a single-component scan holds the component's blocks without padding; an interleaved scan, whole MCUs
        let single = match (self.parts.as_slice(), frame.components.as_slice()) {
            ([part], components) => components.get(part.index).map(|c| (c.across, c.down)),
            _ => None,
        };
        // A one-component picture has one block per MCU, whatever its sampling factors.
        let (across, down) = single.unwrap_or((
            frame.width.div_ceil(8 * frame.h_max),
            frame.height.div_ceil(8 * frame.v_max),
        ));
        let is_single = single.is_some();
        let (mut until_restart, mut restarts) = (self.restart_interval, 0);
        for unit in 0..across * down {
            let (x, y) = (unit % across, unit / across);
            let mut next = || {
                if self.restart_interval > 0 && until_restart == 0 {
                    self.bits.restart(restarts)?;
                    self.parts.iter_mut().for_each(|p| p.predictor = 0);
                    self.end_of_band = 0;
                    (until_restart, restarts) = (self.restart_interval, restarts + 1);
                }
                until_restart = until_restart.saturating_sub(1);
                self.unit(frame, is_single, (x, y))
            };
            match next() {
                Ok(()) => {}
                Err(ImageError::Truncated { .. }) if is_tail(unit, across, down) => {
                    self.clear(frame, is_single, (x, y));
                    if frame.streamed {
                        frame.components.iter_mut().for_each(Component::flush);
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
            if frame.streamed && x + 1 == across {
                let rows = if is_single {
                    y + 1
                } else {
                    (y + 1) * frame.v_max
                };
                if rows.is_multiple_of(frame.v_max) || y + 1 == down {
                    frame.components.iter_mut().for_each(Component::flush);
                }
            }
        }
        Ok(self.bits.position())
    }

    /// Decodes the blocks of one MCU, or one block of a single-component scan.
    fn unit(
        &mut self,
        frame: &mut Frame,
        is_single: bool,
        at: (usize, usize),
    ) -> Result<(), ImageError> {
        for part in 0..self.parts.len() {
            let Some(component) = frame.components.get_mut(self.parts[part].index) else {
                continue;
            };
            for block in blocks(component, is_single, at) {
                self.block(part, component, block)?;
            }
        }
        Ok(())
    }

    /// Zeroes the blocks of a truncated sequential MCU.
    fn clear(&self, frame: &mut Frame, is_single: bool, at: (usize, usize)) {
        if self.progressive {
            return;
        }
        for part in &self.parts {
            let Some(component) = frame.components.get_mut(part.index) else {
                continue;
            };
            for (x, y) in blocks(component, is_single, at) {
                let row = y.saturating_sub(component.first_row);
                if let Some(block) = component
                    .coefficients
                    .get_mut(row * component.padded_across + x)
                {
                    *block = [0; 64];
                }
            }
        }
    }

    /// Decodes one block of `component` at `(x, y)`.
    fn block(
        &mut self,
        part: usize,
        component: &mut Component,
        (x, y): (usize, usize),
    ) -> Result<(), ImageError> {
        let row = y.saturating_sub(component.first_row);
        let at = row * component.padded_across + x;
        let Some(block) = component.coefficients.get_mut(at) else {
            return Err(damaged("a block lies outside the picture"));
        };
        let Some(part) = self.parts.get_mut(part) else {
            return Ok(());
        };
        let (header, bits) = (self.header, &mut self.bits);
        match (self.progressive, header.start, header.high) {
            (false, ..) => {
                dc_first(bits, part, 0, block)?;
                ac_sequential(bits, part, block)
            }
            (true, 0, 0) => dc_first(bits, part, header.low, block),
            (true, 0, _) => {
                if bits.bit()? {
                    block[0] |= 1 << header.low;
                }
                Ok(())
            }
            (true, _, 0) => ac_first(bits, part, header, &mut self.end_of_band, block),
            (true, ..) => ac_refine(bits, part, header, &mut self.end_of_band, block),
        }
    }
}

/// Whether data that end in this MCU are missing only a tail: the last row has begun, and at most an eighth is missing.
fn is_tail(unit: usize, across: usize, down: usize) -> bool {
    let total = across * down;
    unit / across + 1 == down && (total - unit) * 8 <= total
}

/// Coordinates of a component's blocks in an MCU.
fn blocks(
    component: &Component,
    is_single: bool,
    (x, y): (usize, usize),
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (h, v) = if is_single {
        (1, 1)
    } else {
        (component.h, component.v)
    };
    (0..h * v).map(move |i| (x * h + i % h, y * v + i / h))
}

/// Decodes the DC coefficient: the difference to the predictor, scaled by 2^low.
fn dc_first(
    bits: &mut Bits,
    part: &mut Part,
    low: u32,
    block: &mut Block,
) -> Result<(), ImageError> {
    let Some(table) = part.dc else {
        return Err(damaged("a Huffman table is missing"));
    };
    let size = u32::from(bits.symbol(table)?);
    if size > 16 {
        return Err(damaged("a value is too large"));
    }
    part.predictor = part.predictor.wrapping_add(bits.signed(size)?);
    block[0] = (part.predictor << low) as i16;
    Ok(())
}

/// Decodes all AC coefficients of a sequential block.
fn ac_sequential(bits: &mut Bits, part: &Part, block: &mut Block) -> Result<(), ImageError> {
    let Some(table) = part.ac else {
        return Err(damaged("a Huffman table is missing"));
    };
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(table)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let place = *ZIGZAG
            .get(k)
            .ok_or_else(|| damaged("a block has too many coefficients"))?;
        block[usize::from(place)] = bits.signed(size)? as i16;
        k += 1;
    }
    Ok(())
}

/// First progressive pass over a band of AC coefficients.
fn ac_first(
    bits: &mut Bits,
    part: &Part,
    header: &ScanHeader,
    end_of_band: &mut u32,
    block: &mut Block,
) -> Result<(), ImageError> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Ok(());
    }
    let Some(table) = part.ac else {
        return Err(damaged("a Huffman table is missing"));
    };
    let mut k = header.start;
    while k <= header.end {
        let symbol = bits.symbol(table)?;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                *end_of_band = (1 << run) - 1 + bits.take(run)? as u32;
                break;
            }
            k += 16;
            continue;
        }
        k += run as usize;
        let place = *ZIGZAG
            .get(k)
            .ok_or_else(|| damaged("a block has too many coefficients"))?;
        block[usize::from(place)] = (bits.signed(size)? << header.low) as i16;
        k += 1;
    }
    Ok(())
}

/// Refinement pass: adds one bit of precision to a band. Each nonzero coefficient gets a correction bit as it is passed;
/// a new coefficient comes with a run length that counts only zero coefficients.
fn ac_refine(
    bits: &mut Bits,
    part: &Part,
    header: &ScanHeader,
    end_of_band: &mut u32,
    block: &mut Block,
) -> Result<(), ImageError> {
    let Some(table) = part.ac else {
        return Err(damaged("a Huffman table is missing"));
    };
    let bit = 1i16 << header.low;
    let mut k = header.start;
    if *end_of_band == 0 {
        while k <= header.end {
            let symbol = bits.symbol(table)?;
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            let mut value = 0;
            match size {
                0 if run < 15 => {
                    *end_of_band = (1 << run) + bits.take(run)? as u32;
                    break;
                }
                0 => {}
                1 => value = if bits.bit()? { bit } else { -bit },
                _ => return Err(damaged("a correction is larger than one bit")),
            }
            while k <= header.end {
                let place = &mut block[usize::from(ZIGZAG[k])];
                if *place != 0 {
                    correct(bits, place, bit)?;
                } else if run == 0 {
                    if value != 0 {
                        *place = value;
                    }
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *end_of_band > 0 {
        for place in &ZIGZAG[k.min(64)..=header.end] {
            let place = &mut block[usize::from(*place)];
            if *place != 0 {
                correct(bits, place, bit)?;
            }
        }
        *end_of_band -= 1;
    }
    Ok(())
}

/// Reads the correction bit of a nonzero coefficient.
fn correct(bits: &mut Bits, value: &mut i16, bit: i16) -> Result<(), ImageError> {
    if bits.bit()? && *value & bit == 0 {
        *value = value.saturating_add(if *value >= 0 { bit } else { -bit });
    }
    Ok(())
}
