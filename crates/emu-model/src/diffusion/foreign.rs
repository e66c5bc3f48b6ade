//! Reader for the `config.json` of diffusers, where most fields belong to features that only some models use.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::ConfigError;

/// Third-party configuration being read; tracks which fields have been read.
pub(crate) struct Foreign<'a> {
    what: &'static str,
    fields: &'a Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

impl<'a> Foreign<'a> {
    /// `what` names the kind of file in errors.
    pub fn new(what: &'static str, value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(fields) => Ok(Self {
                what,
                fields,
                seen: BTreeSet::new(),
            }),
            _ => Err(ConfigError(format!("{what} is no JSON object"))),
        }
    }

    /// The value of a field, unless absent or null.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.insert(key);
        self.fields.get(key).filter(|v| !v.is_null())
    }

    pub fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        let value = self.fields.get(key).unwrap_or(&Value::Null);
        ConfigError(format!(
            "{}: `{key}` is {value}, where {expected} is expected",
            self.what
        ))
    }

    pub fn usize(&mut self, key: &'static str, default: usize) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.wrong(key, "a whole number"))
    }

    pub fn f64(&mut self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value.as_f64().ok_or_else(|| self.wrong(key, "a number"))
    }

    pub fn bool(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub fn str(&mut self, key: &'static str, default: &'a str) -> Result<&'a str, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value.as_str().ok_or_else(|| self.wrong(key, "a text"))
    }

    pub fn sizes(
        &mut self,
        key: &'static str,
        default: &[usize],
    ) -> Result<Vec<usize>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default.to_vec());
        };
        let sizes = value.as_array().and_then(|list| {
            list.iter()
                .map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
                .collect::<Option<Vec<_>>>()
        });
        sizes.ok_or_else(|| self.wrong(key, "a list of whole numbers"))
    }

    pub fn texts(
        &mut self,
        key: &'static str,
        default: &[&'a str],
    ) -> Result<Vec<&'a str>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default.to_vec());
        };
        let texts = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.ok_or_else(|| self.wrong(key, "a list of texts"))
    }

    /// Checks that a field has one of the supported values (JSON); absent and null are always accepted.
    pub fn only(&mut self, key: &'static str, supported: &[&str]) -> Result<(), ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(());
        };
        let same = |text: &&str| match (serde_json::from_str::<Value>(text), value.as_f64()) {
            (Ok(other), Some(number)) => other.as_f64() == Some(number),
            (Ok(other), None) => other == *value,
            (Err(_), _) => false,
        };
        if supported.iter().any(same) {
            Ok(())
        } else {
            Err(self.wrong(key, &supported.join(" or ")))
        }
    }

    /// Marks fields that have no effect here as read.
    pub fn ignore(&mut self, keys: &[&'static str]) {
        self.seen.extend(keys);
    }

    /// Fails on a field that was never read, unless it is off (null or false) or metadata of the file (`_..`).
    pub fn finish(self) -> Result<(), ConfigError> {
        let unknown = self.fields.iter().find(|(key, value)| {
            let off = matches!(value, Value::Null | Value::Bool(false));
            !off && !key.starts_with('_') && !self.seen.contains(key.as_str())
        });
        match unknown {
            None => Ok(()),
            Some((key, value)) => Err(ConfigError(format!(
                "{}: `{key}` (here {value}) is a feature that is not supported",
                self.what
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_features_are_named() {
        let value = json!({"_class_name": "X", "new_feature": 3, "off": false, "none": null});
        let foreign = Foreign::new("x", &value).unwrap();
        assert!(
            foreign
                .finish()
                .unwrap_err()
                .to_string()
                .contains("`new_feature` (here 3)")
        );
        assert!(Foreign::new("x", &json!([1])).is_err());
    }

    #[test]
    fn values_are_checked() {
        let value = json!({"n": "four", "size": -1, "act": "relu", "scale": 1, "list": [1, "a"]});
        let mut foreign = Foreign::new("x", &value).unwrap();
        assert!(
            foreign
                .usize("n", 1)
                .unwrap_err()
                .to_string()
                .contains("`n` is \"four\"")
        );
        assert!(foreign.usize("size", 1).is_err());
        assert!(foreign.sizes("list", &[]).is_err());
        assert!(foreign.only("act", &["\"silu\""]).is_err());
        assert!(foreign.only("scale", &["1.0"]).is_ok());
        assert_eq!(foreign.usize("absent", 7), Ok(7));
    }
}
