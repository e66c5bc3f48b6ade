//! The emoji data set: scenes composed from drawings with exact captions, questions and documents.
//!
//! [`fetch_sources`] installs the npm packages, [`Catalogue::load`] renders the concepts of a [`ConceptList`], and
//! [`build`] writes shards, tokenizer and descriptions. The output depends only on the options and the packages' bytes.
//!
//! | folder | shards | holds |
//! | --- | --- | --- |
//! | `train` | `scenes` `draw` `fewshot` `blend` `story` | training data of emu-mini |
//! | `train`, `val` | `drawings` | single drawings, for the judge |
//! | `val` | `scenes` | known concepts, held-out drawings |
//! | `t1` | `scenes` | known concepts, unseen drawing styles |
//! | `t2` | `scenes` | unseen concepts |
//! | `t3` | `scenes` | unseen pairs, relations and colours |
//! | `fewshot-test`, `draw-test` | `fewshot`, `draw` | new documents; new wordings and combinations |

mod attribution;
mod build;
mod catalogue;
mod compose;
mod concepts;
mod corpus;
mod cutout;
mod describe;
mod documents;
mod holdout;
mod language;
mod options;
mod scenes;
mod sources;
mod vocabulary;

pub use attribution::attribution;
pub use build::{Index, Progress, build};
pub use catalogue::{Catalogue, Entry, SourceDrawing};
pub use compose::{Composer, Painted, Plan, Pool};
pub use concepts::{Colour, Concept, ConceptList, plural_of};
pub use cutout::{CUTOUT_SIDE, Canvas, Cutout, Placement};
pub use documents::{SHEET_PAIRS, SHEET_SINGLES};
pub use holdout::{Holdout, Unseen};
pub use language::{REQUESTS, TEST_REQUESTS, either};
pub use options::BuildOptions;
pub use scenes::{Made, Split};
pub use sources::{
    DrawingSet, LABELS, Role, SETS, check_sources, fetch_sources, packages, set_by_id,
};
pub use vocabulary::SPECIAL_TOKENS;

#[cfg(test)]
mod tests;
