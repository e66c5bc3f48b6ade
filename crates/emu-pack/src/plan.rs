//! Strict comparison of a checkpoint with a model, by names and shapes alone.

use std::collections::HashMap;

use crate::unwrapped::common_segment;
use crate::{KeyMap, KeyReport, Mapped, PackError, Stored, TensorData, TensorInfo, TensorSource};

/// Maps every model parameter to a source tensor; complete and exact, as checked by [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    entries: Vec<(String, String)>,
    by_name: HashMap<String, usize>,
    ignored: Vec<String>,
}

impl Plan {
    /// Pairs of model name and source key, in the order of the expected parameters.
    pub fn entries(&self) -> &[(String, String)] {
        &self.entries
    }

    /// The source key of a model parameter.
    pub fn source_key(&self, name: &str) -> Option<&str> {
        self.entries
            .get(*self.by_name.get(name)?)
            .map(|(_, key)| key.as_str())
    }

    /// Type and shape of every parameter in the source, under the model's names and in their order.
    pub fn infos(&self, source: &(impl TensorSource + ?Sized)) -> Vec<TensorInfo> {
        let infos = self.entries.iter().filter_map(|(name, key)| {
            Some(TensorInfo {
                name: name.clone(),
                ..source.info(key)?.clone()
            })
        });
        infos.collect()
    }

    /// Source keys on the map's ignore list.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Reads the tensor of a model parameter, under the model's name; quantized if the source has it so.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn read_stored(
        &self,
        source: &(impl TensorSource + ?Sized),
        name: &str,
    ) -> Result<Stored, PackError> {
        let Some(key) = self.source_key(name) else {
            return self.read(source, name).map(Stored::Dense);
        };
        Ok(source.read_stored(key)?.renamed(name))
    }

    /// Reads the tensor of a model parameter, under the model's name.
    pub fn read(
        &self,
        source: &(impl TensorSource + ?Sized),
        name: &str,
    ) -> Result<TensorData, PackError> {
        match self.source_key(name) {
            Some(key) => Ok(source.read(key)?.renamed(name)),
            None => Err(PackError::MissingTensor {
                file: "the plan".into(),
                tensor: name.into(),
            }),
        }
    }
}

/// Checks that `source` has exactly the `expected` parameters (model name and shape), renamed by `map`.
///
/// Missing, unused, misshapen and duplicate keys are reported together in [`PackError::Keys`]. Only names and shapes are
/// used, so this reads no weights.
pub fn check(
    source: &[TensorInfo],
    expected: &[(String, Vec<usize>)],
    map: &KeyMap,
) -> Result<Plan, PackError> {
    let mut report = KeyReport::default();
    let mut by_name = HashMap::with_capacity(expected.len());
    for (i, (name, _)) in expected.iter().enumerate() {
        if by_name.insert(name.clone(), i).is_some() {
            report.duplicate.push(format!("{name} (expected twice)"));
        }
    }

    let mut keys: Vec<Option<&str>> = vec![None; expected.len()];
    let mut ignored = Vec::new();
    for info in source {
        let name = match map.to_model(&info.name) {
            Some(Mapped::Name(name)) => name,
            Some(Mapped::Ignored) => {
                ignored.push(info.name.clone());
                continue;
            }
            None => {
                report.unused.push(info.name.clone());
                continue;
            }
        };
        let position = by_name.get(&name).copied();
        let Some((slot, (_, shape))) =
            position.and_then(|p| Some((keys.get_mut(p)?, expected.get(p)?)))
        else {
            report.unused.push(info.name.clone());
            continue;
        };
        if let Some(other) = slot {
            report
                .duplicate
                .push(format!("{name} (from {other} and {})", info.name));
            continue;
        }
        *slot = Some(&info.name);
        if *shape != info.shape {
            report.misshapen.push(format!(
                "{} (is {:?}, needs {shape:?})",
                info.name, info.shape
            ));
        }
    }

    let mut entries = Vec::with_capacity(expected.len());
    for ((name, _), key) in expected.iter().zip(keys) {
        match key {
            Some(key) => entries.push((name.clone(), key.to_owned())),
            // Report the checkpoint's spelling: the user will look there.
            None => report
                .missing
                .push(map.to_checkpoint(name).unwrap_or_else(|| name.clone())),
        }
    }
    if report.unused.len() == source.len() {
        let names = source.iter().map(|info| info.name.as_str());
        report.prefix = common_segment(names).map(str::to_owned);
    }
    match report.is_empty() {
        true => Ok(Plan {
            entries,
            by_name,
            ignored,
        }),
        false => Err(PackError::Keys(Box::new(report))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, InMemory, Rule};

    fn info(name: &str, shape: &[usize]) -> TensorInfo {
        TensorInfo {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.into(),
        }
    }

    fn map() -> KeyMap {
        let rules = [
            Rule::new("old.{rest..}", "new.{rest..}"),
            Rule::alias("older.{rest..}", "new.{rest..}"),
        ];
        KeyMap::new(rules, ["{x..}.position_ids"]).unwrap()
    }

    fn expected() -> Vec<(String, Vec<usize>)> {
        vec![("new.a".into(), vec![2, 3]), ("new.b".into(), vec![4])]
    }

    #[test]
    fn a_fitting_checkpoint_gives_a_plan() {
        let source = [
            info("older.b", &[4]),
            info("old.a", &[2, 3]),
            info("x.position_ids", &[1, 77]),
        ];
        let plan = check(&source, &expected(), &map()).unwrap();
        assert_eq!(
            plan.entries(),
            [
                ("new.a".into(), "old.a".into()),
                ("new.b".into(), "older.b".into())
            ]
        );
        assert_eq!(plan.source_key("new.b"), Some("older.b"));
        assert_eq!(plan.ignored(), ["x.position_ids"]);
        let zeros = source.iter().map(|info| {
            let bytes = vec![0; info.byte_len().unwrap()];
            TensorData::new(&info.name, info.dtype, info.shape.clone(), bytes).unwrap()
        });
        assert_eq!(
            plan.infos(&InMemory::new(zeros).unwrap()),
            [info("new.a", &[2, 3]), info("new.b", &[4])]
        );
        let weights = [
            TensorData::from_f32("older.b", vec![4], &[1.0; 4]).unwrap(),
            TensorData::from_f32("old.a", vec![2, 3], &[0.0; 6]).unwrap(),
        ];
        let read = plan
            .read(&InMemory::new(weights).unwrap(), "new.b")
            .unwrap();
        assert_eq!(
            (read.info.name.as_str(), read.to_f32().unwrap()),
            ("new.b", vec![1.0; 4])
        );
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        let source = [
            info("old.a", &[3, 2]),
            info("older.a", &[2, 3]),
            info("old.c", &[1]),
            info("elsewhere", &[1]),
        ];
        let PackError::Keys(report) = check(&source, &expected(), &map()).unwrap_err() else {
            panic!()
        };
        assert_eq!(report.missing, ["old.b"]);
        assert_eq!(report.unused, ["old.c", "elsewhere"]);
        assert_eq!(report.misshapen, ["old.a (is [3, 2], needs [2, 3])"]);
        assert_eq!(report.duplicate, ["new.a (from old.a and older.a)"]);
        let message = PackError::Keys(report).to_string();
        assert!(
            message.contains("1 missing (old.b)") && message.contains("2 unused"),
            "{message}"
        );
    }

    #[test]
    fn long_lists_are_cut_but_counted() {
        let source: Vec<_> = (0..37).map(|i| info(&format!("k{i}"), &[1])).collect();
        let message = check(&source, &[], &map()).unwrap_err().to_string();
        assert!(
            message.contains("37 unused (k0, ")
                && message.contains("k9, ...)")
                && !message.contains("k10"),
            "{message}"
        );
    }

    #[test]
    fn expecting_a_name_twice_is_an_error() {
        let twice = [("new.a".into(), vec![1]), ("new.a".into(), vec![1])];
        assert_eq!(
            check(&[info("old.a", &[1])], &twice, &map())
                .unwrap_err()
                .code(),
            "keys"
        );
    }
}
