//! Between modules and named tensors: names and shapes without allocation, loading, saving.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_pack::{Dtype, PackError, TensorData, TensorInfo};

/// Names and shapes of a module's parameters, in the order of its fields. Allocates nothing.
pub fn parameters<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut list = List {
        path: vec![],
        found: vec![],
    };
    module.visit(&mut list);
    list.found
}

struct List {
    path: Vec<String>,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found
            .push((self.path.join("."), param.lazy_shape().dims::<D>().to_vec()));
    }
}

/// Calls `f` with every parameter's name and value as f32, one at a time.
///
/// # Errors
/// The first that `f` returns.
pub fn export<M: Module, E>(
    module: &M,
    f: impl FnMut(TensorData) -> Result<(), E>,
) -> Result<(), E> {
    let mut export = Export {
        path: vec![],
        f,
        failed: None,
    };
    module.visit(&mut export);
    export.failed.map_or(Ok(()), Err)
}

struct Export<F, E> {
    path: Vec<String>,
    f: F,
    failed: Option<E>,
}

impl<F: FnMut(TensorData) -> Result<(), E>, E> ModuleVisitor for Export<F, E> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.failed.is_none() {
            let data = param.val().into_data().convert::<f32>();
            let info = TensorInfo {
                name: self.path.join("."),
                dtype: Dtype::F32,
                shape: param.lazy_shape().dims::<D>().to_vec(),
            };
            self.failed = (self.f)(TensorData {
                info,
                bytes: data.bytes().to_vec(),
            })
            .err();
        }
    }
}

/// Fills every parameter from `read`, one tensor at a time.
///
/// # Errors
/// The first of `read`, a shape that differs, or a value that is not finite.
pub fn load<M: Module>(
    module: M,
    device: &Device,
    mut read: impl FnMut(&str) -> Result<TensorData, PackError>,
) -> Result<M, PackError> {
    fill(module, device, |name| Some(read(name)))
}

/// Fills the parameters that `take` has a value for, and leaves the others as they are.
///
/// # Errors
/// As [`load`].
pub fn fill<M: Module>(
    module: M,
    device: &Device,
    take: impl FnMut(&str) -> Option<Result<TensorData, PackError>>,
) -> Result<M, PackError> {
    let mut fill = Fill {
        path: vec![],
        device: device.clone(),
        take,
        failed: None,
    };
    let module = module.map(&mut fill);
    match fill.failed {
        None => Ok(module),
        Some(error) => Err(error),
    }
}

struct Fill<F> {
    path: Vec<String>,
    device: Device,
    take: F,
    failed: Option<PackError>,
}

impl<F: FnMut(&str) -> Option<Result<TensorData, PackError>>> Fill<F> {
    fn tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
    ) -> Result<Option<Tensor<D>>, PackError> {
        let name = self.path.join(".");
        let Some(data) = (self.take)(&name).transpose()? else {
            return Ok(None);
        };
        if data.info.shape != shape {
            return Err(PackError::Misshapen {
                file: "weights".into(),
                tensor: name,
                expected: format!("{shape:?}"),
                found: format!("{:?}", data.info.shape),
            });
        }
        data.check_finite()?;
        let data = BurnData::new(data.to_f32()?, shape);
        Ok(Some(Tensor::from_data(data, &self.device)))
    }
}

impl<F: FnMut(&str) -> Option<Result<TensorData, PackError>>> ModuleMapper for Fill<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.tensor(param.lazy_shape().dims::<D>()) {
            Ok(None) => param,
            Ok(Some(tensor)) => {
                let id = param.id;
                let tensor = if self.device.is_autodiff() {
                    tensor.require_grad()
                } else {
                    tensor
                };
                Param::initialized(id, tensor)
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// The parameters of a module as f32 tensors by name.
pub fn to_map<M: Module>(module: &M) -> BTreeMap<String, TensorData> {
    let mut map = BTreeMap::new();
    let done: Result<(), core::convert::Infallible> = export(module, |tensor| {
        map.insert(tensor.info.name.clone(), tensor);
        Ok(())
    });
    let Ok(()) = done;
    map
}
