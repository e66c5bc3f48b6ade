//! Removal of wrapper prefixes from checkpoint keys.

use std::borrow::Cow;

use crate::{
    KeyMap, Mapped, PackError, Stored, TensorData, TensorInfo, TensorSource, tensor::Index,
};

/// Key segments that PyTorch's wrappers insert; no model has modules of these names.
const WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];
/// Maximum number of segments in the common prefix.
const MAX_PREFIX: usize = 4;

/// A source with keys as a model's key map knows them: without the common prefix of all keys (`module.` of
/// `DistributedDataParallel`, `model.` of trainers), and without the segments that `torch.compile` and FSDP insert.
#[derive(Debug)]
pub struct Unwrapped<S> {
    source: S,
    index: Index,
    /// Keys of the source, in the order of `index`.
    keys: Vec<String>,
}

impl<S: TensorSource> Unwrapped<S> {
    /// Determines what to remove from the keys: no prefix if the map already knows one of them, or would know none anyway.
    ///
    /// # Errors
    /// Two keys become equal.
    pub fn new(source: S, map: &KeyMap) -> Result<Self, PackError> {
        let infos = source.tensors();
        let names: Vec<Cow<'_, str>> = infos.iter().map(|info| plain(&info.name)).collect();
        let prefix = prefix(&names, map);
        let mut index = Index::default();
        for (info, name) in infos.iter().zip(&names) {
            let renamed = TensorInfo {
                name: name.get(prefix..).unwrap_or(name).into(),
                ..info.clone()
            };
            if !index.push(renamed) {
                return Err(PackError::DuplicateTensor {
                    file: "the checkpoint".into(),
                    tensor: info.name.clone(),
                });
            }
        }
        let keys = infos.iter().map(|info| info.name.clone()).collect();
        Ok(Self {
            source,
            index,
            keys,
        })
    }

    fn key(&self, name: &str) -> Result<&str, PackError> {
        let found = self.index.position(name).and_then(|p| self.keys.get(p));
        found
            .map(String::as_str)
            .ok_or_else(|| PackError::MissingTensor {
                file: "the checkpoint".into(),
                tensor: name.into(),
            })
    }
}

impl<S: TensorSource> TensorSource for Unwrapped<S> {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        Ok(self.source.read(self.key(name)?)?.renamed(name))
    }

    fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        Ok(self.source.read_stored(self.key(name)?)?.renamed(name))
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

/// A key without wrapper segments.
fn plain(key: &str) -> Cow<'_, str> {
    let wraps = |segment: &str| WRAPPERS.contains(&segment);
    match key.split('.').any(wraps) {
        true => {
            let kept = key.split('.').filter(|segment| !wraps(segment));
            Cow::Owned(kept.collect::<Vec<_>>().join("."))
        }
        false => Cow::Borrowed(key),
    }
}

/// Length in bytes of the prefix without which the map knows a key.
fn prefix(names: &[Cow<'_, str>], map: &KeyMap) -> usize {
    let mut from = 0;
    for _ in 0..=MAX_PREFIX {
        let rest = |name: &Cow<'_, str>| name.get(from..).map(str::to_owned).unwrap_or_default();
        let known = |name: &String| matches!(map.to_model(name), Some(Mapped::Name(_)));
        if names.iter().map(rest).any(|name| known(&name)) {
            return from;
        }
        match common_segment(names.iter().filter_map(|name| name.get(from..))) {
            Some(segment) => from += segment.len() + 1,
            None => break,
        }
    }
    0
}

/// The first segment of all names, if it is the same.
pub(crate) fn common_segment<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut names = names.into_iter().map(|name| Some(name.split_once('.')?.0));
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InMemory, Rule, check};

    fn source(names: &[&str]) -> InMemory {
        let tensor = |(value, name): (u8, &&str)| {
            TensorData::from_f32(*name, vec![1], &[value.into()]).unwrap()
        };
        InMemory::new((0..).zip(names).map(tensor)).unwrap()
    }

    fn map() -> KeyMap {
        let rules = [
            Rule::new("visual.{rest..}", "v.{rest..}"),
            Rule::same("head"),
        ];
        KeyMap::new(rules, ["{any..}.position_ids"]).unwrap()
    }

    #[test]
    fn common_prefixes_are_left_out() {
        let parameters = [("v.a".to_owned(), vec![1]), ("head".to_owned(), vec![1])];
        for names in [
            ["visual.a", "head", "visual.position_ids"],
            [
                "module.visual.a",
                "module.head",
                "module.visual.position_ids",
            ],
            [
                "state.model.visual.a",
                "state.model.head",
                "state.model.visual.position_ids",
            ],
            [
                "_orig_mod.module.visual._fsdp_wrapped_module.a",
                "_orig_mod.module.head",
                "module.visual.position_ids",
            ],
        ] {
            let unwrapped = Unwrapped::new(source(&names), &map()).unwrap();
            let plan = check(unwrapped.tensors(), &parameters, &map()).unwrap();
            let read = |name: &str| plan.read(&unwrapped, name).unwrap().to_f32().unwrap();
            assert_eq!((read("v.a"), read("head")), (vec![0.0], vec![1.0]));
            assert_eq!(unwrapped.read("gone").unwrap_err().code(), "missing-tensor");
        }
    }

    #[test]
    fn keys_that_no_prefix_explains_stay() {
        for names in [["a.x", "a.y"], ["a.x", "b.y"], ["visual.a", "module.head"]] {
            let unwrapped = Unwrapped::new(source(&names), &map()).unwrap();
            let kept: Vec<_> = unwrapped
                .tensors()
                .iter()
                .map(|i| i.name.as_str())
                .collect();
            assert_eq!(kept, names);
        }
        let twice = source(&["visual.a", "visual._orig_mod.a"]);
        assert_eq!(
            Unwrapped::new(twice, &map()).unwrap_err().code(),
            "duplicate-tensor"
        );
        // The prefix of a foreign model is reported once, not for every key.
        let foreign = source(&["net.x", "net.y"]);
        let error = check(foreign.tensors(), &[("v.a".into(), vec![1])], &map()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("every key begins with `net.`"),
            "{message}"
        );
    }
}
