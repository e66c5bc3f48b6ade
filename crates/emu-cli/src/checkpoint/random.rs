//! Random weights at the write speed of a disk.
//!
//! Each value is drawn from a table of a few thousand normal values. For rounding and compression this is as good as fresh
//! normal values, and it takes a twelfth of a random number per value.

use std::io::{self, Write};

use emu_kernels::random::{Philox, Stream};
use emu_pack::Dtype;
use indicatif::ProgressBar;
use rayon::prelude::*;

use super::keys::Tensor;

/// Bits of a table index.
const BITS: u32 = 12;
/// Bytes generated at a time, and bytes per thread.
const CHUNK: usize = 32 << 20;
const PIECE: usize = 1 << 20;

/// Generates the values of tensors.
pub struct Weights {
    seed: u64,
    normals: Vec<f32>,
}

impl Weights {
    /// Weights for a random seed.
    pub fn new(seed: u64) -> Self {
        let normals = Philox::new(seed, Stream::Tokens, 0).normals(1 << BITS);
        Self { seed, normals }
    }

    /// Writes a tensor's values.
    ///
    /// # Errors
    /// Of `out`.
    pub fn write(
        &self,
        tensor: &Tensor,
        out: &mut impl Write,
        bar: &ProgressBar,
    ) -> io::Result<()> {
        let (mean, deviation) = distribution(tensor);
        let values = self.normals.iter().map(|n| mean + deviation * n);
        let table: Vec<[u8; 4]> = values.map(|value| encoded(tensor.dtype, value)).collect();
        let name = tensor.name.bytes().fold(self.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let size = tensor.dtype.size();
        let mut left = tensor.bytes() as usize;
        let mut chunk = vec![0; left.min(CHUNK)];
        let mut pieces = 0;
        while left > 0 {
            let now = left.min(CHUNK);
            let bytes = chunk.get_mut(..now).unwrap_or_default();
            bytes
                .par_chunks_mut(PIECE)
                .enumerate()
                .for_each(|(i, piece)| {
                    let mut random = Mixer(mix(name ^ mix(pieces + i as u64)));
                    fill(piece, size, &table, &mut random);
                });
            pieces += now.div_ceil(PIECE) as u64;
            out.write_all(bytes)?;
            bar.inc(now as u64);
            left -= now;
        }
        Ok(())
    }
}

/// Mean and standard deviation that keep activations bounded: gains about 1, offsets about 0, matrices scaled by fan-in.
fn distribution(tensor: &Tensor) -> (f32, f32) {
    match tensor.shape.as_slice() {
        [] | [_] if tensor.name.ends_with("weight") => (1.0, 0.05),
        [] | [_] => (0.0, 0.02),
        [_, inputs @ ..] => (
            0.0,
            1.0 / (inputs.iter().product::<usize>().max(1) as f32).sqrt(),
        ),
    }
}

/// Little-endian bytes of a value; a narrower type uses the first ones.
fn encoded(dtype: Dtype, value: f32) -> [u8; 4] {
    let [a, b, c, d] = value.to_le_bytes();
    match dtype {
        // Truncated instead of rounded: the value is random anyway.
        Dtype::BF16 => [c, d, 0, 0],
        _ => [a, b, c, d],
    }
}

fn fill(bytes: &mut [u8], size: usize, table: &[[u8; 4]], random: &mut Mixer) {
    let mask = (1 << BITS) - 1;
    for elements in bytes.chunks_mut(5 * size) {
        // 60 bits give five indices.
        let mut bits = random.next();
        for element in elements.chunks_mut(size) {
            let value = table.get(bits as usize & mask).copied().unwrap_or_default();
            element.copy_from_slice(value.get(..element.len()).unwrap_or_default());
            bits >>= BITS;
        }
    }
}

/// SplitMix64 (Steele et al., 2014).
struct Mixer(u64);

impl Mixer {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_repeat_and_differ_between_tensors() {
        let make = |name: &str, dtype, seed| {
            let tensor = Tensor {
                name: name.into(),
                dtype,
                shape: vec![400, 256],
            };
            let mut bytes = vec![];
            let weights = Weights::new(seed);
            let bar = ProgressBar::hidden();
            weights.write(&tensor, &mut bytes, &bar).expect("memory");
            emu_pack::TensorData::new(name, dtype, tensor.shape, bytes)
                .and_then(|t| t.to_f32())
                .expect("floats")
        };
        for dtype in [Dtype::F32, Dtype::BF16] {
            let values = make("a", dtype, 0);
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
            assert!(mean.abs() < 3e-3, "{mean}");
            assert!((deviation * 16.0 - 1.0).abs() < 0.05, "{deviation}");
            assert_eq!(make("a", dtype, 0), values);
            assert_ne!(make("b", dtype, 0), values);
            assert_ne!(make("a", dtype, 1), values);
        }
    }
}
