//! Prompt templates: text with placeholders in braces.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `{system}`: the system text of the preset.
    System,
    /// `{examples}`: the few-shot examples.
    Examples,
    /// `{media}`: the picture or video.
    Media,
    /// `{question}`
    Question,
    /// `{answer}`
    Answer,
    /// `{caption}`: the caption that the model gave in a first step.
    Caption,
    /// `{history}`: earlier rounds of a dialog.
    History,
}

impl Slot {
    const ALL: [(&'static str, Self); 7] = [
        ("system", Self::System),
        ("examples", Self::Examples),
        ("media", Self::Media),
        ("question", Self::Question),
        ("answer", Self::Answer),
        ("caption", Self::Caption),
        ("history", Self::History),
    ];

    /// Its name, without braces.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, slot)| *slot == self)
            .map_or("", |(name, _)| name)
    }
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, which may spell special tokens.
    Text(String),
    /// A placeholder.
    Slot(Slot),
}

/// A parsed template. `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// If a placeholder is not known or a brace has no partner: a sentence.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut pieces = vec![];
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else if let Some(after) = from.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or_else(|| {
                    format!("{source:?} has an open brace without its partner. Close it, or write {{{{ for a brace")
                })?;
                let slot = Slot::ALL
                    .iter()
                    .find(|(known, _)| *known == name)
                    .ok_or_else(|| {
                        let known: Vec<_> = Slot::ALL
                            .iter()
                            .map(|(known, _)| format!("{{{known}}}"))
                            .collect();
                        format!(
                            "{source:?} has the unknown placeholder {{{name}}}. Known are {}",
                            known.join(", ")
                        )
                    })?;
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Slot(slot.1));
                rest = after;
            } else {
                return Err(format!(
                    "{source:?} has a closing brace without its partner. Write }}}} for a brace"
                ));
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self {
            source: source.to_owned(),
            pieces,
        })
    }

    /// Its pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How often a placeholder occurs.
    pub fn count(&self, slot: Slot) -> usize {
        self.pieces
            .iter()
            .filter(|piece| **piece == Piece::Slot(slot))
            .count()
    }

    /// Checks that each placeholder of `once` occurs exactly once, each of `perhaps` at most once, and no other.
    pub(super) fn check(&self, once: &[Slot], perhaps: &[Slot]) -> Result<(), String> {
        for (name, slot) in Slot::ALL {
            let (least, most) = match (once.contains(&slot), perhaps.contains(&slot)) {
                (true, _) => (1, 1),
                (false, true) => (0, 1),
                (false, false) => (0, 0),
            };
            let count = self.count(slot);
            let demand = match (least, most) {
                _ if (least..=most).contains(&count) => continue,
                (1, _) => "it must have it exactly once",
                (_, 1) => "it may have it only once",
                _ => "it has no use here",
            };
            return Err(format!(
                "{:?} has {{{name}}} {count} times; {demand}",
                self.source
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        Self::parse(&source)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholders_and_braces() {
        let template = Template::parse("[USER]: {media}{{x}} {question}?").expect("template");
        assert_eq!(
            template.pieces(),
            [
                Piece::Text("[USER]: ".into()),
                Piece::Slot(Slot::Media),
                Piece::Text("{x} ".into()),
                Piece::Slot(Slot::Question),
                Piece::Text("?".into()),
            ]
        );
        assert_eq!(template.count(Slot::Media), 1);
        assert!(template.check(&[Slot::Media], &[Slot::Question]).is_ok());
        for (once, perhaps, words) in [
            (
                &[Slot::Media, Slot::Answer][..],
                &[Slot::Question][..],
                "{answer} 0 times; it must",
            ),
            (&[Slot::Media], &[], "{question} 1 times; it has no use"),
        ] {
            let error = template.check(once, perhaps).expect_err("wrong");
            assert!(error.contains(words), "{error}");
        }
        let twice = Template::parse("{caption}{caption}").expect("template");
        assert!(
            twice
                .check(&[], &[Slot::Caption])
                .expect_err("twice")
                .contains("only once")
        );
    }

    #[test]
    fn faults_are_sentences() {
        for (source, words) in [
            ("{medium}", "unknown placeholder"),
            ("{media", "open brace"),
            ("a } b", "closing brace"),
        ] {
            let error = Template::parse(source).expect_err(source);
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_with_doubled_braces_is_itself(text in ".*") {
            let source = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&source).expect("escaped");
            let expected = if text.is_empty() { vec![] } else { vec![Piece::Text(text)] };
            prop_assert_eq!(template.pieces(), expected.as_slice());
            prop_assert_eq!(template.to_string(), source);
        }

        #[test]
        fn any_text_is_survived(text in "[{}a-z ]*") {
            let _ = Template::parse(&text);
        }
    }
}
