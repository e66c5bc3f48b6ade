//! Arguments of `emu publish`.

use std::path::PathBuf;

use clap::Args;

/// `emu publish`
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The pack, or smol.
    pub pack: PathBuf,
    /// The folder to write; it must not exist.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// The card; default: README.md in the pack's folder, or one that is written from the pack.
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// The text of the licence; default: LICENSE in the pack's folder, if it is there.
    #[arg(long, value_name = "FILE")]
    pub license_file: Option<PathBuf>,
    /// Also a page that opens with this pack: the folder that `cargo xtask demo --build-only` writes (out/site).
    #[arg(long, value_name = "DIR")]
    pub page: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}
