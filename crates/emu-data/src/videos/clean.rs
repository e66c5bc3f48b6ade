//! Captions of stock videos without the words about resolution and camera.

/// Words that describe the recording, not what is seen. A part of a caption that has one, and otherwise only such words and
/// those of [`BESIDE`], is removed.
const TELLING: &[&str] = &[
    "1080",
    "1080p",
    "120fps",
    "2160p",
    "240fps",
    "24fps",
    "25fps",
    "2k",
    "30fps",
    "3840x2160",
    "1920x1080",
    "4096x2160",
    "4k",
    "50fps",
    "60fps",
    "6k",
    "720p",
    "8k",
    "alexa",
    "arri",
    "blackmagic",
    "dci",
    "footage",
    "fps",
    "fullhd",
    "gopro",
    "hd",
    "hdr",
    "hdv",
    "loop",
    "loopable",
    "looped",
    "mov",
    "mp4",
    "ntsc",
    "pal",
    "prores",
    "resolution",
    "seamless",
    "seamlessly",
    "uhd",
    "ultrahd",
    "video",
    "clip",
];

/// Words beside [`TELLING`] ones; alone they are about something else ("red", "full", "on a lens").
const BESIDE: &[&str] = &[
    "a",
    "camera",
    "cinema",
    "definition",
    "dslr",
    "epic",
    "files",
    "format",
    "full",
    "high",
    "in",
    "lens",
    "of",
    "on",
    "quality",
    "raw",
    "red",
    "shot",
    "stock",
    "ultra",
    "with",
];

/// A caption without the parts (between full stops, commas, semicolons, bars, dashes with spaces, or brackets) that only
/// describe the recording, and without "4k footage of" and the like at its start. Empty if nothing is left.
pub(super) fn clean(caption: &str) -> String {
    let mut kept = String::new();
    for (part, mark) in parts(caption) {
        if is_recording(&part) {
            continue;
        }
        if kept.is_empty() {
            kept = part;
        } else {
            kept.push_str(&mark);
            kept.push_str(&part);
        }
    }
    without_start(kept.trim()).to_string()
}

/// The parts of a caption, each with the mark before it.
fn parts(caption: &str) -> Vec<(String, String)> {
    let mut parts = vec![];
    let (mut part, mut mark) = (String::new(), String::new());
    let words: Vec<&str> = caption.split_whitespace().collect();
    for word in words {
        let dash = matches!(word, "-" | "--" | "–" | "—" | "|" | "/");
        let opens = word.starts_with(['(', '[']);
        if (dash || opens) && !part.is_empty() {
            parts.push((std::mem::take(&mut part), std::mem::take(&mut mark)));
        }
        if dash {
            mark = format!(" {word} ");
            continue;
        }
        if opens {
            mark = " ".into();
        }
        let bare = word.trim_end_matches(['.', ',', ';', '!', ')', ']']);
        if !part.is_empty() {
            part.push(' ');
        }
        let closes = word.ends_with([')', ']']);
        part.push_str(if closes { word } else { bare });
        if bare.len() < word.len() {
            parts.push((std::mem::take(&mut part), std::mem::take(&mut mark)));
            let end = if closes { "" } else { &word[bare.len()..] };
            mark = format!("{end} ");
        }
    }
    parts.push((part, mark));
    parts.retain(|(part, _)| !part.is_empty());
    parts
}

fn words(part: &str) -> Vec<String> {
    part.split_whitespace()
        .map(|word| {
            let word = word.trim_matches(|c: char| !c.is_alphanumeric());
            word.to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn is_recording(part: &str) -> bool {
    let words = words(part);
    let within = |list: &[&str], word: &String| list.contains(&word.as_str());
    words
        .iter()
        .all(|word| within(TELLING, word) || within(BESIDE, word))
        && words.iter().any(|word| within(TELLING, word))
}

/// The caption behind "4k footage of", "HD video of", ...
fn without_start(caption: &str) -> &str {
    let lower = caption.to_lowercase();
    // lower-casing can change lengths outside of ASCII; the start is then left as it is
    let Some((start, _)) = lower
        .split_once(" of ")
        .filter(|_| lower.len() == caption.len())
    else {
        return caption;
    };
    match is_recording(start) {
        true => caption[start.len() + " of ".len()..].trim_start(),
        false => caption,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_the_recording_goes() {
        for (caption, cleaned) in [
            (
                "White square moves over a red, green and blue ground. 4k footage",
                "White square moves over a red, green and blue ground",
            ),
            ("Abstract background, loop", "Abstract background"),
            ("4K footage of a river, UHD", "a river"),
            ("A dog runs - full HD video", "A dog runs"),
            ("A dog (4k) runs", "A dog runs"),
            (
                "Sea waves. Shot on RED camera in 4K resolution. Slow waves",
                "Sea waves. Slow waves",
            ),
            // nothing to remove
            (
                "A red dog, in a loop of rope",
                "A red dog, in a loop of rope",
            ),
            (
                "Man with a camera, full of joy",
                "Man with a camera, full of joy",
            ),
            ("A box of red paint", "A box of red paint"),
            ("Der Hund läuft, groß", "Der Hund läuft, groß"),
            ("", ""),
            ("4k", ""),
        ] {
            assert_eq!(clean(caption), cleaned, "{caption:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_adds_no_words(caption in "\\PC{0,60}") {
            let before = words(&caption).len();
            proptest::prop_assert!(words(&clean(&caption)).len() <= before);
        }
    }
}
