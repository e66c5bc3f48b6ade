//! The sequence parameter set of H.264, as far as it says whether the decoder can read the pictures.

/// The type of such a unit.
const SPS: u8 = 7;
/// Profiles whose parameter sets tell colours and depth. In all others these are 4:2:0 and 8 bits.
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Bits, most significant first, without the bytes that keep start codes out.
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

    /// An Exp-Golomb number.
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

    /// A signed one.
    fn signed(&mut self) -> Option<i64> {
        let number = i64::from(self.number()?);
        Some(if number % 2 == 1 {
            (number + 1) / 2
        } else {
            -number / 2
        })
    }

    /// Passes over a scaling list.
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

/// The codec with its profile, and what of it is not read; `None` if all is, or the unit is no parameter set.
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

/// What is not read; `None` where the set is cut short.
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
            bits.bit()?; // planes coded apart
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
    bits.number()?; // bits of frame numbers
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
    bits.bit()?; // gaps
    bits.number()?; // width
    bits.number()?; // height
    if !bits.bit()? {
        reasons.push("interlaced".to_owned());
    }
    Some(reasons)
}
