//! Allowed dependencies between packages, and on libraries.

use crate::check::Finding;
use crate::workspace::{Dependency, Package};

/// Allowed dependencies of one package.
struct Place {
    name: &'static str,
    /// The packages of this workspace that it may depend on.
    may_use: &'static [&'static str],
}

/// All libraries of the workspace, for packages that may use any of them.
const LIBRARIES: &[&str] = &[
    "emu-data",
    "emu-kernels",
    "emu-media",
    "emu-model",
    "emu-pack",
    "emu-tokenizer",
    "emu-train",
];

/// As [`LIBRARIES`], with those that only the program uses.
const OF_THE_PROGRAM: &[&str] = &[
    "emu-data",
    "emu-eval",
    "emu-hub",
    "emu-kernels",
    "emu-media",
    "emu-model",
    "emu-pack",
    "emu-report",
    "emu-serve",
    "emu-tokenizer",
    "emu-train",
];

/// All packages. A package that is missing here is an error too.
const PLACES: &[Place] = &[
    Place {
        name: "emu-hub",
        may_use: &[],
    },
    Place {
        name: "emu-eval",
        may_use: &[],
    },
    Place {
        name: "emu-pack",
        may_use: &[],
    },
    Place {
        name: "emu-report",
        may_use: &[],
    },
    Place {
        name: "emu-kernels",
        may_use: &[],
    },
    Place {
        name: "emu-media",
        may_use: &[],
    },
    Place {
        name: "emu-data",
        may_use: &["emu-media", "emu-tokenizer"],
    },
    Place {
        name: "emu-tokenizer",
        may_use: &["emu-pack"],
    },
    Place {
        name: "emu-model",
        may_use: &["emu-kernels", "emu-media", "emu-pack", "emu-tokenizer"],
    },
    Place {
        name: "emu-train",
        may_use: &[
            "emu-data",
            "emu-kernels",
            "emu-media",
            "emu-model",
            "emu-pack",
            "emu-tokenizer",
        ],
    },
    Place {
        name: "emu-serve",
        may_use: &["emu-tokenizer"],
    },
    Place {
        name: "emu-cli",
        may_use: OF_THE_PROGRAM,
    },
    Place {
        name: "emu-web",
        may_use: LIBRARIES,
    },
    Place {
        name: "emu-tests",
        may_use: LIBRARIES,
    },
    Place {
        name: "xtask",
        may_use: &[],
    },
];

/// Restricted libraries: the libraries, the packages that may use them, and the reason.
const MISPLACED: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "clap",
            "clap_builder",
            "clap_derive",
            "indicatif",
            "console",
            "crossterm",
            "dialoguer",
            "tracing-subscriber",
            "ratatui",
            "termion",
            "termcolor",
            "rustyline",
            "inquire",
        ],
        &["emu-cli", "xtask"],
        "only emu-cli knows argv and the terminal; return data and let it print",
    ),
    (
        &["ctrlc", "signal-hook"],
        &["emu-cli", "xtask"],
        "only emu-cli handles signals; take a flag or a callback that it raises",
    ),
    (
        &[
            "wasm-bindgen",
            "wasm-bindgen-futures",
            "js-sys",
            "web-sys",
            "serde-wasm-bindgen",
        ],
        &["emu-web"],
        "only emu-web knows JavaScript; take and return plain Rust types",
    ),
    (
        &["tokio", "axum", "hyper", "hyper-util", "tokio-rustls"],
        &["emu-serve"],
        "only emu-serve speaks HTTP; implement its trait `Engine`",
    ),
];

/// Restricted features of a library: the library, its features, the packages that may enable them, and the reason.
const MISPLACED_FEATURES: &[(&str, &[&str], &[&str], &str)] = &[(
    "burn",
    &["tui", "train"],
    &["emu-cli"],
    "that is Burn's terminal dashboard, and only emu-cli knows the terminal; emit events and let it show them",
)];

/// Packages that take bytes and return values: they do no file, network, clock or thread work. A page runs the same code.
pub const PURE: &[&str] = &["emu-media", "emu-model", "emu-tokenizer"];

/// Libraries that [`PURE`] packages must not use.
const NOT_IN_PURE: &[&str] = &[
    "rayon", "tokio", "reqwest", "ureq", "tempfile", "walkdir", "memmap2", "chrono", "time",
];

/// Finds dependencies between packages of this workspace that [`PLACES`] does not allow.
pub fn forbidden_edges(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some(place) = PLACES.iter().find(|place| place.name == package.name) else {
            findings.push(Finding::error(
                &package.name,
                "this package has no place in the design; add it to the table in crates/xtask/src/check/edges.rs",
            ));
            continue;
        };
        let inner = package
            .dependencies
            .iter()
            .filter(|dependency| is_inner(packages, dependency));
        for dependency in inner {
            if !place.may_use.contains(&dependency.name.as_str()) {
                findings.push(Finding::error(
                    &package.name,
                    format!(
                        "depends on {}, which the design forbids; move the code or invert the call",
                        dependency.name
                    ),
                ));
            }
        }
        if PURE.contains(&package.name.as_str()) && asks_for_convert(package) {
            findings.push(Finding::error(
                &package.name,
                "switches on emu-pack's `convert`, which is native only; reading checkpoints belongs to emu-cli and emu-train",
            ));
        }
    }
    findings
}

/// Finds direct dependencies on libraries that the package must not use.
pub fn misplaced_libraries(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            for (libraries, may_know, why) in MISPLACED {
                if libraries.contains(&dependency.name.as_str())
                    && !may_know.contains(&package.name.as_str())
                {
                    findings.push(Finding::error(
                        &package.name,
                        format!("depends on {}: {why}", dependency.name),
                    ));
                }
            }
            for (library, features, may_know, why) in MISPLACED_FEATURES {
                let misplaced = dependency
                    .features
                    .iter()
                    .find(|feature| features.contains(&feature.as_str()));
                if let Some(feature) = misplaced
                    && dependency.name == *library
                    && !may_know.contains(&package.name.as_str())
                {
                    findings.push(Finding::error(
                        &package.name,
                        format!("switches on {library}'s `{feature}`: {why}"),
                    ));
                }
            }
            if PURE.contains(&package.name.as_str())
                && NOT_IN_PURE.contains(&dependency.name.as_str())
            {
                findings.push(Finding::error(
                    &package.name,
                    format!(
                        "depends on {}: it takes bytes and returns values, nothing else",
                        dependency.name
                    ),
                ));
            }
        }
    }
    findings
}

fn is_inner(packages: &[Package], dependency: &Dependency) -> bool {
    packages
        .iter()
        .any(|package| package.name == dependency.name)
        || PLACES.iter().any(|place| place.name == dependency.name)
}

fn asks_for_convert(package: &Package) -> bool {
    let directly = package.dependencies.iter().any(|dependency| {
        dependency.name == "emu-pack" && dependency.features.iter().any(|name| name == "convert")
    });
    let by_feature = package
        .feature_effects
        .iter()
        .any(|effect| matches!(effect.as_str(), "emu-pack/convert" | "emu-pack?/convert"));
    directly || by_feature
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::packages_from;
    use serde_json::json;

    fn house(packages: &[(&str, &[&str])]) -> Vec<Package> {
        let packages: Vec<_> = packages
            .iter()
            .map(|(name, uses)| {
                let uses: Vec<_> = uses
                    .iter()
                    .map(|name| json!({"name": name, "features": []}))
                    .collect();
                json!({"name": name, "dependencies": uses, "features": {}})
            })
            .collect();
        packages_from(&json!({ "packages": packages })).expect("metadata")
    }

    #[test]
    fn the_design_itself_is_allowed() {
        let packages = house(&[
            ("emu-hub", &["ureq"]),
            ("emu-pack", &["serde"]),
            ("emu-kernels", &["burn"]),
            ("emu-media", &["image"]),
            ("emu-tokenizer", &["emu-pack", "tokenizers"]),
            (
                "emu-model",
                &["emu-kernels", "emu-media", "emu-pack", "emu-tokenizer"],
            ),
            ("emu-train", &["emu-model", "emu-media", "emu-tokenizer"]),
            ("emu-serve", &["tokio", "emu-tokenizer"]),
            ("emu-cli", &["emu-train", "emu-serve", "clap"]),
            ("emu-tests", &["emu-train"]),
            ("xtask", &["clap"]),
        ]);
        assert_eq!(forbidden_edges(&packages), []);
        assert_eq!(misplaced_libraries(&packages), []);
    }

    #[test]
    fn an_edge_against_the_direction_is_found() {
        for (from, to) in [
            ("emu-hub", "emu-pack"),
            ("emu-pack", "emu-model"),
            ("emu-kernels", "emu-pack"),
            ("emu-media", "emu-model"),
            ("emu-media", "emu-pack"),
            ("emu-tokenizer", "emu-model"),
            ("emu-model", "emu-train"),
            ("emu-train", "emu-cli"),
            ("emu-tests", "emu-web"),
            ("emu-tests", "emu-serve"),
            ("emu-serve", "emu-model"),
            ("emu-cli", "xtask"),
            ("xtask", "emu-pack"),
        ] {
            let findings = forbidden_edges(&house(&[(from, &[to]), (to, &[])]));
            assert_eq!(findings.len(), 1, "{from} -> {to}: {findings:?}");
            assert_eq!(findings[0].place, from);
            assert!(findings[0].message.contains(to));
        }
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        assert_eq!(forbidden_edges(&house(&[("emu-extra", &[])])).len(), 1);
    }

    #[test]
    fn convert_in_the_model_is_found_both_ways() {
        let direct = json!({"packages": [{"name": "emu-model", "features": {},
            "dependencies": [{"name": "emu-pack", "features": ["convert"]}]}]});
        let by_feature = json!({"packages": [{"name": "emu-model", "features": {"x": ["emu-pack/convert"]},
            "dependencies": [{"name": "emu-pack", "features": []}]}]});
        for metadata in [direct, by_feature] {
            assert_eq!(
                forbidden_edges(&packages_from(&metadata).expect("metadata")).len(),
                1
            );
        }
    }

    #[test]
    fn a_terminal_in_a_library_and_javascript_outside_emu_web_are_found() {
        for (package, library) in [
            ("emu-train", "indicatif"),
            ("emu-model", "clap"),
            ("emu-cli", "web-sys"),
            ("emu-model", "rayon"),
            ("emu-media", "rayon"),
            ("emu-train", "ctrlc"),
            ("emu-kernels", "signal-hook"),
            ("emu-pack", "ratatui"),
            ("emu-cli", "tokio"),
            ("emu-train", "axum"),
        ] {
            assert_eq!(
                misplaced_libraries(&house(&[(package, &[library])])).len(),
                1,
                "{package} -> {library}"
            );
        }
    }

    #[test]
    fn burns_dashboard_outside_emu_cli_is_found() {
        let package = |name: &str, features: &[&str]| {
            let burn = json!({"name": "burn", "features": features});
            json!({"packages": [{"name": name, "features": {}, "dependencies": [burn]}]})
        };
        let found = |name, features: &[&str]| {
            misplaced_libraries(&packages_from(&package(name, features)).expect("metadata")).len()
        };
        assert_eq!(found("emu-train", &["train", "tui"]), 1);
        assert_eq!(found("emu-train", &["autodiff"]), 0);
        assert_eq!(found("emu-cli", &["train", "tui"]), 0);
    }
}
