//! What changes a configuration file before it is read: settings of the command line, and environment variables.

use toml::{Table, Value};

use crate::TrainError;

/// A setting of the command line: `optimiser.lr=1e-4`, `data[0].path=shards`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    key: String,
    path: Vec<Step>,
    value: Value,
}

/// A step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Setting {
    /// Its key, as it was written.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl std::str::FromStr for Setting {
    type Err = String;

    /// Parses `KEY=VALUE`. The key is dotted, its parts may be quoted, and `[n]` is an element of a list. The value is
    /// one of TOML; what is none is a string.
    fn from_str(text: &str) -> Result<Self, String> {
        let split = assignment(text).ok_or_else(|| {
            format!("`{text}` has no `=`; write KEY=VALUE, for example optimiser.lr=1e-4")
        })?;
        let (key, value) = (text[..split].trim(), text[split + 1..].trim());
        let path = steps(key).ok_or_else(|| {
            format!("`{key}` is no key; write it like optimiser.lr or data[0].path")
        })?;
        let value = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| (table.len() == 1).then(|| table.remove("value")).flatten())
            .unwrap_or_else(|| Value::String(value.into()));
        Ok(Self {
            key: key.into(),
            path,
            value,
        })
    }
}

/// Position of the first `=` outside of quotes.
fn assignment(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(i, c)| {
        quoted ^= c == '"';
        (c == '=' && !quoted).then_some(i)
    })
}

/// The steps of a dotted key. `None` if it is malformed.
fn steps(key: &str) -> Option<Vec<Step>> {
    let mut steps = vec![];
    let mut rest = key;
    loop {
        // 1. a name
        let name = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            rest = &quoted[end + 1..];
            &quoted[..end]
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let name = &rest[..end];
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '*');
            if name.is_empty() || !name.chars().all(plain) {
                return None;
            }
            rest = &rest[end..];
            name
        };
        steps.push(Step::Key(name.into()));
        // 2. elements of a list
        while let Some(index) = rest.strip_prefix('[') {
            let end = index.find(']')?;
            steps.push(Step::Index(index[..end].parse().ok()?));
            rest = &index[end + 1..];
        }
        // 3. the next name
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Some(steps),
            None => return None,
        }
    }
}

/// Sets values in a configuration, creating tables as needed. `data[n]` may be the element after the last.
///
/// # Errors
/// [`TrainError::Config`] if a step does not fit the value there.
pub(crate) fn apply(table: &mut Table, settings: &[Setting]) -> Result<(), TrainError> {
    for setting in settings {
        let wrong = |message: String| TrainError::config(&setting.key, message);
        let Some((Step::Key(first), rest)) = setting.path.split_first() else {
            continue;
        };
        let mut place = table
            .entry(first.clone())
            .or_insert_with(|| empty(rest.first()));
        for (i, step) in rest.iter().enumerate() {
            let next = || empty(rest.get(i + 1));
            place = match (step, place) {
                (Step::Key(key), Value::Table(table)) => {
                    table.entry(key.clone()).or_insert_with(next)
                }
                (Step::Index(n), Value::Array(list)) => {
                    if *n == list.len() {
                        list.push(next());
                    }
                    let length = list.len();
                    list.get_mut(*n)
                        .ok_or_else(|| wrong(format!("the list has {length} elements")))?
                }
                (Step::Key(key), other) => {
                    let kind = other.type_str();
                    return Err(wrong(format!(
                        "`{key}` cannot be inside a value that is {kind}"
                    )));
                }
                (Step::Index(n), other) => {
                    let kind = other.type_str();
                    return Err(wrong(format!(
                        "[{n}] needs a list, and the value is {kind}"
                    )));
                }
            };
        }
        *place = setting.value.clone();
    }
    Ok(())
}

/// A new value that this step fits.
fn empty(step: Option<&Step>) -> Value {
    match step {
        Some(Step::Index(_)) => Value::Array(vec![]),
        _ => Value::Table(Table::new()),
    }
}

/// Replaces `${NAME}` and `${NAME:-DEFAULT}` in every string of a configuration.
///
/// # Errors
/// [`TrainError::Config`] naming the key, if a variable is not set and has no default.
pub(crate) fn expand(
    table: &mut Table,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(), TrainError> {
    table
        .iter_mut()
        .try_for_each(|(key, value)| expand_value(key, value, variable))
}

fn expand_value(
    key: &str,
    value: &mut Value,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(), TrainError> {
    match value {
        Value::String(text) => *text = expand_text(key, text, variable)?,
        Value::Array(list) => {
            for (i, value) in list.iter_mut().enumerate() {
                expand_value(&format!("{key}[{i}]"), value, variable)?;
            }
        }
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                expand_value(&format!("{key}.{name}"), value, variable)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expand_text(
    key: &str,
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, TrainError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner
            .find('}')
            .ok_or_else(|| TrainError::config(key, format!("`{text}` has `${{` without `}}`")))?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default.to_string())),
            None => (&inner[..end], None),
        };
        let value = variable(name).or(default).ok_or_else(|| {
            TrainError::config(
                key,
                format!("the environment variable {name} is not set (a default is written ${{{name}:-DEFAULT}})"),
            )
        })?;
        expanded.push_str(&value);
        rest = &inner[end + 1..];
    }
    Ok(expanded + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, settings: &[&str]) -> Result<Table, TrainError> {
        let mut table: Table = text.parse().expect("TOML");
        let settings: Vec<Setting> = settings.iter().map(|s| s.parse().expect(s)).collect();
        apply(&mut table, &settings).map(|()| table)
    }

    #[test]
    fn settings_replace_and_add_values() {
        let text = "steps = 1\n[optimiser]\nlr = 1.0\n[[data]]\npath = 'a'\n";
        let settings = [
            "steps=20",
            "optimiser.lr=1e-4",
            "data[0].path=b=c",
            "data[1].path='d'",
            "init.parts.\"lm.layers\"=runs/x",
            "rates=[{ part = 'lm', freeze = true }]",
            "ema.decay = 0.9",
        ];
        let found = set(text, &settings).expect("settings");
        let expected = "steps = 20\n[optimiser]\nlr = 1e-4\n[[data]]\npath = 'b=c'\n[[data]]\npath = 'd'\n\
            [init.parts]\n'lm.layers' = 'runs/x'\n[[rates]]\npart = 'lm'\nfreeze = true\n[ema]\ndecay = 0.9";
        assert_eq!(found, expected.parse::<Table>().expect("TOML"));
    }

    #[test]
    fn malformed_settings_are_refused() {
        for text in [
            "steps", "=1", "a..b=1", "a[=1", "a[x]=1", "a b=1", "\"a=1", "a[0]b=1", "",
        ] {
            let error = text.parse::<Setting>().expect_err(text);
            assert!(error.contains("write"), "{error}");
        }
    }

    #[test]
    fn settings_that_do_not_fit_name_their_key() {
        for setting in ["steps.x=1", "steps[0]=1", "data[2].path=x"] {
            let error = set("steps = 1\n[[data]]\npath = 'a'\n", &[setting]).expect_err(setting);
            let key = setting.split('=').next().expect("a key");
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn variables_are_replaced_everywhere() {
        let mut table: Table =
            "out = '${RUNS}/a$b'\n[[data]]\npath = '${D:-x}/${D:-y}${RUNS}'\nweight = 1\n"
                .parse()
                .expect("TOML");
        let variable = |name: &str| (name == "RUNS").then(|| "runs".to_string());
        expand(&mut table, &variable).expect("variables");
        let expected = "out = 'runs/a$b'\n[[data]]\npath = 'x/yruns'\nweight = 1\n";
        assert_eq!(table, expected.parse::<Table>().expect("TOML"));

        for (text, key) in [("[a]\nb = ['${NO}']", "a.b[0]"), ("c = '${RUNS'", "c")] {
            let mut table: Table = text.parse().expect("TOML");
            let error = expand(&mut table, &variable).expect_err(text);
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
