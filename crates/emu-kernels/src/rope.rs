//! Rotary position embedding (Su et al., "RoFormer", 2021), in LLaMA's layout: rotates halves, not adjacent pairs.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};

/// Frequencies of a rotary embedding: `base^(-2i/E)`, each divided by its divisor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base.
    pub base: f64,
    /// `E / 2` divisors, or none for all 1: LLaMA 3 scales down the low frequencies, models with linear scaling all of them.
    pub divisors: Vec<f64>,
}

impl From<f64> for Rope {
    fn from(base: f64) -> Self {
        Self {
            base,
            divisors: vec![],
        }
    }
}

/// Cosines and sines for one forward pass, shared by all layers. Each layout is uploaded when first needed.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// For every row and position: `E / 2` cosines, then as many sines.
    cos_sin: Vec<f32>,
    rows: usize,
    steps: usize,
    head_size: usize,
    device: Device,
    /// Cosines and sines, each `[rows, 1, T, E]`, with the half repeated to the width E.
    whole: OnceLock<[Tensor<4>; 2]>,
    /// `[T, E]`
    halves: OnceLock<Tensor<2>>,
}

impl RopeTables {
    /// Tables for the given positions. Frequencies `base^(-2i/E)` are computed, never read from a checkpoint (the released
    /// file has them rounded to bf16).
    ///
    /// # Shapes
    /// - `positions`: B rows of T positions; a single row serves any batch
    pub fn new(
        positions: &[Vec<usize>],
        head_size: usize,
        rope: impl Into<Rope>,
        device: &Device,
    ) -> Self {
        let Rope { base, divisors } = rope.into();
        let rows = positions.len();
        let steps = positions.first().map_or(0, Vec::len);
        let half = head_size / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| {
                let divisor = divisors.get(i).copied().unwrap_or(1.0);
                1.0 / (divisor * libm::pow(base, 2.0 * i as f64 / head_size as f64))
            })
            .collect();
        let mut cos_sin = Vec::with_capacity(rows * steps * head_size);
        for &position in positions.iter().flatten() {
            let angles = frequencies.iter().map(|f| position as f64 * f);
            cos_sin.extend(angles.clone().map(|a| libm::cos(a) as f32));
            cos_sin.extend(angles.map(|a| libm::sin(a) as f32));
        }
        Self {
            cos_sin,
            rows,
            steps,
            head_size,
            device: device.clone(),
            whole: OnceLock::new(),
            halves: OnceLock::new(),
        }
    }

    /// Tables for positions `0 .. count`, for any batch.
    pub fn upto(count: usize, head_size: usize, rope: impl Into<Rope>, device: &Device) -> Self {
        Self::new(&[(0..count).collect()], head_size, rope, device)
    }

    fn whole(&self) -> &[Tensor<4>; 2] {
        self.whole.get_or_init(|| {
            let half = self.head_size / 2;
            [0, half].map(|from| {
                let twice = { self.cos_sin.chunks_exact(self.head_size.max(1)) }
                    .flat_map(|turn| turn[from..from + half].repeat(2))
                    .collect();
                let shape = [self.rows, 1, self.steps, self.head_size];
                Tensor::from_data(TensorData::new(twice, shape), &self.device)
            })
        })
    }

    /// `[T, E]`: cosines, then sines, of the first row.
    pub fn halves(&self) -> Tensor<2> {
        let make = || {
            let shape = [self.steps, self.head_size];
            let values = self.cos_sin[..self.steps * self.head_size].to_vec();
            Tensor::from_data(TensorData::new(values, shape), &self.device)
        };
        self.halves.get_or_init(make).clone()
    }

    /// Rotates `[B, H, T, E]` at the positions of the tables.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        self.rotate_at(0, x)
    }

    /// Rotates `[B, H, T, E]` at T positions of the tables, starting with index `first`.
    pub fn rotate_at(&self, first: usize, x: Tensor<4>) -> Tensor<4> {
        let steps = x.dims()[2];
        let part = |table: &Tensor<4>| match steps == self.steps {
            true => table.clone(),
            false => table.clone().narrow(2, first, steps),
        };
        let [cos, sin] = self.whole();
        let (cos, sin) = (part(cos), part(sin));
        let half = x.dims()[3] / 2;
        let (low, high) = (
            x.clone().narrow(3, 0, half),
            x.clone().narrow(3, half, half),
        );
        let turned = Tensor::cat(vec![high.neg(), low], 3);
        x.mul(cos).add(turned.mul(sin))
    }
}
