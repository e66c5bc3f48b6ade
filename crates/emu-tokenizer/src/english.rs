//! English of generated texts: training data and prompts must word the same picture alike.

/// The indefinite article by the first letter, with a list of exceptions whose sound differs.
pub fn article(word: &str) -> &'static str {
    let consonant_sound = ["unicorn", "ufo", "ukulele", "uniform"].contains(&word);
    let vowel_sound = ["hourglass", "hour"].contains(&word);
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    if vowel_sound || (vowel && !consonant_sound) {
        "an"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound() {
        for (word, expected) in [
            ("apple", "an"),
            ("dog", "a"),
            ("hourglass", "an"),
            ("unicorn", "a"),
            ("umbrella", "an"),
            ("orange", "an"),
        ] {
            assert_eq!(article(word), expected, "{word}");
        }
    }
}
