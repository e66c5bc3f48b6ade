//! Key maps: declarative renaming between checkpoint keys and model parameter names, in both directions.

use std::fmt;

use crate::PackError;

/// One renaming rule: a pattern for checkpoint keys and one for model names, with the same placeholders.
///
/// Keys are dotted. In a pattern, `{x}` matches a non-empty run within one segment, `{x..}` one or more whole
/// segments; a segment has at most one placeholder, a pattern at most one `{x..}`:
///
/// ```
/// use emu_pack::{KeyMap, Mapped, Rule};
/// let map = KeyMap::new(
///     [
///         Rule::new("decoder.lm.model.layers.{i}.{rest..}", "lm.layer{i}.{rest..}"),
///         Rule::alias("decoder.transformer.{rest..}", "lm.{rest..}"),
///     ],
///     ["{any..}.position_ids"],
/// )?;
/// assert_eq!(map.to_model("decoder.lm.model.layers.7.mlp.up.weight"), Some(Mapped::Name("lm.layer7.mlp.up.weight".into())));
/// assert_eq!(map.to_checkpoint("lm.layer7.mlp.up.weight").as_deref(), Some("decoder.lm.model.layers.7.mlp.up.weight"));
/// assert_eq!(map.to_model("text.embeddings.position_ids"), Some(Mapped::Ignored));
/// # Ok::<(), emu_pack::PackError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    checkpoint: String,
    model: String,
    alias: bool,
}

impl Rule {
    /// A rule for both directions. Both patterns must have the same placeholders.
    pub fn new(checkpoint: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            checkpoint: checkpoint.into(),
            model: model.into(),
            alias: false,
        }
    }

    /// A rule for import only: an alternative spelling of keys that another rule exports.
    pub fn alias(checkpoint: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            checkpoint: checkpoint.into(),
            model: model.into(),
            alias: true,
        }
    }

    /// The same name on both sides.
    pub fn same(pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        Self::new(pattern.clone(), pattern)
    }
}

/// The target of a checkpoint key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// The model parameter of this name.
    Name(String),
    /// None: the key is on the ignore list.
    Ignored,
}

/// An ordered list of [`Rule`]s, of which the first match applies, and a list of keys to ignore.
#[derive(Debug, Clone)]
pub struct KeyMap {
    rules: Vec<Compiled>,
    ignored: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Compiled {
    checkpoint: Pattern,
    model: Pattern,
    alias: bool,
}

impl KeyMap {
    /// Compiles the rules. `ignore` lists patterns of checkpoint keys to ignore; they take precedence over rules.
    pub fn new<'a>(
        rules: impl IntoIterator<Item = Rule>,
        ignore: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PackError> {
        let rules = rules
            .into_iter()
            .map(Compiled::new)
            .collect::<Result<_, _>>()?;
        let ignored = ignore
            .into_iter()
            .map(Pattern::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self { rules, ignored })
    }

    /// The identity map.
    pub fn identity() -> Self {
        let all = Pattern {
            segments: vec![Segment::Many("all".into())],
        };
        Self {
            rules: vec![Compiled {
                checkpoint: all.clone(),
                model: all,
                alias: false,
            }],
            ignored: vec![],
        }
    }

    /// Prefixes both sides, for a module that is under `checkpoint` in its file and under `model` in its parent.
    ///
    /// Prefixes are dotted names without a trailing dot; an empty one leaves that side unchanged.
    pub fn under(mut self, checkpoint: &str, model: &str) -> Result<Self, PackError> {
        let [checkpoint, model] = [Pattern::prefix(checkpoint)?, Pattern::prefix(model)?];
        for rule in &mut self.rules {
            rule.checkpoint
                .segments
                .splice(0..0, checkpoint.iter().cloned());
            rule.model.segments.splice(0..0, model.iter().cloned());
        }
        for pattern in &mut self.ignored {
            pattern.segments.splice(0..0, checkpoint.iter().cloned());
        }
        Ok(self)
    }

    /// Appends another map, which applies to keys that this one does not match.
    pub fn then(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.ignored.extend(other.ignored);
        self
    }

    /// The target of a checkpoint key; `None` if no rule matches.
    pub fn to_model(&self, key: &str) -> Option<Mapped> {
        if self
            .ignored
            .iter()
            .any(|pattern| pattern.capture(key).is_some())
        {
            return Some(Mapped::Ignored);
        }
        self.rules.iter().find_map(|rule| {
            Some(Mapped::Name(
                rule.model.fill(&rule.checkpoint.capture(key)?)?,
            ))
        })
    }

    /// The checkpoint key of a model parameter; `None` if no rule matches. Aliases are never produced.
    pub fn to_checkpoint(&self, name: &str) -> Option<String> {
        self.rules
            .iter()
            .filter(|rule| !rule.alias)
            .find_map(|rule| rule.checkpoint.fill(&rule.model.capture(name)?))
    }
}

impl Compiled {
    fn new(rule: Rule) -> Result<Self, PackError> {
        let checkpoint = Pattern::parse(&rule.checkpoint)?;
        let model = Pattern::parse(&rule.model)?;
        let (mut theirs, mut ours) = (checkpoint.placeholders(), model.placeholders());
        theirs.sort();
        ours.sort();
        // An alias may drop a placeholder on the model side, since it is never used for export.
        let fits = if rule.alias {
            ours.iter().all(|name| theirs.contains(name))
        } else {
            theirs == ours
        };
        match fits {
            true => Ok(Self {
                checkpoint,
                model,
                alias: rule.alias,
            }),
            false => Err(PackError::BadRule {
                rule: format!("{} -> {}", rule.checkpoint, rule.model),
                reason: "its two sides hold different placeholders".into(),
            }),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Literal text.
    Exact(String),
    /// Text, then anything but a dot (at least one character), then text.
    One {
        before: String,
        name: String,
        after: String,
    },
    /// One or more segments.
    Many(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
}

/// Placeholder values as (name, text); a list, since there are few.
type Captures<'a> = Vec<(&'a str, &'a str)>;

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, PackError> {
        let bad = |reason: &str| PackError::BadRule {
            rule: text.into(),
            reason: reason.into(),
        };
        let mut segments = Vec::new();
        for part in split_pattern(text) {
            segments.push(match (part.find('{'), part.find('}')) {
                _ if part.is_empty() => return Err(bad("it has an empty segment")),
                (None, None) => Segment::Exact(part.into()),
                (Some(open), Some(close)) if open < close => {
                    let (before, name, after) =
                        (&part[..open], &part[open + 1..close], &part[close + 1..]);
                    let (name, many) = match name.strip_suffix("..") {
                        Some(name) => (name, true),
                        None => (name, false),
                    };
                    if name.is_empty()
                        || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    {
                        return Err(bad("a placeholder needs a name of letters, digits and _"));
                    }
                    if after.contains(['{', '}']) {
                        return Err(bad("a segment may hold one placeholder"));
                    }
                    match (many, before.is_empty() && after.is_empty()) {
                        (true, true) => Segment::Many(name.into()),
                        (true, false) => return Err(bad("{name..} must fill its segment")),
                        (false, _) => Segment::One {
                            before: before.into(),
                            name: name.into(),
                            after: after.into(),
                        },
                    }
                }
                _ => return Err(bad("its braces do not match")),
            });
        }
        if segments
            .iter()
            .filter(|s| matches!(s, Segment::Many(_)))
            .count()
            > 1
        {
            return Err(bad("it may hold one {name..}"));
        }
        let pattern = Self { segments };
        let mut names = pattern.placeholders();
        names.sort();
        match names.windows(2).any(|pair| pair.first() == pair.last()) {
            true => Err(bad("it names a placeholder twice")),
            false => Ok(pattern),
        }
    }

    /// The segments of a literal prefix.
    fn prefix(text: &str) -> Result<Vec<Segment>, PackError> {
        if text.is_empty() {
            return Ok(vec![]);
        }
        let pattern = Self::parse(text)?;
        match pattern.placeholders().is_empty() {
            true => Ok(pattern.segments),
            false => Err(PackError::BadRule {
                rule: text.into(),
                reason: "a prefix holds no placeholders".into(),
            }),
        }
    }

    /// Placeholder names, with a flag for those that match several segments.
    fn placeholders(&self) -> Vec<(&str, bool)> {
        self.segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Exact(_) => None,
                Segment::One { name, .. } => Some((name.as_str(), false)),
                Segment::Many(name) => Some((name.as_str(), true)),
            })
            .collect()
    }

    /// The placeholder values if `key` matches.
    pub fn capture<'a>(&'a self, key: &'a str) -> Option<Captures<'a>> {
        let mut captures = Vec::new();
        let mut rest = key;
        // All segments but `{x..}` match exactly one: match from the front up to it, then from the back.
        let many = self
            .segments
            .iter()
            .position(|s| matches!(s, Segment::Many(_)));
        let (front, back) = match many {
            Some(at) => (self.segments.get(..at)?, self.segments.get(at + 1..)?),
            None => (self.segments.as_slice(), [].as_slice()),
        };
        for (i, segment) in front.iter().enumerate() {
            let last = many.is_none() && i + 1 == front.len();
            let part = match (last, rest.split_once('.')) {
                (true, None) => std::mem::take(&mut rest),
                (false, Some((part, after))) => {
                    rest = after;
                    part
                }
                _ => return None,
            };
            segment.capture(part, &mut captures)?;
        }
        for segment in back.iter().rev() {
            let (before, part) = rest.rsplit_once('.')?;
            rest = before;
            segment.capture(part, &mut captures)?;
        }
        if let Some(Segment::Many(name)) = many.and_then(|at| self.segments.get(at)) {
            if rest.split('.').any(str::is_empty) {
                return None;
            }
            captures.push((name, rest));
        }
        Some(captures)
    }

    /// The key with these placeholder values.
    fn fill(&self, captures: &Captures<'_>) -> Option<String> {
        let value = |name: &str| {
            captures
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| *value)
        };
        let mut key = String::new();
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                key.push('.');
            }
            match segment {
                Segment::Exact(text) => key.push_str(text),
                Segment::Many(name) => key.push_str(value(name)?),
                Segment::One {
                    before,
                    name,
                    after,
                } => {
                    key.push_str(before);
                    key.push_str(value(name)?);
                    key.push_str(after);
                }
            }
        }
        Some(key)
    }
}

impl Segment {
    fn capture<'a>(&'a self, part: &'a str, captures: &mut Captures<'a>) -> Option<()> {
        match self {
            Self::Exact(text) => (text == part).then_some(()),
            Self::One {
                before,
                name,
                after,
            } => {
                let value = part
                    .strip_prefix(before.as_str())?
                    .strip_suffix(after.as_str())?;
                (!value.is_empty()).then(|| captures.push((name, value)))
            }
            Self::Many(_) => None,
        }
    }
}

/// Splits at dots outside braces.
fn split_pattern(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            _ => {}
        }
        c == '.' && !inside
    })
    .collect()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            f.write_str(if i > 0 { "." } else { "" })?;
            match segment {
                Segment::Exact(text) => f.write_str(text)?,
                Segment::One {
                    before,
                    name,
                    after,
                } => write!(f, "{before}{{{name}}}{after}")?,
                Segment::Many(name) => write!(f, "{{{name}..}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(mapped: Option<Mapped>) -> String {
        match mapped {
            Some(Mapped::Name(name)) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn first_match_wins_and_aliases_import_only() {
        let map = KeyMap::new(
            [
                Rule::new("a.attn.{x}.weight", "b.special.{x}"),
                Rule::new("a.{i}.{rest..}", "b.layer{i}.{rest..}"),
                Rule::alias("a.{i}.base_layer.{rest..}", "b.never.{i}.{rest..}"),
                Rule::alias("old.{i}.{rest..}", "b.layer{i}.{rest..}"),
            ],
            ["{x..}.inv_freq", "steps"],
        )
        .unwrap();
        assert_eq!(name(map.to_model("a.attn.q.weight")), "b.special.q");
        assert_eq!(name(map.to_model("a.attn.q.bias")), "b.layerattn.q.bias");
        assert_eq!(name(map.to_model("old.3.w")), "b.layer3.w");
        assert_eq!(map.to_checkpoint("b.layer3.w").unwrap(), "a.3.w");
        assert_eq!(map.to_checkpoint("b.never.1.w"), None);
        assert_eq!(map.to_model("a.b.rotary.inv_freq"), Some(Mapped::Ignored));
        assert_eq!(map.to_model("steps"), Some(Mapped::Ignored));
        assert_eq!(map.to_model("inv_freq"), None);
        assert_eq!(map.to_model("c.d"), None);
        assert_eq!(map.to_model("a.3"), None, "{{rest..}} needs a segment");
    }

    #[test]
    fn rest_in_the_middle_and_parts_of_segments() {
        let map =
            KeyMap::new([Rule::new("x.{r..}.to_{p}.weight", "y.{p}_proj.{r..}")], []).unwrap();
        assert_eq!(name(map.to_model("x.0.1.to_q.weight")), "y.q_proj.0.1");
        assert_eq!(
            map.to_checkpoint("y.q_proj.0.1").unwrap(),
            "x.0.1.to_q.weight"
        );
        for key in [
            "x.to_q.weight",
            "x.0.to_.weight",
            "x.0.to_q.weight.z",
            "x..to_q.weight",
            "",
        ] {
            assert_eq!(map.to_model(key), None, "{key}");
        }
    }

    #[test]
    fn prefixes_and_sequences() {
        let unet = KeyMap::new([Rule::same("conv.{rest..}")], ["steps"]).unwrap();
        let lm = KeyMap::new([Rule::new("model.{rest..}", "lm.{rest..}")], []).unwrap();
        let map = unet.under("decoder.unet", "unet").unwrap().then(lm);
        assert_eq!(
            name(map.to_model("decoder.unet.conv.weight")),
            "unet.conv.weight"
        );
        assert_eq!(map.to_model("decoder.unet.steps"), Some(Mapped::Ignored));
        assert_eq!(map.to_checkpoint("lm.w").unwrap(), "model.w");
        assert!(KeyMap::identity().under("{x}", "").is_err());
    }

    #[test]
    fn bad_rules_are_named() {
        for (checkpoint, model) in [
            ("a.{i}", "b"),
            ("a", "b.{i}"),
            ("a.{i", "b.{i"),
            ("a.}i{", "b"),
            ("a.{i}{j}", "b.{i}.{j}"),
            ("a.{x..}.{y..}", "b.{x..}.{y..}"),
            ("a.{x..}", "b.{x}"),
            ("a.p{x..}", "b.p{x..}"),
            ("a..b", "c"),
            ("", "c"),
            ("a.{}", "b.{}"),
            ("{x}.{x}", "{x}.{x}"),
        ] {
            let error = KeyMap::new([Rule::new(checkpoint, model)], []).unwrap_err();
            assert_eq!(error.code(), "bad-rule", "{checkpoint} -> {model}");
        }
    }

    proptest! {
        #[test]
        fn parsing_and_matching_never_panic(rule in ".{0,40}", other in ".{0,40}", key in ".{0,60}") {
            if let Ok(map) = KeyMap::new([Rule::new(rule, other)], []) {
                map.to_model(&key);
                map.to_checkpoint(&key);
            }
        }

        #[test]
        fn round_trip(i in "[0-9]{1,3}", rest in "[a-z_]{1,8}(\\.[a-z0-9_]{1,8}){0,4}", p in "[a-z]{1,3}") {
            let map = KeyMap::new([
                Rule::new("vision.blocks.{i}.to_{p}.{rest..}", "v.block{i}.{p}.{rest..}"),
                Rule::new("{rest..}", "other.{rest..}"),
            ], []).unwrap();
            for key in [format!("vision.blocks.{i}.to_{p}.{rest}"), rest.clone(), format!("{rest}.{i}")] {
                let model = name(map.to_model(&key));
                prop_assert_eq!(map.to_checkpoint(&model), Some(key));
            }
        }

        #[test]
        fn patterns_print_as_they_read(text in "[a-z]{1,4}(\\.(\\{x\\}|[a-z]{1,5})){0,1}(\\.\\{r\\.\\.\\}){0,1}") {
            prop_assert_eq!(Pattern::parse(&text).unwrap().to_string(), text);
        }
    }
}
