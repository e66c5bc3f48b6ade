//! A page of one training run, or of two beside each other: curves, figures, samples over time, settings.
//!
//! The page is a single HTML file without scripts. It fetches nothing: pictures are embedded, curves are inline SVG with a table of
//! their figures beside them.
//!
//! - `run.rs` reads the folder of a run, as `emu-train` writes it
//! - `chart.rs` draws a curve
//! - `page.rs` composes the page

mod chart;
mod page;
mod run;

pub use page::page;
pub use run::{Curve, ReportError, Run, Sample, Shown};
