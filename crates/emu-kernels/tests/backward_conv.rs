//! Gradients of a convolution's weights, bias and input against an f64 reference, on the CPU and on a GPU: odd sizes, strides,
//! one-sided padding, many pixels, NHWC. `diffusion_kernels.rs` has finite differences.

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::burn;
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::ops;
use emu_kernels::random::Philox;

fn values(seed: u32, n: usize) -> Vec<f32> {
    Philox::with_stream(23, seed, 0).normals(n)
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Largest absolute difference relative to the greatest expected value; infinite if there is no result, the lengths differ, or
/// a value is not finite.
fn difference<const D: usize>(got: Option<Tensor<D>>, want: &[f64]) -> f64 {
    let got = got.map_or(vec![], |got| {
        got.into_data().iter::<f64>().collect::<Vec<_>>()
    });
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let size = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, f64::max) / size
}

#[derive(Clone, Copy, Debug)]
struct Case {
    /// B, C, H, W
    x: [usize; 4],
    out: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
}

/// The fields of [`Case`].
type Row = ([usize; 4], usize, usize, usize, (usize, usize));

const CASES: [Row; 9] = [
    ([1, 1, 1, 1], 1, 1, 1, (0, 0)),
    ([2, 3, 5, 7], 5, 3, 1, (1, 1)),
    ([3, 7, 9, 6], 33, 3, 2, (0, 1)),
    ([2, 33, 4, 5], 65, 1, 1, (0, 0)),
    ([1, 9, 8, 8], 32, 3, 2, (1, 1)),
    ([2, 3, 28, 28], 6, 14, 14, (0, 0)),
    // Many pixels: split into parts.
    ([3, 2, 41, 37], 3, 3, 1, (1, 1)),
    ([5, 5, 33, 32], 37, 3, 1, (2, 2)),
    ([2, 2, 2, 2], 2, 3, 2, (1, 1)),
];

impl Case {
    fn out_size(&self) -> [usize; 2] {
        let [_, _, h, w] = self.x;
        [h, w].map(|n| (n + self.padding.0 + self.padding.1 - self.kernel) / self.stride + 1)
    }

    /// Reference: gradients of x, weight and bias for the sum of the outputs times `mix`.
    fn answer(&self, x: &[f32], weight: &[f32], mix: &[f32]) -> [Vec<f64>; 3] {
        let ([b, c, h, w], [rows, columns], k) = (self.x, self.out_size(), self.kernel);
        let mut at_x = vec![0.0; x.len()];
        let mut at_weight = vec![0.0; weight.len()];
        let mut at_bias = vec![0.0; self.out];
        for (i, &g) in mix.iter().enumerate() {
            let (batch, o) = (
                i / (self.out * rows * columns),
                i / (rows * columns) % self.out,
            );
            let (row, column) = (i / columns % rows, i % columns);
            let g = f64::from(g);
            at_bias[o] += g;
            for (ch, ky, kx) in (0..c * k * k).map(|j| (j / (k * k), j / k % k, j % k)) {
                let v = (row * self.stride + ky).wrapping_sub(self.padding.0);
                let u = (column * self.stride + kx).wrapping_sub(self.padding.0);
                if v < h && u < w {
                    let at = ((batch * c + ch) * h + v) * w + u;
                    let of = ((o * c + ch) * k + ky) * k + kx;
                    at_x[at] += g * f64::from(weight[of]);
                    at_weight[of] += g * f64::from(x[at]);
                }
            }
        }
        debug_assert_eq!(mix.len(), b * self.out * rows * columns);
        [at_x, at_weight, at_bias]
    }

    /// The greatest of the three differences; with `turned`, input and gradient are NHWC.
    fn error(&self, turned: bool, wrong: bool, device: &Device) -> f64 {
        let ([b, c, _, _], [rows, columns], k) = (self.x, self.out_size(), self.kernel);
        let shape = [self.out, c, k, k];
        let xs = values(1, self.x.iter().product());
        let ws = values(2, shape.iter().product());
        let mut ms = values(3, b * self.out * rows * columns);
        let want = self.answer(&xs, &ws, &ms);
        if wrong {
            ms[0] += 1.0;
        }
        let last = |x: Tensor<4>| {
            let x = x.permute([0, 2, 3, 1]).mul_scalar(1.0);
            x.detach().permute([0, 3, 1, 2])
        };
        let x = tensor(&xs, self.x, device);
        let x = if turned { last(x) } else { x }.require_grad();
        let weight = tensor(&ws, shape, device).require_grad();
        let bias = tensor(&values(4, self.out), [self.out], device).require_grad();
        // Fills reusable memory with NaN, so that unwritten gradients show.
        for n in [xs.len(), ws.len(), self.out, 4 * ws.len()] {
            drop(Tensor::<1>::full([n], f32::NAN, &device.clone().inner()).into_data());
        }
        let y = ops::conv2d(
            x.clone(),
            weight.clone(),
            Some(bias.clone()),
            self.stride,
            self.padding,
        );
        let mix = tensor(&ms, [b, self.out, rows, columns], device);
        let grads = match turned {
            // The gradient of a permuted result has the strides of the result.
            true => (y.permute([0, 2, 3, 1]) * mix.permute([0, 2, 3, 1]).mul_scalar(1.0)).sum(),
            false => (y * mix).sum(),
        }
        .backward();
        let found = [
            difference(x.grad(&grads), &want[0]),
            difference(weight.grad(&grads), &want[1]),
            difference(bias.grad(&grads), &want[2]),
        ];
        found.into_iter().fold(0.0, f64::max)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    CASES
        .into_iter()
        .map(|(x, out, kernel, stride, padding)| Case {
            x,
            out,
            kernel,
            stride,
            padding,
        })
}

fn everything(device: &Device) {
    let device = device.clone().autodiff();
    for case in cases() {
        for turned in [false, true] {
            let error = case.error(turned, false, &device);
            assert!(error < 1e-5, "{case:?}, turned {turned}: {error:e}");
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
        println!("SKIP backward-conv-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    everything(&device::open(DeviceChoice::Gpu).expect("an adapter").device);
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let device = Device::flex().autodiff();
    for case in cases().take(3) {
        assert!(case.error(false, true, &device) > 1e-3);
    }
    assert_eq!(difference::<1>(None, &[0.0]), f64::INFINITY);
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

/// Launches, peak memory and minimum time of the gradients of weights and bias, our kernels next to Burn's. Run alone with
/// `--ignored --nocapture` and EMU_TEST_GPU=1.
#[test]
#[ignore = "a measurement"]
fn costs_on_wgpu() {
    use burn::tensor::module;
    use burn::tensor::ops::ConvOptions;
    let plain = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    let device = plain.clone().autodiff();
    for (shape, out, k, stride) in [
        ([16, 4, 16, 16], 48, 3, 1),
        ([16, 48, 16, 16], 48, 3, 1),
        ([16, 96, 8, 8], 96, 3, 1),
        ([16, 320, 4, 4], 160, 3, 1),
        ([16, 96, 8, 8], 96, 1, 1),
        ([16, 32, 32, 32], 64, 3, 2),
        ([16, 12, 32, 32], 32, 3, 1),
        ([4, 32, 64, 64], 32, 3, 1),
        ([2, 320, 32, 32], 320, 3, 1),
        ([2, 640, 16, 16], 640, 3, 1),
        ([2, 640, 16, 16], 640, 1, 1),
    ] {
        let number = |seed, n: usize| values(seed, n);
        let x = tensor(&number(1, shape.iter().product()), shape, &device);
        let weight = tensor(
            &number(2, out * shape[1] * k * k),
            [out, shape[1], k, k],
            &device,
        );
        let (weight, bias) = (
            weight.require_grad(),
            tensor(&number(3, out), [out], &device),
        );
        let bias = bias.require_grad();
        let padding = k / 2;
        let ours = || {
            let pair = (padding, padding);
            ops::conv2d(x.clone(), weight.clone(), Some(bias.clone()), stride, pair)
        };
        let burns = || {
            let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
            module::conv2d(x.clone(), weight.clone(), Some(bias.clone()), options)
        };
        let mix = tensor(
            &number(4, ours().shape().num_elements()),
            ours().dims(),
            &device,
        );
        let runs: [(&str, &dyn Fn() -> Tensor<4>); 2] = [("ours", &ours), ("Burn's", &burns)];
        for (name, run) in runs {
            let step = || {
                let loss = (run() * mix.clone()).sum();
                plain.sync().expect("a device");
                let launches = emu_kernels::count::Launches::watch();
                let start = processor_seconds();
                let grads = loss.backward();
                let all = (weight.grad(&grads), bias.grad(&grads));
                plain.sync().expect("a device");
                let reserved = plain.memory_pool_usage().map_or(0, |m| m.bytes_reserved);
                drop(all);
                (processor_seconds() - start, launches.total(), reserved)
            };
            step();
            plain.memory_cleanup();
            let before = plain.memory_pool_usage().map_or(0, |m| m.bytes_in_use);
            let (mut best, launches, reserved) = step();
            for _ in 0..4 {
                best = best.min(step().0);
            }
            println!(
                "{shape:?} to {out}, {k} x {k}, {name:6} {launches:3} launches, {:6.1} ms, {:6.1} MB more than at rest",
                best * 1e3,
                reserved.saturating_sub(before) as f64 / 1e6
            );
        }
    }
}
