//! The held-out data: whole drawings (val) and combinations (T3). Selected by hash, so that nothing is stored.

use std::collections::BTreeMap;

use super::catalogue::Entry;
use super::sources::Role;
use crate::record::Layout;
use crate::rng::hash_texts;

/// The held-out combinations of a seed.
#[derive(Debug, Clone, Copy)]
pub struct Holdout {
    seed: u64,
}

/// Why a picture is excluded from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unseen {
    /// Two concepts that never appear together in training.
    Pair,
    /// Two concepts that never appear in this layout and order in training.
    Relation,
    /// A concept that never appears on this colour in training.
    Colour,
}

impl Unseen {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Relation => "relation",
            Self::Colour => "colour",
        }
    }
}

/// One in ten combinations of each kind is held out.
const ONE_IN: u64 = 10;

impl Holdout {
    /// The held-out combinations of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn hit(&self, texts: &[&str]) -> bool {
        hash_texts(self.seed, texts).is_multiple_of(ONE_IN)
    }

    /// Whether an unordered pair of concepts is held out.
    pub fn pair(&self, a: &str, b: &str) -> bool {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        a != b && self.hit(&["pair", a, b])
    }

    /// Whether `a` before `b` in this layout is held out.
    pub fn relation(&self, a: &str, layout: Layout, b: &str) -> bool {
        let layout = match layout {
            Layout::Single => return false,
            Layout::Row => "row",
            Layout::Column => "column",
        };
        a != b && self.hit(&["relation", a, layout, b])
    }

    /// Whether a concept on this background is held out.
    pub fn colour(&self, name: &str, colour: &str) -> bool {
        self.hit(&["colour", name, colour])
    }

    /// The held-out combinations in a picture, given its concepts in reading order.
    pub fn unseen(&self, names: &[&str], layout: Layout, colour: &str) -> Vec<Unseen> {
        let pairs = || (0..names.len()).flat_map(|i| (i + 1..names.len()).map(move |j| (i, j)));
        let mut found = Vec::new();
        if pairs().any(|(i, j)| self.pair(names[i], names[j])) {
            found.push(Unseen::Pair);
        }
        if pairs().any(|(i, j)| self.relation(names[i], layout, names[j])) {
            found.push(Unseen::Relation);
        }
        if names.iter().any(|name| self.colour(name, colour)) {
            found.push(Unseen::Colour);
        }
        found
    }
}

/// The drawings of a concept that are held out for val: about 8% of its styles, never that of the canonical set if the
/// concept is drawable, and always leaving at least three styles. Finishes of one design are held out together.
pub fn val_drawings(entry: &Entry, canonical_set: &str, seed: u64) -> Vec<bool> {
    let canonical = entry.drawings.iter().find(|d| d.set.id == canonical_set);
    let canonical_style = canonical.map(|drawing| drawing.set.style);
    let mut styles: BTreeMap<&str, u64> = BTreeMap::new();
    for drawing in entry.drawings.iter().filter(|d| d.set.role == Role::Train) {
        let hash = hash_texts(seed, &["val", &entry.concept.name, drawing.set.style]);
        styles.insert(drawing.set.style, hash);
    }
    let mut held: Vec<(u64, &str)> = styles
        .iter()
        .filter(|&(style, hash)| {
            let protected = entry.concept.drawn && canonical_style == Some(*style);
            hash % 100 < 9 && !protected
        })
        .map(|(style, hash)| (*hash, *style))
        .collect();
    held.sort_unstable();
    held.truncate(styles.len().saturating_sub(3));
    entry
        .drawings
        .iter()
        .map(|d| d.set.role == Role::Train && held.iter().any(|(_, style)| *style == d.set.style))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_out_about_a_tenth() {
        let holdout = Holdout::new(1);
        let names: Vec<String> = (0..60).map(|i| format!("n{i}")).collect();
        let mut counts = [0usize; 3];
        for a in &names {
            for b in &names {
                counts[0] += usize::from(holdout.pair(a, b));
                counts[1] += usize::from(holdout.relation(a, Layout::Row, b));
                counts[2] += usize::from(holdout.colour(a, b));
            }
        }
        assert!(counts.iter().all(|n| (270..450).contains(n)), "{counts:?}");
        assert!(!holdout.pair("a", "a"));
    }

    #[test]
    fn pairs_have_no_order_but_relations_do() {
        let holdout = Holdout::new(2);
        let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
        let pairs = || names.iter().flat_map(|a| names.iter().map(move |b| (a, b)));
        assert!(pairs().all(|(a, b)| holdout.pair(a, b) == holdout.pair(b, a)));
        let row = |a: &str, b: &str| holdout.relation(a, Layout::Row, b);
        assert!(pairs().any(|(a, b)| row(a, b) != row(b, a)));
        for (a, b) in pairs() {
            let unseen = holdout.unseen(&[a, b], Layout::Row, "red");
            assert_eq!(unseen.contains(&Unseen::Pair), holdout.pair(a, b));
            assert_eq!(unseen.contains(&Unseen::Relation), row(a, b));
            let colour = holdout.colour(a, "red") || holdout.colour(b, "red");
            assert_eq!(unseen.contains(&Unseen::Colour), colour);
        }
    }
}
