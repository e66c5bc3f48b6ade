//! Names for photographs: the classes of the encoder's own classifier, and kinds that hold several of them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use emu_model::config::EmuConfig;
use emu_model::photos::PhotosConfig;
use emu_model::spelling::{Spelled, SpellingConfig};
use emu_model::tokenizer::EmuTokenizer;
use emu_pack::TensorData;
use serde::Deserialize;

use super::{Heads, spelled, there};
use crate::convert::read_json;

/// How photographs are named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// JSON: `classes`, their names in the classifier's order, and `kinds`, from the most general one on, each with a `name` and
    /// its `members` among the classes.
    list: PathBuf,
    /// Probability from which a class or kind is named.
    threshold: f64,
    /// Taken off every probability first.
    floor: f64,
    /// What is said of what has no name.
    unknown: String,
    /// What stands in the place of the background's colour.
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

/// The same, read.
pub struct Photographs<'a> {
    naming: &'a Naming,
    list: List,
}

impl Naming {
    /// Reads the list.
    ///
    /// # Errors
    /// Where it is missing, is no such list, or a kind holds what is no class.
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
    /// Sizes.
    pub fn config(&self) -> PhotosConfig {
        PhotosConfig {
            classes: self.list.classes.len(),
            kinds: self.list.kinds.len(),
            threshold: self.naming.threshold,
            floor: self.naming.floor,
        }
    }

    /// The parameters.
    ///
    /// # Errors
    /// Where the heads have no gate, the classifier has another number of classes, or a name cannot be spelled.
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
            // A token's number is exact in f32: vocabularies end far below 2^24.
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
