//! `emu report`

use anyhow::Result;
use emu_report::{Run, page};

use crate::args::ReportArgs;
use crate::output::{print_now, write_whole};

/// Writes the page of a run, or of two.
pub fn run(args: &ReportArgs) -> Result<()> {
    let run = Run::open(&args.run)?;
    let other = args.other.as_deref().map(Run::open).transpose()?;
    write_whole(&args.out, &page(&run, other.as_ref()))?;
    print_now(&format!("{}\n", args.out.display()))
}
