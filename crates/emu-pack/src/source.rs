//! Where tensors come from.

use crate::{PackError, Stored, TensorData, TensorInfo, tensor::Index};

/// A place that tensors can be read from, one at a time.
pub trait TensorSource {
    /// Everything there is, in the source's own order.
    fn tensors(&self) -> &[TensorInfo];

    /// Reads one tensor.
    fn read(&self, name: &str) -> Result<TensorData, PackError>;

    /// Reads one tensor in the pack's own blocks where the source has it in blocks: those, or others that nearly have a
    /// scheme's values.
    fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        self.read(name).map(Stored::Dense)
    }

    /// What the tensor of that name is.
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

/// Tensors held in memory: for tests and for weights that training has at hand.
#[derive(Debug, Default)]
pub struct InMemory {
    index: Index,
    bytes: Vec<Vec<u8>>,
}

impl InMemory {
    /// A source of these tensors. Two of one name, or bytes that do not fit the shape, are errors.
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
