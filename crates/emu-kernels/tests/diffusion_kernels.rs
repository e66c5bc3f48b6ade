//! Kernels of the diffusion decoder against an f64 reference, on odd shapes: convolution with fused operations, group norm,
//! GELU. Their gradients on a GPU are compared with those of the CPU, which have tests of their own.

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::device::{DeviceChoice, open};
use emu_kernels::ops::{self, ConvExtras};
use emu_kernels::random::{Philox, Stream};

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> (Tensor<D>, Vec<f64>) {
    let values = Philox::new(seed, Stream::Init, 0).normals(shape.iter().product());
    let wide = values.iter().map(|&v| f64::from(v)).collect();
    (
        Tensor::from_data(TensorData::new(values, shape), device),
        wide,
    )
}

/// Largest absolute difference; infinite if the lengths differ or a value is not finite.
fn difference<const D: usize>(got: Tensor<D>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_data().iter::<f64>().collect();
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let pairs = got.iter().zip(want);
    pairs.map(|(g, w)| (g - w).abs()).fold(0.0, f64::max)
}

/// Fills freed buffers of this size with NaN, so that uninitialized reads and unwritten outputs show.
fn soil(elements: usize, device: &Device) {
    for _ in 0..3 {
        let dirt = Tensor::<1>::full([elements], f32::NAN, device);
        let _ = dirt.into_data();
    }
}

/// Test case: a convolution with all its fused operations.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// B, C, H, W
    x: [usize; 4],
    out: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
    /// Rows and columns cropped from the upsampled input.
    cut: Option<(usize, usize)>,
    /// Channels of the skip connection.
    skip: usize,
    /// Rows of the shift; 0 for none.
    shift: usize,
    residual: bool,
    channels_last: bool,
    /// Whether x is NHWC in memory.
    strided: bool,
}

const PLAIN: Case = Case {
    x: [1, 3, 5, 7],
    out: 20,
    kernel: 3,
    stride: 1,
    padding: (1, 1),
    cut: None,
    skip: 0,
    shift: 0,
    residual: false,
    channels_last: false,
    strided: false,
};

fn cases() -> Vec<Case> {
    let mut cases = vec![
        PLAIN,
        Case {
            x: [3, 1, 1, 1],
            out: 1,
            ..PLAIN
        },
        Case {
            x: [2, 33, 17, 17],
            out: 3,
            ..PLAIN
        },
        Case {
            x: [2, 20, 8, 8],
            out: 33,
            stride: 2,
            padding: (0, 1),
            ..PLAIN
        },
        Case {
            x: [1, 3, 28, 28],
            out: 5,
            kernel: 14,
            stride: 14,
            padding: (0, 0),
            ..PLAIN
        },
        // Partial sums of slices that need more workgroup memory than the loads.
        Case {
            x: [2, 3, 8, 15],
            out: 30,
            kernel: 7,
            padding: (3, 3),
            ..PLAIN
        },
        Case {
            x: [3, 5, 9, 6],
            out: 70,
            kernel: 5,
            stride: 2,
            padding: (2, 1),
            ..PLAIN
        },
        // Enough tiles to select the large ones.
        Case {
            x: [1, 3, 65, 64],
            out: 67,
            ..PLAIN
        },
        // Depth split among slices, with few and many tiles.
        Case {
            x: [1, 33, 5, 7],
            out: 20,
            ..PLAIN
        },
        Case {
            x: [3, 33, 17, 17],
            out: 40,
            ..PLAIN
        },
    ];
    for kernel in [1, 3] {
        let padding = (kernel / 2, kernel / 2);
        for (x, out, shift) in [([2, 20, 8, 8], 33, 2), ([3, 33, 5, 7], 3, 1)] {
            let case = Case {
                x,
                out,
                kernel,
                padding,
                ..PLAIN
            };
            cases.extend([
                Case { shift, ..case },
                Case {
                    residual: true,
                    channels_last: true,
                    ..case
                },
                Case {
                    skip: 7,
                    strided: true,
                    ..case
                },
                Case {
                    cut: Some((0, 0)),
                    ..case
                },
                Case {
                    cut: Some((1, 0)),
                    strided: true,
                    shift,
                    residual: true,
                    channels_last: true,
                    ..case
                },
                Case {
                    skip: 33,
                    strided: true,
                    shift,
                    residual: true,
                    ..case
                },
            ]);
        }
    }
    cases
}

impl Case {
    /// Height and width as seen by the kernel, and those of the output.
    fn sizes(&self) -> ([usize; 2], [usize; 2]) {
        let [_, _, h, w] = self.x;
        let seen = match self.cut {
            Some((rows, columns)) => [2 * h - rows, 2 * w - columns],
            None => [h, w],
        };
        let around = self.padding.0 + self.padding.1;
        (
            seen,
            seen.map(|n| (n + around - self.kernel) / self.stride + 1),
        )
    }
}

/// Reference convolution of a case in f64, over all input channels.
fn convolved(case: &Case, xs: &[f64], ws: &[f64], bs: &[f64]) -> Vec<f64> {
    let [b, c, h, w] = case.x;
    let (c, k, out) = (c + case.skip, case.kernel, case.out);
    let ([height, width], [ho, wo]) = case.sizes();
    let shrink = if case.cut.is_some() { 2 } else { 1 };
    let value = |image: usize, channel: usize, y: usize, x: usize| -> f64 {
        let inside = |n: usize, size: usize| n.checked_sub(case.padding.0).filter(|n| *n < size);
        match (inside(y, height), inside(x, width)) {
            (Some(y), Some(x)) => xs[((image * c + channel) * h + y / shrink) * w + x / shrink],
            _ => 0.0,
        }
    };
    let sum = |i: usize| {
        let (image, o) = (i / (out * ho * wo), i / (ho * wo) % out);
        let (y, x) = (i / wo % ho, i % wo);
        let terms = (0..c * k * k).map(|d| {
            let (y, x) = (y * case.stride + d / k % k, x * case.stride + d % k);
            ws[o * c * k * k + d] * value(image, d / (k * k), y, x)
        });
        bs[o] + terms.sum::<f64>()
    };
    (0..b * out * ho * wo).map(sum).collect()
}

/// Runs a case; returns the largest difference from the f64 reference.
fn convolve(case: &Case, device: &Device, wrong: bool) -> f64 {
    let [b, c, h, w] = case.x;
    let (mut x, xs) = random(case.x, 1, device);
    if case.strided {
        // Same values, NHWC in memory.
        let other = x.permute([0, 2, 3, 1]).reshape([b, h * w * c]);
        x = other.reshape([b, h, w, c]).permute([0, 3, 1, 2]);
    }
    let channels = c + case.skip;
    let k = case.kernel;
    let fan = ((channels * k * k) as f64).sqrt();
    let (weight, ws) = random([case.out, channels, k, k], 2, device);
    let weight = weight.div_scalar(fan);
    let (bias, bs) = random([case.out], 3, device);
    let (second, seconds) = random([b, case.skip.max(1), h, w], 4, device);
    let (shift, shifts) = random([case.shift.max(1), case.out], 5, device);
    let ([height, width], [ho, wo]) = case.sizes();
    let upsampled = case.cut.map(|_| (height, width));
    let (residual, residuals) = random([b, case.out, ho, wo], 6, device);

    let scaled: Vec<f64> = ws.iter().map(|w| w / fan).collect();
    let joined = { 0..b }.flat_map(|image| {
        let own = &xs[image * c * h * w..][..c * h * w];
        let other = &seconds[image * case.skip * h * w..][..case.skip * h * w];
        [own, other].concat()
    });
    let joined: Vec<f64> = joined.collect();
    let mut want = convolved(case, &joined, &scaled, &bs);
    for (i, sum) in want.iter_mut().enumerate() {
        let (image, o) = (i / (case.out * ho * wo), i / (ho * wo) % case.out);
        if case.shift > 0 {
            *sum += shifts[(image % case.shift) * case.out + o];
        }
        if case.residual {
            *sum += residuals[i];
        }
    }
    if wrong {
        want[i32::MAX as usize % (b * case.out * ho * wo)] += 0.01;
    }

    soil(b * case.out * ho * wo, device);
    let extras = ConvExtras {
        upsampled,
        skip: (case.skip > 0).then_some(second),
        shift: (case.shift > 0).then_some(shift),
        residual: case.residual.then_some(residual),
        channels_last: case.channels_last,
    };
    let y = ops::conv2d_with(x, weight, Some(bias), case.stride, case.padding, extras);
    assert_eq!(y.dims(), [b, case.out, ho, wo], "{case:?}");
    // In the layouts that transformers and convolutions read.
    let rows = y
        .clone()
        .permute([0, 2, 3, 1])
        .reshape([b, ho * wo, case.out]);
    let back = rows.reshape([b, ho, wo, case.out]).permute([0, 3, 1, 2]);
    let again = difference(back, &want);
    difference(y, &want).max(again)
}

/// One tensor as both input and residual, and an expanded tensor.
fn shared(device: &Device) {
    let (x, xs) = random([1, 20, 5, 7], 1, device);
    let (weight, ws) = random([20, 20, 1, 1], 2, device);
    let case = Case {
        x: [1, 20, 5, 7],
        kernel: 1,
        padding: (0, 0),
        ..PLAIN
    };
    let want = convolved(&case, &xs, &ws, &[0.0; 20]);
    let want: Vec<f64> = want.iter().zip(&xs).map(|(y, x)| y + x).collect();
    let extras = ConvExtras {
        residual: Some(x.clone()),
        ..Default::default()
    };
    let y = ops::conv2d_with(x.clone(), weight.clone(), None, 1, (0, 0), extras);
    assert!(difference(y, &want) < 1e-4);
    let y = ops::conv2d(x.clone().expand([3, 20, 5, 7]), weight, None, 1, (0, 0));
    let three = y + x.expand([3, 20, 5, 7]);
    assert!(difference(three, &want.repeat(3)) < 1e-4);
}

fn convolutions(device: &Device) {
    shared(device);
    for case in cases() {
        let error = convolve(&case, device, false);
        assert!(error < 2e-5, "{case:?}: {error:e}");
        assert!(convolve(&case, device, true) > 5e-3, "{case:?}");
    }
}

fn silu(z: f64) -> f64 {
    z / (1.0 + (-z).exp())
}

/// Reference group norm in f64.
fn normalised(
    xs: &[f64],
    ws: &[f64],
    bs: &[f64],
    [groups, area]: [usize; 2],
    eps: f64,
) -> Vec<f64> {
    let size = ws.len() / groups * area;
    { xs.chunks(size).enumerate() }
        .flat_map(|(group, row)| {
            let mean = row.iter().sum::<f64>() / size as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
            let first = group % groups * (ws.len() / groups);
            row.iter().enumerate().map(move |(i, x)| {
                let channel = first + i / area;
                (x - mean) / (variance + eps).sqrt() * ws[channel] + bs[channel]
            })
        })
        .collect()
}

fn group_norms(device: &Device) {
    // The CPU multiplies before it subtracts the mean, and a group with a single value is multiplied by 300.
    let bound = if *device == Device::flex() {
        1e-3
    } else {
        5e-5
    };
    for (shape, skip, groups, eps) in [
        ([1, 1, 1, 1], 0, 1, 1e-5),
        ([2, 33, 5, 7], 0, 3, 1e-6),
        ([3, 20, 8, 8], 0, 20, 1e-5),
        ([1, 20, 17, 17], 0, 4, 1e-6),
        ([2, 3, 5, 7], 6, 3, 1e-5),
        ([3, 20, 8, 8], 33, 1, 1e-5),
        ([1, 33, 17, 1], 3, 4, 1e-6),
        // The reciprocals of these eps are no integers.
        ([2, 4, 5, 7], 0, 2, 0.7),
        ([2, 4, 5, 7], 4, 2, 2.3),
    ] {
        let [b, c, h, w] = shape;
        let (area, channels) = (h * w, c + skip);
        // Far from zero, where a one-pass variance would cancel.
        let (x, xs) = random(shape, 1, device);
        let (x, xs): (_, Vec<f64>) = (
            x.add_scalar(50.0),
            xs.iter().map(|x| f64::from(*x as f32 + 50.0)).collect(),
        );
        let (second, seconds) = random([b, skip.max(1), h, w], 2, device);
        let (weight, ws) = random([channels], 3, device);
        let (bias, bs) = random([channels], 4, device);
        let all: Vec<f64> = { 0..b }
            .flat_map(|i| {
                let own = &xs[i * c * area..][..c * area];
                let other = &seconds[i * skip * area..][..skip * area];
                [own, other].concat()
            })
            .collect();
        let normal = normalised(&all, &ws, &bs, [groups, area], eps);
        let gated: Vec<f64> = normal.iter().map(|z| silu(*z)).collect();
        let second = (skip > 0).then_some(second);
        soil(all.len(), device);
        let parts = (x.clone(), weight.clone(), bias.clone());
        let y = ops::group_norm_silu(parts.0, parts.1, parts.2, second.clone(), groups, eps);
        let error = difference(y, &gated);
        assert!(error < bound, "{shape:?} + {skip} silu: {error:e}");
        if second.is_none() {
            soil(all.len(), device);
            let error = difference(ops::group_norm(x, weight, bias, groups, eps), &normal);
            assert!(error < bound, "{shape:?}: {error:e}");
            let mut wrong = normal.clone();
            wrong[all.len() / 2] += 0.01;
            let zero: Tensor<1> = Tensor::from_data(
                TensorData::new(
                    normal.iter().map(|&v| v as f32).collect::<Vec<_>>(),
                    [all.len()],
                ),
                device,
            );
            assert!(difference(zero, &wrong) > 5e-3);
        }
    }
}

fn gelus(device: &Device) {
    let exact = |x: f64| x * 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2);
    for (rows, d) in [(1, 1), (2, 33), (3, 64), (5, 577)] {
        let (x, xs) = random([1, rows, 2 * d], 1, device);
        // Over the whole range, tails included.
        let (x, xs): (_, Vec<f64>) = (x.mul_scalar(4.0), xs.iter().map(|x| x * 4.0).collect());
        soil(2 * rows * d, device);
        let want: Vec<f64> = xs.iter().map(|x| exact(*x)).collect();
        let error = difference(ops::gelu(x.clone()), &want);
        assert!(error < 2e-6, "{rows} x {d}: {error:e}");
        let want: Vec<f64> = { xs.chunks(2 * d) }
            .flat_map(|row| (0..d).map(move |i| row[i] * exact(row[d + i])))
            .collect();
        soil(rows * d, device);
        let error = difference(ops::geglu(x), &want);
        assert!(error < 1e-5, "{rows} x {d} gated: {error:e}");
    }
}

/// Largest difference between gradients and finite differences of a sum in f64, at some of the elements of each input.
fn slopes(inputs: &[Vec<f64>], grads: &[Vec<f64>], sum: impl Fn(&[Vec<f64>]) -> f64) -> f64 {
    const STEP: f64 = 1e-4;
    let mut worst = 0.0;
    for (which, grad) in grads.iter().enumerate() {
        assert_eq!(grad.len(), inputs[which].len());
        for at in (0..grad.len()).step_by(grad.len() / 9 + 1) {
            let moved = |step: f64| {
                let mut inputs = inputs.to_vec();
                inputs[which][at] += step;
                sum(&inputs)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let off = (slope - grad[at]).abs() / slope.abs().max(1.0);
            worst = if off.is_nan() {
                f64::INFINITY
            } else {
                off.max(worst)
            };
        }
    }
    worst
}

fn values<const D: usize>(x: Option<Tensor<D>>) -> Vec<f64> {
    x.expect("a gradient").into_data().iter::<f64>().collect()
}

/// Gradients of convolutions and group norms against finite differences in f64.
fn gradients(device: &Device) {
    let device = &device.clone().autodiff();
    let weighted = |ys: Vec<f64>, mix: &[f64]| ys.iter().zip(mix).map(|(y, m)| y * m).sum::<f64>();
    let plain = cases()
        .into_iter()
        .filter(|case| case.cut.is_none() && case.skip + case.shift == 0 && !case.residual);
    for case in plain {
        let ([_, c, ..], k) = (case.x, case.kernel);
        let (x, xs) = random(case.x, 1, device);
        let (w, ws) = random([case.out, c, k, k], 2, device);
        let (b, bs) = random([case.out], 3, device);
        let (x, w, b) = (x.require_grad(), w.require_grad(), b.require_grad());
        let y = ops::conv2d(
            x.clone(),
            w.clone(),
            Some(b.clone()),
            case.stride,
            case.padding,
        );
        let (mix, ms) = random(y.dims(), 4, device);
        soil(xs.len(), device);
        let grads = (y * mix).sum().backward();
        let found = [
            values(x.grad(&grads)),
            values(w.grad(&grads)),
            values(b.grad(&grads)),
        ];
        let error = slopes(&[xs, ws, bs], &found, |i| {
            weighted(convolved(&case, &i[0], &i[1], &i[2]), &ms)
        });
        assert!(error < 1e-4, "{case:?}: {error:e}");
    }
    for (shape, groups, gated) in [
        ([1, 1, 1, 2], 1, false),
        ([2, 33, 5, 7], 3, true),
        ([3, 20, 8, 8], 20, true),
        ([2, 12, 17, 3], 4, false),
    ] {
        let [_, c, h, width] = shape;
        let (x, xs) = random(shape, 1, device);
        let (w, ws) = random([c], 2, device);
        let (b, bs) = random([c], 3, device);
        let (x, w, b) = (x.require_grad(), w.require_grad(), b.require_grad());
        let y = match gated {
            true => ops::group_norm_silu(x.clone(), w.clone(), b.clone(), None, groups, 1e-2),
            false => ops::group_norm(x.clone(), w.clone(), b.clone(), groups, 1e-2),
        };
        let (mix, ms) = random(shape, 4, device);
        soil(xs.len(), device);
        let grads = (y * mix).sum().backward();
        let found = [
            values(x.grad(&grads)),
            values(w.grad(&grads)),
            values(b.grad(&grads)),
        ];
        let inputs = [xs, ws, bs];
        let sum = |i: &[Vec<f64>]| {
            let mut y = normalised(&i[0], &i[1], &i[2], [groups, h * width], 1e-2);
            if gated {
                y.iter_mut().for_each(|z| *z = silu(*z));
            }
            weighted(y, &ms)
        };
        let error = slopes(&inputs, &found, sum);
        assert!(error < 1e-4, "{shape:?} {groups}: {error:e}");
        let mut wrong = found.clone();
        wrong[1][0] += 0.01;
        assert!(slopes(&inputs, &wrong, sum) > 1e-3);
    }
}

fn everything(device: &Device) {
    gradients(device);
    convolutions(device);
    group_norms(device);
    gelus(device);
}

#[test]
fn kernels_on_the_cpu() {
    everything(&Device::flex());
}

#[test]
fn kernels_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP diffusion-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = open(DeviceChoice::Gpu).expect("an adapter").device;
    emu_kernels::variants::each(|| everything(&device));
}

#[test]
fn self_test_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP self-test-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = open(DeviceChoice::Gpu).expect("an adapter").device;
    emu_kernels::variants::each(|| {
        for case in emu_kernels::selftest::CASES {
            burn::tensor::read_sync(case.run(&device)).expect(case.operation);
        }
    });
}
