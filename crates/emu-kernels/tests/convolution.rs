//! CPU convolution and group norm against Burn's own operations: values and gradients, on odd shapes.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation, module};
use emu_kernels::ops;
use emu_kernels::random::{Philox, Stream};

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = Philox::new(seed, Stream::Init, 0).normals(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device).require_grad()
}

fn greatest_difference<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a.clone() - b.clone()).abs().max().into_scalar::<f32>()
}

/// Runs both, with the same output weights, and compares values and the three gradients.
fn compare(
    shape: [usize; 4],
    weight: Vec<usize>,
    ours: impl Fn(Tensor<4>, Tensor<1>, Tensor<4>, Tensor<1>) -> Tensor<4>,
    theirs: impl Fn(Tensor<4>, Tensor<1>, Tensor<4>, Tensor<1>) -> Tensor<4>,
) -> f32 {
    let device = Device::flex().autodiff();
    let x = random(shape, 1, &device);
    let kernel = random([weight[0], weight[1], weight[2], weight[2]], 2, &device);
    let scale = random([weight[0]], 3, &device);
    let bias = random([weight[0]], 4, &device);
    let run = |f: &dyn Fn(Tensor<4>, Tensor<1>, Tensor<4>, Tensor<1>) -> Tensor<4>| {
        let y = f(x.clone(), scale.clone(), kernel.clone(), bias.clone());
        let mix = random(y.dims(), 5, &device).detach();
        let grads = (y.clone() * mix).sum().backward();
        let parts = (
            x.grad(&grads),
            kernel.grad(&grads),
            scale.grad(&grads),
            bias.grad(&grads),
        );
        (y.inner(), parts)
    };
    let (y, (gx, gk, gs, gb)) = run(&ours);
    let (y2, (gx2, gk2, gs2, gb2)) = run(&theirs);
    let mut worst = greatest_difference(&y, &y2);
    let mut check = |d: f32| worst = worst.max(d);
    check(greatest_difference(&gx.expect("x"), &gx2.expect("x")));
    if let (Some(a), Some(b)) = (gk, gk2) {
        check(greatest_difference(&a, &b));
    }
    if let (Some(a), Some(b)) = (gs, gs2) {
        check(greatest_difference(&a, &b));
    }
    check(greatest_difference(&gb.expect("bias"), &gb2.expect("bias")));
    worst
}

#[test]
fn convolution_agrees_with_burn() {
    for (shape, out, k, stride, padding) in [
        ([3, 5, 7, 9], 4, 3, 1, (1, 1)),
        ([2, 3, 8, 8], 6, 3, 2, (1, 1)),
        ([5, 4, 9, 6], 3, 3, 2, (0, 1)),
        ([9, 6, 4, 4], 8, 1, 1, (0, 0)),
        ([2, 3, 28, 28], 5, 14, 14, (0, 0)),
        ([1, 1, 3, 3], 1, 3, 1, (1, 1)),
        ([17, 2, 5, 3], 3, 5, 1, (2, 2)),
        ([2, 2, 2, 2], 2, 3, 2, (1, 1)),
    ] {
        let burn = |x, _: Tensor<1>, w, b| {
            let mut options = ConvOptions::new([stride; 2], [0; 2], [1; 2], 1);
            options.padding = [padding; 2];
            module::conv2d(x, w, Some(b), options)
        };
        let ours = |x, _: Tensor<1>, w, b| ops::conv2d(x, w, Some(b), stride, padding);
        let error = compare(shape, vec![out, shape[1], k], ours, burn);
        assert!(
            error < 2e-4,
            "{shape:?} {out} {k} {stride} {padding:?}: {error}"
        );
    }
}

fn composed(x: Tensor<4>, w: Tensor<1>, b: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    let [n, c, h, width] = x.dims();
    let rows = x.reshape([n, groups, c / groups * h * width]);
    let centred = rows.clone() - rows.mean_dim(2);
    let std = centred.clone().square().mean_dim(2).add_scalar(eps).sqrt();
    (centred / std).reshape([n, c, h, width]) * w.reshape([1, c, 1, 1]) + b.reshape([1, c, 1, 1])
}

#[test]
fn group_norm_agrees_with_its_composition() {
    for (shape, groups) in [
        ([2, 8, 5, 3], 4),
        ([3, 6, 1, 7], 2),
        ([1, 4, 4, 4], 1),
        ([2, 12, 2, 2], 12),
    ] {
        let ours = |x, w, _: Tensor<4>, b| ops::group_norm(x, w, b, groups, 1e-5);
        let theirs = |x, w, _: Tensor<4>, b| composed(x, w, b, groups, 1e-5);
        let error = compare(shape, vec![shape[1], 1, 1], ours, theirs);
        assert!(error < 1e-4, "{shape:?} {groups}: {error}");
        let ours = |x, w, _: Tensor<4>, b| ops::group_norm_silu(x, w, b, None, groups, 1e-5);
        let theirs = |x, w, _: Tensor<4>, b| activation::silu(composed(x, w, b, groups, 1e-5));
        let error = compare(shape, vec![shape[1], 1, 1], ours, theirs);
        assert!(error < 1e-4, "{shape:?} {groups} silu: {error}");
    }
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let ours = |x, _: Tensor<1>, w, b| ops::conv2d(x, w, Some(b), 1, (1, 1));
    let wrong = |x, _: Tensor<1>, w, b| ops::conv2d(x, w, Some(b), 1, (1, 1)).mul_scalar(1.01);
    assert!(compare([1, 2, 4, 4], vec![3, 2, 3], ours, wrong) > 1e-3);
}
