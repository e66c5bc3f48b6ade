//! Module parameters as named tensors: names and shapes without allocation, loading, saving.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_kernels::device::persistent;
use emu_kernels::packed::{self, Packed};
use emu_pack::{Dtype, PackError, Quantized, Scheme, Stored, TensorData, TensorInfo};

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
/// The first error of `f`.
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
/// The first error of `read`, a shape mismatch, or a non-finite value.
pub fn load<M: Module, S: Into<Stored>>(
    module: M,
    device: &Device,
    mut read: impl FnMut(&str) -> Result<S, PackError>,
) -> Result<M, PackError> {
    fill(module, device, |name| Some(read(name)))
}

/// Fills the parameters for which `take` returns a value and leaves the others unchanged. Matrices stay packed if the
/// device can compute with them: quantized ones, and on a GPU those of f16.
///
/// # Errors
/// As [`load`].
pub fn fill<M: Module, S: Into<Stored>>(
    module: M,
    device: &Device,
    take: impl FnMut(&str) -> Option<Result<S, PackError>>,
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

impl<S: Into<Stored>, F: FnMut(&str) -> Option<Result<S, PackError>>> Fill<F> {
    /// The parameter with its value; `Ok(None)` if `take` has none for it.
    fn filled<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
    ) -> Result<Option<Param<Tensor<D>>>, PackError> {
        let name = self.path.join(".");
        let Some(stored) = (self.take)(&name).transpose()? else {
            return Ok(None);
        };
        let stored = stored.into();
        let shape = param.lazy_shape().dims::<D>();
        let found = match &stored {
            Stored::Dense(tensor) => &tensor.info.shape,
            Stored::Quantized(tensor) => &tensor.shape,
        };
        if *found != shape {
            return Err(PackError::Misshapen {
                file: "weights".into(),
                tensor: name,
                expected: format!("{shape:?}"),
                found: format!("{found:?}"),
            });
        }
        if D == 2 && packed::supported(&self.device) {
            let matrix = [shape[0], shape[1]];
            let packed = match &stored {
                Stored::Quantized(tensor) => Some(pack(tensor, matrix, &self.device)?),
                Stored::Dense(tensor) => pack_halves(tensor, matrix, &self.device)?,
            };
            if let Some(packed) = packed {
                return Ok(Some(packed::attach(param.id, packed)));
            }
        }
        let dense = stored.into_dense()?;
        dense.check_finite()?;
        let data = BurnData::new(dense.to_f32()?, shape);
        let tensor = persistent(&self.device, || Tensor::from_data(data, &self.device));
        let tensor = match self.device.is_autodiff() {
            true => tensor.require_grad(),
            false => tensor,
        };
        Ok(Some(Param::initialized(param.id, tensor)))
    }
}

/// Uploads a quantized matrix.
fn pack(
    tensor: &Quantized,
    [out, width]: [usize; 2],
    device: &Device,
) -> Result<Packed, PackError> {
    tensor.check_finite()?;
    let scheme = match tensor.scheme {
        Scheme::Q8 => packed::Scheme::Q8,
        Scheme::Q4 => packed::Scheme::Q4,
        Scheme::Q4_1 => packed::Scheme::Q4_1,
    };
    let halves = |t: &TensorData| -> Vec<u16> {
        let (pairs, _) = t.bytes.as_chunks::<2>();
        pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect()
    };
    let (words, scales) = (tensor.words.to_u32()?, halves(&tensor.scales));
    let mins = tensor.mins.as_ref().map(halves);
    persistent(device, || {
        let mins = mins.as_deref();
        Packed::new(scheme, [out, width], &words, &scales, mins, device)
    })
    .map_err(|error| misfit(&tensor.words, &error))
}

/// Uploads an f16 matrix to a device that keeps f16; `None` if the device does not, or the matrix has another type or
/// cannot be packed.
fn pack_halves(
    tensor: &TensorData,
    shape: [usize; 2],
    device: &Device,
) -> Result<Option<Packed>, PackError> {
    if tensor.info.dtype != Dtype::F16 || !packed::keeps_halves(device) || !packed::fits(shape) {
        return Ok(None);
    }
    tensor.check_finite()?;
    let (words, _) = tensor.bytes.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|&word| u32::from_le_bytes(word)).collect();
    let packed = persistent(device, || {
        Packed::new(packed::Scheme::F16, shape, &words, &[], None, device)
    });
    packed.map(Some).map_err(|error| misfit(tensor, &error))
}

fn misfit(tensor: &TensorData, error: &packed::PackedError) -> PackError {
    PackError::Misshapen {
        file: "weights".into(),
        tensor: tensor.info.name.clone(),
        expected: format!("{} {}", error.expected, error.what),
        found: error.found.to_string(),
    }
}

impl<S: Into<Stored>, F: FnMut(&str) -> Option<Result<S, PackError>>> ModuleMapper for Fill<F> {
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
        match self.filled(&param) {
            Ok(filled) => filled.unwrap_or(param),
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
