//! The header of every shader: what it computes, how it is launched, what it binds, what specializes it, and the two files that
//! prove it, a CPU reference implementation and a test that compares the two. A shader has no other proof: natively it runs
//! without bounds checks.
//!
//! ```text
//! // rms_norm: y = x / sqrt(mean(x²) + eps) * weight of rows
//! // grid       one workgroup per row
//! // bindings   x, weight, y
//! // params     width: D; eps: literal
//! // shared     4 bytes per invocation
//! // reference  PATH.rs     test  PATH.rs
//! ```
//!
//! One kernel, one name: the reference of `shaders/TOPIC/NAME.wgsl` is `cpu/TOPIC/NAME.rs` of emu-kernels, and
//! `gpu/TOPIC/NAME.rs` launches it.
//!
//! A field goes on in the lines below it, up to the next field or an empty line. Shared parts of shaders, in `shaders/shared/`,
//! have no grid and no bindings.

use std::collections::BTreeSet;

use crate::check::Finding;
use crate::workspace::Tree;

/// Fields of a header, with what they say.
const FIELDS: [(&str, &str); 4] = [
    ("grid", "what a workgroup or an invocation computes"),
    ("bindings", "every buffer, by the name of its variable"),
    ("params", "every name that specializes the text, or none"),
    ("shared", "bytes of workgroup memory, or none"),
];

/// Files that a header names, with what they are.
const FILES: [(&str, &str); 2] = [
    ("reference", "the CPU function that computes the same"),
    ("test", "the test that compares the two"),
];

/// Where the reference of a shader is, and where it is launched.
const CPU: &str = "crates/emu-kernels/src/cpu/";
const GPU: &str = "crates/emu-kernels/src/gpu/";

/// Folder of the parts that are prepended to shaders.
const PARTS: &str = "shaders/shared/";

/// Finds shaders whose header lacks a field, does not name a buffer or parameter of the text, or names a file that does not
/// exist.
pub fn headers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("shaders/", ".wgsl") {
        let faults = faults(tree, path, text);
        findings.extend(faults.into_iter().map(|fault| Finding::error(path, fault)));
    }
    findings
}

fn faults(tree: &Tree, path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let header: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix("//"))
        .take_while(|line| !line.starts_with('@'))
        .collect();
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.trim_end_matches(".wgsl");
    let formula = header.first().and_then(|line| line.trim().split_once(": "));
    if formula.is_none_or(|(kernel, formula)| kernel != name || formula.is_empty()) {
        faults.push(format!(
            "the header does not begin with `// {name}: ` and a formula; add it"
        ));
    }
    for (field, meaning) in FIELDS {
        let launched = matches!(field, "grid" | "bindings");
        if launched && path.starts_with(PARTS) {
            continue;
        }
        let Some(said) = field_text(&header, field) else {
            faults.push(format!(
                "the header has no {field}; add `// {field}  ..`, {meaning}"
            ));
            continue;
        };
        let said: BTreeSet<&str> = said.split(|c| !in_name(c)).collect();
        let wanted = match field {
            "bindings" => buffers(text),
            "params" => { parameters(text).into_iter() }
                .filter(|name| !buffers(text).contains(name) || switches(text).contains(name))
                .collect(),
            _ => BTreeSet::new(),
        };
        for name in wanted.difference(&said) {
            faults.push(format!(
                "the header's {field} lack `{name}`; say what it is"
            ));
        }
    }
    for (label, meaning) in FILES {
        match file_after(&header, label) {
            None => faults.push(format!(
                "the header names no {label}; add `// {label}  PATH.rs`, {meaning}"
            )),
            Some(file) if !tree.has(file) => faults.push(format!(
                "the header's {label} is {file}, which does not exist; write it or mend the path"
            )),
            Some(_) => {}
        }
    }
    if !path.starts_with(PARTS) {
        faults.extend(misnamed(tree, path, file_after(&header, "reference")));
    }
    faults
}

/// What is wrong with the names of a kernel's three files.
fn misnamed(tree: &Tree, path: &str, reference: Option<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    let file = path.trim_start_matches("shaders/");
    let name = file.trim_end_matches(".wgsl");
    let cpu = format!("{CPU}{name}.rs");
    if reference.is_some_and(|reference| reference != cpu) {
        faults.push(format!(
            "the header's reference is not {cpu}; move the CPU function there, so that shader and reference have one name"
        ));
    }
    let gpu = format!("{GPU}{name}.rs");
    let included = format!("\"{file}\"");
    let launch = tree.texts(&gpu, ".rs").next();
    if launch.is_none_or(|(_, text)| !text.contains(&included)) {
        faults.push(format!(
            "{gpu} does not launch it; declare its kernel there, with {included}"
        ));
    }
    faults
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The text of a field: the rest of its line and the lines below that belong to it.
fn field_text(header: &[&str], field: &str) -> Option<String> {
    let labels = || FIELDS.iter().chain(&FILES).map(|(label, _)| *label);
    let begins = |line: &str, label: &str| {
        let rest = line.trim_start().strip_prefix(label);
        rest.is_some_and(|rest| rest.starts_with("  "))
    };
    let mut lines = header.iter().skip_while(|line| !begins(line, field));
    let first = lines.next()?.trim_start().strip_prefix(field)?.to_owned();
    let more = lines
        .take_while(|line| !line.trim().is_empty() && !labels().any(|label| begins(line, label)));
    let text = more.fold(first, |text, line| text + " " + line.trim());
    (!text.trim().is_empty()).then_some(text)
}

/// Names of the variables that are bound.
fn buffers(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| line.contains("@binding("))
        .filter_map(|line| {
            let (_, rest) = line.split_once("var<")?;
            let (name, _) = rest.split_once('>')?.1.split_once(':')?;
            Some(name.trim())
        })
        .collect()
}

/// Names that sections test for.
fn switches(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("//@if "))
        .map(|name| name.trim_start_matches('!'))
        .collect()
}

/// Names that specialize the text: numbers, and those that sections test for. The workgroup size, the counter of repeated
/// lines and the binding of the uniform buffer are the same everywhere.
fn parameters(text: &str) -> BTreeSet<&str> {
    let numbers = text.split("{{").skip(1);
    let numbers = numbers.filter_map(|rest| Some(rest.split_once("}}")?.0));
    let lines = text.lines().map(str::trim);
    let repeats = lines.filter_map(|line| line.strip_prefix("//@each "));
    let mut all: BTreeSet<&str> = numbers.chain(repeats).chain(switches(text)).collect();
    all.retain(|name| !matches!(*name, "invocations" | "nth" | "uniform"));
    all
}

/// The file name after the word `label` in the header.
fn file_after<'a>(header: &[&'a str], label: &str) -> Option<&'a str> {
    header.iter().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| word.trim_end_matches(':') != label)
            .skip(1);
        words
            .next()
            .map(|word| word.trim_end_matches([',', ';']))
            .filter(|word| word.ends_with(".rs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: (&str, &str) = ("crates/emu-kernels/src/cpu/norm/a.rs", "");
    const TEST: (&str, &str) = ("tests/kernels/a.rs", "");
    const LAUNCH: (&str, &str) = (
        "crates/emu-kernels/src/gpu/norm/a.rs",
        "kernel! { AKernel, \"a\" [\"norm/a.wgsl\"] }",
    );
    const FULL: &str = "\
// a: y = x + b
// grid       one workgroup per row
// bindings   x, y, bias
//            if there is one, info {rows}
// params     width; fast: with subgroups;
//            bias; parts
// shared     none
// reference  crates/emu-kernels/src/cpu/norm/a.rs     test  tests/kernels/a.rs
//
// A grid of words that is no field.
@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;
@group(0) @binding({{y}}) var<storage, read_write> y: array<f32>;
//@if bias
@group(0) @binding({{bias}}) var<storage, read_write> bias: array<f32>;
//@end
@group(0) @binding({{uniform}}) var<uniform> info: Info;
const WIDTH = {{width}}u;
//@if !fast
//@each parts
let a_{{nth}} = 0u;
//@end
//@end
@compute @workgroup_size({{invocations}}, 1, 1)
fn main() {}
";

    fn faults_of(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::planted(&[(path, text), REFERENCE, TEST, LAUNCH]);
        let found = headers(&tree).into_iter();
        found.map(|finding| format!("{finding:?}")).collect()
    }

    #[test]
    fn a_full_header_is_fine() {
        assert_eq!(faults_of("shaders/norm/a.wgsl", FULL), Vec::<String>::new());
        let part = "// a: x\n// params  none\n// shared  none\n\
            // reference crates/emu-kernels/src/cpu/norm/a.rs test tests/kernels/a.rs\n";
        assert_eq!(
            faults_of("shaders/shared/a.wgsl", part),
            Vec::<String>::new()
        );
        assert_eq!(faults_of("shaders/norm/a.wgsl", part).len(), 2);
    }

    #[test]
    fn a_missing_field_is_found() {
        for (field, count) in [
            ("// grid ", 1),
            ("// bindings ", 1),
            ("// params ", 1),
            ("// shared ", 1),
            // This line has two of them.
            ("// reference ", 2),
            ("// a: ", 1),
        ] {
            let lines = FULL.lines().filter(|line| !line.starts_with(field));
            let text: Vec<&str> = lines.collect();
            let found = faults_of("shaders/norm/a.wgsl", &text.join("\n"));
            assert_eq!(found.len(), count, "{field}: {found:?}");
        }
        let empty = FULL.replace("// shared     none", "// shared  ");
        assert_eq!(faults_of("shaders/norm/a.wgsl", &empty).len(), 1);
        assert_eq!(faults_of("shaders/norm/a.wgsl", "fn main() {}\n").len(), 7);
        // Another kernel's header, with its reference and without a launch.
        assert_eq!(faults_of("shaders/norm/b.wgsl", FULL).len(), 3);
    }

    #[test]
    fn a_buffer_or_parameter_that_the_header_lacks_is_found() {
        for (before, after, lacks) in [
            ("// bindings   x, y, bias", "// bindings   x, bias", "`y`"),
            ("info {rows}", "{rows}", "`info`"),
            ("// params     width; fast", "// params     fast", "`width`"),
            ("fast: with subgroups", "with subgroups", "`fast`"),
            ("//            bias; parts", "//            bias", "`parts`"),
            ("//            bias; parts", "//            parts", "`bias`"),
        ] {
            let found = faults_of("shaders/norm/a.wgsl", &FULL.replacen(before, after, 1));
            assert_eq!(found.len(), 1, "{lacks}: {found:?}");
            assert!(found[0].contains(lacks), "{found:?}");
        }
    }

    #[test]
    fn a_missing_file_is_found() {
        let no_file = FULL.replace("test  tests/kernels/a.rs", "test  tests/kernels/b.rs");
        let found = faults_of("shaders/norm/a.wgsl", &no_file);
        assert!(found.len() == 1 && found[0].contains("b.rs"), "{found:?}");
    }

    #[test]
    fn files_of_other_names_are_found() {
        let found = |text: &str, others: &[(&str, &str)]| {
            let files = [&[("shaders/norm/a.wgsl", text), TEST][..], others].concat();
            let found = headers(&Tree::planted(&files)).into_iter();
            found.map(|finding| finding.message).collect::<Vec<_>>()
        };
        assert_eq!(found(FULL, &[REFERENCE, LAUNCH]), Vec::<String>::new());
        // A reference of another name.
        let other = ("crates/emu-kernels/src/cpu/norm/norms.rs", "");
        let text = FULL.replace("cpu/norm/a.rs", "cpu/norm/norms.rs");
        let faults = found(&text, &[other, LAUNCH]);
        assert!(
            faults.len() == 1 && faults[0].contains("cpu/norm/a.rs"),
            "{faults:?}"
        );
        // No launch, a launch of another name, and a file that launches another kernel.
        let elsewhere = ("crates/emu-kernels/src/gpu/norm/norms.rs", LAUNCH.1);
        let another = (LAUNCH.0, "kernel! { BKernel, \"b\" [\"norm/b.wgsl\"] }");
        let none: &[(&str, &str)] = &[];
        for launch in [none, &[elsewhere], &[another]] {
            let faults = found(FULL, &[&[REFERENCE][..], launch].concat());
            assert!(
                faults.len() == 1 && faults[0].contains("gpu/norm/a.rs"),
                "{faults:?}"
            );
        }
    }
}
