//! Products of packed matrices with rows that are rounded to bytes, so that integers are multiplied with integers.
//!
//! Of every block of 32 of `x` the greatest absolute value becomes 127: `x ≈ d·q`, `d = max / 127`, and no element moves by
//! more than `d / 2`. Sums over a block are exact integers; they become floats with the two scales of the block. So
//! `|y - x·w| <= Σ over blocks of d / 2 · Σ |w|`, besides the rounding of the sum over blocks in f32.
//!
//! Few rows of `x` (a token, beams): each row of the matrix is read once and multiplied with all of them, four lanes of a
//! vector for each block. Many rows (a prompt): rows of the matrix are unpacked side by side, so that a lane is a row, and
//! multiplied in tiles of registers.

mod simd;
#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use simd::Portable;
pub use simd::Simd;

use super::math::sigmoid;
use crate::packed::{BLOCK, PackedSpec, Scheme};

/// Up to so many rows of `x` every row of the matrix is multiplied as it is unpacked.
const FEW: usize = 6;
/// Rows of `x` in a tile of registers.
const COLUMNS: usize = 4;
/// Vectors of rows of the matrix in a tile.
const VECTORS: usize = 2;
/// Products that are worth another thread: about 5 µs.
#[cfg(not(target_family = "wasm"))]
const PART: usize = 1 << 17;

/// An instruction set that products of bytes are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// None in particular.
    Portable,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// WebAssembly's.
    #[cfg(target_family = "wasm")]
    Simd128,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_family = "wasm")]
        Self::Simd128,
        Self::Portable,
    ];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => is_x86_feature_detected!("avxvnni") && Self::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_family = "wasm")]
            Self::Simd128 => true,
        }
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        let mut all = Self::ALL.iter().copied();
        all.find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// Runs a job, compiled for this instruction set.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        assert!(self.available(), "{self:?} is not there");
        match self {
            // SAFETY: no instructions in particular.
            Self::Portable => unsafe { job.run::<Portable>() },
            // SAFETY: available, as for the others.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::AvxVnni => unsafe { avx_vnni(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2(job) },
            #[cfg(target_family = "wasm")]
            // SAFETY: the module is compiled for it.
            Self::Simd128 => unsafe { job.run::<wasm::Simd128>() },
        }
    }
}

/// What is compiled once for each instruction set. Implementations are inlined into the functions below.
pub trait Job {
    /// What comes of it.
    type Output;
    /// Does it.
    ///
    /// # Safety
    /// The instruction set must be there.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn avx512<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx512>() }
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
unsafe fn avx_vnni<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<true>>() }
}

/// # Safety
/// The features must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<false>>() }
}

/// A packed matrix in slices: bytes of its words, the bits of scales and minimums in f16.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// 32 or 16 to a block.
    pub bytes: &'a [u8],
    /// One of a block.
    pub scales: &'a [u16],
    /// One of a block where the scheme has them.
    pub mins: &'a [u16],
    /// Its sizes, and whether it is a gate.
    pub spec: PackedSpec,
}

/// What is added to a product.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// `[out]`
    pub bias: Option<&'a [f32]>,
    /// `[rows, out]`
    pub residual: Option<&'a [f32]>,
}

/// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`, or to half as many columns.
pub fn linear(isa: Isa, x: &[f32], w: Matrix, added: Added) -> Vec<f32> {
    let PackedSpec { out, width, .. } = w.spec;
    let blocks = width / BLOCK;
    let rows = x.len() / width.max(1);
    let made = if w.spec.pair { out / 2 } else { out };
    // Every access below lies within these.
    assert_eq!(width, blocks * BLOCK);
    assert_eq!(x.len(), rows * width);
    assert!(w.bytes.len() >= out * blocks * 4 * w.spec.scheme.words());
    assert!(w.scales.len() >= out * blocks);
    assert!(!w.spec.scheme.has_mins() || w.mins.len() >= out * blocks);
    assert!(added.bias.is_none_or(|bias| bias.len() == made));
    assert!(added.residual.is_none_or(|r| r.len() == rows * made));
    assert!(!w.spec.pair || out.is_multiple_of(2));

    let mut y: Vec<f32> = Vec::with_capacity(rows * made);
    let to = Output {
        y: y.as_mut_ptr(),
        made,
        rows,
        added,
    };
    if rows <= FEW {
        let x = isa.run(RoundFew { x, w });
        split(made, rows * width * (out / made.max(1)), 1, &|part| {
            isa.run(Few { x: &x, w, part, to });
        });
    } else {
        let x = round_many(isa, x, w);
        let lanes = isa.run(Lanes);
        // A gate takes a vector of each of its halves.
        let tile = if w.spec.pair { lanes } else { VECTORS * lanes };
        split(made, rows * width * (out / made.max(1)), tile, &|part| {
            isa.run(Many { x: &x, w, part, to });
        });
    }
    // SAFETY: the parts cover all columns, and each wrote its own in every row.
    unsafe { y.set_len(rows * made) };
    y
}

/// Calls `work` for ranges that cover `0..n`, on threads where that pays. Ranges begin at multiples of `unit`.
///
/// `cost`: products of each.
#[cfg(not(target_family = "wasm"))]
fn split(n: usize, cost: usize, unit: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    let each = (PART / cost.max(1)).max(1).next_multiple_of(unit);
    super::team::run(n.div_ceil(each), &|i| work(i * each..n.min((i + 1) * each)));
}

/// Calls `work` for `0..n`.
#[cfg(target_family = "wasm")]
fn split(n: usize, _: usize, _: usize, work: &(dyn Fn(core::ops::Range<usize>) + Sync)) {
    if n > 0 {
        work(0..n);
    }
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Output<'a> {
    /// `[rows, made]`, not yet written.
    y: *mut f32,
    made: usize,
    rows: usize,
    added: Added<'a>,
}

// SAFETY: parts of a product write to different columns.
unsafe impl Sync for Output<'_> {}
// SAFETY: as above.
unsafe impl Send for Output<'_> {}

impl Output<'_> {
    /// Writes an element, with what is added to it.
    ///
    /// # Safety
    /// No other thread writes to this column.
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, value: f32) {
        assert!(row < self.rows && column < self.made);
        let at = row * self.made + column;
        let bias = self.added.bias.map_or(0.0, |bias| bias[column]);
        let residual = self.added.residual.map_or(0.0, |residual| residual[at]);
        // SAFETY: the assertion, and the caller's.
        unsafe { self.y.add(at).write(value + bias + residual) };
    }
}

/// `silu(g) * u`
#[inline(always)]
fn gate(g: f32, u: f32) -> f32 {
    g * sigmoid(g) * u
}

/// f16 by its bits.
#[inline(always)]
fn widened(half: u16) -> f32 {
    let half = u32::from(half);
    // The exponent moves by 112, which is exact for what is denormal too.
    let size = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits(239 << 23);
    let bits = match half & 0x7c00 {
        0x7c00 => 0x7f80_0000 | (half & 0x3ff) << 13,
        _ => size.to_bits(),
    };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// A block in bytes: its scale and the sum of the bytes. The scale of what is not finite is not a number.
#[inline(always)]
fn round(x: &[f32; BLOCK]) -> ([i8; BLOCK], f32, i32) {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, in the lowest bits
    let (mut most, mut poison) = ([0.0f32; 16], [0.0f32; 16]);
    for half in x.as_chunks::<16>().0 {
        for i in 0..16 {
            let size = half[i].abs();
            most[i] = if size > most[i] { size } else { most[i] };
            poison[i] += half[i] * 0.0;
        }
    }
    let most = most
        .iter()
        .fold(0.0, |a: f32, &b| if b > a { b } else { a });
    let poison: f32 = poison.iter().sum();
    // Not of a denormal, whose inverse is infinite.
    let factor = if most > 1e-35 { 127.0 / most } else { 0.0 };
    let mut bytes = [0i8; BLOCK];
    let mut sum = 0;
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * factor + SHIFT).to_bits() as i8;
        sum += i32::from(*byte);
    }
    (bytes, most / 127.0 + poison, sum)
}

/// Few rows of bytes, as vectors want them.
struct FewRows {
    /// `[rows, groups, 2, 16 · GROUP]`: those that go with one vector of the matrix, those that go with the other.
    bytes: Vec<i8>,
    /// `[rows, groups, LANES]`: what undoes the bias of the matrix.
    base: Vec<i32>,
    /// `[rows, groups, LANES]`: scales.
    scales: Vec<f32>,
    /// `[rows, groups, LANES]`: in the first lane of a block its sum, for minimums.
    sums: Vec<f32>,
    rows: usize,
    groups: usize,
}

/// What is added to elements of the matrix where they are unpacked without a sign.
fn bias<S: Simd>(scheme: Scheme) -> i32 {
    match scheme {
        Scheme::Q8 => S::BYTE_BIAS,
        Scheme::Q4 => 8,
        Scheme::Q4_1 => 0,
    }
}

/// What turns stored nibbles into 0 to 15.
fn flip(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Q4 => 0x88,
        _ => 0,
    }
}

/// Rounds few rows.
struct RoundFew<'a> {
    x: &'a [f32],
    w: Matrix<'a>,
}

impl Job for RoundFew<'_> {
    type Output = FewRows;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> FewRows {
        let PackedSpec { width, scheme, .. } = self.w.spec;
        let (rows, blocks) = (self.x.len() / width, width / BLOCK);
        let groups = blocks.div_ceil(S::GROUP);
        let half = BLOCK / 2;
        let mut to = FewRows {
            bytes: vec![0; rows * groups * BLOCK * S::GROUP],
            base: vec![0; rows * groups * S::LANES],
            scales: vec![0.0; rows * groups * S::LANES],
            sums: vec![0.0; rows * groups * S::LANES],
            rows,
            groups,
        };
        for (at, x) in self.x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let (row, block) = (at / blocks, at % blocks);
            let (group, place) = (block / S::GROUP, block % S::GROUP);
            let (bytes, scale, sum) = round(x);
            let first = ((row * groups + group) * 2 * S::GROUP + place) * half;
            let second = first + S::GROUP * half;
            if scheme == Scheme::Q8 {
                to.bytes[first..first + half].copy_from_slice(&bytes[..half]);
                to.bytes[second..second + half].copy_from_slice(&bytes[half..]);
            } else {
                // Low nibbles are elements at even places.
                for i in 0..half {
                    to.bytes[first + i] = bytes[2 * i];
                    to.bytes[second + i] = bytes[2 * i + 1];
                }
            }
            let lane = (row * groups + group) * S::LANES + 4 * place;
            to.base[lane] = -bias::<S>(scheme) * sum;
            to.scales[lane..lane + 4].fill(scale);
            to.sums[lane] = scale * sum as f32;
        }
        to
    }
}

/// Columns of a product of few rows.
struct Few<'a> {
    x: &'a FewRows,
    w: Matrix<'a>,
    part: core::ops::Range<usize>,
    to: Output<'a>,
}

impl Job for Few<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there.
        unsafe {
            match self.w.spec.scheme {
                Scheme::Q8 => self.columns::<S, 0>(),
                Scheme::Q4 => self.columns::<S, 1>(),
                Scheme::Q4_1 => self.columns::<S, 2>(),
            }
        }
    }
}

impl Few<'_> {
    /// SCHEME: [`Scheme`] by its number.
    #[inline(always)]
    unsafe fn columns<S: Simd, const SCHEME: u8>(&self) {
        let (w, to) = (self.w, self.to);
        let mut values = [0.0f32; 4];
        for column in self.part.clone() {
            let mut from = 0;
            // Four, two, one: however many there are.
            while from < self.x.rows {
                // SAFETY: the instruction set is there.
                let count = unsafe { self.some::<S, SCHEME>(column, from, &mut values) };
                if w.spec.pair {
                    let mut up = [0.0; 4];
                    // SAFETY: as above.
                    unsafe { self.some::<S, SCHEME>(column + to.made, from, &mut up) };
                    for (v, u) in values.iter_mut().zip(up) {
                        *v = gate(*v, u);
                    }
                }
                for (i, v) in values.iter().enumerate().take(count) {
                    // SAFETY: the column is of this part.
                    unsafe { to.write(from + i, column, *v) };
                }
                from += count;
            }
        }
    }

    /// A row of the matrix times four, two or one of the rows of `x` that are left. Returns how many.
    #[inline(always)]
    unsafe fn some<S: Simd, const SCHEME: u8>(
        &self,
        row: usize,
        from: usize,
        out: &mut [f32; 4],
    ) -> usize {
        // SAFETY: the caller's; the rows of x are there.
        unsafe {
            match self.x.rows - from {
                4.. => self.dot::<S, SCHEME, 4>(row, from, out),
                2.. => self.dot::<S, SCHEME, 2>(row, from, out),
                _ => self.dot::<S, SCHEME, 1>(row, from, out),
            }
        }
    }

    /// A row of the matrix times C rows of `x`. Returns C.
    #[inline(always)]
    unsafe fn dot<S: Simd, const SCHEME: u8, const C: usize>(
        &self,
        row: usize,
        from: usize,
        out: &mut [f32; 4],
    ) -> usize {
        let scheme = SCHEMES[usize::from(SCHEME)];
        let blocks = self.w.spec.width / BLOCK;
        let (size, first) = (4 * scheme.words(), row * blocks);
        let mins = if scheme.has_mins() {
            self.w.mins
        } else {
            self.w.scales
        };
        let row = Row {
            bytes: self.w.bytes[first * size..][..blocks * size].as_ptr(),
            scales: self.w.scales[first..][..blocks].as_ptr(),
            mins: mins[first..][..blocks].as_ptr(),
        };
        // SAFETY: groups but the last one are whole, and of that one only the blocks that there are are read from the
        // matrix; rows of x are padded to groups.
        unsafe {
            let mut total = [S::zero(); C];
            let whole = blocks / S::GROUP;
            for group in 0..whole {
                self.group::<S, SCHEME, C>(row, from, group, S::GROUP, &mut total);
            }
            if blocks > whole * S::GROUP {
                let left = blocks - whole * S::GROUP;
                self.group::<S, SCHEME, C>(row, from, whole, left, &mut total);
            }
            for (out, total) in out.iter_mut().zip(total) {
                *out = S::sum(total);
            }
        }
        C
    }

    /// Adds a group's products, of which `left` blocks are there.
    #[inline(always)]
    unsafe fn group<S: Simd, const SCHEME: u8, const C: usize>(
        &self,
        row: Row,
        from: usize,
        group: usize,
        left: usize,
        total: &mut [S::Floats; C],
    ) {
        let scheme = SCHEMES[usize::from(SCHEME)];
        let (vector, size, first) = (16 * S::GROUP, 4 * scheme.words(), group * S::GROUP);
        // SAFETY: the caller's.
        unsafe {
            let at = row.bytes.add(first * size);
            let w = if scheme == Scheme::Q8 {
                let there = left * BLOCK;
                let (a, b) = (there.min(vector), there.saturating_sub(vector));
                S::halves([S::load(at, a), S::load(at.add(a), b)])
            } else {
                S::nibbles(S::load(at, left * BLOCK / 2), flip(scheme))
            };
            let scale = S::widen(row.scales.add(first), left);
            let min = match scheme.has_mins() {
                true => S::widen(row.mins.add(first), left),
                false => S::zero(),
            };
            for c in 0..C {
                let place = (from + c) * self.x.groups + group;
                let x = self.x.bytes.as_ptr().add(place * 2 * vector).cast::<u8>();
                let x = [S::load(x, vector), S::load(x.add(vector), vector)];
                let lane = place * S::LANES;
                let base = match scheme {
                    Scheme::Q8 if S::BYTE_BIAS == 0 => S::splat_ints(0),
                    Scheme::Q4_1 => S::splat_ints(0),
                    _ => S::load_ints(self.x.base.as_ptr().add(lane)),
                };
                let sum = match scheme {
                    Scheme::Q8 => S::dot_bytes(base, w, x),
                    _ => S::dot_nibbles(base, w, x),
                };
                let d = S::load_floats(self.x.scales.as_ptr().add(lane));
                total[c] = S::mul_add(S::floats(sum), S::mul(scale, d), total[c]);
                if scheme.has_mins() {
                    let sum = S::load_floats(self.x.sums.as_ptr().add(lane));
                    total[c] = S::mul_add(min, sum, total[c]);
                }
            }
        }
    }
}

/// The schemes by their numbers, for constants.
const SCHEMES: [Scheme; 3] = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];

/// Where a row of the matrix begins.
#[derive(Clone, Copy)]
struct Row {
    bytes: *const u8,
    scales: *const u16,
    mins: *const u16,
}

/// Lanes of the widest vectors.
const MOST_LANES: usize = 16;

/// Lanes of a vector.
struct Lanes;

impl Job for Lanes {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        S::LANES
    }
}

/// Many rows of bytes, in order; rows up to a multiple of [`COLUMNS`] are zeros.
struct ManyRows {
    /// `[padded, width / STEP]`: as many elements of a row as a lane takes, bytes or 16 bits.
    cells: Vec<i32>,
    /// `[padded, blocks]`: scale, scale times the sum of the bytes, what undoes the bias of the matrix.
    blocks: Vec<(f32, f32, i32)>,
    rows: usize,
}

/// Rounds some rows of many.
struct RoundMany<'a> {
    x: &'a [f32],
    scheme: Scheme,
    cells: &'a mut [i32],
    blocks: &'a mut [(f32, f32, i32)],
}

/// Cells of a block.
struct Cells;

impl Job for Cells {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        BLOCK / S::STEP
    }
}

impl Job for RoundMany<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let blocks = self.x.as_chunks::<BLOCK>().0.iter().zip(self.blocks);
        for ((x, block), cells) in blocks.zip(self.cells.chunks_exact_mut(BLOCK / S::STEP)) {
            let (bytes, scale, sum) = round(x);
            // A product of 16 bits has signs; that of bytes only one.
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

/// What is added to elements of the matrix where lanes take bytes.
fn bias_of_lanes(scheme: Scheme) -> i32 {
    match scheme {
        Scheme::Q8 => 128,
        Scheme::Q4 => 8,
        Scheme::Q4_1 => 0,
    }
}

/// The values of a block as lanes take them.
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

fn round_many(isa: Isa, x: &[f32], w: Matrix) -> ManyRows {
    let PackedSpec { width, scheme, .. } = w.spec;
    let (rows, blocks) = (x.len() / width, width / BLOCK);
    let padded = rows.next_multiple_of(COLUMNS);
    let row = blocks * isa.run(Cells);
    let mut to = ManyRows {
        cells: vec![0; padded * row],
        blocks: vec![(0.0, 0.0, 0); padded * blocks],
        rows,
    };
    const TOGETHER: usize = 16;
    let cells = to.cells.chunks_mut(TOGETHER * row);
    let blocks = to.blocks.chunks_mut(TOGETHER * blocks);
    let parts = x.chunks(TOGETHER * width).zip(cells.zip(blocks));
    super::for_each_soon(parts.collect(), |(x, (cells, blocks))| {
        isa.run(RoundMany {
            x,
            scheme,
            cells,
            blocks,
        });
    });
    to
}

/// Columns of a product of many rows.
struct Many<'a> {
    x: &'a ManyRows,
    w: Matrix<'a>,
    part: core::ops::Range<usize>,
    to: Output<'a>,
}

/// Rows of the matrix side by side, a row to a lane.
struct Unpacked {
    /// `[blocks, BLOCK / STEP, LANES]`
    cells: Vec<i32>,
    /// `[blocks, LANES]`
    scales: Vec<f32>,
    /// `[blocks, LANES]`
    mins: Vec<f32>,
}

impl Job for Many<'_> {
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
                // SAFETY: the instruction set is there, and the rows of x: they are padded to a multiple of COLUMNS.
                unsafe { self.tile::<S>(&tiles, from, &mut values) };
                for c in 0..COLUMNS.min(self.x.rows - from) {
                    for i in 0..here {
                        let value = match w.spec.pair {
                            true => gate(values[0][c][i], values[1][c][i]),
                            false => values[i / S::LANES][c][i % S::LANES],
                        };
                        // SAFETY: the column is of this part.
                        unsafe { to.write(from + c, first + i, value) };
                    }
                }
            }
        }
    }
}

impl Unpacked {
    /// Takes rows of the matrix, at most as many as there are lanes; the others stay what they were.
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
                    // With the sign bit flipped, nibbles are 8 too great.
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

impl Many<'_> {
    /// A tile of registers.
    ///
    /// # Safety
    /// The instruction set must be there, and [`COLUMNS`] rows from `from` on.
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
        // SAFETY: the slices above hold COLUMNS rows; those of the matrix are as long as `Many::run` made them.
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

#[cfg(test)]
mod tests;
