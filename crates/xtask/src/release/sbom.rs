//! The software bill of materials: CycloneDX 1.6 in JSON, from Cargo's graph and the lock files.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::release::graph::{Crate, ROOTS};

/// What a bill of materials is made from.
pub struct Sources<'a> {
    /// Version of the release.
    pub version: &'a str,
    /// Time of the commit (ISO 8601), so that the same commit gives the same bytes.
    pub time: &'a str,
    /// The crates of what is released.
    pub crates: &'a [Crate],
    /// Text of `Cargo.lock`, which has the checksums.
    pub cargo_lock: &'a str,
    /// Text of the npm package's `package-lock.json`. Its packages are tools: the package has no dependencies.
    pub npm_lock: &'a str,
    /// Names of the npm packages.
    pub packages: &'a [&'a str],
}

/// Writes the bill of materials.
///
/// # Errors
/// If a lock file does not parse, or has no checksum of a published component.
pub fn bill(sources: &Sources) -> Result<String> {
    let version = sources.version;
    let checksums = checksums(sources.cargo_lock)?;
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    let own: Vec<String> = { sources.packages.iter() }
        .map(|name| purl("npm", name, version))
        .collect();
    let roots = { sources.crates.iter() }
        .filter(|one| ROOTS.contains(&one.name.as_str()))
        .map(|one| purl("cargo", &one.name, &one.version));
    let product = format!("emu@{version}");
    dependencies
        .push(json!({"ref": product, "dependsOn": roots.chain(own.clone()).collect::<Vec<_>>()}));
    for one in sources.crates {
        let hash = match checksums.get(&(one.name.clone(), one.version.clone())) {
            Some(hash) => Some(("SHA-256", hash.clone())),
            None if one.is_published => bail!(
                "Cargo.lock has no checksum of {} {}; run cargo update --workspace and commit it",
                one.name,
                one.version
            ),
            None => None,
        };
        let reference = purl("cargo", &one.name, &one.version);
        components.push(component(
            &one.name,
            &one.version,
            &reference,
            "required",
            hash,
            one.licence.as_deref(),
        ));
        let needs: Vec<String> = { one.dependencies.iter() }
            .map(|(name, version)| purl("cargo", name, version))
            .collect();
        dependencies.push(json!({"ref": reference, "dependsOn": needs}));
    }
    for (name, reference) in sources.packages.iter().zip(&own) {
        components.push(component(name, version, reference, "required", None, None));
        dependencies.push(json!({"ref": reference, "dependsOn": []}));
    }
    for tool in tools(sources.npm_lock)? {
        let reference = purl("npm", &tool.name, &tool.version);
        // "excluded": used to build and test, not part of what is delivered.
        components.push(component(
            &tool.name,
            &tool.version,
            &reference,
            "excluded",
            Some(("SHA-512", tool.sha512)),
            tool.licence.as_deref(),
        ));
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": sources.time,
            "component": {"type": "application", "bom-ref": product, "name": "emu", "version": version},
        },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// A package URL. npm's scopes begin with `@`, which is escaped.
fn purl(kind: &str, name: &str, version: &str) -> String {
    let name = name.replace('@', "%40");
    format!("pkg:{kind}/{name}@{}", version.replace('+', "%2B"))
}

fn component(
    name: &str,
    version: &str,
    purl: &str,
    scope: &str,
    hash: Option<(&str, String)>,
    licence: Option<&str>,
) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": scope,
        "purl": purl,
    });
    if let Some((algorithm, content)) = hash {
        component["hashes"] = json!([{"alg": algorithm, "content": content}]);
    }
    if let Some(licence) = licence {
        // "SEE LICENSE IN FILE" is no expression.
        component["licenses"] = match licence.starts_with("SEE ") {
            true => json!([{"license": {"name": licence}}]),
            false => json!([{"expression": licence}]),
        };
    }
    component
}

/// SHA-256 by name and version, from `Cargo.lock`.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is not TOML; restore it")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let packages = packages.context("Cargo.lock lists no packages; restore it")?;
    let text = |package: &toml::Value, key: &str| {
        let value = package.get(key)?.as_str()?;
        Some(value.to_owned())
    };
    Ok({ packages.iter() }
        .filter_map(|package| {
            let key = (text(package, "name")?, text(package, "version")?);
            Some((key, text(package, "checksum")?))
        })
        .collect())
}

/// A package of npm that is used to build or test.
struct Tool {
    name: String,
    version: String,
    /// In hexadecimal digits.
    sha512: String,
    licence: Option<String>,
}

/// Packages of a `package-lock.json`, sorted, each name and version once.
fn tools(lock: &str) -> Result<Vec<Tool>> {
    let lock: Value =
        serde_json::from_str(lock).context("package-lock.json is not JSON; restore it")?;
    let packages = lock["packages"].as_object();
    let packages =
        packages.context("package-lock.json lists no packages; write it with npm 7 or later")?;
    let mut tools = BTreeMap::new();
    for (path, package) in packages {
        // The first entry is the package itself, without a path.
        let Some((_, name)) = path.rsplit_once("node_modules/") else {
            continue;
        };
        let version = package["version"].as_str().unwrap_or_default();
        let integrity = package["integrity"].as_str().unwrap_or_default();
        let sha512 = { integrity.split_whitespace() }
            .find_map(|hash| hex(hash.strip_prefix("sha512-")?))
            .with_context(|| format!("package-lock.json has no SHA-512 of {name} {version}; write it with npm install"))?;
        let licence = package["license"].as_str().map(str::to_owned);
        let (name, version) = (name.to_owned(), version.to_owned());
        tools.insert(
            (name.clone(), version.clone()),
            Tool {
                name,
                version,
                sha512,
                licence,
            },
        );
    }
    Ok(tools.into_values().collect())
}

/// Hexadecimal digits of what base64 encodes; `None` if it is not base64.
fn hex(base64: &str) -> Option<String> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut digits) = (0_u32, 0_u32, String::new());
    for digit in base64.trim_end_matches('=').bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        held = (held << 6 | u32::try_from(value).ok()?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            digits += &format!("{:02x}", held >> bits & 0xff);
        }
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO_LOCK: &str = "[[package]]\nname = \"half\"\nversion = \"2.0.0+x\"\nchecksum = \"ab12\"\n\n[[package]]\nname = \"emu-cli\"\nversion = \"1.2.0\"\n";
    const NPM_LOCK: &str = r#"{"packages": {"": {"name": "emu-webgpu"},
        "node_modules/@x/tool": {"version": "3.0.0", "integrity": "sha512-AP8Q", "license": "MIT", "dev": true},
        "node_modules/a/node_modules/@x/tool": {"version": "3.0.0", "integrity": "sha512-AP8Q", "license": "MIT"},
        "node_modules/b": {"version": "1.0.0", "integrity": "sha1-AAAA sha512-AA==", "license": "SEE LICENSE IN a.txt"}}}"#;

    fn crates() -> Vec<Crate> {
        let one =
            |name: &str, version: &str, is_published: bool, dependencies: &[(&str, &str)]| Crate {
                name: name.into(),
                version: version.into(),
                licence: Some("MIT OR Apache-2.0".into()),
                folder: ".".into(),
                is_published,
                dependencies: dependencies
                    .iter()
                    .map(|(n, v)| ((*n).into(), (*v).into()))
                    .collect(),
            };
        vec![
            one("emu-cli", "1.2.0", false, &[("half", "2.0.0+x")]),
            one("half", "2.0.0+x", true, &[]),
        ]
    }

    fn made(crates: &[Crate], cargo_lock: &str, npm_lock: &str) -> Result<Value> {
        let sources = Sources {
            version: "1.2.0",
            time: "2026-01-02T03:04:05+00:00",
            crates,
            cargo_lock,
            npm_lock,
            packages: &["emu-webgpu"],
        };
        Ok(serde_json::from_str(&bill(&sources)?)?)
    }

    #[test]
    fn every_component_is_listed_with_hash_licence_and_dependencies() {
        let bill = made(&crates(), CARGO_LOCK, NPM_LOCK).expect("a bill");
        let components = bill["components"].as_array().expect("a list");
        let references: Vec<&str> = { components.iter() }
            .filter_map(|one| one["bom-ref"].as_str())
            .collect();
        assert_eq!(
            references,
            [
                "pkg:cargo/emu-cli@1.2.0",
                "pkg:cargo/half@2.0.0%2Bx",
                "pkg:npm/emu-webgpu@1.2.0",
                "pkg:npm/%40x/tool@3.0.0",
                "pkg:npm/b@1.0.0",
            ]
        );
        assert_eq!(
            components[1]["hashes"][0],
            json!({"alg": "SHA-256", "content": "ab12"})
        );
        assert_eq!(
            components[1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(components[3]["scope"], "excluded");
        assert_eq!(components[3]["hashes"][0]["content"], "00ff10");
        assert_eq!(
            components[4]["licenses"][0]["license"]["name"],
            "SEE LICENSE IN a.txt"
        );
        // Every reference in the graph is a component or the product.
        let product = bill["metadata"]["component"]["bom-ref"]
            .as_str()
            .expect("a reference");
        let dependencies = bill["dependencies"].as_array().expect("a list");
        assert_eq!(dependencies[0]["ref"], product);
        assert_eq!(
            dependencies[0]["dependsOn"],
            json!(["pkg:cargo/emu-cli@1.2.0", "pkg:npm/emu-webgpu@1.2.0"])
        );
        for on in dependencies
            .iter()
            .filter_map(|one| one["dependsOn"].as_array())
            .flatten()
        {
            assert!(
                references.contains(&on.as_str().expect("a reference")),
                "{on}"
            );
        }
    }

    #[test]
    fn a_component_without_checksum_and_a_broken_lock_file_are_errors() {
        let unknown = CARGO_LOCK.replace("ab12", "");
        let unknown = unknown.replace("checksum = \"\"\n", "");
        for (cargo_lock, npm_lock, named) in [
            (unknown.as_str(), NPM_LOCK, "half"),
            ("[", NPM_LOCK, "Cargo.lock"),
            ("version = 4", NPM_LOCK, "Cargo.lock"),
            (CARGO_LOCK, "{", "package-lock.json"),
            (CARGO_LOCK, "{}", "package-lock.json"),
            (
                CARGO_LOCK,
                r#"{"packages": {"node_modules/b": {"version": "1.0.0"}}}"#,
                "of b 1.0.0",
            ),
            (
                CARGO_LOCK,
                r#"{"packages": {"node_modules/b": {"version": "1.0.0", "integrity": "sha512-?"}}}"#,
                "of b 1.0.0",
            ),
        ] {
            let error = made(&crates(), cargo_lock, npm_lock).expect_err(named);
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }

    #[test]
    fn base64_becomes_hexadecimal() {
        assert_eq!(hex("").as_deref(), Some(""));
        assert_eq!(hex("AP8Q/w==").as_deref(), Some("00ff10ff"));
        assert_eq!(hex("aGVsbG8=").as_deref(), Some("68656c6c6f"));
        assert_eq!(hex("a-b"), None);
    }
}
