//! Gemm, many rows of `x`: rows of the matrix are unpacked side by side and multiplied in register tiles.

use super::blocks::{COLUMNS, Matrix, Output, VECTORS, flip, gate, round, widened};
use super::isa::{Isa, Job};
use super::simd::Simd;
use crate::spec::{BLOCK, PackedSpec, Scheme};

/// Lanes of the widest vectors.
const MOST_LANES: usize = 16;

/// Queries the lanes of a vector.
pub struct Lanes;

impl Job for Lanes {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        S::LANES
    }
}

/// Quantized rows of `x`, in order, padded with zeros to a multiple of [`COLUMNS`].
pub struct RoundedTiles {
    /// `[padded, width / STEP]`: one 32-bit cell per lane, which holds `STEP` elements of a row, bytes or 16-bit values.
    cells: Vec<i32>,
    /// `[padded, blocks]`: scale, scale times the sum of the bytes, correction for the bias of the matrix.
    blocks: Vec<(f32, f32, i32)>,
    rows: usize,
}

/// Quantizes some of the rows.
struct RoundTiles<'a> {
    x: &'a [f32],
    scheme: Scheme,
    cells: &'a mut [i32],
    blocks: &'a mut [(f32, f32, i32)],
}

/// Queries the cells of a block.
struct Cells;

impl Job for Cells {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        BLOCK / S::STEP
    }
}

impl Job for RoundTiles<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let blocks = self.x.as_chunks::<BLOCK>().0.iter().zip(self.blocks);
        for ((x, block), cells) in blocks.zip(self.cells.chunks_exact_mut(BLOCK / S::STEP)) {
            let (bytes, scale, sum) = round(x);
            // 16-bit products are signed; byte products have an unsigned matrix operand, hence the bias.
            let bias = if S::STEP == 4 {
                bias_of_lanes(self.scheme)
            } else {
                0
            };
            *block = (scale, scale * sum as f32, -bias * sum);
            pack::<S>(&bytes.map(i16::from), cells);
        }
    }
}

/// Bias added to elements of the matrix in byte products.
fn bias_of_lanes(scheme: Scheme) -> i32 {
    match scheme {
        Scheme::Q8 => 128,
        Scheme::Q4 => 8,
        Scheme::F16 | Scheme::Q4_1 => 0,
    }
}

/// Packs the values of a block into cells.
#[inline(always)]
fn pack<S: Simd>(values: &[i16; BLOCK], cells: &mut [i32]) {
    if S::STEP == 4 {
        let values = values.map(|v| v as u8);
        for (cell, four) in cells.iter_mut().zip(values.as_chunks::<4>().0) {
            *cell = i32::from_le_bytes(*four);
        }
    } else {
        for (cell, two) in cells.iter_mut().zip(values.as_chunks::<2>().0) {
            *cell = i32::from(two[0] as u16) | i32::from(two[1]) << 16;
        }
    }
}

/// Quantizes all rows.
pub fn round_tiles(isa: Isa, x: &[f32], w: Matrix) -> RoundedTiles {
    let PackedSpec { width, scheme, .. } = w.spec;
    let (rows, blocks) = (x.len() / width, width / BLOCK);
    let padded = rows.next_multiple_of(COLUMNS);
    let row = blocks * isa.run(Cells);
    let mut to = RoundedTiles {
        cells: vec![0; padded * row],
        blocks: vec![(0.0, 0.0, 0); padded * blocks],
        rows,
    };
    const TOGETHER: usize = 16;
    let cells = to.cells.chunks_mut(TOGETHER * row);
    let blocks = to.blocks.chunks_mut(TOGETHER * blocks);
    let parts = x.chunks(TOGETHER * width).zip(cells.zip(blocks));
    crate::cpu::for_each_soon(parts.collect(), |(x, (cells, blocks))| {
        isa.run(RoundTiles {
            x,
            scheme,
            cells,
            blocks,
        });
    });
    to
}

/// A range of columns of a gemm.
pub struct Gemm<'a> {
    pub x: &'a RoundedTiles,
    pub w: Matrix<'a>,
    pub part: core::ops::Range<usize>,
    pub to: Output<'a>,
}

/// Unpacked rows of the matrix, side by side, one row per lane.
struct Unpacked {
    /// `[blocks, BLOCK / STEP, LANES]`
    cells: Vec<i32>,
    /// `[blocks, LANES]`
    scales: Vec<f32>,
    /// `[blocks, LANES]`
    mins: Vec<f32>,
}

impl Job for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (w, to) = (self.w, self.to);
        let blocks = w.spec.width / BLOCK;
        let new = || Unpacked {
            cells: vec![0; blocks * BLOCK / S::STEP * S::LANES],
            scales: vec![0.0; blocks * S::LANES],
            mins: vec![0.0; blocks * S::LANES],
        };
        let mut tiles: [Unpacked; VECTORS] = std::array::from_fn(|_| new());
        let taken = if w.spec.pair {
            S::LANES
        } else {
            VECTORS * S::LANES
        };
        for first in self.part.clone().step_by(taken) {
            let here = (self.part.end - first).min(taken);
            for (i, tile) in tiles.iter_mut().enumerate() {
                let (from, end) = match w.spec.pair {
                    true => (i * to.made + first, i * to.made + first + here),
                    false => (first + i * S::LANES, first + here),
                };
                tile.fill::<S>(w, from..end.min(from + S::LANES).max(from));
            }
            for from in (0..self.x.rows).step_by(COLUMNS) {
                let mut values = [[[0.0f32; MOST_LANES]; COLUMNS]; VECTORS];
                // SAFETY: the instruction set is available, and `x` has the rows: it is padded to a multiple of COLUMNS.
                unsafe { self.tile::<S>(&tiles, from, &mut values) };
                for c in 0..COLUMNS.min(self.x.rows - from) {
                    for i in 0..here {
                        let value = match w.spec.pair {
                            true => gate(values[0][c][i], values[1][c][i]),
                            false => values[i / S::LANES][c][i % S::LANES],
                        };
                        // SAFETY: the column belongs to this part.
                        unsafe { to.write(from + c, first + i, value) };
                    }
                }
            }
        }
    }
}

impl Unpacked {
    /// Unpacks rows of the matrix, at most as many as there are lanes; other lanes keep their values.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, w: Matrix, rows: core::ops::Range<usize>) {
        let (blocks, scheme) = (w.spec.width / BLOCK, w.spec.scheme);
        let size = 4 * scheme.words();
        let bias = match S::STEP {
            4 => bias_of_lanes(scheme),
            _ => 0,
        };
        for (lane, row) in rows.enumerate() {
            let here = row * blocks..(row + 1) * blocks;
            for (to, half) in (0..blocks).zip(&w.scales[here.clone()]) {
                self.scales[to * S::LANES + lane] = widened(*half);
            }
            if scheme.has_mins() {
                for (to, half) in (0..blocks).zip(&w.mins[here.clone()]) {
                    self.mins[to * S::LANES + lane] = widened(*half);
                }
            }
            let bytes = &w.bytes[here.start * size..here.end * size];
            let cells = self.cells.chunks_exact_mut(BLOCK / S::STEP * S::LANES);
            for (bytes, cells) in bytes.chunks_exact(size).zip(cells) {
                let mut values = [0i16; BLOCK];
                if scheme == Scheme::Q8 {
                    for (v, b) in values.iter_mut().zip(bytes) {
                        *v = i16::from(*b as i8) + bias as i16;
                    }
                } else {
                    // With the sign bit flipped, nibbles are too great by 8.
                    let less = if scheme == Scheme::Q4 { 8 - bias } else { 0 };
                    for (pair, b) in values.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                        let b = b ^ flip(scheme);
                        *pair = [b & 15, b >> 4].map(|n| i16::from(n) - less as i16);
                    }
                }
                let mut packed = [0; BLOCK / 2];
                pack::<S>(&values, &mut packed);
                for (to, v) in cells.iter_mut().skip(lane).step_by(S::LANES).zip(packed) {
                    *to = v;
                }
            }
        }
    }
}

impl Gemm<'_> {
    /// Computes one register tile.
    ///
    /// # Safety
    /// The instruction set must be available, and [`COLUMNS`] rows from `from` on must exist.
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        w: &[Unpacked; VECTORS],
        from: usize,
        out: &mut [[[f32; MOST_LANES]; COLUMNS]; VECTORS],
    ) {
        let blocks = self.w.spec.width / BLOCK;
        let steps = BLOCK / S::STEP;
        let has_mins = self.w.spec.scheme.has_mins();
        let cells = &self.x.cells[from * blocks * steps..][..COLUMNS * blocks * steps];
        let (cells, scales) = (
            cells.as_ptr(),
            &self.x.blocks[from * blocks..][..COLUMNS * blocks],
        );
        for w in w {
            debug_assert!(w.cells.len() == blocks * steps * S::LANES);
            debug_assert!(w.scales.len() == blocks * S::LANES && w.mins.len() == w.scales.len());
        }
        debug_assert!(S::LANES <= MOST_LANES);
        // SAFETY: the slices above hold COLUMNS rows; the buffers of the matrix have the lengths that `Gemm::run` gave them, and
        // a vector fits where it is stored.
        unsafe {
            let mut total = [[S::zero(); COLUMNS]; VECTORS];
            let row = blocks * steps;
            let columns = [
                cells,
                cells.add(row),
                cells.add(2 * row),
                cells.add(3 * row),
            ];
            let rows_of = [w[0].cells.as_ptr(), w[1].cells.as_ptr()];
            for block in 0..blocks {
                let mut of = [(0.0, 0.0, 0); COLUMNS];
                for c in 0..COLUMNS {
                    of[c] = *scales.get_unchecked(c * blocks + block);
                }
                let mut sums = [[S::splat_ints(0); COLUMNS]; VECTORS];
                for c in 0..COLUMNS {
                    sums[0][c] = S::splat_ints(of[c].2);
                    sums[1][c] = sums[0][c];
                }
                for step in 0..steps {
                    let at = block * steps + step;
                    let rows: [S::Bytes; VECTORS] = [
                        S::load(rows_of[0].add(at * S::LANES).cast(), 16 * S::GROUP),
                        S::load(rows_of[1].add(at * S::LANES).cast(), 16 * S::GROUP),
                    ];
                    for c in 0..COLUMNS {
                        let x = *columns[c].add(at);
                        for v in 0..VECTORS {
                            sums[v][c] = S::dot_lanes(sums[v][c], rows[v], x);
                        }
                    }
                }
                for v in 0..VECTORS {
                    let scale = S::load_floats(w[v].scales.as_ptr().add(block * S::LANES));
                    for c in 0..COLUMNS {
                        let scale = S::mul(scale, S::splat(of[c].0));
                        total[v][c] = S::mul_add(S::floats(sums[v][c]), scale, total[v][c]);
                    }
                    if has_mins {
                        let min = S::load_floats(w[v].mins.as_ptr().add(block * S::LANES));
                        for c in 0..COLUMNS {
                            total[v][c] = S::mul_add(min, S::splat(of[c].1), total[v][c]);
                        }
                    }
                }
            }
            for v in 0..VECTORS {
                for c in 0..COLUMNS {
                    S::store(total[v][c], out[v][c].as_mut_ptr());
                }
            }
        }
    }
}
