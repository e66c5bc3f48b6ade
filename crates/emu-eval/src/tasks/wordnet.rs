//! The files of WordNet, and the stop words of NExT-QA.

use std::path::{Path, PathBuf};

use super::error::EvalError;
use super::files::read_text;
use crate::score::wordnet::{Files, Pos, WordNet};
use crate::score::wups::Wups;

/// What the files are, for messages.
const WHAT: &str = "WordNet's database";
/// The list of the original program, and places for it in the data folder.
const STOP_WORDS: [&str; 3] = [
    "stopwords.txt",
    "nextqa/stopwords.txt",
    "dataset/nextqa/stopwords.txt",
];

/// WUPS with the database in `wordnet` (`index.noun`, `data.noun`, `noun.exc` and so on) and, if it lies in `data`, the list of
/// stop words of the original program. Also returns whether it does.
///
/// # Errors
/// If a file is missing or not in the layout.
pub(super) fn wups(wordnet: &Path, data: &Path) -> Result<(Wups, bool), EvalError> {
    let mut texts = vec![];
    for pos in Pos::ALL {
        let name = pos.name();
        for name in [
            format!("index.{name}"),
            format!("data.{name}"),
            format!("{name}.exc"),
        ] {
            let path = wordnet.join(&name);
            if !path.is_file() {
                return Err(EvalError::NoWordNet {
                    folder: wordnet.to_owned(),
                    name,
                });
            }
            texts.push(read_text(&path, WHAT)?);
        }
    }
    let text = |at: usize| texts.get(at).map_or("", String::as_str);
    let files = [0, 1, 2, 3].map(|n| Files {
        index: text(3 * n),
        data: text(3 * n + 1),
        exceptions: text(3 * n + 2),
    });
    let database = WordNet::new(files).map_err(|reason| EvalError::Layout {
        path: wordnet.to_owned(),
        what: WHAT,
        reason,
    })?;
    let stop: Option<PathBuf> = { STOP_WORDS.iter() }
        .map(|name| data.join(name))
        .find(|path| path.is_file());
    let stop = match stop {
        Some(path) => Some(read_text(&path, "a list of stop words")?),
        None => None,
    };
    let original = stop.is_some();
    Ok((Wups::new(database, stop.as_deref()), original))
}
