//! `emu data show`: samples of a shard as training sees them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use emu_data::DataError;
use emu_data::show::samples;
use emu_media::image::encode_png;
use serde_json::json;

use crate::output::{json_line, print_now};

/// `emu data show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A shard, a folder of shards, or a pattern.
    path: PathBuf,
    /// Number of samples.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Folder for thumbnails of their pictures.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Prints samples.
pub fn run(args: &ShowArgs) -> Result<()> {
    if let Some(folder) = &args.pictures {
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "{} cannot be created; choose another --pictures",
                folder.display()
            )
        })?;
    }
    for sample in samples(&args.path)?.take(args.limit) {
        let sample = match sample {
            Err(DataError::Sample(bad)) => {
                match args.json {
                    true => json_line(&json!({ "bad": bad }))?,
                    false => print_now(&format!("unusable: {bad}\n"))?,
                }
                continue;
            }
            sample => sample?,
        };
        if let Some(folder) = &args.pictures {
            for picture in &sample.pictures {
                let path = folder.join(format!(
                    "{}.{}.png",
                    sample.key.replace('/', "_"),
                    picture.number
                ));
                std::fs::write(&path, encode_png(&picture.thumbnail)?)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        let sizes: Vec<[u32; 2]> = { sample.pictures.iter() }
            .map(|picture| [picture.width, picture.height])
            .collect();
        if args.json {
            json_line(&json!({
                "key": sample.key, "shard": sample.shard, "kind": sample.kind, "source": sample.source,
                "lines": sample.lines, "pictures": sizes,
            }))?;
            continue;
        }
        let sizes: Vec<String> = sizes.iter().map(|[w, h]| format!("{w} x {h}")).collect();
        let source = sample
            .source
            .map_or(String::new(), |source| format!(", from {source}"));
        print_now(&format!(
            "{} ({}{source}) {}\n  {}\n",
            sample.key,
            sample.kind,
            sizes.join(", "),
            sample.lines.join("\n  ")
        ))?;
    }
    Ok(())
}
