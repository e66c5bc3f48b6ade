//! Weights of which names, types and shapes are known, and not the values.

use std::io::{Read, Seek};

use super::{PyTorchFile, folder::from_reader};
use crate::{
    FileKind, PackError, TensorData, TensorInfo, TensorSource, sniff::sniff, tensor::Index,
};

/// The tensors of one or more files, described by their headers. Serves where a [`TensorSource`] is checked and planned, before it is
/// read; reading a tensor is an error.
#[derive(Debug, Default)]
pub struct Described {
    index: Index,
    file: String,
}

impl Described {
    /// No tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the tensors of a weight file of any kind. Reads headers only, and little else, so that it suits readers on which a seek
    /// is slow, such as files on a server.
    ///
    /// # Errors
    /// The file is of no known kind, its header is invalid, or a tensor is there already. Whether the values are there is checked
    /// by [`open_weights`](super::open_weights) only.
    pub fn add(
        &mut self,
        file: impl Into<String>,
        mut reader: impl Read + Seek + Send + 'static,
    ) -> Result<(), PackError> {
        let file: String = file.into();
        let infos = match sniff(&file, &mut reader)? {
            FileKind::Zip => PyTorchFile::infos(file.clone(), reader)?,
            _ => from_reader(file.clone(), reader)?.tensors().to_vec(),
        };
        for info in infos {
            let tensor = info.name.clone();
            if !self.index.push(info) {
                return Err(PackError::DuplicateTensor { file, tensor });
            }
        }
        self.file = file;
        Ok(())
    }
}

impl TensorSource for Described {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        Err(PackError::NoWeights {
            path: self.file.clone(),
            reason: format!("the values of tensor `{name}` are not here, only the headers"),
        })
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}
