//! `emu inspect`: what a pack or a checkpoint contains, and what converting and running it takes on this machine. Reads headers
//! and configurations only.

mod machine;
mod needs;
mod plan;
mod report;
mod subject;
mod text;
mod variant;
mod working;

use std::path::Path;

use anyhow::Result;

use crate::args::InspectArgs;
use crate::environment::memory_available;
use crate::output::{json_line, print_now};
use report::{Report, Stored, summary};
use subject::Subject;
use variant::Variant;

/// Prints the report.
pub fn run(args: &InspectArgs) -> Result<()> {
    let subject = Subject::open(args)?;
    let candidates = machine::candidates(&args.device.choice())?;
    let variants = Variant::all(&subject, &candidates);
    let report = Report {
        stored: { subject.pack.as_ref() }
            .zip(candidates.first())
            .map(|(manifest, taken)| Stored {
                manifest,
                components: needs::components(manifest, taken.machine.halves),
                verified: args.verify,
            }),
        summary: summary(&subject.config),
        plan: plan::plan(&variants, &candidates),
        free: emu_hub::free_space(Path::new(".")),
        memory: memory_available(),
        subject: &subject,
        candidates: &candidates,
        variants: &variants,
    };
    match args.json {
        true => json_line(&report.json()),
        false => print_now(&text::text(&report)),
    }
}
