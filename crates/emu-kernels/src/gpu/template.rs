//! WGSL templates: what a template may name, and how its text is put together.
//!
//! - `{{name}}` is replaced by a number.
//! - Lines between `//@if name` and `//@end` are kept if the switch is on, lines after an `//@else` in between if it is off;
//!   `//@if !name` is the opposite.
//! - Lines between `//@each name` and `//@end` are repeated as often as the number says; `{{nth}}` counts from 0.
//!
//! A name that the constants lack is an error, in a section that is left out too: a default would silently make another kernel
//! of a misspelt one, or a slow one.

use core::fmt::Display;
use core::str::Lines;
use std::collections::BTreeMap;

/// The counter of `//@each`.
const NTH: &str = "nth";

/// What a template may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constants {
    /// Numbers as WGSL text; `None` if the variant has none, so that only sections left out may name it.
    numbers: BTreeMap<&'static str, Option<String>>,
    switches: BTreeMap<&'static str, bool>,
    /// Whether the variant uses subgroup operations, which browsers want declared.
    pub subgroups: bool,
    /// Whether subgroup operations are to be emulated.
    #[cfg(test)]
    pub emulated: bool,
    /// A name that was defined twice, with different values.
    twice: Option<&'static str>,
}

impl Constants {
    /// Defines a number.
    pub fn number(&mut self, name: &'static str, value: Option<impl Display>) {
        let value = value.map(|value| value.to_string());
        let before = self.numbers.insert(name, value.clone());
        self.same(name, before, &value);
    }

    /// Defines a switch.
    pub fn switch(&mut self, name: &'static str, on: bool) {
        let before = self.switches.insert(name, on);
        self.same(name, before, &on);
    }

    fn same<T: PartialEq>(&mut self, name: &'static str, before: Option<T>, now: &T) {
        if before.is_some_and(|before| before != *now) {
            self.twice = Some(name);
        }
    }

    /// Switches that are on and that the template tests for: the variant, to the reader.
    #[cfg(not(target_family = "wasm"))]
    pub fn sections(&self, template: &str) -> Vec<&'static str> {
        let tested = |name: &str| {
            ["", "!"]
                .iter()
                .any(|not| template.contains(&format!("//@if {not}{name}\n")))
        };
        { self.switches.iter() }
            .filter(|(name, on)| **on && tested(name))
            .map(|(name, _)| *name)
            .collect()
    }
}

/// Why a template cannot be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that no constant has.
    #[error(
        "it names `{0}`, which its key does not define; correct the name, or add a field to the key"
    )]
    Unknown(String),
    /// A number that this variant does not have.
    #[error("it names `{0}`, which this variant does not have; move it into a section of its own")]
    Absent(String),
    /// An unknown directive.
    #[error("it has the directive `{0}`, which is none; use if, each, else or end")]
    Directive(String),
    /// A section without an end, or an end or else without a section.
    #[error("its sections do not match: {0}; add what is missing")]
    Unbalanced(&'static str),
    /// A name that is defined twice.
    #[error("its key defines `{0}` twice, differently; rename one of the two")]
    Twice(&'static str),
    /// A buffer that the text does not bind.
    #[error(
        "it does not bind `{0}`, which its key lists; bind it at {{{{{0}}}}}, or strike it from the list"
    )]
    Unbound(&'static str),
}

/// What ended a section.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Text,
    Else,
    End,
}

/// The lines of a template that the constants select, with numbers still to be filled in.
///
/// # Errors
/// The template names what the constants lack, or its sections do not match.
pub fn selected(template: &str, constants: &Constants) -> Result<String, TemplateError> {
    if let Some(name) = constants.twice {
        return Err(TemplateError::Twice(name));
    }
    let mut reader = Reader {
        constants,
        lines: template.lines(),
        repeats: 0,
    };
    match reader.section(true)? {
        (text, Stop::Text) => Ok(text),
        (_, Stop::Else) => Err(TemplateError::Unbalanced("an else without an if")),
        (_, Stop::End) => Err(TemplateError::Unbalanced("an end without a section")),
    }
}

/// Fills in the numbers.
///
/// # Errors
/// The text names what the constants lack.
pub fn filled(text: &str, constants: &Constants) -> Result<String, TemplateError> {
    let mut parts = text.split("{{");
    let mut full = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = placeholder(part)?;
        match constants.numbers.get(name) {
            Some(Some(number)) => full.push_str(number),
            Some(None) => return Err(TemplateError::Absent(name.to_owned())),
            None => return Err(TemplateError::Unknown(name.to_owned())),
        }
        full.push_str(rest);
    }
    Ok(full)
}

/// The name of a placeholder after its `{{`, and the text after it.
fn placeholder(part: &str) -> Result<(&str, &str), TemplateError> {
    let line = || part.lines().next().unwrap_or_default().to_owned();
    part.split_once("}}")
        .ok_or_else(|| TemplateError::Unknown(line()))
}

struct Reader<'a> {
    constants: &'a Constants,
    lines: Lines<'a>,
    /// Depth of `//@each`.
    repeats: usize,
}

impl Reader<'_> {
    /// Reads up to the end of the current section. If it is not kept, its text is empty.
    fn section(&mut self, kept: bool) -> Result<(String, Stop), TemplateError> {
        let mut text = String::new();
        while let Some(line) = self.lines.next() {
            let Some(directive) = line.trim().strip_prefix("//@") else {
                self.check(line)?;
                if kept {
                    text.push_str(line);
                    text.push('\n');
                }
                continue;
            };
            match directive.split_once(' ') {
                None if directive == "end" => return Ok((text, Stop::End)),
                None if directive == "else" => return Ok((text, Stop::Else)),
                Some(("if", name)) => text += &self.choice(name, kept)?,
                Some(("each", name)) => text += &self.repeated(name, kept)?,
                _ => return Err(TemplateError::Directive(directive.to_owned())),
            }
        }
        Ok((text, Stop::Text))
    }

    fn choice(&mut self, name: &str, kept: bool) -> Result<String, TemplateError> {
        let positive = name.trim_start_matches('!');
        let switch = self.constants.switches.get(positive);
        let switch = *switch.ok_or_else(|| TemplateError::Unknown(positive.to_owned()))?;
        let on = switch == (positive == name);
        let (mut text, mut ended) = self.section(kept && on)?;
        if ended == Stop::Else {
            let (other, end) = self.section(kept && !on)?;
            (text, ended) = (text + &other, end);
        }
        match ended {
            Stop::End => Ok(text),
            Stop::Else => Err(TemplateError::Unbalanced("two elses of one if")),
            Stop::Text => Err(TemplateError::Unbalanced("an if without an end")),
        }
    }

    fn repeated(&mut self, name: &str, kept: bool) -> Result<String, TemplateError> {
        let times = match self.constants.numbers.get(name) {
            None => return Err(TemplateError::Unknown(name.to_owned())),
            Some(None) if kept => return Err(TemplateError::Absent(name.to_owned())),
            Some(number) => number.as_ref().and_then(|number| number.parse().ok()),
        };
        self.repeats += 1;
        let (inner, ended) = self.section(kept)?;
        self.repeats -= 1;
        if ended != Stop::End {
            return Err(TemplateError::Unbalanced("an each without an end"));
        }
        let counter = format!("{{{{{NTH}}}}}");
        Ok({ 0..times.unwrap_or(0usize) }
            .map(|nth| inner.replace(&counter, &nth.to_string()))
            .collect())
    }

    /// Checks the names of a line, whether it is kept or not.
    fn check(&self, line: &str) -> Result<(), TemplateError> {
        for part in line.split("{{").skip(1) {
            let (name, _) = placeholder(part)?;
            let counter = name == NTH && self.repeats > 0;
            if !counter && !self.constants.numbers.contains_key(name) {
                return Err(TemplateError::Unknown(name.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants() -> Constants {
        let mut constants = Constants::default();
        constants.switch("on", true);
        constants.switch("off", false);
        constants.number("times", Some(2));
        constants.number("size", Some(7));
        constants.number("none", None::<usize>);
        constants
    }

    fn full(template: &str) -> Result<String, TemplateError> {
        filled(&selected(template, &constants())?, &constants())
    }

    #[test]
    fn sections_and_numbers_are_filled_in() {
        for (template, text) in [
            (
                "//@if on\na {{size}}\n//@if off\nb\n//@end\n//@end\n",
                "a 7\n",
            ),
            ("//@if off\na\n//@else\nb\n//@end\nc\n", "b\nc\n"),
            ("//@if on\na\n//@else\nb {{none}}\n//@end\n", "a\n"),
            ("//@if !off\na\n//@else\nb\n//@end\n", "a\n"),
            ("//@if !on\na\n//@end\n", ""),
            ("//@each times\nc{{nth}}{{size}}\n//@end\n", "c07\nc17\n"),
            ("//@if off\n//@each none\nc{{nth}}\n//@end\n//@end\n", ""),
            (
                "//@if off\n//@if on\na\n//@else\nb\n//@end\n//@else\nc\n//@end\n",
                "c\n",
            ),
        ] {
            assert_eq!(full(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn a_name_that_no_constant_has_is_an_error() {
        let unknown = |name: &str| TemplateError::Unknown(name.to_owned());
        for (template, error) in [
            ("//@if onn\nfast\n//@end\n", unknown("onn")),
            ("//@if !onn\nfast\n//@end\n", unknown("onn")),
            ("//@each tmes\nfast\n//@end\n", unknown("tmes")),
            ("const SIZE = {{sise}}u;\n", unknown("sise")),
            // A number is no switch, and a switch no number.
            ("//@if size\nfast\n//@end\n", unknown("size")),
            ("{{on}}\n", unknown("on")),
            // In a section that is left out too, and as the rest of a line.
            ("//@if off\n//@if onn\na\n//@end\n//@end\n", unknown("onn")),
            ("//@if off\n{{sise}}\n//@end\n", unknown("sise")),
            ("{{nth}}\n", unknown("nth")),
            ("{{size}\n", unknown("size}")),
            ("{{none}}\n", TemplateError::Absent("none".into())),
            (
                "//@each none\na\n//@end\n",
                TemplateError::Absent("none".into()),
            ),
            (
                "//@unless off\nfast\n//@end\n",
                TemplateError::Directive("unless off".into()),
            ),
            (
                "//@if\nfast\n//@end\n",
                TemplateError::Directive("if".into()),
            ),
        ] {
            assert_eq!(full(template), Err(error), "{template}");
        }
    }

    #[test]
    fn sections_that_do_not_match_are_an_error() {
        for template in [
            "//@if on\na\n",
            "//@each times\na\n",
            "//@each times\na\n//@else\nb\n//@end\n",
            "//@if on\na\n//@else\nb\n//@else\nc\n//@end\n",
            "a\n//@end\n",
            "a\n//@else\nb\n//@end\n",
        ] {
            let found = full(template);
            assert!(
                matches!(found, Err(TemplateError::Unbalanced(_))),
                "{template}: {found:?}"
            );
        }
    }

    #[test]
    fn a_name_with_two_values_is_an_error() {
        let mut constants = constants();
        constants.switch("on", true);
        constants.number("size", Some(7));
        assert!(selected("", &constants).is_ok(), "the same values");
        constants.switch("on", false);
        assert_eq!(selected("", &constants), Err(TemplateError::Twice("on")));
    }
}
