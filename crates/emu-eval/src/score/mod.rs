//! Scorers: texts and numbers in, numbers out. No files, clock, threads or random state.
//!
//! | module | scores |
//! | --- | --- |
//! | [`captions`] | captions as COCO does: [`ptb`] tokens, then [`bleu`], [`rouge`] and [`cider`] |
//! | [`vqa`] | answers to questions: VQAv2, OK-VQA, VizWiz; [`clean`] cuts a model's text to an answer |
//! | [`exact`] | answers that are right or wrong |
//! | [`visdial`] | rankings of a dialog's candidate answers |
//! | [`wups`] | answers to questions about videos, by the nearness of their words in [`wordnet`] |
//! | [`retrieval`] | rankings by similarity |
//! | [`frechet`] | two sets of features: FID and its relatives |
//! | [`bootstrap`] | confidence intervals of any of these |

pub mod bleu;
pub mod bootstrap;
mod caption;
pub mod captions;
pub mod cider;
pub mod clean;
mod eigen;
mod error;
pub mod exact;
pub mod frechet;
mod ngrams;
pub mod porter;
pub mod ptb;
mod python;
pub mod retrieval;
pub mod rouge;
pub mod visdial;
pub mod vqa;
pub mod wordnet;
pub mod wups;

pub use caption::{Caption, Scored};
pub use error::ScoreError;
