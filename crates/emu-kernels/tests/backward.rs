//! Gradients of attention against an f64 reference, which itself is compared with finite differences: on the CPU and on a GPU,
//! with odd sizes, every kind of mask, grouped-query heads, strided views, and a trainable bias.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use emu_kernels::burn;
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::random::Philox;

fn values(seed: u32, n: usize) -> Vec<f32> {
    Philox::with_stream(22, seed, 0).normals(n)
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Largest absolute difference; infinite if there is no result, the lengths differ, or a value is not finite.
fn difference<const D: usize>(got: Option<Tensor<D>>, want: &[f64]) -> f64 {
    let got = got.map_or(vec![], |got| {
        got.into_data().iter::<f64>().collect::<Vec<_>>()
    });
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, f64::max)
}

/// Test case: sizes and options of attention.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// B, H, G, T, S, E
    sizes: [usize; 6],
    causal: bool,
    /// Rows of the mask: 0, 1 or T.
    mask: usize,
    /// Batch size and heads of the bias, 0 if there is none.
    bias: [usize; 2],
}

/// Queries, keys, values, the bias, and the weights `mix` of the outputs in the loss.
#[derive(Clone)]
struct Numbers {
    parts: [Vec<f64>; 4],
    mix: Vec<f64>,
    mask: Vec<bool>,
}

const SCALE: f64 = 0.4;

impl Question {
    fn numbers(&self) -> Numbers {
        let [b, h, g, t, s, e] = self.sizes;
        let wide = |seed, n: usize| values(seed, n).into_iter().map(f64::from).collect();
        let bias = self.bias[0] * self.bias[1] * t * s;
        Numbers {
            parts: [
                wide(1, b * h * t * e),
                wide(2, b * g * s * e),
                wide(3, b * g * s * e),
                wide(4, bias),
            ],
            mix: wide(5, b * h * t * e),
            // The first row of the first sequence is fully masked.
            mask: (0..b * self.mask * s)
                .map(|i| i < s || i % 3 == 1)
                .collect(),
        }
    }

    /// Index of a score's bias.
    fn bias_at(&self, batch: usize, head: usize, row: usize, key: usize) -> usize {
        let [_, _, _, t, s, _] = self.sizes;
        let [batches, heads] = self.bias;
        let first = if batches == 1 { 0 } else { batch } * heads;
        ((first + if heads == 1 { 0 } else { head }) * t + row) * s + key
    }

    /// Reference: the sum of the outputs times `mix`, and its gradients.
    fn answer(&self, n: &Numbers) -> (f64, [Vec<f64>; 4]) {
        let [b, h, g, t, s, e] = self.sizes;
        let [q, k, v, bias] = &n.parts;
        let mut grads = n.parts.clone().map(|part| vec![0.0; part.len()]);
        let mut loss = 0.0;
        for (batch, head, row) in (0..b * h * t).map(|i| (i / (h * t), i / t % h, i % t)) {
            let group = batch * g + head / (h / g);
            let at_row = ((batch * h + head) * t + row) * e;
            let at_key = |key: usize| (group * s + key) * e;
            let product = |a: &[f64], i: usize, b: &[f64], j: usize| -> f64 {
                { a[i..i + e].iter().zip(&b[j..j + e]) }
                    .map(|(a, b)| a * b)
                    .sum()
            };
            let weight = |key: usize| {
                let later = self.causal && key + t > row + s;
                let mark = (batch * self.mask + row % self.mask.max(1)) * s + key;
                if later || self.mask > 0 && n.mask[mark] {
                    return 0.0;
                }
                let shift = match self.bias {
                    [0, _] => 0.0,
                    _ => bias[self.bias_at(batch, head, row, key)],
                };
                (product(q, at_row, k, at_key(key)) * SCALE + shift).exp()
            };
            let weights: Vec<f64> = (0..s).map(weight).collect();
            let total: f64 = weights.iter().sum();
            if total == 0.0 {
                continue;
            }
            let gains: Vec<f64> = { 0..s }
                .map(|key| product(&n.mix, at_row, v, at_key(key)))
                .collect();
            let mean = { weights.iter().zip(&gains) }
                .map(|(w, g)| w * g / total)
                .sum::<f64>();
            loss += mean;
            for (key, weight) in weights.iter().enumerate() {
                let p = weight / total;
                let slope = p * (gains[key] - mean);
                for i in 0..e {
                    grads[0][at_row + i] += slope * SCALE * k[at_key(key) + i];
                    grads[1][at_key(key) + i] += slope * SCALE * q[at_row + i];
                    grads[2][at_key(key) + i] += p * n.mix[at_row + i];
                }
                if self.bias[0] > 0 {
                    grads[3][self.bias_at(batch, head, row, key)] += slope;
                }
            }
        }
        (loss, grads)
    }

    /// Gradients computed on a device, from contiguous tensors or from views of rows `[B, positions, heads, E]`.
    fn ask(&self, n: &Numbers, views: bool, device: &Device) -> [Option<Tensor<4>>; 4] {
        let [b, h, g, t, s, e] = self.sizes;
        let shapes = [[b, h, t, e], [b, g, s, e], [b, g, s, e]];
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let leaf = |i: usize| {
            let x = tensor(&narrow(&n.parts[i]), shapes[i], device);
            let x = if views {
                x.swap_dims(1, 2).mul_scalar(1.0)
            } else {
                x
            };
            x.detach().require_grad()
        };
        let leaves = [0, 1, 2].map(leaf);
        let seen = |x: &Tensor<4>| {
            if views {
                x.clone().swap_dims(1, 2)
            } else {
                x.clone()
            }
        };
        let [batches, heads] = self.bias;
        let bias = { batches > 0 }
            .then(|| tensor(&narrow(&n.parts[3]), [batches, heads, t, s], device).require_grad());
        let options = AttentionOptions {
            causal: self.causal,
            scale: Some(SCALE),
            mask: (self.mask > 0).then(|| {
                let shape = [b, 1, self.mask, s];
                Tensor::<4, Bool>::from_data(TensorData::new(n.mask.clone(), shape), device)
            }),
            bias: bias.clone(),
        };
        // Fills reusable memory with NaN, so that unwritten gradients show.
        for x in &leaves {
            drop(Tensor::<4>::full(x.dims(), f32::NAN, &device.clone().inner()).into_data());
        }
        let y = ops::attention(
            seen(&leaves[0]),
            seen(&leaves[1]),
            seen(&leaves[2]),
            options,
        );
        let mix = tensor(&narrow(&n.mix), [b, h, t, e], device);
        let grads = (y * mix).sum().backward();
        let [q, k, v] = leaves.map(|x| {
            let grad = x.grad(&grads)?;
            Some(if views { grad.swap_dims(1, 2) } else { grad })
        });
        [q, k, v, bias.and_then(|bias| bias.grad(&grads))]
    }

    fn check(&self, device: &Device) {
        let n = self.numbers();
        let (_, want) = self.answer(&n);
        for views in [false, true] {
            let got = self.ask(&n, views, device);
            for ((got, want), name) in got.into_iter().zip(&want).zip(["q", "k", "v", "bias"]) {
                let size = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                let error = difference(got, want) / size;
                assert!(error < 2e-5, "{name}, views {views}, {self:?}: {error:e}");
            }
        }
    }
}

fn questions() -> Vec<Question> {
    let sizes = [
        [1, 1, 1, 1, 1, 4],
        [2, 3, 3, 5, 5, 12],
        [1, 2, 1, 33, 33, 16],
        [2, 4, 2, 31, 70, 24],
        [1, 6, 2, 7, 131, 64],
        [1, 3, 1, 65, 64, 88],
        [3, 2, 1, 40, 41, 92],
        [2, 2, 2, 3, 37, 128],
        [1, 2, 2, 70, 3, 32],
        // Head sizes without a kernel.
        [1, 2, 1, 5, 6, 10],
        [1, 1, 1, 9, 11, 164],
    ];
    let mut questions = vec![];
    for (i, sizes) in sizes.into_iter().enumerate() {
        let [b, h, _, t, _, _] = sizes;
        let plain = Question {
            sizes,
            causal: false,
            mask: 0,
            bias: [0, 0],
        };
        let mask = [1, t][i % 2];
        // Each case costs shader compilation on a GPU, so each size runs with only some of the options.
        questions.extend(match i % 3 {
            0 => [
                plain,
                Question {
                    causal: true,
                    bias: [[1, b][i / 2 % 2], [h, 1][i % 2]],
                    mask,
                    ..plain
                },
            ],
            1 => [
                Question {
                    causal: true,
                    ..plain
                },
                Question {
                    mask: [t, 1][i % 2],
                    ..plain
                },
            ],
            _ => [
                Question {
                    bias: [1, [1, h][i % 2]],
                    ..plain
                },
                Question {
                    causal: true,
                    mask,
                    ..plain
                },
            ],
        });
    }
    questions
}

/// Views of one tensor, and one tensor used as several inputs: gradients accumulate.
fn of_one_buffer(device: &Device) {
    let (t, h, e) = (37, 3, 16);
    let question = Question {
        sizes: [1, h, h, t, t, e],
        causal: true,
        mask: 0,
        bias: [0, 0],
    };
    let n = question.numbers();
    let (_, [at_q, at_k, at_v, _]) = question.answer(&n);
    let row = |x: &[f64], i: usize| {
        (0..h)
            .flat_map(|head| x[(head * t + i) * e..][..e].to_vec())
            .collect::<Vec<_>>()
    };
    let rows = |parts: [&[f64]; 3]| {
        let all = (0..t).flat_map(|i| parts.map(|x| row(x, i)).concat());
        all.collect::<Vec<f64>>()
    };
    let [q, k, v, _] = &n.parts;
    let all = rows([q, k, v]);
    let all: Vec<f32> = all.iter().map(|&x| x as f32).collect();
    let all = tensor(&all, [1, t, 3 * h * e], device).require_grad();
    let part = |i: usize| {
        let part = all.clone().narrow(2, i * h * e, h * e);
        part.reshape([1, t, h, e]).swap_dims(1, 2)
    };
    let options = AttentionOptions {
        causal: true,
        scale: Some(SCALE),
        ..Default::default()
    };
    let mix: Vec<f32> = n.mix.iter().map(|&x| x as f32).collect();
    let mix = tensor(&mix, [1, h, t, e], device);
    let y = ops::attention(part(0), part(1), part(2), options.clone());
    let grads = (y * mix.clone()).sum().backward();
    let error = difference(all.grad(&grads), &rows([&at_q, &at_k, &at_v]));
    assert!(error < 5e-5, "parts of a tensor: {error:e}");

    let same = Numbers {
        parts: [q.clone(), q.clone(), q.clone(), vec![]],
        ..n
    };
    let (_, [at_q, at_k, at_v, _]) = question.answer(&same);
    let sum: Vec<f64> = (0..at_q.len())
        .map(|i| at_q[i] + at_k[i] + at_v[i])
        .collect();
    let x: Vec<f32> = q.iter().map(|&x| x as f32).collect();
    let x = tensor(&x, [1, h, t, e], device).require_grad();
    let y = ops::attention(x.clone(), x.clone(), x.clone(), options);
    let grads = (y * mix).sum().backward();
    let error = difference(x.grad(&grads), &sum);
    assert!(error < 5e-5, "a tensor with itself: {error:e}");
}

fn everything(device: &Device) {
    let device = device.clone().autodiff();
    for question in questions() {
        question.check(&device);
    }
    of_one_buffer(&device);
}

#[test]
fn the_reference_has_the_slopes_of_finite_differences() {
    for question in questions() {
        let [b, h, _, t, s, e] = question.sizes;
        if b * h * t * s * e > 4000 {
            continue;
        }
        let n = question.numbers();
        let (_, grads) = question.answer(&n);
        for (part, grads) in grads.iter().enumerate() {
            for (i, grad) in grads.iter().enumerate() {
                let loss = |step: f64| {
                    let mut moved = n.clone();
                    moved.parts[part][i] += step;
                    question.answer(&moved).0
                };
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let error = (slope - grad).abs();
                assert!(error < 1e-7, "{question:?}, {part}, {i}: {error:e}");
            }
        }
    }
}

#[test]
fn gradients_on_the_cpu() {
    everything(&Device::flex());
}

#[test]
fn gradients_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP backward-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    everything(&device::open(DeviceChoice::Gpu).expect("an adapter").device);
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let device = Device::flex().autodiff();
    let question = Question {
        sizes: [1, 2, 1, 3, 5, 4],
        causal: true,
        mask: 0,
        bias: [1, 2],
    };
    let other = Question {
        causal: false,
        ..question
    };
    let n = question.numbers();
    let (_, want) = question.answer(&n);
    let wrong = other.ask(&n, false, &device);
    for ((right, wrong), want) in { question.ask(&n, false, &device).into_iter() }
        .zip(wrong)
        .zip(want)
    {
        assert!(difference(right.clone(), &want) < 1e-5);
        assert!(difference(wrong, &want) > 1e-2);
        assert_eq!(
            difference(right.map(|x| x.mul_scalar(f32::NAN)), &want),
            f64::INFINITY
        );
        assert_eq!(difference::<4>(None, &want), f64::INFINITY);
    }
}

/// CPU seconds of this process, where a software GPU runs: other load on the machine does not count.
fn processor_seconds() -> f64 {
    #[repr(C)]
    struct Time(i64, i64);
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    let mut time = Time(0, 0);
    unsafe { clock_gettime(2, &mut time) };
    time.0 as f64 + time.1 as f64 * 1e-9
}

/// Launches, peak memory and minimum time of forward and backward, our kernels next to Burn's. Run alone with `--ignored
/// --nocapture`; ONLY=name selects the shapes whose name contains it.
#[test]
#[ignore = "a measurement"]
fn costs_on_wgpu() {
    use burn::tensor::module;
    use burn::tensor::ops::AttentionModuleOptions;
    let plain = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    let device = plain.clone().autodiff();
    for (what, [b, h, g, t, s, e], causal) in [
        ("language model", [8, 6, 6, 160, 160, 32], true),
        ("encoder", [16, 6, 6, 17, 17, 32], false),
        ("UNet, 8 x 8", [16, 3, 3, 64, 64, 32], false),
        ("UNet, 8 x 8, across", [16, 3, 3, 64, 16, 32], false),
        ("UNet, 4 x 4", [16, 5, 5, 16, 16, 32], false),
        ("1024 of 64", [1, 8, 8, 1024, 1024, 64], true),
        ("512 of 128, shared", [2, 8, 2, 512, 512, 128], true),
        ("257 of 88", [2, 16, 16, 257, 257, 88], false),
        ("1024 to 77 of 40", [2, 8, 8, 1024, 77, 40], false),
        ("256 of 160", [2, 4, 4, 256, 256, 160], false),
    ] {
        if std::env::var("ONLY").is_ok_and(|only| !what.contains(&only)) {
            continue;
        }
        let leaf = |seed, shape: [usize; 4]| {
            tensor(&values(seed, shape.iter().product()), shape, &device).require_grad()
        };
        let [q, mix] = [1, 2].map(|seed| leaf(seed, [b, h, t, e]));
        let [k, v] = [3, 4].map(|seed| leaf(seed, [b, g, s, e]));
        let mix = mix.detach();
        let ours = || {
            let options = AttentionOptions {
                causal,
                ..Default::default()
            };
            ops::attention(q.clone(), k.clone(), v.clone(), options)
        };
        let burns = || {
            let shared = |x: Tensor<4>| {
                let x = x.reshape([b, g, 1, s * e]);
                x.expand([b, g, h / g, s * e]).reshape([b, h, s, e])
            };
            let options = AttentionModuleOptions {
                is_causal: causal,
                ..Default::default()
            };
            let (k, v) = (shared(k.clone()), shared(v.clone()));
            module::attention(q.clone(), k, v, None, None, options)
        };
        let runs: [(&str, &dyn Fn() -> Tensor<4>); 2] = [("ours", &ours), ("Burn's", &burns)];
        for (name, run) in runs {
            let step = || {
                let start = processor_seconds();
                let y = run();
                let value = y.clone().inner();
                let loss = (y * mix.clone()).sum();
                plain.sync().expect("a device");
                let forward = processor_seconds() - start;
                let grads = loss.backward();
                let all = [q.grad(&grads), k.grad(&grads), v.grad(&grads)];
                plain.sync().expect("a device");
                drop((all, value));
                [forward, processor_seconds() - start - forward]
            };
            step();
            plain.memory_cleanup();
            let before = plain.memory_pool_usage().map_or(0, |m| m.bytes_in_use);
            let launches = emu_kernels::count::Launches::watch();
            step();
            let launched = launches.total();
            let reserved = plain.memory_pool_usage().map_or(0, |m| m.bytes_reserved);
            let mut best = [f64::INFINITY; 2];
            for _ in 0..4 {
                let found = step();
                best = [best[0].min(found[0]), best[1].min(found[1])];
            }
            println!(
                "{what:20} {name:7} {launched:3} launches, {:5.1} + {:5.1} ms, {:6.1} MB more than at rest",
                best[0] * 1e3,
                best[1] * 1e3,
                reserved.saturating_sub(before) as f64 / 1e6
            );
        }
    }
}
