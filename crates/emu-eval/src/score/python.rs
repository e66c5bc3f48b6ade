//! Text functions with Python's rules, which the original scorers inherit.

/// First characters of the runs of ten decimal digits (category Nd) in the Unicode tables of CPython 3.11.
const ZEROS: &[u32] = &[
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Python's `str.isspace` of one character: the Unicode property and the four ASCII separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `str.split` without argument.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Python 3's `\d`: any decimal digit of Unicode.
pub fn is_digit(c: char) -> bool {
    let code = u32::from(c);
    let run = ZEROS.partition_point(|zero| *zero <= code);
    run > 0 && code - ZEROS[run - 1] < 10
}

/// Python 2's `unicode.lower`: one character for each, without the rules that depend on the context.
pub fn simple_lower(text: &str) -> String {
    // U+0130 is the one character whose full mapping has two characters; the simple mapping is the first.
    text.chars()
        .map(|c| c.to_lowercase().next().unwrap_or(c))
        .collect()
}

/// Rounds to two decimals as CPython 3 does: the nearest to the binary value, ties to even.
pub fn round2(value: f64) -> f64 {
    format!("{value:.2}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_all_scripts() {
        for c in "09٠٩０９߀𝟎𝟿᠐".chars() {
            assert!(is_digit(c), "{c}");
        }
        for c in "/:a½²⅓一٪".chars() {
            assert!(!is_digit(c), "{c}");
        }
        assert!(ZEROS.is_sorted());
    }

    #[test]
    fn white_space() {
        assert_eq!(strip("\u{1c}\u{a0} a b\u{85}\n"), "a b");
        let found: Vec<_> = words("\ta\u{3000}b\u{1f}c ").collect();
        assert_eq!(found, ["a", "b", "c"]);
        // The zero-width space is none.
        assert_eq!(words("a\u{200b}b").count(), 1);
    }

    #[test]
    fn lower_case_of_python_2() {
        assert_eq!(simple_lower("İΑΣ Á"), "iασ á");
    }

    #[test]
    fn rounding() {
        for (value, rounded) in [
            (33.333_333, 33.33),
            (66.666_666, 66.67),
            (78.125, 78.12),
            (78.375, 78.38),
            (2.675, 2.67),
            (100.0, 100.0),
        ] {
            assert_eq!(round2(value), rounded, "{value}");
        }
        assert!(round2(f64::NAN).is_nan());
    }
}
