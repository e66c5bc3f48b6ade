//! The data folder: where files and pictures are looked for, and how they are read and written.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::EvalError;
use super::question::{Media, MediaKind};

/// Endings of video files.
const VIDEOS: [&str; 5] = ["mp4", "avi", "webm", "mkv", "mov"];

/// A data folder. Every file is looked for in the layout in which it is downloaded, and in the benchmark folder of
/// the released evaluation (`coco/annotations`, `coco/images`, ...).
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    annotations: Vec<PathBuf>,
    media: Vec<PathBuf>,
}

impl Folder {
    /// `homes` are the subfolders of the benchmark folder that belong to a task. `annotations` and `media` replace
    /// the places that would be searched.
    pub fn new(
        root: &Path,
        homes: &[&str],
        annotations: Option<&Path>,
        media: Option<&Path>,
    ) -> Self {
        let places = |given: Option<&Path>, usual: &[&str]| match given {
            Some(path) => vec![path.to_owned()],
            None => {
                let bases = std::iter::once("").chain(homes.iter().copied());
                bases
                    .flat_map(|base| usual.iter().map(move |sub| root.join(base).join(sub)))
                    .collect()
            }
        };
        Self {
            root: root.to_owned(),
            annotations: places(annotations, &["", "annotations"]),
            media: places(media, &["images", "videos", "frames", ""]),
        }
    }

    /// The first of these files that exists.
    pub fn optional(&self, names: &[&str]) -> Option<PathBuf> {
        let mut paths = names
            .iter()
            .flat_map(|name| self.annotations.iter().map(move |place| place.join(name)));
        paths.find(|path| path.is_file())
    }

    /// As [`Folder::optional`].
    ///
    /// # Errors
    /// If none exists.
    pub fn file(&self, what: &str, names: &[&str]) -> Result<PathBuf, EvalError> {
        self.optional(names).ok_or_else(|| EvalError::NoFile {
            what: what.to_owned(),
            folder: self.root.clone(),
            names: names.join(", "),
        })
    }

    /// The first of these pictures that exists.
    pub fn picture(&self, names: &[String]) -> Option<Media> {
        let found = names
            .iter()
            .filter_map(|name| relative(name))
            .find_map(|name| self.locate(&name, Path::is_file));
        found.map(|path| self.medium(MediaKind::Picture, path))
    }

    /// A video by its name: that file, that name with an ending of a video, or a folder of that name with frames.
    pub fn video(&self, names: &[String]) -> Option<Media> {
        let found = names
            .iter()
            .filter_map(|name| relative(name))
            .find_map(|name| {
                let exact = self.locate(&name, Path::is_file);
                let stem = match name.extension().and_then(|ending| ending.to_str()) {
                    Some(ending) if VIDEOS.contains(&ending.to_ascii_lowercase().as_str()) => {
                        name.with_extension("")
                    }
                    _ => name,
                };
                exact
                    .or_else(|| {
                        VIDEOS.iter().find_map(|ending| {
                            let mut file = stem.clone().into_os_string();
                            file.push(".");
                            file.push(ending);
                            self.locate(Path::new(&file), Path::is_file)
                        })
                    })
                    .or_else(|| self.locate(&stem, Path::is_dir))
            });
        found.map(|path| self.medium(MediaKind::Video, path))
    }

    fn locate(&self, name: &Path, is: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        self.media
            .iter()
            .map(|place| place.join(name))
            .find(|path| is(path))
    }

    fn medium(&self, kind: MediaKind, path: PathBuf) -> Media {
        let name = path.strip_prefix(&self.root).unwrap_or(&path);
        let parts: Vec<_> = name
            .components()
            .map(|part| part.as_os_str().to_string_lossy())
            .collect();
        Media {
            kind,
            name: parts.join("/"),
            path,
        }
    }
}

/// A path of a data file as a relative path that stays below its folder; backslashes separate too.
fn relative(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(name.replace('\\', "/"));
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (inside && !name.trim().is_empty()).then_some(path)
}

/// Reads a text file; a byte order mark is dropped.
pub fn read_text(path: &Path, what: &'static str) -> Result<String, EvalError> {
    let bytes = fs::read(path).map_err(EvalError::io("read", path))?;
    let text = String::from_utf8(bytes).map_err(|error| EvalError::Layout {
        path: path.to_owned(),
        what,
        reason: format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()),
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, EvalError> {
    let text = read_text(path, what)?;
    serde_json::from_str(&text).map_err(|error| EvalError::Layout {
        path: path.to_owned(),
        what,
        reason: error.to_string(),
    })
}

/// Writes a file completely or not at all: a temporary file beside it, renamed at the end.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(EvalError::io("write", path))
}

/// Writes a value as JSON: one line with `pretty` false.
pub fn write_json(
    path: &Path,
    value: &impl serde::Serialize,
    pretty: bool,
) -> Result<(), EvalError> {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let text = text.map_err(|error| EvalError::Io {
        verb: "write",
        path: path.to_owned(),
        source: error.into(),
    })?;
    write_file(path, format!("{text}\n").as_bytes())
}

/// Locks a file that only one run may write. Where the file system has no locks, it stays unlocked.
pub fn lock(file: &fs::File, path: &Path) -> Result<(), EvalError> {
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(EvalError::Locked(path.to_owned())),
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(()),
    }
}

/// SHA-256 of texts, each followed by a zero byte.
pub fn sha256<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hex(hash.finalize().as_slice())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "", "  "] {
            assert_eq!(relative(bad), None, "{bad:?}");
        }
        assert_eq!(
            relative("val2014\\a.jpg"),
            Some(PathBuf::from("val2014/a.jpg"))
        );
        assert_eq!(relative("./a.jpg"), Some(PathBuf::from("./a.jpg")));
    }

    #[test]
    fn media_are_found_in_every_layout() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        for path in [
            "coco/images/val2014/a.jpg",
            "b.png",
            "videos/v1.avi",
            "frames/v2/0.png",
            "videos/v3.x.mp4",
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, "x").expect("file");
        }
        let data = Folder::new(root, &["coco"], None, None);
        let found = |name: &str| data.picture(&[name.to_owned()]).map(|media| media.name);
        assert_eq!(
            found("val2014/a.jpg").as_deref(),
            Some("coco/images/val2014/a.jpg")
        );
        assert_eq!(found("b.png").as_deref(), Some("b.png"));
        assert_eq!(found("a.jpg"), None);
        let video = |name: &str| data.video(&[name.to_owned()]).map(|media| media.name);
        assert_eq!(video("v1").as_deref(), Some("videos/v1.avi"));
        assert_eq!(video("v1.mp4").as_deref(), Some("videos/v1.avi"));
        assert_eq!(video("v2").as_deref(), Some("frames/v2"));
        assert_eq!(video("v3.x").as_deref(), Some("videos/v3.x.mp4"));
        assert_eq!(video("v4"), None);
        let only = Folder::new(
            root,
            &["coco"],
            None,
            Some(&root.join("coco/images/val2014")),
        );
        assert!(only.picture(&["a.jpg".to_owned()]).is_some());
        assert!(only.picture(&["b.png".to_owned()]).is_none());
    }

    #[test]
    fn texts_are_hashed_apart() {
        assert_ne!(sha256(["ab", "c"]), sha256(["a", "bc"]));
        assert_eq!(hex(&[0, 171]), "00ab");
    }

    #[test]
    fn a_file_that_is_no_utf8_or_json_names_itself() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x.json");
        fs::write(&path, b"[1, \xff]").expect("file");
        let error = read_json::<Vec<u32>>(&path, "numbers").expect_err("no UTF-8");
        assert!(error.to_string().contains("byte 4 is not UTF-8"), "{error}");
        fs::write(&path, "\u{feff}[1, 2]").expect("file");
        assert_eq!(
            read_json::<Vec<u32>>(&path, "numbers").expect("read"),
            [1, 2]
        );
        fs::write(&path, "[1, 2").expect("file");
        let error = read_json::<Vec<u32>>(&path, "numbers").expect_err("cut off");
        assert!(
            error.to_string().contains("x.json") && error.to_string().contains("numbers"),
            "{error}"
        );
    }
}
