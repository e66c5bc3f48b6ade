//! A value of a row, whatever the format of its file.

use std::sync::Arc;

use serde_json::{Number, Value as Json};

/// A value of a row. Columns and fields keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Bytes(Arc<[u8]>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(value) => Self::Number(value),
            Json::String(value) => Self::Text(value),
            Json::Array(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Json::Object(map) => Self::Map(
                map.into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

impl Value {
    /// The field of this name; else the one whose name differs in case only. `None` if it is null.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else {
            return None;
        };
        let exact = fields.iter().find(|(key, _)| key == name);
        let found = exact.or_else(|| {
            fields
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
        });
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Self::Null)
    }

    /// Whether there is a field of this name, null or not.
    pub fn has(&self, name: &str) -> bool {
        matches!(self, Self::Map(fields) if fields.iter().any(|(key, _)| key.eq_ignore_ascii_case(name)))
    }

    /// The first of these fields that is not null.
    pub fn any_field(&self, names: &[&str]) -> Option<&Self> {
        names.iter().find_map(|name| self.field(name))
    }

    /// The chosen field, or without a choice the first of these.
    pub fn chosen(&self, choice: Option<&str>, names: &[&str]) -> Option<&Self> {
        match choice {
            Some(name) => self.field(name),
            None => self.any_field(names),
        }
    }

    /// A text or a number as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The text of a field.
    pub fn text_of(&self, name: &str) -> Option<String> {
        self.field(name)?.text()
    }

    /// A text, or the texts of a list.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(list) => list.iter().filter_map(Self::text).collect(),
            other => other.text().into_iter().collect(),
        }
    }

    /// A number, or a text that is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
        .filter(|number| number.is_finite())
    }

    /// The elements of a list; none for anything else.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// The names of the fields, for messages.
    pub fn names(&self) -> String {
        match self {
            Self::Map(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                format!("its fields are {}", names.join(", "))
            }
            _ => "it is no object".into(),
        }
    }
}
