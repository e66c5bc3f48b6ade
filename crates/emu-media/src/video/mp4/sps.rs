//! H.264 sequence parameter set, parsed as far as needed to tell whether the decoder supports the stream.

/// NAL unit type of a sequence parameter set.
const SPS: u8 = 7;
/// Profiles whose parameter sets state chroma format and bit depth. All others are 4:2:0 with 8 bits.
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Bit reader, most significant bit first, with emulation prevention bytes removed.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn new(unit: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(unit.len());
        let mut zeros = 0;
        for byte in unit {
            if zeros >= 2 && *byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            bytes.push(*byte);
        }
        Self { bytes, at: 0 }
    }

    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |sum, _| Some(sum << 1 | u32::from(self.bit()?)))
    }

    /// An unsigned Exp-Golomb number.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// A signed Exp-Golomb number.
    fn signed(&mut self) -> Option<i64> {
        let number = i64::from(self.number()?);
        Some(if number % 2 == 1 {
            (number + 1) / 2
        } else {
            -number / 2
        })
    }

    /// Skips a scaling list.
    fn skip_scaling_list(&mut self, size: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..size {
            if next != 0 {
                next = (last + self.signed()? + 256).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }
}

/// The codec and profile with the unsupported features; `None` if all are supported, or if the unit is not an SPS.
pub(super) fn unsupported(unit: &[u8]) -> Option<String> {
    let (head, rest) = unit.split_first()?;
    if head & 31 != SPS {
        return None;
    }
    let profile = *rest.first()?;
    let reasons = reasons(rest)?;
    let name = match profile {
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4 Predictive",
        44 => "CAVLC 4:4:4 Intra",
        _ => "an unusual one",
    };
    (!reasons.is_empty()).then(|| format!("H.264, profile {name} ({})", reasons.join(", ")))
}

/// The unsupported features; `None` if the parameter set is truncated.
fn reasons(rest: &[u8]) -> Option<Vec<String>> {
    let mut bits = Bits::new(rest);
    let mut reasons = Vec::new();
    let profile = bits.take(8)?;
    bits.take(16)?; // constraints, level
    bits.number()?; // id
    if HIGH_PROFILES.iter().any(|p| u32::from(*p) == profile) {
        let chroma = bits.number()?;
        match chroma {
            2 => reasons.push("4:2:2 colours".to_owned()),
            3 => reasons.push("4:4:4 colours".to_owned()),
            _ => {}
        }
        if chroma == 3 {
            bits.bit()?; // separate_colour_plane_flag
        }
        let depth = bits.number()?.max(bits.number()?).saturating_add(8);
        if depth > 8 {
            reasons.push(format!("{depth} bits"));
        }
        if bits.bit()? {
            reasons.push("lossless".to_owned());
        }
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    bits.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.number()?; // log2_max_frame_num_minus4
    match bits.number()? {
        0 => {
            bits.number()?;
        }
        1 => {
            bits.bit()?;
            bits.number()?;
            bits.number()?;
            for _ in 0..bits.number()?.min(255) {
                bits.number()?;
            }
        }
        _ => {}
    }
    bits.number()?; // reference frames
    bits.bit()?; // gaps_in_frame_num_value_allowed_flag
    bits.number()?; // width
    bits.number()?; // height
    if !bits.bit()? {
        reasons.push("interlaced".to_owned());
    }
    Some(reasons)
}
