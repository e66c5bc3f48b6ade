//! Arguments of `emu report`.

use std::path::PathBuf;

use clap::Args;

/// `emu report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The folder of a training run, finished or not.
    pub run: PathBuf,
    /// Another run to compare it with.
    pub other: Option<PathBuf>,
    /// The page to write.
    #[arg(short, long, value_name = "FILE.html")]
    pub out: PathBuf,
}
