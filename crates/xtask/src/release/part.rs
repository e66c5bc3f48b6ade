//! The parts of a release, each of which can be made alone.

/// A part of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The `emu` programs, each in an archive with its licences.
    Binaries,
    /// The WASM modules and the packs of models, which the npm packages contain.
    Wasm,
    /// The npm packages as tarballs.
    Npm,
    /// The documentation site in an archive.
    Docs,
    /// The list of all components, and the texts of their licences.
    Sbom,
    /// The changelog's section.
    Notes,
    /// The checksums of all files.
    Checksums,
}

impl Part {
    /// All parts, in the order in which they are made.
    pub const ALL: [Self; 7] = [
        Self::Binaries,
        Self::Wasm,
        Self::Npm,
        Self::Docs,
        Self::Sbom,
        Self::Notes,
        Self::Checksums,
    ];

    /// Its name on the command line.
    pub const fn argument(self) -> &'static str {
        match self {
            Self::Binaries => "binaries",
            Self::Wasm => "wasm",
            Self::Npm => "npm",
            Self::Docs => "docs",
            Self::Sbom => "sbom",
            Self::Notes => "notes",
            Self::Checksums => "checksums",
        }
    }

    /// The parts of `only`, or all if it is empty, without those of `skip`.
    pub fn chosen(only: &[String], skip: &[String]) -> Vec<Self> {
        let named = |names: &[String], part: Self| names.iter().any(|name| name == part.argument());
        { Self::ALL.into_iter() }
            .filter(|part| only.is_empty() || named(only, *part))
            .filter(|part| !named(skip, *part))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(Part::chosen(&[], &[]), Part::ALL);
        assert_eq!(
            Part::chosen(&names(&["notes", "npm"]), &[]),
            [Part::Npm, Part::Notes]
        );
        let rest = Part::chosen(&[], &names(&["binaries", "wasm"]));
        assert_eq!(rest, Part::ALL[2..]);
    }
}
