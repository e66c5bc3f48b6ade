//! Safetensors files and folders, read one tensor at a time.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    FileKind, PackError, TensorData, TensorInfo, TensorSource,
    header::Header,
    manifest::check_file_name,
    sniff::{refuse_others, sniff},
    tensor::Index,
};

/// Maximum size of an index file.
const MAX_INDEX: u64 = 64 << 20;

/// A seekable byte source: a file, or memory in tests.
pub(crate) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// A `.safetensors` file. Opening reads its header, [`read`](TensorSource::read) the bytes of one tensor.
pub struct SafetensorsFile {
    file: String,
    header: Header,
    bytes: Mutex<Box<dyn ReadSeek>>,
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafetensorsFile")
            .field("file", &self.file)
            .field("header", &self.header)
            .finish()
    }
}

impl SafetensorsFile {
    /// Opens a file and checks its header: every tensor inside the file, no gaps, no duplicate names.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PackError> {
        let name = path.as_ref().display().to_string();
        let file = File::open(path).map_err(|e| PackError::io(&name, e))?;
        Self::from_reader(name, file)
    }

    /// Opens any seekable reader; `name` is for error messages.
    pub fn from_reader(
        name: impl Into<String>,
        reader: impl Read + Seek + Send + 'static,
    ) -> Result<Self, PackError> {
        let (file, mut bytes): (String, Box<dyn ReadSeek>) = (name.into(), Box::new(reader));
        let io = |e| PackError::io(&file, e);
        let kind = sniff(&file, &mut bytes)?;
        refuse_others(&file, kind, &[FileKind::Safetensors, FileKind::Empty])?;
        let file_len = bytes.seek(SeekFrom::End(0)).map_err(io)?;
        if file_len < 8 {
            return Err(PackError::ShortFile {
                file,
                expected: 8,
                found: file_len,
            });
        }
        bytes.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut first = [0; 8];
        bytes.read_exact(&mut first).map_err(io)?;
        let start = Header::prefix_len(&file, first, file_len)?;
        let mut json = vec![0; start as usize - 8];
        bytes.read_exact(&mut json).map_err(io)?;
        let header = Header::parse(&file, &json, start, file_len)?;
        Ok(Self {
            file,
            header,
            bytes: Mutex::new(bytes),
        })
    }
}

impl TensorSource for SafetensorsFile {
    fn tensors(&self) -> &[TensorInfo] {
        self.header.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let found = self.header.index.position(name);
        let found = found.and_then(|p| {
            Some((
                self.header.index.infos().get(p)?,
                self.header.ranges.get(p)?,
            ))
        });
        let Some((info, range)) = found else {
            return Err(PackError::MissingTensor {
                file: self.file.clone(),
                tensor: name.into(),
            });
        };
        // Bounded by the length of the file, as checked by `open`.
        let mut bytes = vec![0; info.byte_len()?];
        let mut reader = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        reader
            .seek(SeekFrom::Start(range.start))
            .map_err(|e| PackError::io(&self.file, e))?;
        reader
            .read_exact(&mut bytes)
            .map_err(|e| PackError::io(format!("{} (tensor `{name}`)", self.file), e))?;
        Ok(TensorData {
            info: info.clone(),
            bytes,
        })
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.index.get(name)
    }
}

/// Writes tensors as one safetensors file, in the order given.
pub fn write_safetensors(out: &mut impl Write, tensors: &[TensorData]) -> Result<(), PackError> {
    let io = |e| PackError::io("safetensors output", e);
    let mut names = HashSet::new();
    for tensor in tensors {
        tensor.check_len()?;
        if !names.insert(&tensor.info.name) {
            let tensor = tensor.info.name.clone();
            return Err(PackError::DuplicateTensor {
                file: "safetensors output".into(),
                tensor,
            });
        }
    }
    out.write_all(&Header::write(tensors.iter().map(|tensor| &tensor.info))?)
        .map_err(io)?;
    tensors
        .iter()
        .try_for_each(|tensor| out.write_all(&tensor.bytes))
        .map_err(io)
}

/// A model sharded over several files: those of an `*.index.json`, or every file of one kind in a folder.
pub struct Sharded<S> {
    shards: Vec<S>,
    index: Index,
    /// The shard of each tensor, in the order of `index`.
    owner: Vec<usize>,
}

impl<S: TensorSource> Sharded<S> {
    /// Joins sources, each with a name for error messages. A tensor in two of them is an error.
    pub fn new(sources: impl IntoIterator<Item = (String, S)>) -> Result<Self, PackError> {
        let (mut shards, mut files) = (Vec::new(), Vec::<String>::new());
        let (mut index, mut owner) = (Index::default(), Vec::<usize>::new());
        for (file, source) in sources {
            for info in source.tensors() {
                if !index.push(info.clone()) {
                    let first = index
                        .position(&info.name)
                        .and_then(|p| files.get(*owner.get(p)?));
                    let file = format!("{} (and {file})", first.unwrap_or(&file));
                    return Err(PackError::DuplicateTensor {
                        file,
                        tensor: info.name.clone(),
                    });
                }
                owner.push(shards.len());
            }
            shards.push(source);
            files.push(file);
        }
        Ok(Self {
            shards,
            index,
            owner,
        })
    }

    /// Opens the files of an `*.index.json` with `open`; each tensor must be in the file that the index names.
    pub fn from_index(
        path: &Path,
        open: impl Fn(&Path) -> Result<S, PackError>,
    ) -> Result<Self, PackError> {
        #[derive(serde::Deserialize)]
        struct IndexJson {
            weight_map: BTreeMap<String, String>,
        }
        let file = path.display().to_string();
        let text = read_small(path, MAX_INDEX)?;
        refuse_others(&file, FileKind::of(&text), &[FileKind::Json])?;
        let IndexJson { weight_map } =
            serde_json::from_slice(&text).map_err(|e| PackError::BadHeader {
                file: file.clone(),
                reason: format!("no weight_map in it ({e})"),
            })?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut sources = Vec::with_capacity(names.len());
        for name in names {
            check_file_name(name)?;
            sources.push((name.clone(), open(&folder.join(name))?));
        }
        for (tensor, file) in &weight_map {
            let source = sources.iter().find(|(name, _)| name == file);
            if source.and_then(|(_, source)| source.info(tensor)).is_none() {
                return Err(PackError::MissingTensor {
                    file: file.clone(),
                    tensor: tensor.clone(),
                });
            }
        }
        Self::new(sources)
    }
}

impl<S: TensorSource> TensorSource for Sharded<S> {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let owner = self.index.position(name).and_then(|p| self.owner.get(p));
        match owner.and_then(|&s| self.shards.get(s)) {
            Some(shard) => shard.read(name),
            None => Err(PackError::MissingTensor {
                file: "the folder".into(),
                tensor: name.into(),
            }),
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

/// A folder of safetensors files, with or without an index.
pub type SafetensorsFolder = Sharded<SafetensorsFile>;

impl SafetensorsFolder {
    /// Opens the files that the folder's only `*.safetensors.index.json` lists, or else all `*.safetensors`.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, PackError> {
        let folder = folder.as_ref();
        let mut indices = files_ending(folder, ".safetensors.index.json")?;
        if indices.len() > 1 {
            let reason = format!("it holds {} index files", indices.len());
            return Err(PackError::NoWeights {
                path: folder.display().to_string(),
                reason,
            });
        }
        if let Some(index) = indices.pop() {
            return Self::from_index(&index, |path| SafetensorsFile::open(path));
        }
        let files = files_ending(folder, ".safetensors")?;
        if files.is_empty() {
            let reason = "it holds no .safetensors file".into();
            return Err(PackError::NoWeights {
                path: folder.display().to_string(),
                reason,
            });
        }
        let open = |path: PathBuf| Ok((path.display().to_string(), SafetensorsFile::open(&path)?));
        Self::new(
            files
                .into_iter()
                .map(open)
                .collect::<Result<Vec<_>, PackError>>()?,
        )
    }
}

/// The files of a folder whose names have this ending, sorted.
fn files_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, PackError> {
    let io = |e| PackError::io(folder.display(), e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(ending) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, PackError> {
    let io = |e| PackError::io(path.display(), e);
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(io)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(PackError::TooLarge {
            what: path.display().to_string(),
            size: format!("more than {limit} bytes"),
            limit: format!("{limit} bytes"),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, tensors: &[(&str, f32)]) {
        let one =
            |(name, value): &(&str, f32)| TensorData::from_f32(*name, vec![1], &[*value]).unwrap();
        let tensors: Vec<_> = tensors.iter().map(one).collect();
        write_safetensors(&mut File::create(folder.join(file)).unwrap(), &tensors).unwrap();
    }

    #[test]
    fn folder_with_and_without_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(
            SafetensorsFolder::open(path).err().unwrap().code(),
            "no-weights"
        );
        write(path, "b.safetensors", &[("y", 2.0)]);
        write(path, "a.safetensors", &[("x", 1.0)]);
        let source = SafetensorsFolder::open(path).unwrap();
        assert_eq!(
            source
                .tensors()
                .iter()
                .map(|i| i.name.as_str())
                .collect::<Vec<_>>(),
            ["x", "y"]
        );
        assert_eq!(source.read("y").unwrap().to_f32().unwrap(), [2.0]);
        assert_eq!(source.read("z").unwrap_err().code(), "missing-tensor");

        let index = path.join("m.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"y":"b.safetensors"}}"#).unwrap();
        assert_eq!(SafetensorsFolder::open(path).unwrap().tensors().len(), 1);
        for (text, code) in [
            (r#"{"weight_map":{"z":"b.safetensors"}}"#, "missing-tensor"),
            (r#"{"weight_map":{"z":"gone.safetensors"}}"#, "io"),
            (r#"{"weight_map":{"z":"../b.safetensors"}}"#, "bad-name"),
            (r#"{"weight_map":3}"#, "bad-header"),
        ] {
            std::fs::write(&index, text).unwrap();
            assert_eq!(
                SafetensorsFolder::open(path).err().unwrap().code(),
                code,
                "{text}"
            );
        }
        std::fs::remove_file(index).unwrap();
        write(path, "c.safetensors", &[("x", 3.0)]);
        let message = SafetensorsFolder::open(path).err().unwrap().to_string();
        assert!(
            message.contains("a.safetensors")
                && message.contains("c.safetensors")
                && message.contains("`x`"),
            "{message}"
        );
    }

    #[test]
    fn a_file_that_shrinks_after_opening_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.safetensors", &[("x", 1.0), ("y", 2.0)]);
        let path = folder.path().join("a.safetensors");
        let source = SafetensorsFile::open(&path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(path.metadata().unwrap().len() - 2)
            .unwrap();
        assert_eq!(source.read("x").unwrap().to_f32().unwrap(), [1.0]);
        assert_eq!(source.read("y").unwrap_err().code(), "io");
        assert_eq!(
            SafetensorsFile::open(&path).unwrap_err().code(),
            "short-file"
        );
        assert_eq!(
            SafetensorsFile::open(folder.path().join("gone"))
                .unwrap_err()
                .code(),
            "io"
        );
    }
}
