//! CPU products with packed matrices: blocks are dequantized into registers or tiles, never the whole matrix.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use half::f16;

use super::int8::{self, Isa};
use super::matrix::{Matrix, product};
use super::{contiguous, for_each, tensor, values};
use crate::ops::matmul::MatmulBackend;
use crate::spec::{Activations, BLOCK, PackedSpec, Scheme};

/// Up to this many rows of `x`, weights are dequantized on the fly (gemv); beyond, tiles are dequantized and multiplied by
/// gemm.
const GEMV_ROWS: usize = 4;
/// Rows of the matrix per task of a gemv.
const TILE: usize = 32;
/// Rows of the matrix per task of a gemm: enough to amortize reading `x` again for each.
const MATRIX_TILE: usize = 192;

/// Slices of a packed matrix.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    words: &'a [u32],
    /// Valid only if the scheme has them; same for minimums.
    scales: &'a [f16],
    mins: &'a [f16],
    spec: PackedSpec,
}

/// The 32-bit words of an integer tensor.
fn words(x: &FlexTensor) -> &[u32] {
    bytemuck::cast_slice(x.as_slice::<i32>().unwrap_or_default())
}

impl<'a> Blocks<'a> {
    fn new(
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

    fn blocks(&self) -> usize {
        self.spec.width / BLOCK
    }

    /// A block's bytes, its scale, and the offset added to every scaled value.
    #[inline(always)]
    fn block<const N: usize>(&self, at: usize) -> (&[u8; N], f32, f32) {
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
    fn flip(&self) -> u8 {
        match self.spec.scheme {
            Scheme::Q4 => 8,
            _ => 0,
        }
    }

    /// The f16 bits of row `row`.
    #[inline(always)]
    fn halves(&self, row: usize) -> &[u16] {
        let bits: &[u16] = bytemuck::cast_slice(self.words);
        &bits[row * self.spec.width..][..self.spec.width]
    }

    /// Dequantizes row `row` into `out`.
    #[inline(always)]
    fn unpack(&self, row: usize, out: &mut [f32]) {
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

/// A row of `x` in the order of packed nibbles: of each block of 32 elements, first the even-indexed (low nibbles), then the
/// odd-indexed (high nibbles); and the sum of every block.
struct Split {
    values: Vec<f32>,
    sums: Vec<f32>,
}

impl Split {
    fn new(x: &[f32], nibbles: bool) -> Self {
        let blocks = x.as_chunks::<BLOCK>().0;
        let sums = blocks.iter().map(|block| block.iter().sum()).collect();
        if !nibbles {
            let values = x.to_vec();
            return Self { values, sums };
        }
        let mut values = Vec::with_capacity(x.len());
        for block in blocks {
            values.extend(block.iter().step_by(2));
            values.extend(block.iter().skip(1).step_by(2));
        }
        Self { values, sums }
    }
}

/// `x Wᵀ + b + r`, or a gate, for `x` of `[rows, in]`.
pub fn linear(
    x: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    [bias, residual]: [FlexTensor; 2],
    spec: PackedSpec,
) -> FlexTensor {
    if spec.activations == Activations::Int8 && spec.scheme.bits() <= 8 {
        return of_bytes(x, [words, scales, mins], [bias, residual], spec);
    }
    if spec.pair {
        let spec = PackedSpec {
            pair: false,
            ..spec
        };
        return super::activation::silu_pair(linear(
            x,
            [words, scales, mins],
            [bias, residual],
            spec,
        ));
    }
    let x = contiguous(x);
    let bias = spec.bias.then(|| contiguous(bias));
    let residual = spec.residual.then(|| contiguous(residual));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let (x, width, out) = (values(&x), spec.width, spec.out);
    let rows = x.len() / width;
    // Computed transposed, `[out, rows]`, so that each task writes a contiguous range.
    let mut y = vec![0.0f32; rows * out];
    let tile_rows = if rows <= GEMV_ROWS { TILE } else { MATRIX_TILE };
    let tiles: Vec<_> = y.chunks_mut(tile_rows * rows).enumerate().collect();
    if rows <= GEMV_ROWS {
        let split: Vec<Split> = x
            .chunks_exact(width)
            .map(|row| Split::new(row, spec.scheme.bits() == 4))
            .collect();
        for_each(tiles, |(tile, y)| {
            for (o, y) in y.chunks_exact_mut(rows).enumerate() {
                let row = tile * TILE + o;
                for (y, x) in y.iter_mut().zip(&split) {
                    *y = match spec.scheme {
                        Scheme::F16 => dot_halves(&blocks, row, x),
                        Scheme::Q8 => dot_bytes(&blocks, row, x),
                        Scheme::Q4 | Scheme::Q4_1 => dot_nibbles(&blocks, row, x),
                    };
                }
            }
        });
    } else {
        for_each(tiles, |(tile, y)| {
            let count = y.len() / rows;
            let mut dense = vec![0.0f32; count * width];
            for (o, dense) in dense.chunks_exact_mut(width).enumerate() {
                blocks.unpack(tile * MATRIX_TILE + o, dense);
            }
            let (w, x) = (Matrix::rows(&dense, width), Matrix::rows(x, width));
            product(
                (y, rows),
                [count, rows, width],
                w,
                x.transposed(),
                1.0,
                false,
            );
        });
    }
    let mut turned = y;
    if rows > 1 {
        let y = turned;
        turned = vec![0.0f32; rows * out];
        for (r, row) in turned.chunks_exact_mut(out).enumerate() {
            row.iter_mut()
                .zip(y.iter().skip(r).step_by(rows))
                .for_each(|(to, y)| *to = *y);
        }
    }
    let add = |to: &mut [f32], x: &[f32]| to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
    if let Some(bias) = bias {
        { turned.chunks_exact_mut(out) }.for_each(|row| add(row, values(&bias)));
    }
    if let Some(residual) = residual {
        add(&mut turned, values(&residual));
    }
    tensor(turned, [rows, out])
}

/// Same, with `x` quantized to 8 bits.
fn of_bytes(
    x: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    [bias, residual]: [FlexTensor; 2],
    spec: PackedSpec,
) -> FlexTensor {
    let x = contiguous(x);
    let bias = spec.bias.then(|| contiguous(bias));
    let residual = spec.residual.then(|| contiguous(residual));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let matrix = int8::Matrix {
        bytes: bytemuck::cast_slice(blocks.words),
        scales: bytemuck::cast_slice(blocks.scales),
        mins: bytemuck::cast_slice(blocks.mins),
        spec,
    };
    let added = int8::Added {
        bias: bias.as_ref().map(values),
        residual: residual.as_ref().map(values),
    };
    let (x, made) = (values(&x), if spec.pair { spec.out / 2 } else { spec.out });
    let y = int8::linear(Isa::best(), x, matrix, added);
    tensor(y, [x.len() / spec.width, made])
}

/// Dot product of a 4-bit row and `x`. Sixteen partial sums, so that the compiler vectorizes.
#[inline(always)]
fn dot_nibbles(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    const HALF: usize = BLOCK / 2;
    let flip = blocks.flip();
    let (mut total, mut offsets) = ([0.0f32; HALF], 0.0);
    let halves = x.values.as_chunks::<HALF>().0.as_chunks::<2>().0;
    for (at, ([even, odd], sum)) in halves.iter().zip(&x.sums).enumerate() {
        let (bytes, scale, offset) = blocks.block::<HALF>(row * blocks.blocks() + at);
        let mut part = [0.0f32; HALF];
        for i in 0..HALF {
            let b = bytes[i];
            part[i] = f32::from((b & 15) ^ flip) * even[i] + f32::from((b >> 4) ^ flip) * odd[i];
        }
        for i in 0..HALF {
            total[i] += part[i] * scale;
        }
        offsets += offset * sum;
    }
    total.iter().sum::<f32>() + offsets
}

/// Dot product of an 8-bit row and `x`.
#[inline(always)]
fn dot_bytes(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    const HALF: usize = BLOCK / 2;
    let mut total = [0.0f32; HALF];
    for (at, x) in x.values.as_chunks::<BLOCK>().0.iter().enumerate() {
        let (bytes, scale, _) = blocks.block::<BLOCK>(row * blocks.blocks() + at);
        let mut part = [0.0f32; HALF];
        for i in 0..HALF {
            part[i] =
                f32::from(bytes[i] as i8) * x[i] + f32::from(bytes[i + HALF] as i8) * x[i + HALF];
        }
        for i in 0..HALF {
            total[i] += part[i] * scale;
        }
    }
    total.iter().sum()
}

/// Dot product of an f16 row and `x`.
#[inline(always)]
fn dot_halves(blocks: &Blocks, row: usize, x: &Split) -> f32 {
    let mut total = [0.0f32; BLOCK];
    let halves = blocks.halves(row).as_chunks::<BLOCK>().0;
    for (halves, x) in halves.iter().zip(x.values.as_chunks::<BLOCK>().0) {
        for i in 0..BLOCK {
            total[i] += int8::widened(halves[i]) * x[i];
        }
    }
    total.iter().sum()
}

/// Dequantized rows of the matrix: `[n, in]`.
pub fn rows(
    ids: FlexTensor,
    [words, scales, mins]: [FlexTensor; 3],
    spec: PackedSpec,
) -> FlexTensor {
    let ids: Vec<usize> = super::integers(&contiguous(ids));
    let blocks = Blocks::new(&words, &scales, &mins, spec);
    let mut y = vec![0.0f32; ids.len() * spec.width];
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(spec.width)) {
        // Clamped to the last row, like an out-of-bounds gather on a GPU.
        blocks.unpack(id.min(spec.out - 1), y);
    }
    tensor(y, [ids.len(), spec.width])
}

impl MatmulBackend for Flex {
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        linear(x, [words, scales, mins], [bias, residual], spec)
    }

    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        rows(ids, [words, scales, mins], spec)
    }
}
