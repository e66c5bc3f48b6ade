//! Self-test of a device before a model runs on it: every kind of kernel on small known inputs, compared with a naive f64
//! reference. A browser logs a shader that fails to compile and continues with stale data; this test detects it.

use burn::tensor::{Device, Int, Tensor, TensorData};
use half::f16;

use crate::beams::Ranking;
use crate::cache::LayerCache;
use crate::ops::{self, AttentionOptions, ConvExtras};
use crate::packed::{Activations, BLOCK, Packed, Scheme};
use crate::random::{Philox, Stream};
use crate::rope::RopeTables;
use crate::sample::{Processors, Sampler, Sampling};

/// An operation that a device computes wrongly, or not at all.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// Wrong values.
    #[error(
        "This device computes {operation} wrongly: off by {error:e}, where {bound:e} is allowed. Update the browser and the graphics driver, or use the CPU."
    )]
    Wrong {
        /// The operation.
        operation: &'static str,
        /// Largest absolute difference.
        error: f64,
        /// Largest allowed difference.
        bound: f64,
    },
    /// No values.
    #[error(
        "This device fails at {operation}: {reason}. Update the browser and the graphics driver, or use the CPU."
    )]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The device's error.
        reason: String,
    },
}

impl SelfTestError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        "self-test"
    }
}

/// Test case of one kind of kernel.
#[derive(Debug)]
pub struct Case {
    /// The operation.
    pub operation: &'static str,
    compute: fn(&mut Input) -> (Tensor<1>, Vec<f64>),
}

/// All test cases.
pub const CASES: &[Case] = &[
    Case {
        operation: "a linear layer",
        compute: linear,
    },
    Case {
        operation: "packed layers",
        compute: packed_layers,
    },
    Case {
        operation: "rows of a table",
        compute: embedding,
    },
    Case {
        operation: "attention",
        compute: attention,
    },
    Case {
        operation: "attention over a cache",
        compute: decoding,
    },
    Case {
        operation: "layer norm",
        compute: layer_norm,
    },
    Case {
        operation: "root-mean-square norm",
        compute: rms_norm,
    },
    Case {
        operation: "group norm with SiLU",
        compute: group_norm,
    },
    Case {
        operation: "a convolution",
        compute: convolution,
    },
    Case {
        operation: "upsampling",
        compute: upsampling,
    },
    Case {
        operation: "a convolution with what is fused with it",
        compute: fused_convolution,
    },
    Case {
        operation: "gates",
        compute: gates,
    },
    Case {
        operation: "choosing a token",
        compute: tokens,
    },
    Case {
        operation: "ranking beams",
        compute: beams,
    },
];

/// Largest allowed absolute difference; values are of the order of one.
const BOUND: f64 = 2e-4;

impl Case {
    /// Runs the case on a device and compares.
    ///
    /// # Errors
    /// The values are wrong, or the device fails.
    pub async fn run(&self, device: &Device) -> Result<(), SelfTestError> {
        let mut input = Input {
            device: device.clone(),
            random: Philox::new(1, Stream::Init, 0),
        };
        let (got, want) = (self.compute)(&mut input);
        let got = got
            .into_data_async()
            .await
            .map_err(|e| SelfTestError::Failed {
                operation: self.operation,
                reason: format!("{e:?}"),
            })?;
        compare(
            self.operation,
            &got.iter::<f32>().collect::<Vec<_>>(),
            &want,
        )
    }
}

fn compare(operation: &'static str, got: &[f32], want: &[f64]) -> Result<(), SelfTestError> {
    let error = match got.len() == want.len() {
        true => got
            .iter()
            .zip(want)
            .map(|(g, w)| (f64::from(*g) - w).abs())
            .fold(0.0, worse),
        false => f64::INFINITY,
    };
    match error <= BOUND {
        true => Ok(()),
        false => Err(SelfTestError::Wrong {
            operation,
            error,
            bound: BOUND,
        }),
    }
}

/// The greater of both; NaN if either is.
fn worse(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// Source of inputs.
struct Input {
    device: Device,
    random: Philox,
}

impl Input {
    fn values(&mut self, n: usize) -> Vec<f32> {
        self.random.normals(n)
    }

    fn tensor<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &self.device)
    }

    fn random<const D: usize>(&mut self, shape: [usize; D]) -> (Tensor<D>, Vec<f64>) {
        let values = self.values(shape.iter().product());
        (
            self.tensor(&values, shape),
            values.iter().map(|&v| f64::from(v)).collect(),
        )
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.reshape([-1])
}

fn linear(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (t, n, m) = (5, 36, 70);
    let (x, xs) = input.random([1, t, n]);
    let (w, ws) = input.random([m, n]);
    let (b, bs) = input.random([m]);
    let (w, ws): (_, Vec<f64>) = (w.mul_scalar(0.125), ws.iter().map(|w| w * 0.125).collect());
    let want = (0..t * m)
        .map(|i| {
            bs[i % m]
                + (0..n)
                    .map(|j| xs[i / m * n + j] * ws[i % m * n + j])
                    .sum::<f64>()
        })
        .collect();
    (flat(ops::linear(x, w, Some(b))), want)
}

/// Matrix products of one row and of many with packed matrices, and lookups of their rows.
fn packed_layers(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (mut got, mut want) = (vec![], vec![]);
    // The last is wide: with subgroups, a separate gemv kernel may be selected for such rows.
    for (scheme, out, width) in [
        (Scheme::F16, 70, 96),
        (Scheme::Q8, 70, 96),
        (Scheme::Q4, 70, 96),
        (Scheme::Q4_1, 70, 96),
        (Scheme::Q4, 6, 1536),
    ] {
        let few = |rows: &usize| width < 1536 || *rows == 1;
        let blocks = out * width / BLOCK;
        let mut bits = |n: usize| -> Vec<u32> {
            let uniform = |_| (input.random.uniform() * 65_536.0) as u32;
            let halves: Vec<u32> = (0..2 * n).map(uniform).collect();
            halves
                .chunks(2)
                .map(|pair| pair[0] | pair[1] << 16)
                .collect()
        };
        let mut words = bits(blocks * scheme.words());
        if scheme == Scheme::F16 {
            // Magnitudes from 1 / 64 to 1 / 32, either sign.
            words
                .iter_mut()
                .for_each(|word| *word = *word & 0x83ff_83ff | 0x2400_2400);
        }
        // 1 / 64 and 1 / 1024, and -1 / 8
        let scale = if scheme == Scheme::Q8 { 0x1400 } else { 0x2400 };
        let scales = vec![scale; if scheme.has_scales() { blocks } else { 0 }];
        let mins = vec![0xb000; blocks];
        let mins = scheme.has_mins().then_some(&mins[..]);
        let packed = Packed::new(scheme, [out, width], &words, &scales, mins, &input.device);
        let packed = packed.expect("parts that fit");
        let value = |row: usize, column: usize| {
            let at = row * width + column;
            let per = 32 / scheme.bits();
            let stored = words[at / per] >> (at % per * scheme.bits());
            match scheme {
                Scheme::F16 => f16::from_bits(stored as u16).to_f64(),
                Scheme::Q8 => f64::from(stored as u8 as i8) / 1024.0,
                Scheme::Q4 => f64::from(((stored << 28) as i32) >> 28) / 64.0,
                Scheme::Q4_1 => f64::from(stored & 15) / 64.0 - 0.125,
            }
        };
        for rows in [1, 11].into_iter().filter(few) {
            let (x, xs) = input.random([1, rows, width]);
            got.push(flat(packed.linear(x, None)));
            want.extend((0..rows * out).map(|i| {
                let terms = (0..width).map(|j| xs[i / out * width + j] * value(i % out, j));
                terms.sum::<f64>()
            }));
        }
        // With bias and residual, and as a gate stacked on itself.
        for rows in [1, 35].into_iter().filter(few) {
            let (x, xs) = input.random([rows, width]);
            let ((bias, bs), (r, rs)) = (input.random([out]), input.random([rows, out]));
            let products: Vec<f64> = (0..rows * out)
                .map(|i| {
                    let terms = (0..width).map(|j| xs[i / out * width + j] * value(i % out, j));
                    terms.sum()
                })
                .collect();
            got.push(flat(packed.linear_add(x.clone(), Some(bias), r)));
            want.extend((0..rows * out).map(|i| products[i] + bs[i % out] + rs[i]));
            let twice = Packed::concat_rows(&[&packed, &packed]).expect("blocks of one kind");
            got.push(flat(twice.gated(x)));
            want.extend(products.iter().map(|p| silu(*p) * p));
        }
        // Quantized activations: multiples of 1 / 128 with 127 of them in each block, which quantization leaves unchanged.
        for rows in [1, 11].into_iter().filter(|_| cfg!(feature = "flex")) {
            let mut xs: Vec<f32> = (0..rows * width)
                .map(|_| ((input.random.uniform() * 255.0).floor() - 127.0) / 128.0)
                .collect();
            xs.iter_mut()
                .step_by(BLOCK)
                .for_each(|x| *x = 127.0 / 128.0);
            let rounding = packed.clone().with_activations(Activations::Int8);
            got.push(flat(
                rounding.linear(input.tensor(&xs, [rows, width]), None),
            ));
            want.extend((0..rows * out).map(|i| {
                let x = &xs[i / out * width..][..width];
                let terms = x
                    .iter()
                    .zip(0..)
                    .map(|(x, j)| f64::from(*x) * value(i % out, j));
                terms.sum::<f64>()
            }));
        }
        got.push(flat(packed.part(out - 1..out)));
        want.extend((0..width).map(|j| value(out - 1, j)));
    }
    (Tensor::cat(got, 0), want)
}

fn embedding(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (rows, d) = (37, 12);
    let (table, values) = input.random([rows, d]);
    let ids = [36i32, 0, 17, 17];
    let index: Tensor<2, Int> =
        Tensor::from_data(TensorData::new(ids.to_vec(), [1, 4]), &input.device);
    let want = ids
        .iter()
        .flat_map(|&id| values[id as usize * d..][..d].to_vec())
        .collect();
    (flat(ops::embedding(table, index)), want)
}

/// `softmax(q kᵀ / √e) v` of one head, causal; the queries are the last `t` of `s` positions.
fn attend(q: &[f64], k: &[f64], v: &[f64], e: usize) -> Vec<f64> {
    let (t, s) = (q.len() / e, k.len() / e);
    let mut out = vec![];
    for i in 0..t {
        let seen = s - t + i + 1;
        let score =
            |j: usize| (0..e).map(|c| q[i * e + c] * k[j * e + c]).sum::<f64>() / (e as f64).sqrt();
        let weights: Vec<f64> = (0..seen).map(|j| score(j).exp()).collect();
        let sum: f64 = weights.iter().sum();
        out.extend((0..e).map(|c| (0..seen).map(|j| weights[j] * v[j * e + c]).sum::<f64>() / sum));
    }
    out
}

/// Causal attention, then attention with a bias, masked keys and shared key/value heads.
fn attention(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (h, t, e) = (2, 7, 8);
    let (q, qs) = input.random([1, h, t, e]);
    let (k, ks) = input.random([1, h, t, e]);
    let (v, vs) = input.random([1, h, t, e]);
    let head = t * e;
    let part = |x: &[f64], i: usize| x[i * head..][..head].to_vec();
    let mut want: Vec<f64> = (0..h)
        .flat_map(|i| attend(&part(&qs, i), &part(&ks, i), &part(&vs, i), e))
        .collect();
    let options = AttentionOptions {
        causal: true,
        ..Default::default()
    };
    let causal = ops::attention(q.clone(), k.clone(), v.clone(), options);

    // Both query heads share the first key/value head, whose second key is masked.
    let (bias, bs) = input.random([1, h, t, t]);
    let flags: Vec<bool> = (0..t).map(|i| i == 1).collect();
    let options = AttentionOptions {
        scale: Some(0.5),
        mask: Some(Tensor::from_data(
            TensorData::new(flags, [1, 1, 1, t]),
            &input.device,
        )),
        bias: Some(bias),
        ..Default::default()
    };
    for row in 0..h * t {
        let weight = |j: usize| {
            let products = (0..e).map(|c| qs[row * e + c] * ks[j * e + c]);
            let score = products.sum::<f64>() * 0.5 + bs[row * t + j];
            if j == 1 { 0.0 } else { score.exp() }
        };
        let weights: Vec<f64> = (0..t).map(weight).collect();
        let total: f64 = weights.iter().sum();
        want.extend(
            (0..e).map(|c| (0..t).map(|j| weights[j] * vs[j * e + c]).sum::<f64>() / total),
        );
    }
    let first = |x: Tensor<4>| x.narrow(1, 0, 1);
    let masked = ops::attention(q, first(k), first(v), options);
    (Tensor::cat(vec![flat(causal), flat(masked)], 0), want)
}

fn decoding(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (t, e, base) = (4, 8, 10_000.0);
    let (q, qs) = input.random([1, 1, t, e]);
    let (k, ks) = input.random([1, 1, t, e]);
    let (v, vs) = input.random([1, 1, t, e]);
    // A prefill of three positions, then a decoding step, through the same functions.
    let mut cache = LayerCache::new(1, 1, t + 1, e, &input.device);
    let tables = RopeTables::upto(t + 1, e, base, &input.device);
    let mut step = |from: usize, to: usize| {
        let part = |x: &Tensor<4>| x.clone().narrow(2, from, to - from);
        let qkv = Tensor::cat(vec![part(&q), part(&k), part(&v)], 3);
        let q = ops::rope_append(qkv.reshape([1, -1, 3 * e as i64]), &tables, &mut cache);
        let q = q.expect("the cache has room for all of them");
        ops::decode_attention(q, &cache, None)
    };
    let got = Tensor::cat(vec![step(0, t - 1), step(t - 1, t)], 1);
    let turned = |x: &[f64]| -> Vec<f64> {
        let half = e / 2;
        let angle = |p: usize, i: usize| p as f64 / base.powf(2.0 * (i % half) as f64 / e as f64);
        let at = |p: usize, i: usize| x[p * e + i];
        let other = |p: usize, i: usize| {
            if i < half {
                -at(p, i + half)
            } else {
                at(p, i - half)
            }
        };
        (0..t * e)
            .map(|n| (n / e, n % e))
            .map(|(p, i)| at(p, i) * angle(p, i).cos() + other(p, i) * angle(p, i).sin())
            .collect()
    };
    (flat(got), attend(&turned(&qs), &turned(&ks), &vs, e))
}

fn layer_norm(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (rows, d, eps) = (3, 50, 1e-5);
    let (x, xs) = input.random([1, rows, d]);
    let (w, ws) = input.random([d]);
    let (b, bs) = input.random([d]);
    let want = normed(&xs, d, eps, true)
        .iter()
        .enumerate()
        .map(|(i, v)| v * ws[i % d] + bs[i % d])
        .collect();
    (flat(ops::layer_norm(x, w, b, eps)), want)
}

fn rms_norm(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (rows, d, eps) = (3, 50, 1e-6);
    let (x, xs) = input.random([1, rows, d]);
    let (w, ws) = input.random([d]);
    let want = normed(&xs, d, eps, false)
        .iter()
        .enumerate()
        .map(|(i, v)| v * ws[i % d])
        .collect();
    (flat(ops::rms_norm(x, w, eps)), want)
}

/// Normalizes each run of `d` values by its standard deviation (`centred`) or its root mean square.
fn normed(values: &[f64], d: usize, eps: f64, centred: bool) -> Vec<f64> {
    let norm = |row: &[f64]| {
        let mean = if centred {
            row.iter().sum::<f64>() / d as f64
        } else {
            0.0
        };
        let square = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / d as f64;
        row.iter()
            .map(|v| (v - mean) / (square + eps).sqrt())
            .collect::<Vec<_>>()
    };
    values.chunks(d).flat_map(norm).collect()
}

fn silu(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

/// Without and with a skip connection.
fn group_norm(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (c, other, side, groups, eps) = (6, 3, 5, 3, 1e-5);
    let area = side * side;
    let (x, xs) = input.random([1, c, side, side]);
    let (skip, more) = input.random([1, other, side, side]);
    let (mut got, mut want) = (vec![], vec![]);
    for skip in [None, Some(skip)] {
        let mut xs = xs.clone();
        if skip.is_some() {
            xs.extend(&more);
        }
        let channels = xs.len() / area;
        let (w, ws) = input.random([channels]);
        let (b, bs) = input.random([channels]);
        let normal = normed(&xs, channels / groups * area, eps, true);
        let each =
            { normal.iter().enumerate() }.map(|(i, v)| silu(v * ws[i / area] + bs[i / area]));
        want.extend(each);
        let y = ops::group_norm_silu(x.clone(), w, b, skip, groups, eps);
        got.push(flat(y));
    }
    (Tensor::cat(got, 0), want)
}

/// Convolutions of the decoder: an upsampled input, with shift and residual; then a skip connection with NHWC output.
fn fused_convolution(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (c, o, side) = (20, 9, 3);
    let twice = 2 * side;
    let (x, xs) = input.random([1, c, side, side]);
    let (w, ws) = input.random([o, c, 3, 3]);
    let (w, ws): (_, Vec<f64>) = (w.mul_scalar(0.125), ws.iter().map(|w| w * 0.125).collect());
    let (b, bs) = input.random([o]);
    let (shift, shifts) = input.random([1, o]);
    let (residual, residuals) = input.random([1, o, twice, twice]);
    let mut want: Vec<f64> = (0..o * twice * twice)
        .map(|i| {
            let (to, y, x) = (i / (twice * twice), i / twice % twice, i % twice);
            let taps = (0..c * 9).map(|d| {
                let (y, x) = (y + d / 3 % 3, x + d % 3);
                let inside = |n: usize| (1..=twice).contains(&n);
                match inside(y) && inside(x) {
                    true => {
                        let pixel = (d / 9 * side + (y - 1) / 2) * side + (x - 1) / 2;
                        ws[to * c * 9 + d] * xs[pixel]
                    }
                    false => 0.0,
                }
            });
            bs[to] + shifts[to] + residuals[i] + taps.sum::<f64>()
        })
        .collect();
    let extras = ConvExtras {
        upsampled: Some((twice, twice)),
        shift: Some(shift),
        residual: Some(residual),
        ..Default::default()
    };
    let upsampled = ops::conv2d_with(x.clone(), w, Some(b.clone()), 1, (1, 1), extras);

    let (other, area) = (5, side * side);
    let (skip, more) = input.random([1, other, side, side]);
    let (w, ws) = input.random([o, c + other, 1, 1]);
    let both = [xs, more].concat();
    want.extend((0..area * o).map(|i| {
        let (to, pixel) = (i % o, i / o);
        let terms = { both.chunks(area).zip(&ws[to * (c + other)..]) }.map(|(x, w)| x[pixel] * w);
        bs[to] + terms.sum::<f64>()
    }));
    let extras = ConvExtras {
        skip: Some(skip),
        channels_last: true,
        ..Default::default()
    };
    let joined = ops::conv2d_with(x, w, Some(b), 1, (0, 0), extras).permute([0, 2, 3, 1]);
    (Tensor::cat(vec![flat(upsampled), flat(joined)], 0), want)
}

fn convolution(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (c, o, side, stride) = (5, 7, 9, 2);
    let (x, xs) = input.random([1, c, side, side]);
    let (w, ws) = input.random([o, c, 3, 3]);
    let (w, ws): (_, Vec<f64>) = (w.mul_scalar(0.25), ws.iter().map(|w| w * 0.25).collect());
    let (b, bs) = input.random([o]);
    let out = (side - 1) / stride + 1;
    let pixel = |c: usize, y: usize, x: usize| match (y.checked_sub(1), x.checked_sub(1)) {
        (Some(y), Some(x)) if y < side && x < side => xs[(c * side + y) * side + x],
        _ => 0.0,
    };
    let mut want = vec![];
    for (to, y, x) in (0..o * out * out).map(|i| (i / (out * out), i / out % out, i % out)) {
        let taps = (0..c * 9).map(|i| (i / 9, i / 3 % 3, i % 3));
        let sum: f64 = taps
            .map(|(c2, ky, kx)| {
                ws[((to * c + c2) * 3 + ky) * 3 + kx] * pixel(c2, y * stride + ky, x * stride + kx)
            })
            .sum();
        want.push(sum + bs[to]);
    }
    (flat(ops::conv2d(x, w, Some(b), stride, (1, 1))), want)
}

fn upsampling(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (c, side) = (3, 4);
    let (x, xs) = input.random([1, c, side, side]);
    let twice = side * 2;
    let want = (0..c * twice * twice)
        .map(|i| (i / (twice * twice), i / twice % twice / 2, i % twice / 2))
        .map(|(c, y, x)| xs[(c * side + y) * side + x])
        .collect();
    (flat(ops::upsample_nearest2(x)), want)
}

/// Greedy choices with a banned token, then draws with logit bias, presence penalty, top-k, top-p and min-p.
fn tokens(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (width, banned) = (700, 5);
    let (_, mut xs) = input.random([width]);
    (xs[banned], xs[9], xs[90], xs[600]) = (50.0, 40.0, 40.0, 40.0);
    let narrow: Vec<f32> = xs.iter().map(|&x| x as f32).collect();
    let logits = input.tensor(&narrow, [1, 1, width]);
    let greedy = Sampling::default();
    let narrowed = Sampling {
        temperature: 0.5,
        top_k: 2,
        top_p: 0.999,
        min_p: 0.5,
    };
    let penalised = Processors {
        presence_penalty: 6.0,
        logit_bias: vec![(600, 5.0)],
        ..Processors::default()
    };
    let mut got = vec![];
    for (processors, sampling) in [(Processors::default(), greedy), (penalised, narrowed)] {
        let random = &mut Philox::new(2, Stream::Tokens, 0);
        let mut sampler = Sampler::new(processors, sampling, 0, &[1], 3, random, &input.device);
        // Each call overwrites the token tensor, so it is copied first.
        for _ in 0..2 {
            let token = sampler.sample(logits.clone().add_scalar(0.0), Some(banned));
            got.push(token.float().mul_scalar(1.0));
        }
    }
    let mut random = Philox::new(2, Stream::Tokens, 0);
    let _ = random.uniform();
    let drawn = if random.uniform() < 0.5 { 9.0 } else { 90.0 };
    // 600 is biased to the top, where min-p leaves nothing else; then its presence takes it below 9 and 90.
    (Tensor::cat(got, 0), vec![9.0, 9.0, 600.0, drawn])
}

/// Indices of the best continuations of two beams, with repetition penalty, n-gram ban and a banned token.
fn beams(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let (width, best, banned) = (300, 6, 5);
    let (_, mut xs) = input.random([2 * width]);
    for beam in [0, width] {
        // 7 is in the history, 8 already followed 7, 9 and 290 tie.
        for (token, logit) in [(banned, 9.0), (7, 8.0), (8, 7.0), (9, 6.0), (290, 6.0)] {
            xs[beam + token] = logit;
        }
    }
    let narrow: Vec<f32> = xs.iter().map(|&x| x as f32).collect();
    let ranking = Ranking {
        processors: Processors {
            repetition_penalty: 1.5,
            no_repeat_ngram: 2,
            ..Processors::default()
        },
        end: 0,
        banned: Some(banned as u32),
        best,
    };
    let history = &[7, 8, 7][..];
    let logits = input.tensor(&narrow, [2, 1, width]);
    let numbers = ranking.rank(logits, &[(history, -1.0), (history, -1.25)]);
    let places = numbers.reshape([best, 2]).narrow(1, 0, 1).float();
    let mut scores: Vec<(f64, usize)> = vec![];
    for (row, sum) in [(0, -1.0), (width, -1.25)] {
        let row = row..row + width;
        let log_sum = xs[row.clone()].iter().map(|x| x.exp()).sum::<f64>().ln();
        scores.extend(row.map(|place| match place % width {
            8 => (f64::NEG_INFINITY, place),
            token if token == banned => (f64::NEG_INFINITY, place),
            7 => ((xs[place] - log_sum) * 1.5 + sum, place),
            _ => (xs[place] - log_sum + sum, place),
        }));
    }
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let want = scores.iter().take(best).map(|&(_, place)| place as f64);
    (flat(places), want.collect())
}

fn gates(input: &mut Input) -> (Tensor<1>, Vec<f64>) {
    let d = 33;
    let (x, xs) = input.random([1, 2, d]);
    let (y, ys) = input.random([1, 2, d]);
    let (z, zs) = input.random([1, 1, 2 * d]);
    let gelu = |v: f64| v * 0.5 * libm::erfc(-v / std::f64::consts::SQRT_2);
    let mut want: Vec<f64> = xs.iter().zip(&ys).map(|(x, y)| silu(*x) * y).collect();
    want.extend((0..d).map(|i| zs[i] * gelu(zs[d + i])));
    want.extend((0..d).map(|i| silu(zs[i]) * zs[d + i]));
    let gates = vec![
        flat(ops::silu_gate(x, y)),
        flat(ops::geglu(z.clone())),
        flat(ops::silu_pair(z)),
    ];
    (Tensor::cat(gates, 0), want)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes_and_wrong_values_do_not() {
        for case in CASES {
            burn::tensor::read_sync(case.run(&Device::flex())).expect(case.operation);
        }
        assert!(compare("x", &[1.0, 2.0], &[1.0, 2.0]).is_ok());
        for wrong in [
            &[1.0, 2.001][..],
            &[1.0, f32::NAN],
            &[f32::NAN, 2.0],
            &[1.0],
        ] {
            let error = compare("x", wrong, &[1.0, 2.0]).expect_err("wrong");
            assert_eq!(error.code(), "self-test");
        }
    }
}
