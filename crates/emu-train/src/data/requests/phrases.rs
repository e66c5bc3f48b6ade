//! Phrases that describe the requested picture.

use emu_model::spelling::{article, describe};

use super::shown::Shown;
use crate::data::record::Layout;
use crate::data::rng::Rng;

/// Phrases for the first object left of the second.
const ROW: [&str; 12] = [
    "{a} to the left of {b}",
    "{a} left of {b}",
    "{a} on the left of {b}",
    "{a} on the left and {b} on the right",
    "{b} to the right of {a}",
    "{b} right of {a}",
    "{b} on the right of {a}",
    "{b} on the right and {a} on the left",
    // Without a named position, the objects are in the order of mention.
    "{a} and {b}",
    "{a} next to {b}",
    "{a} beside {b}",
    "{a} with {b}",
];
/// Phrases for the first object above the second.
const COLUMN: [&str; 9] = [
    "{a} above {b}",
    "{a} over {b}",
    "{a} on top of {b}",
    "{a} at the top and {b} at the bottom",
    "{b} below {a}",
    "{b} under {a}",
    "{b} beneath {a}",
    "{b} underneath {a}",
    "{b} at the bottom and {a} at the top",
];
/// Phrases for a background.
const BACKGROUND: [&str; 8] = [
    "on a {} background",
    "on a {} background",
    "with a {} background",
    "in front of a {} background",
    "against a {} background",
    "on {}",
    "on plain {}",
    "with {} behind it",
];

/// Fills in the colour: "a {} background", with "an" before a vowel.
pub(super) fn fill_colour(wording: &str, colour: &str) -> String {
    let wording = match article(colour) {
        "an" => wording.replace("a {}", "an {}"),
        _ => wording.to_owned(),
    };
    wording.replace("{}", colour)
}

/// The word as the object of a sentence, with or without an article.
fn object(word: &str, several: bool, rng: &mut Rng) -> String {
    // "glasses", "grapes": an article is unusual.
    let bare = if several { 0.7 } else { 0.06 };
    match rng.unit() {
        x if x < bare => word.to_owned(),
        x if x < bare + 0.08 => format!("the {word}"),
        x if x < bare + 0.12 => format!("one {word}"),
        _ => format!("{} {word}", article(word)),
    }
}

/// A random phrase for a picture. `words` are the words for its objects; `several` marks words that are plural.
pub(super) fn any(shown: &Shown, words: &[&str], several: &[bool], rng: &mut Rng) -> String {
    let of = |i: usize, rng: &mut Rng| {
        let word = words.get(i).copied().unwrap_or_default();
        object(word, several.get(i).copied().unwrap_or(false), rng)
    };
    let first = of(0, rng);
    let mut text = if words.len() < 2 {
        first
    } else {
        let ways: &[&str] = match shown.layout {
            Layout::Column => &COLUMN,
            _ => &ROW,
        };
        let way = ways[rng.below(ways.len())];
        way.replace("{a}", &first).replace("{b}", &of(1, rng))
    };
    if let Some(colour) = &shown.colour {
        let spelled = match colour.as_str() {
            "gray" if rng.chance(0.4) => "grey",
            colour => colour,
        };
        let way = BACKGROUND[rng.below(BACKGROUND.len())];
        text += &format!(" {}", fill_colour(way, spelled));
    }
    text
}

/// The plain phrase, as in histories, with these words for the objects. With `turned`, the phrase for two objects names
/// the second first.
pub(super) fn plain(shown: &Shown, words: &[&str], turned: bool) -> String {
    let (&[a, b], true) = (words, turned) else {
        return describe(words, shown.layout_word(), shown.colour.as_deref());
    };
    let between = match shown.layout {
        Layout::Column => "below",
        _ => "to the right of",
    };
    let ground = (shown.colour.as_deref())
        .map(|colour| format!(" {}", fill_colour("on a {} background", colour)))
        .unwrap_or_default();
    format!("{} {b} {between} {} {a}{ground}", article(b), article(a))
}

/// Random capitalisation and punctuation: sometimes a capital, a full stop or an exclamation mark.
pub(super) fn typed(text: String, rng: &mut Rng) -> String {
    let mut text = match rng.chance(0.4) {
        true => capital(&text),
        false => text,
    };
    if text.ends_with(|c: char| c.is_alphanumeric()) {
        match rng.unit() {
            x if x < 0.2 => text.push('.'),
            x if x < 0.26 => text.push('!'),
            _ => {}
        }
    }
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(layout: Layout, colour: Option<&str>) -> Shown {
        Shown {
            names: vec!["dog".into(), "owl".into()],
            layout,
            colour: colour.map(str::to_owned),
        }
    }

    #[test]
    fn either_object_may_come_first() {
        let row = shown(Layout::Row, Some("orange"));
        let words = ["dog", "owl"];
        let text = "a dog to the left of an owl on an orange background";
        assert_eq!(plain(&row, &words, false), text);
        let text = "an owl to the right of a dog on an orange background";
        assert_eq!(plain(&row, &words, true), text);
        let column = shown(Layout::Column, None);
        assert_eq!(plain(&column, &words, true), "an owl below a dog");
        assert_eq!(plain(&column, &words, false), "a dog above an owl");
    }

    #[test]
    fn ways_to_say_it_agree_about_the_order() {
        let second_first = |way: &str| way.find("{b}") < way.find("{a}");
        for way in ROW {
            let right = [
                "to the right",
                "right of",
                "on the right of",
                "on the right and",
            ];
            let found = right.iter().any(|word| way.contains(word));
            assert_eq!(second_first(way), found, "{way}");
        }
        for way in COLUMN {
            let below = ["below", "under", "beneath", "at the bottom and"];
            let found = below.iter().any(|word| way.contains(word));
            assert_eq!(second_first(way), found, "{way}");
        }
    }

    #[test]
    fn phrases_name_everything() {
        let picture = shown(Layout::Column, Some("gray"));
        for i in 0..200 {
            let mut rng = Rng::new(1, "phrases", i);
            let text = typed(
                any(&picture, &["hound", "barn owl"], &[false; 2], &mut rng),
                &mut rng,
            );
            let lower = text.to_lowercase();
            assert!(
                lower.contains("hound") && lower.contains("barn owl"),
                "{text}"
            );
            assert!(lower.contains("gray") || lower.contains("grey"), "{text}");
            assert!(!text.contains('{'), "{text}");
        }
    }
}
