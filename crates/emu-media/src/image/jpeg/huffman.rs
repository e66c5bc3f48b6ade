//! Huffman tables, and the bit reader for entropy-coded data.

use super::plane::{damaged, truncated};
use crate::image::ImageError;

/// Codes up to this length are decoded by one table lookup.
const FAST_BITS: u32 = 9;

/// A canonical Huffman code of at most 16 bits.
pub(super) struct HuffmanTable {
    /// Indexed by the next `FAST_BITS` bits: length and symbol; length 0 for longer codes.
    fast: Vec<(u8, u8)>,
    /// Per length: one past the last code, aligned to 16 bits.
    limit: [u32; 17],
    /// Per length: symbol index minus code.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// `counts[i]` codes of length i + 1, symbols in the order of their codes.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, ImageError> {
        let mut table = Self {
            fast: vec![(0, 0); 1 << FAST_BITS],
            limit: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            let slot = length as usize;
            table.offset[slot] = index as i32 - code as i32;
            for _ in 0..*count {
                let symbol = *symbols
                    .get(index)
                    .ok_or_else(|| damaged("a Huffman table lacks symbols"))?;
                if code >= 1 << length {
                    return Err(damaged("a Huffman table has too many codes"));
                }
                if length <= FAST_BITS {
                    let spread = FAST_BITS - length;
                    let from = (code << spread) as usize;
                    table.fast[from..from + (1 << spread)].fill((length as u8, symbol));
                }
                (code, index) = (code + 1, index + 1);
            }
            table.limit[slot] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }
}

/// Reads bits, most significant first; stops at a marker and removes the zero byte that follows 0xff.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Buffered bits, left-aligned.
    window: u64,
    available: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            window: 0,
            available: 0,
        }
    }

    /// Bytes consumed, once the bits read ahead are dropped: everything up to the next marker.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Refills the window until it is full or a marker follows.
    fn fill(&mut self) {
        while self.available <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => return,
            };
            self.window |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    fn ended(&self) -> ImageError {
        match self.data.get(self.at..) {
            // The end of the file, or an EOI marker.
            None | Some([] | [_] | [0xff, 0xd9, ..]) => truncated(),
            Some(_) => damaged("compressed data end too early"),
        }
    }

    fn drop(&mut self, count: u32) -> Result<(), ImageError> {
        if count > self.available {
            return Err(self.ended());
        }
        self.window <<= count;
        self.available -= count;
        Ok(())
    }

    /// The next `count` bits as a number; `count` at most 16.
    pub fn take(&mut self, count: u32) -> Result<i32, ImageError> {
        if count == 0 {
            return Ok(0);
        }
        if self.available < count {
            self.fill();
        }
        let value = (self.window >> (64 - count)) as i32;
        self.drop(count)?;
        Ok(value)
    }

    /// One bit.
    pub fn bit(&mut self) -> Result<bool, ImageError> {
        Ok(self.take(1)? == 1)
    }

    /// A signed value of `size` bits, sign-extended as in JPEG: a leading zero bit means negative.
    pub fn signed(&mut self, size: u32) -> Result<i32, ImageError> {
        let value = self.take(size)?;
        Ok(if size > 0 && value < 1 << (size - 1) {
            value - (1 << size) + 1
        } else {
            value
        })
    }

    /// The next symbol.
    pub fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, ImageError> {
        if self.available < 16 {
            self.fill();
        }
        let (length, symbol) = table.fast[(self.window >> (64 - FAST_BITS)) as usize];
        if length > 0 {
            self.drop(u32::from(length))?;
            return Ok(symbol);
        }
        let next = (self.window >> 48) as u32;
        for length in FAST_BITS + 1..=16 {
            let slot = length as usize;
            if next < table.limit[slot] {
                let index = (next >> (16 - length)) as i32 + table.offset[slot];
                self.drop(length)?;
                let symbol = usize::try_from(index)
                    .ok()
                    .and_then(|i| table.symbols.get(i));
                return symbol.copied().ok_or_else(|| damaged("an unknown code"));
            }
        }
        Err(if self.available < 16 {
            self.ended()
        } else {
            damaged("an unknown code")
        })
    }

    /// Skips a restart marker and resets the bit window; `number` counts the markers from 0.
    pub fn restart(&mut self, number: usize) -> Result<(), ImageError> {
        (self.window, self.available) = (0, 0);
        let rest = self.data.get(self.at..).unwrap_or_default();
        // any number of 0xff fill bytes may precede a marker
        let fill = rest.iter().take_while(|b| **b == 0xff).count();
        match rest.get(fill) {
            Some(code) if fill > 0 && usize::from(*code) == 0xd0 + number % 8 => {
                self.at += fill + 1;
                Ok(())
            }
            None => Err(truncated()),
            Some(0xd9) if fill > 0 => Err(truncated()),
            Some(_) => Err(damaged("a restart marker is missing")),
        }
    }
}
