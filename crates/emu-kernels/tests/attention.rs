//! Attention of many queries against a naive f64 reference, on the CPU and on a GPU: odd sizes, every kind of mask,
//! grouped-query heads, strided views, caches with spare capacity.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use emu_kernels::burn;
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::random::Philox;
use emu_kernels::variants;

fn values(seed: u32, n: usize) -> Vec<f32> {
    Philox::with_stream(21, seed, 0).normals(n)
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn difference<const D: usize>(got: Tensor<D>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_data().iter::<f64>().collect();
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, f64::max)
}

/// Test case: sizes and options of attention.
#[derive(Clone, Copy, Debug)]
struct Question {
    b: usize,
    h: usize,
    g: usize,
    t: usize,
    s: usize,
    e: usize,
    causal: bool,
    /// Rows of the mask: 0, 1 or T.
    mask: usize,
    /// Whether there is a bias, and whether all heads share it.
    bias: Option<bool>,
}

const PLAIN: Question = Question {
    b: 1,
    h: 1,
    g: 1,
    t: 1,
    s: 1,
    e: 4,
    causal: false,
    mask: 0,
    bias: None,
};

/// Inputs of a test case, each in `[B, heads, positions, E]`.
struct Numbers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Vec<bool>,
    bias: Vec<f32>,
}

impl Question {
    fn numbers(&self) -> Numbers {
        let Self {
            b, h, g, t, s, e, ..
        } = *self;
        let rows = b * self.mask * s;
        Numbers {
            q: values(1, b * h * t * e),
            k: values(2, b * g * s * e),
            v: values(3, b * g * s * e),
            // The first row of the first sequence is fully masked.
            mask: (0..rows).map(|i| i < s || i % 3 == 1).collect(),
            bias: self
                .bias
                .map_or(vec![], |one| values(4, if one { 1 } else { h } * t * s)),
        }
    }

    /// Reference output: `[B, H, T, E]`.
    fn answer(&self, n: &Numbers, scale: f64) -> Vec<f64> {
        let Self {
            b, h, g, t, s, e, ..
        } = *self;
        let mut out = vec![];
        for (batch, head, row) in (0..b * h * t).map(|i| (i / (h * t), i / t % h, i % t)) {
            let group = batch * g + head / (h / g);
            let q = &n.q[((batch * h + head) * t + row) * e..][..e];
            let weight = |key: usize| {
                let later = self.causal && key + t > row + s;
                let mark = (batch * self.mask + row % self.mask.max(1)) * s + key;
                if later || self.mask > 0 && n.mask[mark] {
                    return 0.0;
                }
                let k = &n.k[(group * s + key) * e..][..e];
                let products = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k));
                let bias = self.bias.map_or(0.0, |one| {
                    let head = if one { 0 } else { head };
                    f64::from(n.bias[(head * t + row) * s + key])
                });
                (products.sum::<f64>() * scale + bias).exp()
            };
            let weights: Vec<f64> = (0..s).map(weight).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..e).map(|i| {
                let at = |key: usize| f64::from(n.v[(group * s + key) * e + i]);
                let sum: f64 = { weights.iter().enumerate() }
                    .map(|(key, w)| w * at(key))
                    .sum();
                if total == 0.0 { 0.0 } else { sum / total }
            }));
        }
        out
    }

    fn options(&self, n: &Numbers, scale: f64, device: &Device) -> AttentionOptions {
        let Self { b, h, t, s, .. } = *self;
        AttentionOptions {
            causal: self.causal,
            scale: Some(scale),
            mask: (self.mask > 0).then(|| {
                let shape = [b, 1, self.mask, s];
                Tensor::<4, Bool>::from_data(TensorData::new(n.mask.clone(), shape), device)
            }),
            bias: self.bias.map(|one| {
                let heads = if one { 1 } else { h };
                // Heads innermost, as in a relative position bias table.
                let turned = tensor(&n.bias, [1, heads, t, s], device).permute([0, 2, 3, 1]);
                let rows = turned.reshape([1, t, s * heads]).add_scalar(0.0);
                rows.reshape([1, t, s, heads]).permute([0, 3, 1, 2])
            }),
        }
    }

    /// Runs with contiguous tensors, and with views of rows `[B, positions, heads, E]`.
    fn check(&self, device: &Device) {
        let Self {
            b, h, g, t, s, e, ..
        } = *self;
        let (n, scale) = (self.numbers(), 0.7 / (e as f64).sqrt());
        let want = self.answer(&n, scale);
        let ask = |q, k, v| {
            // Fills reusable memory with NaN, so that unwritten output shows.
            drop(Tensor::<4>::full([b, t, h, e], f32::NAN, device));
            ops::attention(q, k, v, self.options(&n, scale, device))
        };
        let whole = [
            tensor(&n.q, [b, h, t, e], device),
            tensor(&n.k, [b, g, s, e], device),
            tensor(&n.v, [b, g, s, e], device),
        ];
        let [q, k, v] = whole.clone();
        let error = difference(ask(q, k, v), &want);
        assert!(error < 2e-5, "{self:?}: {error:e}");

        let rows = |x: Tensor<4>| {
            let [b, heads, n, e] = x.dims();
            let rows = x.swap_dims(1, 2).reshape([b, n, heads * e]);
            rows.add_scalar(0.0)
                .reshape([b, n, heads, e])
                .swap_dims(1, 2)
        };
        let [q, k, v] = whole.map(rows);
        let error = difference(ask(q, k, v), &want);
        assert!(error < 2e-5, "views, {self:?}: {error:e}");
    }
}

fn questions() -> Vec<Question> {
    let sizes = [
        // b, h, g, t, s, e
        (1, 1, 1, 1, 1, 4),
        (2, 3, 3, 5, 5, 12),
        (1, 2, 1, 33, 33, 16),
        (2, 4, 2, 31, 70, 24),
        (1, 2, 2, 7, 131, 64),
        (1, 3, 1, 65, 64, 88),
        (1, 2, 1, 40, 41, 92),
        (2, 2, 2, 3, 37, 160),
        (1, 1, 1, 35, 34, 164),
        (1, 1, 1, 9, 40, 512),
        (1, 1, 1, 5, 6, 10),
    ];
    let mut questions = vec![];
    for (i, (b, h, g, t, s, e)) in sizes.into_iter().enumerate() {
        let plain = Question {
            b,
            h,
            g,
            t,
            s,
            e,
            ..PLAIN
        };
        questions.push(plain);
        let mask = [1, t][i % 2];
        questions.push(Question { mask, ..plain });
        questions.push(Question {
            bias: Some(i % 2 == 0),
            mask: [t, 0][i % 2],
            ..plain
        });
        questions.push(Question {
            causal: true,
            ..plain
        });
        questions.push(Question {
            causal: true,
            bias: Some(i % 2 == 1),
            mask,
            ..plain
        });
    }
    questions
}

/// Views of one tensor: a fused QKV projection.
fn of_one_buffer(device: &Device) {
    let (t, h, e) = (37, 4, 16);
    let question = Question {
        h,
        g: h,
        t,
        s: t,
        e,
        ..PLAIN
    };
    let all = values(9, t * 3 * h * e);
    let part = |i: usize| {
        let heads = (0..h * t).map(|n| (n / t, n % t));
        let at = heads.map(|(head, row)| (row * 3 + i) * h * e + head * e);
        at.flat_map(|at| all[at..at + e].to_vec())
            .collect::<Vec<f32>>()
    };
    let n = Numbers {
        q: part(0),
        k: part(1),
        v: part(2),
        mask: vec![],
        bias: vec![],
    };
    let rows = tensor(&all, [1, t, 3 * h * e], device);
    let view = |i: usize| {
        let part = rows.clone().narrow(2, i * h * e, h * e);
        part.reshape([1, t, h, e]).swap_dims(1, 2)
    };
    let options = || question.options(&n, 0.25, device);
    let got = ops::attention(view(0), view(1), view(2), options());
    let error = difference(got, &question.answer(&n, 0.25));
    assert!(error < 2e-5, "parts of a buffer: {error:e}");

    // Only keys and values in one buffer, only queries and values, and all three the same.
    let whole = |x: &[f32]| tensor(x, [1, h, t, e], device);
    let got = ops::attention(whole(&n.q), view(1), view(2), options());
    let error = difference(got, &question.answer(&n, 0.25));
    assert!(error < 2e-5, "keys beside values: {error:e}");
    let got = ops::attention(view(0), whole(&n.k), view(2), options());
    let error = difference(got, &question.answer(&n, 0.25));
    assert!(error < 2e-5, "queries beside values: {error:e}");
    let same = Numbers {
        q: n.q.clone(),
        k: n.q.clone(),
        v: n.q.clone(),
        mask: vec![],
        bias: vec![],
    };
    let x = whole(&same.q);
    let got = ops::attention(x.clone(), x.clone(), x, options());
    let error = difference(got, &question.answer(&same, 0.25));
    assert!(error < 2e-5, "a tensor with itself: {error:e}");
}

/// Asks the questions from `first` on, `every`-th by `every`-th.
fn everything(device: &Device, first: usize, every: usize) {
    for question in questions().iter().skip(first % every).step_by(every) {
        question.check(device);
    }
    of_one_buffer(device);
}

#[test]
fn attention_on_the_cpu() {
    everything(&Device::flex(), 0, 1);
}

#[test]
fn attention_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP attention-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    // Each variant compiles its own pipelines, slowly on a software adapter: two variants share the questions, unless
    // `EMU_SOAK=1` asks for all.
    let every = if std::env::var("EMU_SOAK").as_deref() == Ok("1") {
        1
    } else {
        2
    };
    let mut variant = 0;
    variants::each_of_all(|| {
        everything(&device, variant, every);
        variant += 1;
    });
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let device = Device::flex();
    let question = Question {
        t: 3,
        s: 5,
        causal: true,
        ..PLAIN
    };
    let n = question.numbers();
    let want = question.answer(&n, 0.5);
    let ask = |s: usize| {
        let part = |x: &[f32]| tensor(x, [1, 1, 5, 4], &device).narrow(2, 0, s);
        let options = AttentionOptions {
            causal: true,
            scale: Some(0.5),
            ..Default::default()
        };
        ops::attention(
            tensor(&n.q, [1, 1, 3, 4], &device),
            part(&n.k),
            part(&n.v),
            options,
        )
    };
    assert!(difference(ask(5), &want) < 1e-5);
    assert!(difference(ask(4), &want) > 1e-2);
    assert_eq!(
        difference(ask(5).mul_scalar(f32::NAN), &want),
        f64::INFINITY
    );
    assert_eq!(difference(ask(5), &want[1..]), f64::INFINITY);
}
