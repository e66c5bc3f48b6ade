//! Where the variable EMU_KERNEL_TEXTS names a folder, every kernel that is made leaves its text there as a browser gets it.
//! So the tests give what ran natively to the compilers of browsers.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

use super::{SUBGROUPS, Shader};

/// Writes a kernel's text, where that is wanted.
///
/// # Panics
/// Where the folder cannot be written: a test that relies on it would see too little.
pub fn keep(shader: &Shader) {
    let Some(folder) = std::env::var_os("EMU_KERNEL_TEXTS") else {
        return;
    };
    let text = text(shader);
    let path = Path::new(&folder).join(file_name(shader, &text));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
    if let Err(error) = written {
        panic!(
            "{} cannot be written ({error}). Set EMU_KERNEL_TEXTS to another folder, or to nothing.",
            path.display()
        );
    }
}

/// As a browser gets it.
fn text(shader: &Shader) -> String {
    let head = if shader.is_on("subgroups") {
        SUBGROUPS
    } else {
        ""
    };
    format!("{head}{}", shader.filled(shader.chosen()).complete())
}

/// The kernel, the sections of its text that count, and what tells texts of the same sections apart.
fn file_name(shader: &Shader, text: &str) -> String {
    let section = |name: &str| shader.text.contains(&format!("//@if {name}\n"));
    let mut sections: Vec<_> = { shader.constants.iter() }
        .filter(|(name, value)| *value != 0 && section(name))
        .map(|(name, _)| *name)
        .collect();
    sections.sort_unstable();
    sections.dedup();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = hasher.finish();
    format!("{}~{}~{hash:016x}.wgsl", shader.name, sections.join("+"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_whole_and_named_by_their_sections() {
        let shader = |subgroups: usize, size: usize| Shader {
            text: "//@if subgroups\nfast {{size}}\n//@end\n//@if trees\nslow {{size}}\n//@end\n",
            name: "sum",
            constants: vec![
                ("subgroups", subgroups),
                ("trees", 1 - subgroups),
                ("size", size),
            ],
            invocations: 1,
        };
        let named = |shader: &Shader| file_name(shader, &text(shader));
        assert_eq!(text(&shader(1, 7)), "enable subgroups;\nfast 7\n");
        assert_eq!(text(&shader(0, 7)), "slow 7\n");
        let names = [shader(1, 7), shader(0, 7), shader(0, 8)].map(|s| named(&s));
        assert!(names[0].starts_with("sum~subgroups~"), "{names:?}");
        assert!(names[1].starts_with("sum~trees~"), "{names:?}");
        assert_ne!(names[1], names[2]);
        assert_eq!(names[1], named(&shader(0, 7)));
    }
}
