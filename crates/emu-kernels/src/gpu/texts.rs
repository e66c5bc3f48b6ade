//! If the environment variable EMU_KERNEL_TEXTS names a folder, every compiled kernel writes its text there, in the form for
//! browsers. Tests use this to run the shader compilers of browsers on natively used kernels.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

/// Values of a template's constants.
type Constants<'a> = &'a [(&'static str, usize)];

/// Writes a kernel's text, if enabled.
///
/// # Panics
/// If the folder cannot be written: a test that relies on it would see too few kernels.
pub fn keep(name: &str, template: &str, constants: Constants, text: impl FnOnce() -> String) {
    let Some(folder) = std::env::var_os("EMU_KERNEL_TEXTS") else {
        return;
    };
    let text = text();
    let path = Path::new(&folder).join(file_name(name, template, constants, &text));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
    if let Err(error) = written {
        panic!(
            "{} cannot be written ({error}). Set EMU_KERNEL_TEXTS to another folder, or to nothing.",
            path.display()
        );
    }
}

/// File name: the kernel, its enabled sections, and a hash that tells apart texts with the same sections.
fn file_name(name: &str, template: &str, constants: Constants, text: &str) -> String {
    let section = |name: &str| template.contains(&format!("//@if {name}\n"));
    let mut sections: Vec<_> = { constants.iter() }
        .filter(|(name, value)| *value != 0 && section(name))
        .map(|(name, _)| *name)
        .collect();
    sections.sort_unstable();
    sections.dedup();
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
        let template =
            "//@if subgroups\nfast {{size}}\n//@end\n//@if trees\nslow {{size}}\n//@end\n";
        let named = |subgroups: usize, text: &str| {
            let constants = [
                ("subgroups", subgroups),
                ("trees", 1 - subgroups),
                ("size", 7),
            ];
            file_name("sum", template, &constants, text)
        };
        let names = [named(1, "fast 7"), named(0, "slow 7"), named(0, "slow 8")];
        assert!(names[0].starts_with("sum~subgroups~"), "{names:?}");
        assert!(names[1].starts_with("sum~trees~"), "{names:?}");
        assert_ne!(names[1], names[2]);
        assert_eq!(names[1], named(0, "slow 7"));
    }
}
