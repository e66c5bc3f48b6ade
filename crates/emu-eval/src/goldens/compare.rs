//! Comparisons of one file.

use std::fmt::Debug;

use serde::Serialize;

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// The file.
    pub file: String,
    /// The item and what was compared.
    pub name: String,
    /// Distance from the recorded result: relative or absolute for numbers, 0 or 1 for texts.
    #[serde(serialize_with = "finite_or_text")]
    pub error: f64,
    /// The greatest distance that passes.
    pub bound: f64,
    /// Whether the comparison passed.
    pub passed: bool,
    /// The recorded and the computed result, if they differ by more than the bound.
    pub detail: Option<String>,
}

/// Collects the comparisons of one file.
pub struct Comparison {
    file: String,
    pub cases: Vec<Case>,
}

impl Comparison {
    pub fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            cases: Vec::new(),
        }
    }

    /// Two numbers. The error is relative unless the recorded number is 0.
    pub fn relative(&mut self, name: impl Into<String>, found: f64, recorded: f64, bound: f64) {
        let scale = if recorded == 0.0 { 1.0 } else { recorded.abs() };
        self.push(
            name.into(),
            (found - recorded).abs() / scale,
            bound,
            &found,
            &recorded,
        );
    }

    /// Two numbers and their difference.
    pub fn absolute(&mut self, name: impl Into<String>, found: f64, recorded: f64, bound: f64) {
        self.push(
            name.into(),
            (found - recorded).abs(),
            bound,
            &found,
            &recorded,
        );
    }

    /// Two things that must be the same.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: impl Into<String>, found: T, recorded: T) {
        let error = if found == recorded { 0.0 } else { 1.0 };
        self.push(name.into(), error, 0.0, &found, &recorded);
    }

    /// Lets failed comparisons pass if they are at most this share of all. They keep their details.
    pub fn allow(&mut self, share: f64) {
        let failed = self.cases.iter().filter(|case| !case.passed).count();
        if failed as f64 <= share * self.cases.len() as f64 {
            self.cases.iter_mut().for_each(|case| case.passed = true);
        }
    }

    fn push(
        &mut self,
        name: String,
        error: f64,
        bound: f64,
        found: &dyn Debug,
        recorded: &dyn Debug,
    ) {
        // False for NaN.
        let passed = error <= bound;
        self.cases.push(Case {
            file: self.file.clone(),
            name,
            error,
            bound,
            passed,
            detail: (!passed).then(|| format!("recorded {recorded:?}, found {found:?}")),
        });
    }
}

/// JSON has no infinity and no NaN.
fn finite_or_text<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.serialize_str(&value.to_string())
    }
}
