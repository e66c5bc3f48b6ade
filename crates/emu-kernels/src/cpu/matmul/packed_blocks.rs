//! The blocks of a packed matrix, dequantized into registers or tiles.

use burn::backend::flex::FlexTensor;
use half::f16;

use crate::cpu::int8;
use crate::spec::{BLOCK, PackedSpec, Scheme};

/// Slices of a packed matrix.
#[derive(Clone, Copy)]
pub struct Blocks<'a> {
    pub words: &'a [u32],
    /// Valid only if the scheme has them; same for minimums.
    pub scales: &'a [f16],
    pub mins: &'a [f16],
    pub spec: PackedSpec,
}

/// The 32-bit words of an integer tensor.
fn words(x: &FlexTensor) -> &[u32] {
    bytemuck::cast_slice(x.as_slice::<i32>().unwrap_or_default())
}

impl<'a> Blocks<'a> {
    pub fn new(
        words_of: &'a FlexTensor,
        scales: &'a FlexTensor,
        mins: &'a FlexTensor,
        spec: PackedSpec,
    ) -> Self {
        Self {
            words: words(words_of),
            scales: bytemuck::cast_slice(words(scales)),
            mins: bytemuck::cast_slice(words(mins)),
            spec,
        }
    }

    pub fn blocks(&self) -> usize {
        self.spec.width / BLOCK
    }

    /// A block's bytes, its scale, and the offset added to every scaled value.
    #[inline(always)]
    pub fn block<const N: usize>(&self, at: usize) -> (&[u8; N], f32, f32) {
        let bytes: &[u8] = bytemuck::cast_slice(self.words);
        let (all, _) = bytes.as_chunks::<N>();
        let scale = self.scales[at].to_f32();
        let offset = match self.spec.scheme {
            Scheme::F16 | Scheme::Q8 => 0.0,
            // Nibbles are read with the sign bit flipped: 0 to 15 stands for -8 to 7.
            Scheme::Q4 => -8.0 * scale,
            Scheme::Q4_1 => self.mins[at].to_f32(),
        };
        (&all[at], scale, offset)
    }

    /// XOR mask that maps stored nibbles to 0 to 15.
    pub fn flip(&self) -> u8 {
        match self.spec.scheme {
            Scheme::Q4 => 8,
            _ => 0,
        }
    }

    /// The f16 bits of row `row`.
    #[inline(always)]
    pub fn halves(&self, row: usize) -> &[u16] {
        let bits: &[u16] = bytemuck::cast_slice(self.words);
        &bits[row * self.spec.width..][..self.spec.width]
    }

    /// Dequantizes row `row` into `out`.
    #[inline(always)]
    pub fn unpack(&self, row: usize, out: &mut [f32]) {
        if self.spec.scheme == Scheme::F16 {
            for (o, &bits) in out.iter_mut().zip(self.halves(row)) {
                *o = int8::widened(bits);
            }
            return;
        }
        let flip = self.flip();
        for (at, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let at = row * self.blocks() + at;
            if self.spec.scheme == Scheme::Q8 {
                let (bytes, scale, _) = self.block::<BLOCK>(at);
                for (o, &b) in out.iter_mut().zip(bytes) {
                    *o = f32::from(b as i8) * scale;
                }
            } else {
                let (bytes, scale, offset) = self.block::<{ BLOCK / 2 }>(at);
                for (pair, &b) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                    *pair = [
                        f32::from((b & 15) ^ flip) * scale + offset,
                        f32::from((b >> 4) ^ flip) * scale + offset,
                    ];
                }
            }
        }
    }
}
