//! Removes functions from a compiled module that never run, where the linker cannot know that.
//!
//! CubeCL describes its kernels in `pliron`, where every operation registers a function that parses it from text. Nothing
//! here parses kernels from text, but a registered function is linked, together with a library of parsers. The body of such
//! a function is replaced by `unreachable`; wasm-opt then removes what only it called.
//!
//! That these functions never run was established for the versions in [`KNOWN`] by running every kernel of the module in
//! two browsers. With other versions nothing is removed: [`check_versions`] fails.

use anyhow::{Context, Result, bail};
use toml::Table;

/// Packages that [`DEAD`] is about or relies on, with the versions it was established for.
const KNOWN: [(&str, &str); 2] = [("pliron", "0.19.0"), ("cubecl-ir", "0.11.3")];

/// Substrings of the mangled names of functions that parse kernels from text.
const DEAD: [&str; 2] = [
    "pliron..parsable..Parsable$GT$5parse17h",
    "6pliron2op22canonical_syntax_parse",
];
/// Bodies up to this size stay: the compiler may have merged them with identical functions that are in use.
const SMALL: usize = 64;

const CUSTOM: u8 = 0;
const IMPORT: u8 = 2;
const CODE: u8 = 10;
/// A function body: no local variables; `unreachable`; end.
const NOTHING: [u8; 4] = [3, 0, 0x00, 0x0b];

/// Checks that `Cargo.lock` has the versions that the trimming was established for.
///
/// # Errors
/// Where a package has another version, several versions, or is missing.
pub fn check_versions(lock: &str) -> Result<()> {
    let lock: Table = lock.parse().context("Cargo.lock is not TOML")?;
    let packages = lock.get("package").and_then(|list| list.as_array());
    let field = |package: &toml::Value, name: &str| {
        { package.get(name).and_then(|value| value.as_str()) }.map(str::to_owned)
    };
    for (name, known) in KNOWN {
        let found: Vec<String> = { packages.into_iter().flatten() }
            .filter(|package| field(package, "name").as_deref() == Some(name))
            .filter_map(|package| field(package, "version"))
            .collect();
        if found != [known] {
            bail!(
                "wasm/trim.rs knows {name} {known}, Cargo.lock has {}; run the tests in both browsers with nothing taken out \
                 and with DEAD's functions taken out, then put the new version into KNOWN",
                if found.is_empty() {
                    "none".to_owned()
                } else {
                    found.join(", ")
                }
            );
        }
    }
    Ok(())
}

/// The module with the bodies of dead functions replaced, and the number of these functions.
///
/// # Errors
/// Where the bytes are not a WebAssembly module, or it has no name section.
pub fn trim(module: &[u8]) -> Result<(Vec<u8>, usize)> {
    let sections = sections(module)?;
    let (mut dead, mut imported) = (None, 0);
    for (id, body) in &sections {
        match *id {
            CUSTOM => dead = dead_functions(body)?.or(dead),
            IMPORT => imported = imported_functions(body)?,
            _ => {}
        }
    }
    let Some(dead) = dead else {
        bail!("the module has no names of functions; build it with strip = \"debuginfo\"");
    };
    let mut out = module.get(..8).unwrap_or_default().to_vec();
    let mut taken = 0;
    for (id, body) in sections {
        out.push(id);
        if id != CODE {
            write(&mut out, body.len());
            out.extend(body);
            continue;
        }
        let mut reader = Reader(body);
        let functions = reader.number()?;
        let mut code = vec![];
        write(&mut code, functions);
        for function in imported..imported + functions {
            let length = reader.number()?;
            let body = reader.bytes(length)?;
            if body.len() > SMALL && dead.binary_search(&function).is_ok() {
                code.extend(NOTHING);
                taken += 1;
            } else {
                write(&mut code, length);
                code.extend(body);
            }
        }
        write(&mut out, code.len());
        out.extend(code);
    }
    Ok((out, taken))
}

/// Section ids and contents.
fn sections(module: &[u8]) -> Result<Vec<(u8, &[u8])>> {
    let rest =
        { module.strip_prefix(b"\0asm\x01\0\0\0") }.context("this is no WebAssembly module")?;
    let (mut reader, mut sections) = (Reader(rest), vec![]);
    while !reader.0.is_empty() {
        let id = reader.byte()?;
        let length = reader.number()?;
        sections.push((id, reader.bytes(length)?));
    }
    Ok(sections)
}

/// Indices of the dead functions in ascending order, if this is the name section.
fn dead_functions(custom: &[u8]) -> Result<Option<Vec<usize>>> {
    const FUNCTIONS: u8 = 1;
    let mut reader = Reader(custom);
    if reader.text()? != b"name" {
        return Ok(None);
    }
    let mut dead = vec![];
    while !reader.0.is_empty() {
        let kind = reader.byte()?;
        let length = reader.number()?;
        let mut names = Reader(reader.bytes(length)?);
        if kind != FUNCTIONS {
            continue;
        }
        for _ in 0..names.number()? {
            let function = names.number()?;
            let name = String::from_utf8_lossy(names.text()?);
            if DEAD.iter().any(|part| name.contains(part)) {
                dead.push(function);
            }
        }
    }
    dead.sort_unstable();
    Ok(Some(dead))
}

/// Number of imported functions. Function indices start with these.
fn imported_functions(imports: &[u8]) -> Result<usize> {
    let mut reader = Reader(imports);
    let mut functions = 0;
    for _ in 0..reader.number()? {
        reader.text()?;
        reader.text()?;
        match reader.byte()? {
            0 => {
                reader.number()?;
                functions += 1;
            }
            kind => bail!("the module imports something else than functions (kind {kind})"),
        }
    }
    Ok(functions)
}

/// The bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            { self.0.split_at_checked(length) }.context("the module ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// An unsigned LEB128 number.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("the module has a number of more than 32 bits")
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length)
    }
}

fn write(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![id];
        write(&mut out, content.len());
        out.extend(content);
        out
    }

    fn text(of: &str) -> Vec<u8> {
        let mut out = vec![];
        write(&mut out, of.len());
        out.extend(of.as_bytes());
        out
    }

    /// A module that imports one function and defines others with these names and lengths.
    fn module(functions: &[(&str, usize)]) -> Vec<u8> {
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        out.extend(section(
            IMPORT,
            &[&[1][..], &text("a"), &text("b"), &[0, 0]].concat(),
        ));
        let (mut code, mut names) = (vec![], vec![]);
        write(&mut code, functions.len());
        write(&mut names, functions.len());
        for (index, (name, length)) in functions.iter().enumerate() {
            write(&mut code, *length);
            code.extend(vec![1; *length]);
            names.push(index as u8 + 1);
            names.extend(text(name));
        }
        out.extend(section(CODE, &code));
        let names = [text("name"), section(1, &names)].concat();
        out.extend(section(CUSTOM, &names));
        out
    }

    #[test]
    fn dead_bodies_go_and_the_others_stay() {
        let parse =
            "_ZN9_$LT$a..B$u20$as$u20$pliron..parsable..Parsable$GT$5parse17h0123456789abcdefE";
        let before = module(&[("alive", 300), (parse, 200), (parse, 20), ("main", 100)]);
        let (after, taken) = trim(&before).expect("a module");
        assert_eq!(taken, 1);
        let code = |module: &[u8]| {
            let found = sections(module).expect("sections");
            let code = found.iter().find(|section| section.0 == CODE);
            code.expect("code").1.to_vec()
        };
        let mut want = vec![4, 0xac, 2];
        want.extend(vec![1; 300]);
        want.extend(NOTHING);
        want.push(20);
        want.extend(vec![1; 20]);
        want.push(100);
        want.extend(vec![1; 100]);
        assert_eq!(code(&after), want);
        // All other sections stay unchanged.
        let rest = |module: &[u8]| {
            let found = sections(module).expect("sections");
            let kept = found.iter().filter(|section| section.0 != CODE);
            kept.map(|(id, body)| (*id, body.to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(rest(&after), rest(&before));
        assert_eq!(trim(&after).expect("a module"), (after.clone(), 0));
    }

    #[test]
    fn other_versions_are_refused() {
        let lock = |pliron: &str| {
            let package = |name: &str, version: &str| {
                format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
            };
            format!("version = 4\n{}{pliron}", package("cubecl-ir", KNOWN[1].1))
        };
        let pliron =
            |version: &str| format!("[[package]]\nname = \"pliron\"\nversion = \"{version}\"\n");
        assert!(check_versions(&lock(&pliron(KNOWN[0].1))).is_ok());
        for other in [
            pliron("0.20.0"),
            String::new(),
            pliron(KNOWN[0].1) + &pliron("0.20.0"),
        ] {
            let error = check_versions(&lock(&other)).expect_err("not known");
            assert!(error.to_string().contains("pliron"), "{error}");
        }
        assert!(check_versions("no = = lock").is_err());
    }

    #[test]
    fn the_versions_of_this_checkout_are_known() {
        check_versions(include_str!("../../../../Cargo.lock")).expect("known versions");
    }

    #[test]
    fn what_is_no_module_or_has_no_names_is_refused() {
        let whole = module(&[("main", 100)]);
        assert!(trim(b"no module").is_err());
        assert!(trim(&whole[..whole.len() - 1]).is_err());
        assert!(trim(&whole[..whole.len() / 2]).is_err());
        let nameless = [&whole[..8], &section(CODE, &[0])].concat();
        let error = trim(&nameless).expect_err("no names");
        assert!(error.to_string().contains("names"), "{error}");
    }
}
