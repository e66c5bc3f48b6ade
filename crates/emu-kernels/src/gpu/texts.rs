//! If the environment variable EMU_KERNEL_TEXTS names a folder, every compiled kernel writes its text there, in the form for
//! browsers. Tests use this to run the shader compilers of browsers on natively used kernels.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

/// Writes a kernel's text, if enabled.
///
/// # Panics
/// If the folder cannot be written: a test that relies on it would see too few kernels.
pub fn keep(name: &str, sections: &[&str], text: impl FnOnce() -> String) {
    let Some(folder) = std::env::var_os("EMU_KERNEL_TEXTS") else {
        return;
    };
    let text = text();
    let path = Path::new(&folder).join(file_name(name, sections, &text));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
    if let Err(error) = written {
        panic!(
            "{} cannot be written ({error}). Set EMU_KERNEL_TEXTS to another folder, or to nothing.",
            path.display()
        );
    }
}

/// File name: the kernel, its sections, and a hash that tells apart texts with the same sections.
fn file_name(name: &str, sections: &[&str], text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = hasher.finish();
    format!("{name}~{}~{hash:016x}.wgsl", sections.join("+"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_named_by_their_sections() {
        let names = [(true, "fast 7"), (false, "slow 7"), (false, "slow 8")].map(|(fast, text)| {
            let sections = if fast {
                vec!["gated", "subgroups"]
            } else {
                vec![]
            };
            file_name("sum", &sections, text)
        });
        assert!(names[0].starts_with("sum~gated+subgroups~"), "{names:?}");
        assert!(names[1].starts_with("sum~~"), "{names:?}");
        assert_ne!(names[1], names[2]);
        assert_eq!(names[1], file_name("sum", &[], "slow 7"));
    }
}
