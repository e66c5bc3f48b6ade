//! Files of a folder, and the files that a table names.

use std::fs;
use std::path::{Path, PathBuf};

use super::Blob;
use crate::DataError;

/// Depth at which a folder is taken for a loop of links.
const MAX_DEPTH: usize = 32;

/// All files below a folder, sorted, without hidden ones and those of macOS archives. A file gives itself.
pub(crate) fn walk(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = vec![];
    if path.is_file() {
        files.push(path.to_path_buf());
    } else {
        collect(path, 0, &mut files)?;
        files.sort();
    }
    Ok(files)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if depth > MAX_DEPTH {
        return Err(DataError::malformed(
            folder,
            "its folders are nested too deeply, perhaps by a link to a folder around it",
        ));
    }
    for entry in fs::read_dir(folder).map_err(DataError::io("list", folder))? {
        let path = entry.map_err(DataError::io("list", folder))?.path();
        let hidden = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .is_none_or(|name| name.starts_with('.') || name == "__MACOSX");
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The extension in lower case; empty without one.
pub(crate) fn kind_of(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

/// File name without its extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A path below a folder, for messages: with forward slashes, on every system.
pub(crate) fn name_in(folder: &Path, path: &Path) -> String {
    let inner = path.strip_prefix(folder).unwrap_or(path);
    let inner = if inner.as_os_str().is_empty() {
        Path::new(path.file_name().unwrap_or_default())
    } else {
        inner
    };
    inner.to_string_lossy().replace('\\', "/")
}

/// Whether an extension (in lower case) is that of a picture.
pub(crate) fn is_picture(extension: &str) -> bool {
    matches!(
        extension,
        "png" | "jpg" | "jpeg" | "jpe" | "jfif" | "webp" | "gif" | "bmp" | "tif" | "tiff"
    )
}

/// Whether an extension (in lower case) is that of a picture, of a format that is read or not. Those that cannot be decoded
/// are told one by one.
pub(crate) fn is_any_picture(extension: &str) -> bool {
    is_picture(extension)
        || matches!(
            extension,
            "heic"
                | "heif"
                | "hif"
                | "avif"
                | "jxl"
                | "jp2"
                | "svg"
                | "psd"
                | "dng"
                | "cr2"
                | "cr3"
                | "nef"
                | "arw"
                | "orf"
                | "raf"
                | "rw2"
        )
}

/// Whether an extension (in lower case) is that of a video. Those that cannot be decoded are told one by one.
pub(crate) fn is_video(extension: &str) -> bool {
    matches!(
        extension,
        "mp4"
            | "m4v"
            | "mov"
            | "webm"
            | "mkv"
            | "avi"
            | "flv"
            | "mpg"
            | "mpeg"
            | "ts"
            | "wmv"
            | "ogv"
    )
}

/// The immediate subfolders of a folder, sorted; none if it cannot be listed.
pub(crate) fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The folders in which named files are searched, in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bases(Vec<PathBuf>);

impl Bases {
    /// The folder that the user names; otherwise that of the list, the one around it, and the folders in both.
    pub fn new(chosen: Option<&Path>, list: &Path) -> Self {
        if let Some(folder) = chosen {
            return Self(vec![folder.to_path_buf()]);
        }
        let home = list.parent().unwrap_or(Path::new("")).to_path_buf();
        let mut bases = vec![home.clone()];
        let around = home.parent().map(Path::to_path_buf);
        bases.extend(around.clone());
        bases.extend(subfolders(&home));
        bases.extend(around.iter().flat_map(|folder| subfolders(folder)));
        let images: Vec<PathBuf> = bases
            .iter()
            .filter(|folder| folder.ends_with("images"))
            .flat_map(|folder| subfolders(folder))
            .collect();
        bases.extend(images);
        Self(bases)
    }

    /// The named file: absolute, or below one of the folders. Windows paths are understood.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let name = name.trim();
        if name.is_empty() {
            return None;
        }
        let slashes = name.replace('\\', "/");
        [name, slashes.as_str()].into_iter().find_map(|name| {
            if Path::new(name).is_absolute() {
                return Some(PathBuf::from(name)).filter(|path| path.exists());
            }
            let mut paths = self.0.iter().map(|base| base.join(name));
            paths.find(|path| path.exists())
        })
    }

    /// The named file as a blob.
    pub fn blob(&self, name: &str) -> Option<Blob> {
        Blob::file(&self.find(name)?)
    }

    /// The folders, for messages.
    pub fn names(&self) -> String {
        let first: Vec<String> = self
            .0
            .iter()
            .take(2)
            .map(|base| base.display().to_string())
            .collect();
        first.join(", ")
    }
}
