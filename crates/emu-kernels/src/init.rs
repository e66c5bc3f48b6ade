//! Lazily initialized parameters, with initial values that are the same on every device.

use core::cell::Cell;

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
    static SEQUENCE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Restarts the sequence of initial values: modules built after this call on this thread depend on `seed` alone.
pub fn seed(seed: u64) {
    SEQUENCE.set((seed, 0));
}

/// Builds two modules of equal sizes with equal initial values.
pub fn twins<T>(make: impl Fn() -> T) -> (T, T) {
    let start = SEQUENCE.get();
    let first = make();
    SEQUENCE.set(start);
    (first, make())
}

/// A parameter of this shape. Nothing is allocated before its first use, so that a model of any size can be built just to
/// query its names and shapes.
pub fn param<const D: usize>(shape: [usize; D], init: Init, device: &Device) -> Param<Tensor<D>> {
    let (seed, number) = SEQUENCE.get();
    SEQUENCE.set((seed, number + 1));
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
