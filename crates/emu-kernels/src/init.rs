//! Lazily initialized parameters, with initial values that are the same on every device.
//!
//! The values of a module depend on the [`Sequence`] that is open while it is built. A thread-local tells which this is, since
//! `Default` and Burn's `init` functions take no argument that could carry it.

use core::cell::Cell;
use core::marker::PhantomData;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Shape, Tensor, TensorData};

use crate::random::{Philox, Stream};

/// Initialization of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Normal of mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in `-bound..bound`.
    Uniform(f32),
    /// Ones on the diagonal of a matrix, zeros elsewhere.
    Identity,
}

thread_local! {
    /// Seed of the innermost open sequence of this thread, and parameters so far. Outside any, parameters are numbered with
    /// seed 0: enough for a model whose values are loaded.
    static OPEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// A sequence of initial values. Closed on drop, which continues the enclosing one where it stood.
#[must_use = "a sequence is closed when it is dropped"]
#[derive(Debug)]
pub struct Sequence {
    /// Seed and parameters so far of the enclosing sequence.
    outer: (u64, u64),
    /// Dropped on the thread that opened it.
    thread: PhantomData<*const ()>,
}

/// Opens a sequence of initial values: until it is dropped, modules built on this thread depend on `seed` and their order alone.
pub fn seed(seed: u64) -> Sequence {
    Sequence {
        outer: OPEN.replace((seed, 0)),
        thread: PhantomData,
    }
}

/// Builds two modules of equal sizes with equal initial values.
pub fn twins<T>(make: impl Fn() -> T) -> (T, T) {
    let start = OPEN.get();
    let first = make();
    OPEN.set(start);
    (first, make())
}

impl Drop for Sequence {
    fn drop(&mut self) {
        OPEN.set(self.outer);
    }
}

/// A parameter of this shape. Nothing is allocated before its first use, so that a model of any size can be built just to
/// query its names and shapes.
pub fn param<const D: usize>(shape: [usize; D], init: Init, device: &Device) -> Param<Tensor<D>> {
    let (seed, number) = OPEN.get();
    OPEN.set((seed, number + 1));
    let fill = move |device: &Device, require_grad: bool| {
        let n: usize = shape.iter().product();
        let tensor = match init {
            Init::Zeros => Tensor::zeros(shape, device),
            Init::Ones => Tensor::ones(shape, device),
            Init::Identity => {
                let columns = shape.get(1).copied().unwrap_or(1);
                let values: Vec<f32> = (0..n)
                    .map(|i| if i / columns == i % columns { 1.0 } else { 0.0 })
                    .collect();
                Tensor::from_data(TensorData::new(values, shape), device)
            }
            Init::Normal(std) => {
                let mut values = Philox::new(seed, Stream::Init, number).normals(n);
                values.iter_mut().for_each(|v| *v *= std);
                Tensor::from_data(TensorData::new(values, shape), device)
            }
            Init::Uniform(bound) => {
                let mut random = Philox::new(seed, Stream::Init, number);
                let values: Vec<f32> = (0..n)
                    .map(|_| (random.uniform() * 2.0 - 1.0) * bound)
                    .collect();
                Tensor::from_data(TensorData::new(values, shape), device)
            }
        };
        tensor.set_require_grad(require_grad)
    };
    Param::uninitialized(
        ParamId::new(),
        fill,
        device.clone(),
        true,
        Shape::from(shape),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<f32> {
        let device = Device::flex();
        let made = param([3], Init::Normal(1.0), &device).val();
        made.into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_module_depends_on_its_own_sequence_alone() {
        let alone = {
            let _sequence = seed(5);
            [values(), values()]
        };
        assert_ne!(alone[0], alone[1]);
        // Another model is built between the two.
        let _sequence = seed(5);
        let first = values();
        let other = {
            let _sequence = seed(6);
            values()
        };
        assert_eq!([first, values()], alone);
        assert_ne!(other, alone[0]);
    }

    #[test]
    fn twins_have_equal_values_and_count_once() {
        let _sequence = seed(5);
        let (first, second) = twins(values);
        assert_eq!(first, second);
        let next = values();
        let _again = seed(5);
        assert_eq!([values(), values()], [first, next]);
    }
}
