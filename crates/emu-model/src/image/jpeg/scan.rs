//! Entropy decoding of one scan, sequential or progressive, into the coefficient stores.

use super::damaged;
use super::header::{Component, Frame, ScanComponent, ScanHeader, Tables, ZIGZAG};
use super::huffman::{Bits, HuffmanTable};
use crate::image::ImageError;

/// A block's 64 coefficients, in reading order.
type Block = [i16; 64];

/// One component's tables in this scan; a scan that does not need one may lack it.
struct Part<'t> {
    index: usize,
    dc: Option<&'t HuffmanTable>,
    ac: Option<&'t HuffmanTable>,
    /// The previous block's DC value.
    predictor: i32,
}

/// A scan being decoded.
pub(super) struct Scan<'a> {
    header: &'a ScanHeader,
    parts: Vec<Part<'a>>,
    bits: Bits<'a>,
    progressive: bool,
    restart_interval: usize,
    /// Blocks left in a run of blocks without further coefficients.
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

    /// Decodes all blocks; returns how many bytes were used.
    pub fn decode(mut self, frame: &mut Frame) -> Result<usize, ImageError> {
        // a scan of one component holds just its blocks; of several, whole MCUs
        let single = match (self.parts.as_slice(), frame.components.as_slice()) {
            ([part], components) => components.get(part.index).map(|c| (c.across, c.down)),
            _ => None,
        };
        let (across, down) = single.unwrap_or((
            frame.width.div_ceil(8 * frame.h_max),
            frame.height.div_ceil(8 * frame.v_max),
        ));
        let (mut until_restart, mut restarts) = (self.restart_interval, 0);
        for unit in 0..across * down {
            if self.restart_interval > 0 && until_restart == 0 {
                self.bits.restart(restarts)?;
                self.parts.iter_mut().for_each(|p| p.predictor = 0);
                self.end_of_band = 0;
                (until_restart, restarts) = (self.restart_interval, restarts + 1);
            }
            until_restart = until_restart.saturating_sub(1);
            let (x, y) = (unit % across, unit / across);
            for part in 0..self.parts.len() {
                let Some(component) = frame.components.get_mut(self.parts[part].index) else {
                    continue;
                };
                let (h, v) = if single.is_some() {
                    (1, 1)
                } else {
                    (component.h, component.v)
                };
                for block in (0..h * v).map(|i| (x * h + i % h, y * v + i / h)) {
                    self.block(part, component, block)?;
                }
            }
        }
        Ok(self.bits.position())
    }

    /// Decodes one block of `component` at `(x, y)`.
    fn block(
        &mut self,
        part: usize,
        component: &mut Component,
        (x, y): (usize, usize),
    ) -> Result<(), ImageError> {
        let at = y * component.padded_across + x;
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

/// The DC value as a difference from the block before, scaled by 2^low.
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

/// All AC coefficients of a sequential block.
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

/// First pass over a band of AC coefficients.
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

/// Adds one bit of precision to a band: known coefficients get a correction bit each as they are passed; new ones
/// come with a run that counts only coefficients which are still zero.
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

/// Reads the correction bit of a coefficient that is not zero.
fn correct(bits: &mut Bits, value: &mut i16, bit: i16) -> Result<(), ImageError> {
    if bits.bit()? && *value & bit == 0 {
        *value = value.saturating_add(if *value >= 0 { bit } else { -bit });
    }
    Ok(())
}
