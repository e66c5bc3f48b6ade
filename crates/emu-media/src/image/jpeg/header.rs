//! Markers and tables of a JPEG file.

use super::color::ColorSpace;
use super::frame::Frame;
use super::huffman::HuffmanTable;
use super::plane::{damaged, truncated, unsupported};
use super::scan_header::{ScanComponent, ScanHeader};
use crate::image::ImageError;

/// Zigzag order: position in the block of each of the 64 coefficients, as they are stored.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Tables that scans refer to.
#[derive(Default)]
pub(super) struct Tables {
    quant: [Option<[u16; 64]>; 4],
    pub dc: [Option<HuffmanTable>; 4],
    pub ac: [Option<HuffmanTable>; 4],
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: usize,
}

/// Reads a file marker by marker.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    pub tables: Tables,
    jfif: bool,
    /// The transform byte of the Adobe marker (APP14).
    pub adobe: Option<u8>,
    /// The first EXIF segment.
    pub exif: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Result<Self, ImageError> {
        match data {
            [0xff, 0xd8, ..] => Ok(Self {
                data,
                at: 2,
                tables: Tables::default(),
                jfif: false,
                adobe: None,
                exif: None,
            }),
            _ => Err(damaged("the start marker is missing")),
        }
    }

    /// The bytes after the current position.
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    pub fn skip(&mut self, count: usize) {
        self.at = (self.at + count).min(self.data.len());
    }

    /// The code of the next marker; bytes before it are skipped, as libjpeg does.
    fn marker(&mut self) -> Result<u8, ImageError> {
        loop {
            let rest = self.rest();
            let at = rest
                .windows(2)
                .position(|w| w[0] == 0xff && w[1] != 0 && w[1] != 0xff)
                .ok_or_else(truncated)?;
            let code = rest.get(at + 1).copied().ok_or_else(truncated)?;
            self.skip(at + 2);
            // stray restart markers, and TEM
            if !matches!(code, 0xd0..=0xd7 | 0x01) {
                return Ok(code);
            }
        }
    }

    /// The body of a marker segment.
    fn segment(&mut self) -> Result<&'a [u8], ImageError> {
        let rest = self.rest();
        let length = rest
            .first_chunk::<2>()
            .map(|b| usize::from(u16::from_be_bytes(*b)))
            .ok_or_else(truncated)?;
        if length < 2 {
            return Err(damaged("a segment is shorter than its own header"));
        }
        let body = rest.get(2..length).ok_or_else(truncated)?;
        self.skip(length);
        Ok(body)
    }

    /// Reads up to and including the frame header.
    pub fn read_frame(&mut self) -> Result<Frame, ImageError> {
        loop {
            match self.marker()? {
                code @ 0xc0..=0xc2 => return Frame::read(self.segment()?, code == 0xc2),
                0xc3 | 0xc5..=0xc7 => return Err(unsupported("lossless or hierarchical coding")),
                0xc9..=0xcb | 0xcd..=0xcf => return Err(unsupported("arithmetic coding")),
                0xd9 => return Err(damaged("it ends before the frame header")),
                0xda => return Err(damaged("a scan comes before the frame header")),
                code => self.table(code)?,
            }
        }
    }

    /// Reads up to and including the next scan header; `None` at the end marker (EOI).
    pub fn next_scan(&mut self, frame: &mut Frame) -> Result<Option<ScanHeader>, ImageError> {
        loop {
            match self.marker()? {
                0xd9 => return Ok(None),
                0xda => {
                    let header = read_scan(self.segment()?, frame)?;
                    for part in &header.components {
                        let Some(component) = frame.components.get_mut(part.index) else {
                            continue;
                        };
                        if component.quant.is_none() {
                            let table = self
                                .tables
                                .quant
                                .get(component.quant_index)
                                .copied()
                                .flatten();
                            component.quant = Some(
                                table.ok_or_else(|| damaged("a quantisation table is missing"))?,
                            );
                        }
                        component.seen = true;
                    }
                    return Ok(Some(header));
                }
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err(damaged("it has two frame headers"));
                }
                0xdc => return Err(unsupported("a line count after the data")),
                code => self.table(code)?,
            }
        }
    }

    /// Handles a segment with tables, restart interval, or application data.
    fn table(&mut self, code: u8) -> Result<(), ImageError> {
        let body = self.segment()?;
        match code {
            0xc4 => self.huffman_tables(body),
            0xdb => self.quant_tables(body),
            0xdd => {
                let interval = body
                    .first_chunk::<2>()
                    .ok_or_else(|| damaged("the restart interval is missing"))?;
                self.tables.restart_interval = usize::from(u16::from_be_bytes(*interval));
                Ok(())
            }
            0xe0 => {
                self.jfif |= body.starts_with(b"JFIF\0");
                Ok(())
            }
            0xe1 => {
                if self.exif.is_none() && body.starts_with(b"Exif\0\0") {
                    self.exif = Some(body);
                }
                Ok(())
            }
            0xee => {
                if body.starts_with(b"Adobe") {
                    self.adobe = body.get(11).copied().or(self.adobe);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn quant_tables(&mut self, mut body: &[u8]) -> Result<(), ImageError> {
        let short = || damaged("a quantisation table is cut short");
        while let Some((&head, rest)) = body.split_first() {
            let (wide, index) = (head >> 4, usize::from(head & 15));
            let size = match wide {
                0 => 64,
                1 => 128,
                _ => return Err(damaged("a quantisation table has an unknown precision")),
            };
            let (values, rest) = rest.split_at_checked(size).ok_or_else(short)?;
            let mut table = [0u16; 64];
            for (value, place) in values.chunks_exact(size / 64).zip(ZIGZAG) {
                table[usize::from(place)] = value
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u16::from(*byte));
            }
            *self
                .tables
                .quant
                .get_mut(index)
                .ok_or_else(|| damaged("a quantisation table has a wrong number"))? = Some(table);
            body = rest;
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut body: &[u8]) -> Result<(), ImageError> {
        let short = || damaged("a Huffman table is cut short");
        while let Some((&head, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let total: usize = counts.iter().map(|c| usize::from(*c)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or_else(short)?;
            let table = HuffmanTable::new(counts, symbols)?;
            let class = if head >> 4 == 0 {
                &mut self.tables.dc
            } else {
                &mut self.tables.ac
            };
            let slot = class
                .get_mut(usize::from(head & 15))
                .filter(|_| head >> 4 <= 1);
            *slot.ok_or_else(|| damaged("a Huffman table has a wrong number"))? = Some(table);
            body = rest;
        }
        Ok(())
    }

    /// The colour space of the components, by libjpeg's rules.
    pub fn color_space(&self, frame: &Frame) -> ColorSpace {
        let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        match (ids.len(), self.adobe) {
            (1, _) => ColorSpace::Gray,
            (4, Some(2)) => ColorSpace::Ycck,
            (4, _) => ColorSpace::Cmyk,
            _ if self.jfif => ColorSpace::YCbCr,
            (_, Some(0)) => ColorSpace::Rgb,
            (_, Some(_)) => ColorSpace::YCbCr,
            _ if ids == *b"RGB" => ColorSpace::Rgb,
            _ => ColorSpace::YCbCr,
        }
    }
}

fn read_scan(body: &[u8], frame: &Frame) -> Result<ScanHeader, ImageError> {
    let short = || damaged("a scan header is cut short");
    let (&count, rest) = body.split_first().ok_or_else(short)?;
    let (parts, rest) = rest
        .split_at_checked(usize::from(count) * 2)
        .ok_or_else(short)?;
    let [start, end, approximation, ..] = rest else {
        return Err(short());
    };
    let mut components: Vec<ScanComponent> = Vec::new();
    for part in parts.chunks_exact(2) {
        let index = frame.components.iter().position(|c| c.id == part[0]);
        let index = index.ok_or_else(|| damaged("a scan names an unknown colour plane"))?;
        if components.iter().any(|c| c.index == index) {
            return Err(damaged("a scan names a colour plane twice"));
        }
        components.push(ScanComponent {
            index,
            dc: usize::from(part[1] >> 4),
            ac: usize::from(part[1] & 15),
        });
    }
    let mut header = ScanHeader {
        components,
        start: usize::from(*start),
        end: usize::from(*end),
        high: u32::from(approximation >> 4),
        low: u32::from(approximation & 15),
    };
    if !frame.progressive {
        (header.start, header.end, header.high, header.low) = (0, 63, 0, 0);
    }
    let many = header.components.len() > 1;
    let wrong_band = header.start > header.end
        || header.end > 63
        || (frame.progressive && header.start == 0 && header.end != 0);
    if header.components.is_empty() || wrong_band || (many && header.start > 0) || header.low > 13 {
        return Err(damaged("a scan header contradicts itself"));
    }
    Ok(header)
}
