//! `emu report`

use std::path::Path;

use anyhow::{Context, Result};
use emu_report::{Run, page};

use crate::args::ReportArgs;
use crate::output::print_now;

/// Writes the page of a run, or of two.
pub fn run(args: &ReportArgs) -> Result<()> {
    let run = Run::open(&args.run)?;
    let other = args.other.as_deref().map(Run::open).transpose()?;
    // Written whole or not at all.
    let temporary = args.out.with_extension("html.tmp");
    std::fs::write(&temporary, page(&run, other.as_ref()))
        .and_then(|()| std::fs::rename(&temporary, &args.out))
        .with_context(|| unwritable(&args.out))?;
    print_now(&format!("{}\n", args.out.display()))
}

fn unwritable(path: &Path) -> String {
    format!(
        "{} cannot be written; check the folder and its free space",
        path.display()
    )
}
