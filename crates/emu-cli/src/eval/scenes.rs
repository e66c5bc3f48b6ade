//! The scenes of this project's splits as a table of questions, which `emu eval own` reads. So a pack that was not trained on
//! the prompts of these splits, such as emu-smol, answers the same questions by its own conversation template.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use emu_media::image::RgbImage;
use emu_train::data::record::Record;
use emu_train::stages::corpus::open_set;
use serde_json::json;

use crate::output::write_whole;

/// Scenes whose questions are written.
const SCENES: usize = 500;
/// Tables that `emu eval own` looks for.
const TABLES: [&str; 3] = ["questions.csv", "questions.tsv", "questions.jsonl"];

/// The folder that `emu eval own` is to read: `data` itself if it has a table; otherwise, if it is a split with shards of
/// scenes, a folder in `out` to which their questions and pictures are written.
///
/// # Errors
/// If the shards cannot be read or the folder cannot be written.
pub fn table(data: &Path, out: &Path) -> Result<PathBuf> {
    let has_table = TABLES.iter().any(|name| data.join(name).is_file());
    let set = match has_table {
        true => None,
        // Without shards the reader of tables says which files it looks for.
        false => open_set(data, Some("scenes")).ok(),
    };
    let Some(set) = set else {
        return Ok(data.to_owned());
    };
    let folder = out.join("scenes");
    let path = folder.join("questions.jsonl");
    // It is written last, so that it exists only if every picture does.
    if path.is_file() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| unwritable(&folder))?;
    let mut lines = String::new();
    for found in set.samples(SCENES) {
        let (i, sample) = found?;
        let (Ok(Record::Scene(scene)), Some(picture)) =
            (sample.record(), sample.images.into_iter().next())
        else {
            continue;
        };
        let name = format!("{i:06}.png");
        let picture = RgbImage::from_raw(picture.width, picture.height, picture.rgb)
            .context("A picture of the split has the wrong size. Build the split again")?;
        let file = folder.join(&name);
        picture.save(&file).with_context(|| unwritable(&file))?;
        for (n, qa) in scene.qa.iter().enumerate() {
            let row = json!({
                "id": format!("{i}:{n}"), "picture": name, "question": qa.question, "answer": qa.answer, "kind": qa.kind,
            });
            lines.push_str(&format!("{row}\n"));
        }
    }
    write_whole(&path, &lines)?;
    Ok(folder)
}

fn unwritable(path: &Path) -> String {
    format!(
        "{} cannot be written; check the folder and its free space",
        path.display()
    )
}
