//! Wildcards over paths: `*` matches any text, slashes included, and `?` one character, as in the hub's own programs.

/// Whether `text` matches `pattern` as a whole. A pattern that ends with `/` matches everything in that folder.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let text: Vec<char> = text.chars().collect();
    // Position after the last `*`, and the text position that it was tried with.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(c) if *c == '?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            // The last `*` takes one character more.
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_match_as_in_the_hubs_programs() {
        for (pattern, text, wanted) in [
            ("*.json", "unet/config.json", true),
            ("*.json", "unet/config.jsonl", false),
            ("unet/*", "unet/a/b", true),
            ("unet/", "unet/a/b", true),
            ("unet/", "unet2/a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab*ab", "abaab", true),
            ("*ab*ab", "aab", false),
            ("", "", true),
            ("", "a", false),
            ("**", "", true),
            ("model.safetensors", "model.safetensors", true),
            ("model.safetensors", "x/model.safetensors", false),
            ("日?*", "日本語", true),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    /// The definition, in exponential time.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                slow(rest, text) || text.split_first().is_some_and(|(_, t)| slow(pattern, t))
            }
            (Some((p, rest)), Some((t, text))) => (*p == '?' || p == t) && slow(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_definition_is_met(pattern in "[ab*?]{0,7}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), slow(&chars(&pattern), &chars(&text)));
        }
    }
}
