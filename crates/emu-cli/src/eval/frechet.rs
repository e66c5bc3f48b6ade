//! `emu eval frechet`: the Frechet distance of two sets of pictures or features.

use std::path::Path;

use anyhow::{Context, Result};
use emu_eval::tasks::{FeatureSource, Measured, Progress, frechet};

use super::asked::Asked;
use super::outcome::print;
use crate::args::EvalArgs;
use crate::output::bar;
use crate::runtime::Runtime;
use crate::signals;

/// Compares `data` with `--against`.
pub fn run(args: &EvalArgs, data: &Path) -> Result<()> {
    let out = args.out.as_ref().context(
        "The features and the report need a folder. Name one with -o; an interrupted run continues there",
    )?;
    let against = args.against.as_ref().context(
        "A Frechet distance is between two sets. Name the pictures or features to compare with by --against",
    )?;
    let sources = [FeatureSource::at(data), FeatureSource::at(against)];
    let [one, other] = &sources;
    let stop = signals::stop_flag()?;
    // Weights are only loaded if features are to be computed.
    let runtime = Runtime::open(&args.model)?;
    let mut model = Asked::new(&runtime, runtime.identity()?);
    let bar = bar(0, Measured::Frechet.title());
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        !stop.is_set()
    };
    let evaluated = frechet([one, other], &mut model, out, &mut progress)?;
    bar.finish_and_clear();
    print(args, &evaluated)
}
