//! CPU kernels: plain loops over slices, parallel over independent items such as images or heads. A file for each, in
//! the place of the shader whose reference it is; a topic's file implements the topic's trait with them.
//!
//! Work is partitioned by size alone, never by the number of threads, so that the summation order is fixed and a resumed
//! training is reproducible bit for bit.

mod activation;
mod attention;
mod conv;
mod decode;
mod int8;
mod math;
mod matmul;
mod matrix;
mod norm;
mod sampling;
#[cfg(not(target_family = "wasm"))]
mod thread_pool;

use burn::backend::flex::FlexTensor;
use burn::tensor::{Bytes, DType, Shape};

/// Makes a tensor contiguous with offset 0; copies only if needed.
fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() && x.layout().start_offset() == 0 {
        x
    } else {
        x.to_contiguous()
    }
}

/// The values of a contiguous tensor.
fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().unwrap_or_default()
}

/// The indices in a contiguous integer tensor; negative ones become 0.
fn integers(x: &FlexTensor) -> Vec<usize> {
    let index = |value: i64| usize::try_from(value).unwrap_or(0);
    match x.dtype() {
        DType::I64 => x
            .as_slice::<i64>()
            .unwrap_or_default()
            .iter()
            .map(|&v| index(v))
            .collect(),
        _ => x
            .as_slice::<i32>()
            .unwrap_or_default()
            .iter()
            .map(|&v| index(v.into()))
            .collect(),
    }
}

/// Builds a tensor from values.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    use burn::backend::flex::Layout;
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::new(shape)),
        DType::F32,
    )
}

/// Runs `f` over items in parallel, compiled for the widest SIMD instructions of the machine.
#[cfg(not(target_family = "wasm"))]
fn for_each<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    use rayon::prelude::*;
    let arch = pulp::Arch::new();
    items
        .into_par_iter()
        .for_each(|item| arch.dispatch(Task(&f, item)));
}

/// Runs `f` over items on the spinning thread pool: for work of a few microseconds.
#[cfg(not(target_family = "wasm"))]
fn for_each_soon<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync) {
    let items: Vec<_> = { items.into_iter() }
        .map(|item| std::sync::Mutex::new(Some(item)))
        .collect();
    thread_pool::run(items.len(), &|i| {
        let item = items[i].lock().ok().and_then(|mut item| item.take());
        item.into_iter().for_each(&f);
    });
}

/// Runs `f` over items.
#[cfg(target_family = "wasm")]
fn for_each_soon<T>(items: Vec<T>, f: impl Fn(T)) {
    items.into_iter().for_each(f);
}

/// A call whose body is compiled once per instruction set.
#[cfg(not(target_family = "wasm"))]
struct Task<'a, F, T>(&'a F, T);

#[cfg(not(target_family = "wasm"))]
impl<F: Fn(T), T> pulp::NullaryFnOnce for Task<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        (self.0)(self.1);
    }
}

/// Runs `f` over items.
#[cfg(target_family = "wasm")]
fn for_each<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    items.into_iter().for_each(f);
}

#[cfg(test)]
mod tests;
