//! The callables that a pickle may use, and their results.

use super::{Callable, Id, Machine, Storage, StorageType, Tensor, Value};
use crate::{Dtype, PackError};

impl Machine<'_> {
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<(), PackError> {
        let callable = match (module, name) {
            ("collections", "OrderedDict") => Callable::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Callable::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Callable::RebuildParameter,
            ("torch", storage) if is_storage(storage) => {
                Callable::StorageType(storage_type(storage))
            }
            _ => {
                return Err(PackError::ForbiddenGlobal {
                    file: self.file.into(),
                    name: shortened(module, name),
                });
            }
        };
        self.push(Value::Callable(callable))
    }

    pub(super) fn reduce(&mut self) -> Result<(), PackError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let arguments = match self.value(arguments)? {
            // The copy is bounded: no callable below takes more than seven arguments.
            Value::Tuple(items) if items.len() <= 7 => items.clone(),
            _ => return Err(self.bad("a call has no fitting arguments")),
        };
        match (self.value(callable)?, arguments.as_slice()) {
            (Value::Callable(Callable::OrderedDict), []) => self.push(Value::Dict(vec![])),
            (
                Value::Callable(Callable::RebuildTensor),
                [storage, offset, shape, strides, _grad, _hooks, ..],
            ) => {
                let tensor = self.tensor(*storage, *offset, *shape, *strides)?;
                self.push(Value::Tensor(Box::new(tensor)))
            }
            (Value::Callable(Callable::RebuildParameter), [tensor, _grad, _hooks]) => {
                match self.value(*tensor)? {
                    Value::Tensor(_) => self.push_id(*tensor),
                    other => Err(self.bad(format!("a parameter is {}", other.kind()))),
                }
            }
            (Value::Callable(_), other) => {
                Err(self.bad(format!("a call has {} arguments", other.len())))
            }
            (other, _) => Err(self.bad(format!("it calls {}", other.kind()))),
        }
    }

    pub(super) fn tensor(
        &self,
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    ) -> Result<Tensor, PackError> {
        let Value::Storage(storage) = self.value(storage)? else {
            return Err(self.bad("a tensor has no storage"));
        };
        let (offset, shape, strides) =
            (self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
        match shape.len() == strides.len() {
            true => Ok(Tensor {
                storage: (**storage).clone(),
                offset,
                shape,
                strides,
            }),
            false => Err(self.bad("a tensor has as many strides as dimensions, but not here")),
        }
    }

    /// Parses `("storage", type, key, device, elements)`; before PyTorch 1.6 followed by None or the view metadata.
    pub(super) fn storage(&self, id: Id) -> Result<Storage, PackError> {
        let Value::Tuple(items) = self.value(id)? else {
            return Err(self.bad("a storage is no tuple"));
        };
        let (tag, kind, key, elements) = match *items.as_slice() {
            [tag, kind, key, _device, elements] => (tag, kind, key, elements),
            [tag, kind, key, _device, elements, view] => match self.value(view)? {
                Value::None => (tag, kind, key, elements),
                _ => return Err(self.bad("a storage is part of another one")),
            },
            _ => {
                return Err(self.bad(format!(
                    "a storage has {} properties in place of 5",
                    items.len()
                )));
            }
        };
        if self.str(tag)? != "storage" {
            return Err(self.bad("it refers to something outside that is no storage"));
        }
        let Value::Callable(Callable::StorageType(kind)) = self.value(kind)? else {
            return Err(self.bad("a storage has no type"));
        };
        match self.value(key)? {
            // Keys must be short, since every tensor of the storage holds a copy.
            Value::Text(key) if key.len() <= 100 => Ok(Storage {
                kind: kind.clone(),
                key: key.clone(),
                elements: self.size(elements)?,
            }),
            _ => Err(self.bad("a storage has no key")),
        }
    }

    /// Pops the state (BUILD). Only dictionaries have one (`_metadata`), and it contains no weights.
    pub(super) fn build(&mut self) -> Result<(), PackError> {
        self.pop()?;
        match self.value(self.top()?)? {
            Value::Dict(_) => Ok(()),
            other => Err(self.bad(format!("it changes the insides of {}", other.kind()))),
        }
    }
}

fn shortened(module: &str, name: &str) -> String {
    module
        .chars()
        .take(100)
        .chain(['.'])
        .chain(name.chars().take(100))
        .collect()
}

fn is_storage(name: &str) -> bool {
    (8..=40).contains(&name.len())
        && name.ends_with("Storage")
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn storage_type(name: &str) -> StorageType {
    StorageType::Known(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        other => return StorageType::Unknown(other.into()),
    })
}
