//! The catalogue: which set has a drawing of which concept. Read from the source packages.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::concepts::{Concept, ConceptList};
use super::cutout::Cutout;
use super::sources::{DrawingSet, LABELS, Role, SETS, check_sources, package_dir};
use crate::DataError;

/// A concept's drawing by one set.
#[derive(Debug, Clone)]
pub struct SourceDrawing {
    /// The set.
    pub set: &'static DrawingSet,
    /// The visible part of the drawing.
    pub cutout: Cutout,
}

/// A concept with all its drawings.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The concept.
    pub concept: Concept,
    /// Whether it belongs to split T2.
    pub unseen: bool,
    /// Unicode group ("animals-nature").
    pub group: String,
    /// Synonyms.
    pub synonyms: Vec<String>,
    /// Its drawings, in the order of [`SETS`].
    pub drawings: Vec<SourceDrawing>,
}

/// Everything that scenes are composed from.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// All concepts in the order of the list: first `read`, then `unseen`.
    pub entries: Vec<Entry>,
    /// The concept list.
    pub list: ConceptList,
}

#[derive(Deserialize)]
struct IconFile {
    icons: HashMap<String, Icon>,
    #[serde(default)]
    aliases: HashMap<String, Alias>,
    #[serde(default)]
    width: Option<f64>,
    #[serde(default)]
    height: Option<f64>,
}

#[derive(Deserialize)]
struct Icon {
    body: String,
    #[serde(default)]
    left: f64,
    #[serde(default)]
    top: f64,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    #[serde(default)]
    rotate: u8,
}

#[derive(Deserialize)]
struct Label {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u32>,
}

#[derive(Deserialize)]
struct Groups {
    groups: BTreeMap<u32, String>,
}

/// An iconify set: its icons, and icon names by code point.
struct IconSet {
    file: IconFile,
    chars: HashMap<String, String>,
}

impl Catalogue {
    /// A catalogue of the given entries, for tests and other sources.
    pub fn new(list: ConceptList, entries: Vec<Entry>) -> Self {
        Self { entries, list }
    }

    /// Reads the packages that [`fetch_sources`](super::fetch_sources) installed in `dir`, and renders the concepts of
    /// `list`, each drawing with a larger side of `pixels`.
    ///
    /// # Errors
    /// If a package is missing or malformed, or a concept has no label or drawing.
    pub fn load(dir: &Path, list: ConceptList, pixels: u32) -> Result<Self, DataError> {
        check_sources(dir)?;
        let labels = load_labels(dir)?;
        let sets: Vec<Option<IconSet>> = SETS
            .par_iter()
            .map(|set| load_set(dir, set))
            .collect::<Result<_, _>>()?;
        // Sets without a code point table use the same icon names as the others.
        let tables: Vec<&HashMap<String, String>> =
            sets.iter().flatten().map(|set| &set.chars).collect();
        let concepts: Vec<(&Concept, bool)> = list
            .read
            .iter()
            .map(|concept| (concept, false))
            .chain(list.unseen.iter().map(|concept| (concept, true)))
            .collect();
        let mut entries: Vec<Entry> = concepts
            .par_iter()
            .map(|(concept, unseen)| {
                let (label, group) = labels.get(&concept.hexcode).ok_or_else(|| {
                    DataError::Concepts(format!(
                        "{} has the unknown code point {}",
                        concept.name, concept.hexcode
                    ))
                })?;
                let mut slugs: Vec<String> = tables
                    .iter()
                    .filter_map(|table| table.get(&concept.hexcode).cloned())
                    .collect();
                slugs.push(slug(&label.label));
                let mut drawings = Vec::new();
                for (set, icons) in SETS.iter().zip(&sets) {
                    if concept.skip.contains(set.id) {
                        continue;
                    }
                    let cutout = match icons {
                        Some(icons) => icons.render(concept, set, &slugs, pixels),
                        None => load_webp(dir, set, &concept.hexcode, pixels),
                    };
                    let cutout = cutout.transpose().map_err(|message| DataError::Drawing {
                        name: concept.name.clone(),
                        set: set.id.into(),
                        message,
                    })?;
                    drawings.extend(cutout.map(|cutout| SourceDrawing { set, cutout }));
                }
                if !drawings
                    .iter()
                    .any(|drawing| drawing.set.role == Role::Train)
                {
                    return Err(DataError::Concepts(format!(
                        "{} has no drawing",
                        concept.name
                    )));
                }
                Ok(Entry {
                    concept: (*concept).clone(),
                    unseen: *unseen,
                    group: group.clone(),
                    synonyms: synonyms(concept, label),
                    drawings,
                })
            })
            .collect::<Result<_, _>>()?;
        keep_telling_synonyms(&mut entries);
        Ok(Self { entries, list })
    }
}

impl IconSet {
    /// The icon of a concept: by an explicit name, by code point, or by its names in other sets.
    fn find(&self, concept: &Concept, set: &DrawingSet, slugs: &[String]) -> Option<&Icon> {
        if let Some(name) = concept.icons.get(set.id) {
            return self.icon(name);
        }
        if !self.chars.is_empty() {
            return self.icon(self.chars.get(&concept.hexcode)?);
        }
        slugs.iter().find_map(|slug| self.icon(slug)).or_else(|| {
            slugs
                .iter()
                .find_map(|slug| self.icon(&slug.replace('-', "")))
        })
    }

    fn icon(&self, name: &str) -> Option<&Icon> {
        if let Some(icon) = self.file.icons.get(name) {
            return Some(icon);
        }
        let alias = self.file.aliases.get(name)?;
        let plain = !alias.h_flip && !alias.v_flip && alias.rotate == 0;
        self.file.icons.get(&alias.parent).filter(|_| plain)
    }

    fn render(
        &self,
        concept: &Concept,
        set: &DrawingSet,
        slugs: &[String],
        pixels: u32,
    ) -> Option<Result<Cutout, String>> {
        let Some(icon) = self.find(concept, set, slugs) else {
            let explicit = concept.icons.get(set.id)?;
            return Some(Err(format!("there is no icon {explicit:?}")));
        };
        let width = icon.width.or(self.file.width).unwrap_or(16.0);
        let height = icon.height.or(self.file.height).unwrap_or(16.0);
        let (left, top, body) = (icon.left, icon.top, &icon.body);
        let svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>"#
        );
        Some(Cutout::from_svg(&svg, pixels))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| DataError::malformed(path, error))
}

/// Loads an iconify package; `None` for the package of WebP files.
fn load_set(dir: &Path, set: &DrawingSet) -> Result<Option<IconSet>, DataError> {
    let folder = package_dir(dir, set.package);
    if !set.package.starts_with("@iconify-json/") {
        return Ok(None);
    }
    Ok(Some(IconSet {
        file: read_json(&folder.join("icons.json"))?,
        chars: read_json(&folder.join("chars.json"))?,
    }))
}

fn load_webp(
    dir: &Path,
    set: &DrawingSet,
    hexcode: &str,
    pixels: u32,
) -> Option<Result<Cutout, String>> {
    let assets = package_dir(dir, set.package).join("assets");
    // Some file names contain the variation selector for the coloured form.
    [format!("{hexcode}.webp"), format!("{hexcode}-fe0f.webp")]
        .iter()
        .find_map(|name| std::fs::read(assets.join(name)).ok())
        .map(|bytes| Cutout::from_picture(&bytes, pixels))
}

/// Labels with their group names, by code point without variation selectors.
fn load_labels(dir: &Path) -> Result<HashMap<String, (Label, String)>, DataError> {
    let folder = package_dir(dir, LABELS.0);
    let groups: Groups = read_json(&folder.join("meta").join("groups.json"))?;
    let labels: Vec<Label> = read_json(&folder.join("en").join("data.json"))?;
    Ok(labels
        .into_iter()
        .map(|label| {
            let code = label.hexcode.to_lowercase().replace("-fe0f", "");
            let group = label.group.and_then(|group| groups.groups.get(&group));
            let group = group.cloned().unwrap_or_default();
            (code, (label, group))
        })
        .collect())
}

/// Label and keywords in lower case, without the name itself.
fn synonyms(concept: &Concept, label: &Label) -> Vec<String> {
    let mut words = vec![label.label.to_lowercase()];
    for tag in &label.tags {
        let tag = tag.to_lowercase();
        if !words.contains(&tag) {
            words.push(tag);
        }
    }
    words.retain(|word| *word != concept.name && *word != concept.plural());
    words
}

/// Removes ambiguous synonyms: those of several concepts ("animal", "fruit"), and names of other concepts ("banana" is
/// a keyword of the monkey).
fn keep_telling_synonyms(entries: &mut [Entry]) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for entry in entries.iter() {
        let concept = &entry.concept;
        for word in [&concept.name, &concept.plural()]
            .into_iter()
            .chain(&entry.synonyms)
        {
            *uses.entry(word.clone()).or_default() += 1;
        }
    }
    for entry in entries {
        entry.synonyms.retain(|word| uses.get(word) == Some(&1));
    }
}

/// Icon name in iconify's style: "dog face" -> "dog-face".
fn slug(label: &str) -> String {
    let mut slug = String::new();
    for c in label
        .to_lowercase()
        .chars()
        .filter(|c| !['\'', '\u{2019}'].contains(c))
    {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_follow_the_labels() {
        assert_eq!(slug("dog face"), "dog-face");
        assert_eq!(slug("woman\u{2019}s boot"), "womans-boot");
        assert_eq!(
            slug("Japanese \u{201c}here\u{201d} button"),
            "japanese-here-button"
        );
    }

    #[test]
    fn synonyms_tell_concepts_apart() {
        let entry = |name: &str, synonyms: &[&str]| Entry {
            concept: Concept::new(name, name, false),
            unseen: false,
            group: String::new(),
            synonyms: synonyms.iter().map(|word| word.to_string()).collect(),
            drawings: Vec::new(),
        };
        let mut entries = [
            entry("monkey", &["monkey face", "animal", "banana", "bananas"]),
            entry("dog", &["puppy", "animal"]),
            entry("banana", &[]),
        ];
        keep_telling_synonyms(&mut entries);
        assert_eq!(entries[0].synonyms, ["monkey face"]);
        assert_eq!(entries[1].synonyms, ["puppy"]);
    }

    #[test]
    fn icons_are_found_by_code_alias_and_explicit_name() {
        let file: IconFile = serde_json::from_str(
            r#"{"icons":{"dog-face":{"body":"<rect width='9' height='9'/>"},"kite":{"body":""}},
                "aliases":{"hound":{"parent":"dog-face"},"mirrored":{"parent":"dog-face","hFlip":true}},
                "width":9,"height":9}"#,
        )
        .expect("iconify's form");
        let mut icons = IconSet {
            file,
            chars: HashMap::new(),
        };
        let mut dog = Concept::new("dog", "1f436", false);
        let find = |icons: &IconSet, dog: &Concept, slug: &str| {
            icons.find(dog, &SETS[0], &[slug.to_string()]).is_some()
        };
        assert!(find(&icons, &dog, "dog-face"));
        assert!(find(&icons, &dog, "hound"));
        assert!(
            !find(&icons, &dog, "mirrored"),
            "a mirrored icon is another drawing"
        );
        assert!(!find(&icons, &dog, "cat"));
        icons.chars.insert("1f436".into(), "dog-face".into());
        assert!(find(&icons, &dog, "cat"), "the code point decides");
        dog.icons.insert("noto".into(), "wrong".into());
        let missing = icons.render(&dog, &SETS[0], &[], 96);
        assert!(matches!(missing, Some(Err(message)) if message.contains("wrong")));
        dog.icons.insert("noto".into(), "kite".into());
        assert!(
            matches!(icons.render(&dog, &SETS[0], &[], 96), Some(Err(_))),
            "an empty drawing"
        );
    }
}
