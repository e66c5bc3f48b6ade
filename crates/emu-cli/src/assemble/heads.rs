//! Trained heads of the namer: what the encoder sees, by name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_data::emoji::Colour;
use emu_model::config::EmuConfig;
use emu_pack::{SafetensorsFile, TensorData, TensorSource};
use emu_tokenizer::EmuTokenizer;
use emu_train::stages::MODEL_FILE;
use serde::Deserialize;

use super::words::{Table, spelled};
use crate::convert::read_json;

/// Classification head that names what the encoder sees.
pub(super) struct Heads {
    pub(super) names: Vec<String>,
    weight: TensorData,
    bias: TensorData,
    /// Weight and bias of the gate that separates photographs from drawings.
    pub(super) gate: Option<[TensorData; 2]>,
    /// Source folder, for error messages.
    pub(super) folder: PathBuf,
}

impl Heads {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Named {
            names: Vec<String>,
        }
        let list = folder.join(MODEL_FILE);
        let Named { names } = serde_json::from_value(read_json(&list)?)
            .with_context(|| format!("{} lists no names", list.display()))?;
        let file = SafetensorsFile::open(folder.join(emu_train::stages::HEADS_FILE))?;
        Ok(Self {
            names,
            weight: file.read("names.weight")?,
            bias: file.read("names.bias")?,
            gate: match file.info("gate.weight") {
                Some(_) => Some([file.read("gate.weight")?, file.read("gate.bias")?]),
                None => None,
            },
            folder: folder.to_owned(),
        })
    }

    pub(super) fn check(&self, width: usize) -> Result<()> {
        let (names, shape) = (self.names.len(), &self.weight.info.shape);
        if *shape != [names, width] || self.bias.info.shape != [names] {
            bail!(
                "The heads in {} are {shape:?} for {names} names of features of {width}. Fit them again with `emu train configs/train/smol/heads.toml`.",
                self.folder.display()
            );
        }
        Ok(())
    }

    /// Parameters of the namer.
    pub(super) fn tensors(
        self,
        config: &EmuConfig,
        tokenizer: &EmuTokenizer,
        table: &Table,
        colours: &[Colour],
    ) -> Result<Vec<TensorData>> {
        let Some(namer) = &config.namer else {
            return Ok(vec![]);
        };
        let spelled = |name: &str| spelled(tokenizer, name);
        let mut names = vec![];
        for name in &self.names {
            names.extend(table.name(&namer.spelling, &spelled(name)?)?);
        }
        let mut colour_words = vec![];
        for colour in colours {
            colour_words.extend(table.mean(&spelled(&colour.name)?)?);
        }
        let rgb = colours
            .iter()
            .flat_map(|c| c.rgb.map(|v| f32::from(v) / 255.0));
        let rgb: Vec<f32> = rgb.collect();
        let (n, c, d) = (self.names.len(), colours.len(), config.lm.width);
        let width = namer.spelling.tokens * d;
        Ok(vec![
            self.weight.renamed("namer.head.weight"),
            self.bias.renamed("namer.head.bias"),
            TensorData::from_f32("namer.words", vec![n, width], &names)?,
            TensorData::from_f32("namer.colours", vec![c, 3], &rgb)?,
            TensorData::from_f32("namer.colour_words", vec![c, d], &colour_words)?,
        ])
    }
}
