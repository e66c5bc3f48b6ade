//! Descriptions that are stored beside the shards.

use std::collections::BTreeMap;

use serde_json::json;

use super::compose::{Composer, Pool};

/// The contents of `concepts.json`: all concepts, with their drawings by split.
pub(super) fn concept_table(composer: &Composer<'_>) -> serde_json::Value {
    let ids = |i: usize, pool: Pool| -> Vec<&str> {
        let drawings = &composer.entry(i).drawings;
        composer
            .drawings(i, pool)
            .iter()
            .map(|&d| drawings[d].set.id)
            .collect()
    };
    let concepts: Vec<_> = composer
        .catalogue
        .entries
        .iter()
        .enumerate()
        .map(|(i, entry)| {
            let concept = &entry.concept;
            json!({
                "name": concept.name,
                "article": concept.article(),
                "plural": concept.plural(),
                "hexcode": concept.hexcode,
                "group": entry.group,
                "drawn": concept.drawn,
                "unseen": entry.unseen,
                "synonyms": entry.synonyms,
                // Drawings of an unseen concept are never trained on, whatever their set.
                "train": if entry.unseen { Vec::new() } else { ids(i, Pool::Train) },
                "val": ids(i, Pool::Val),
                "t1": if entry.unseen { Vec::new() } else { ids(i, Pool::Style) },
                "t2": if entry.unseen { ids(i, Pool::Train) } else { Vec::new() },
            })
        })
        .collect();
    let colours: Vec<_> = composer
        .catalogue
        .list
        .colours
        .iter()
        .map(|colour| json!({"name": colour.name, "rgb": colour.rgb}))
        .collect();
    json!({
        "canonical_set": composer.catalogue.list.canonical_set,
        "colours": colours,
        "concepts": concepts,
    })
}

/// Numbers of concepts and drawings, for `index.json`.
pub(super) fn catalogue_counts(composer: &Composer<'_>) -> BTreeMap<String, usize> {
    let drawings = |concepts: &[usize], pool| -> usize {
        concepts
            .iter()
            .map(|&i| composer.drawings(i, pool).len())
            .sum()
    };
    BTreeMap::from([
        ("concepts read".to_string(), composer.known.len()),
        ("concepts drawn".to_string(), composer.drawn.len()),
        ("concepts unseen".to_string(), composer.unseen.len()),
        (
            "concepts with val drawings".to_string(),
            composer.known_in(Pool::Val).len(),
        ),
        (
            "drawings train".to_string(),
            drawings(&composer.known, Pool::Train),
        ),
        (
            "drawings val".to_string(),
            drawings(&composer.known, Pool::Val),
        ),
        (
            "drawings t1".to_string(),
            drawings(&composer.known, Pool::Style),
        ),
        (
            "drawings t2".to_string(),
            drawings(&composer.unseen, Pool::Train),
        ),
    ])
}
