//! Tensor sources.

use crate::{PackError, Stored, TensorData, TensorInfo, tensor::Index};

/// A source from which tensors are read one at a time.
pub trait TensorSource {
    /// All tensors, in the order of the source.
    fn tensors(&self) -> &[TensorInfo];

    /// Reads one tensor.
    fn read(&self, name: &str) -> Result<TensorData, PackError>;

    /// Reads one tensor in the pack's quantized layout if the source has it quantized, in that layout or in blocks that are
    /// close to one of the pack's schemes.
    fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        self.read(name).map(Stored::Dense)
    }

    /// Info of the tensor with that name.
    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors().iter().find(|info| info.name == name)
    }
}

impl<S: TensorSource + ?Sized> TensorSource for Box<S> {
    fn tensors(&self) -> &[TensorInfo] {
        (**self).tensors()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        (**self).read(name)
    }

    fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        (**self).read_stored(name)
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        (**self).info(name)
    }
}

/// In-memory tensors, for tests and training.
#[derive(Debug, Default)]
pub struct InMemory {
    index: Index,
    bytes: Vec<Vec<u8>>,
}

impl InMemory {
    /// A source of these tensors. Duplicate names, or bytes that do not match the shape, are errors.
    pub fn new(tensors: impl IntoIterator<Item = TensorData>) -> Result<Self, PackError> {
        let mut source = Self::default();
        for tensor in tensors {
            source.push(tensor)?;
        }
        Ok(source)
    }

    /// Adds one tensor.
    pub fn push(&mut self, tensor: TensorData) -> Result<(), PackError> {
        tensor.check_len()?;
        let name = tensor.info.name.clone();
        if !self.index.push(tensor.info) {
            return Err(PackError::DuplicateTensor {
                file: "memory".into(),
                tensor: name,
            });
        }
        self.bytes.push(tensor.bytes);
        Ok(())
    }
}

impl TensorSource for InMemory {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let position = self.index.position(name);
        match position.and_then(|p| Some((self.index.infos().get(p)?, self.bytes.get(p)?))) {
            Some((info, bytes)) => Ok(TensorData {
                info: info.clone(),
                bytes: bytes.clone(),
            }),
            None => Err(PackError::MissingTensor {
                file: "memory".into(),
                tensor: name.into(),
            }),
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_refuses_duplicates() {
        let tensor = TensorData::from_f32("w", vec![1], &[1.0]).unwrap();
        assert_eq!(
            InMemory::new([tensor.clone(), tensor.clone()])
                .unwrap_err()
                .code(),
            "duplicate-tensor"
        );
        let source = InMemory::new([tensor.clone()]).unwrap();
        assert_eq!(source.read("w").unwrap(), tensor);
        assert_eq!(source.read("v").unwrap_err().code(), "missing-tensor");
    }
}
