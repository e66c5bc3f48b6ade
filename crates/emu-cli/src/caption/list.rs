//! The pictures that the arguments name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::media::is_picture_name;

/// Pictures in the order of the arguments, those of a folder by path. A file that is named is taken whatever its name, one in a
/// folder if it has the name of a picture.
///
/// # Errors
/// Where a folder cannot be read, or holds no picture.
pub fn pictures(arguments: &[PathBuf], recursive: bool) -> Result<Vec<PathBuf>> {
    let mut pictures = vec![];
    for argument in arguments {
        if !argument.is_dir() {
            pictures.push(argument.clone());
            continue;
        }
        let before = pictures.len();
        walk(argument, recursive, &mut pictures)?;
        if pictures.len() == before {
            let deeper = match recursive {
                true => "",
                false => ", or look into its folders too with --recursive",
            };
            bail!(
                "{} holds no pictures. Name another folder{deeper}.",
                argument.display()
            );
        }
    }
    Ok(pictures)
}

fn walk(folder: &Path, recursive: bool, pictures: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || {
        format!(
            "{} cannot be read; check the path and its permissions",
            folder.display()
        )
    };
    let entries = std::fs::read_dir(folder).with_context(unreadable)?;
    let mut paths = vec![];
    for entry in entries {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    for path in paths {
        // Hidden files are those of systems and editors. Links to folders could lead in circles.
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let folder = path.is_dir();
        if hidden {
            continue;
        }
        if folder && recursive && !path.is_symlink() {
            walk(&path, recursive, pictures)?;
        } else if !folder && is_picture_name(&path) {
            pictures.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_listed_in_order() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("b/deep")).expect("a folder");
        std::fs::create_dir_all(at("none")).expect("a folder");
        for name in [
            "z.JPG",
            "a.png",
            "notes.txt",
            ".hidden.png",
            "b/c.webp",
            "b/deep/d.tiff",
        ] {
            std::fs::write(at(name), "").expect("written");
        }
        let paths = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
        let all = |recursive| pictures(&[root.path().to_owned()], recursive).expect("pictures");
        assert_eq!(all(false), paths(&["a.png", "z.JPG"]));
        assert_eq!(
            all(true),
            paths(&["a.png", "b/c.webp", "b/deep/d.tiff", "z.JPG"])
        );
        // A named file is taken as it is.
        let named = [
            at("notes.txt"),
            root.path().to_owned(),
            at("a.png"),
            at("gone.png"),
        ];
        assert_eq!(
            pictures(&named, false).expect("pictures"),
            paths(&["notes.txt", "a.png", "z.JPG", "a.png", "gone.png"])
        );
        for recursive in [false, true] {
            let error = pictures(&[at("none")], recursive).expect_err("empty");
            assert!(error.to_string().contains("holds no pictures"), "{error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.path(), at("b/circle")).expect("a link");
            assert_eq!(all(true).len(), 4);
        }
    }
}
