//! Names for photographs: the classes of the encoder's own classifier, and kinds, which group several classes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use emu_model::config::EmuConfig;
use emu_model::photos::PhotosConfig;
use emu_model::spelling::{Spelled, SpellingConfig};
use emu_pack::TensorData;
use emu_tokenizer::EmuTokenizer;
use serde::Deserialize;

use super::files::there;
use super::heads::Heads;
use super::words::spelled;
use crate::convert::read_json;

/// How photographs are named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// JSON file: `classes`, the class names in the classifier's order, and `kinds`, from general to specific, each with a
    /// `name` and its `members` as class indices.
    list: PathBuf,
    /// Minimum probability of a class or kind that is named.
    threshold: f64,
    /// Subtracted from every probability first.
    floor: f64,
    /// Name for a photograph without a class or kind above the threshold.
    unknown: String,
    /// Word used in place of the background colour.
    background: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    classes: Vec<String>,
    kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    name: String,
    members: Vec<usize>,
}

/// The settings with the loaded list.
pub struct Photographs<'a> {
    naming: &'a Naming,
    list: List,
}

impl Naming {
    /// Reads the list.
    ///
    /// # Errors
    /// Where the file is missing or invalid, or a kind has a member that is no class.
    pub fn open(&self) -> Result<Photographs<'_>> {
        let path = there(&self.list, "Correct its path in the recipe.")?;
        let list: List = serde_json::from_value(read_json(path)?)
            .with_context(|| format!("{} cannot be used", path.display()))?;
        let unknown = |kind: &&Kind| kind.members.iter().any(|m| *m >= list.classes.len());
        if let Some(kind) = list.kinds.iter().find(unknown) {
            bail!(
                "{}: the kind {:?} has a member that is no class that is there. Correct the list.",
                path.display(),
                kind.name
            );
        }
        Ok(Photographs { naming: self, list })
    }
}

impl Photographs<'_> {
    /// Configuration of the photograph namer.
    pub fn config(&self) -> PhotosConfig {
        PhotosConfig {
            classes: self.list.classes.len(),
            kinds: self.list.kinds.len(),
            threshold: self.naming.threshold,
            floor: self.naming.floor,
        }
    }

    /// Parameters of the photograph namer.
    ///
    /// # Errors
    /// Where the heads have no gate, the classifier has another number of classes, or a name cannot be tokenized.
    pub fn tensors(
        &self,
        heads: &Heads,
        classifier: [TensorData; 2],
        config: &EmuConfig,
        tokenizer: &EmuTokenizer,
    ) -> Result<Vec<TensorData>> {
        let Some(gate) = &heads.gate else {
            bail!(
                "The heads in {} do not tell photographs from drawings. Fit them with `photos` in the options of the stage heads, or leave `namer.photos` out of the recipe.",
                heads.folder.display()
            );
        };
        let (classes, kinds) = (self.list.classes.len(), self.list.kinds.len());
        let found = classifier[1].info.shape.first().copied().unwrap_or(0);
        if found != classes {
            bail!(
                "{} names {classes} classes, the encoder has {found}. Correct the list.",
                self.naming.list.display()
            );
        }
        let spelling = match &config.namer {
            Some(namer) => SpellingConfig {
                objects: 1,
                ..namer.spelling
            },
            None => return Ok(vec![]),
        };
        let ids = |name: &str| -> Result<Vec<f32>> {
            let names = vec![spelled(tokenizer, name)?];
            let slots = spelling.fill(&Spelled {
                names,
                ..Spelled::default()
            });
            let own = slots.into_iter().take(spelling.tokens);
            // Token ids are exact in f32: vocabularies are far smaller than 2^24.
            Ok(own.map(|slot| slot.map_or(-1.0, |id| id as f32)).collect())
        };
        let named = std::iter::once(&self.naming.unknown)
            .chain(self.list.kinds.iter().map(|kind| &kind.name))
            .chain(&self.list.classes);
        let names = named.map(|name| ids(name)).collect::<Result<Vec<_>>>()?;
        let mut members = vec![0.0; classes * kinds];
        for (column, kind) in self.list.kinds.iter().enumerate() {
            for &class in &kind.members {
                members[class * kinds + column] = 1.0;
            }
        }
        let background = ids(&self.naming.background)?;
        let [gate_weight, gate_bias] = gate.clone();
        let [weight, bias] = classifier;
        let shape = vec![1 + kinds + classes, spelling.tokens];
        Ok(vec![
            gate_weight.renamed("namer.photos.gate.weight"),
            gate_bias.renamed("namer.photos.gate.bias"),
            weight.renamed("namer.photos.classifier.weight"),
            bias.renamed("namer.photos.classifier.bias"),
            TensorData::from_f32("namer.photos.members", vec![classes, kinds], &members)?,
            TensorData::from_f32("namer.photos.names", shape, &names.concat())?,
            TensorData::from_f32("namer.photos.natural", vec![1, 1], &background[..1])?,
        ])
    }
}
