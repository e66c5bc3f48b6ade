//! The tasks end to end, on tiny data sets in the official layouts, with a model that is not one.

mod bad_files;
mod end_to_end;
mod fake;
mod few_shot;
mod fixtures;
mod frechet;
#[cfg(unix)]
mod judged;
mod layouts;
mod records;
mod reports;
mod resume;
