//! The normal form of an answer.

use crate::score::porter;
use crate::score::python::{is_digit, simple_lower, words};

/// Marks that are removed or become spaces.
const MARKS: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',',
    '?', '!',
];
/// The original passes a flag where the number of replacements is expected, and the flag is 32.
const PERIODS: usize = 32;
/// Words for numbers.
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];
/// Contractions with a missing apostrophe, sorted, and what replaces them. The exception is the original's.
#[rustfmt::skip]
pub const CONTRACTIONS: &[(&str, &str)] = &[
    ("'ow'sat", "'ow's'at"), ("'ows'at", "'ow's'at"), ("aint", "ain't"), ("arent", "aren't"), ("cant", "can't"),
    ("couldn'tve", "couldn't've"), ("couldnt", "couldn't"), ("couldnt've", "couldn't've"), ("couldve", "could've"),
    ("didnt", "didn't"), ("doesnt", "doesn't"), ("dont", "don't"), ("hadn'tve", "hadn't've"), ("hadnt", "hadn't"),
    ("hadnt've", "hadn't've"), ("hasnt", "hasn't"), ("havent", "haven't"), ("he'dve", "he'd've"), ("hed", "he'd"),
    ("hed've", "he'd've"), ("hes", "he's"), ("howd", "how'd"), ("howll", "how'll"), ("hows", "how's"),
    ("isnt", "isn't"), ("it'dve", "it'd've"), ("itd", "it'd"), ("itd've", "it'd've"), ("itll", "it'll"),
    ("maam", "ma'am"), ("mightn'tve", "mightn't've"), ("mightnt", "mightn't"), ("mightnt've", "mightn't've"),
    ("mightve", "might've"), ("mustnt", "mustn't"), ("mustve", "must've"), ("neednt", "needn't"), ("notve", "not've"),
    ("oclock", "o'clock"), ("oughtnt", "oughtn't"), ("ow's'at", "'ow's'at"), ("shant", "shan't"),
    ("she'dve", "she'd've"), ("shed've", "she'd've"), ("shouldn'tve", "shouldn't've"), ("shouldnt", "shouldn't"),
    ("shouldnt've", "shouldn't've"), ("shouldve", "should've"), ("somebody'd", "somebodyd"),
    ("somebody'dve", "somebody'd've"), ("somebodyd've", "somebody'd've"), ("somebodyll", "somebody'll"),
    ("somebodys", "somebody's"), ("someone'dve", "someone'd've"), ("someoned", "someone'd"),
    ("someoned've", "someone'd've"), ("someonell", "someone'll"), ("someones", "someone's"),
    ("something'dve", "something'd've"), ("somethingd", "something'd"), ("somethingd've", "something'd've"),
    ("somethingll", "something'll"), ("thats", "that's"), ("there'dve", "there'd've"), ("thered", "there'd"),
    ("thered've", "there'd've"), ("therere", "there're"), ("theres", "there's"), ("they'dve", "they'd've"),
    ("theyd", "they'd"), ("theyd've", "they'd've"), ("theyll", "they'll"), ("theyre", "they're"),
    ("theyve", "they've"), ("twas", "'twas"), ("wasnt", "wasn't"), ("we'dve", "we'd've"), ("wed've", "we'd've"),
    ("werent", "weren't"), ("weve", "we've"), ("whatll", "what'll"), ("whatre", "what're"), ("whats", "what's"),
    ("whatve", "what've"), ("whens", "when's"), ("whered", "where'd"), ("wheres", "where's"), ("whereve", "where've"),
    ("who'dve", "who'd've"), ("whod", "who'd"), ("whod've", "who'd've"), ("wholl", "who'll"), ("whos", "who's"),
    ("whove", "who've"), ("whyll", "why'll"), ("whyre", "why're"), ("whys", "why's"), ("wont", "won't"),
    ("wouldn'tve", "wouldn't've"), ("wouldnt", "wouldn't"), ("wouldnt've", "wouldn't've"), ("wouldve", "would've"),
    ("y'all'dve", "y'all'd've"), ("y'alld've", "y'all'd've"), ("y'allll", "y'all'll"), ("yall", "y'all"),
    ("yall'd've", "y'all'd've"), ("yall'll", "y'all'll"), ("you'dve", "you'd've"), ("youd", "you'd"),
    ("youd've", "you'd've"), ("youll", "you'll"), ("youre", "you're"), ("youve", "you've"),
];

/// A text in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalized {
    /// After marks and periods, and for OK-VQA the stem.
    pub marks: String,
    /// After words and contractions too.
    pub text: String,
}

/// How a variant normalizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalizer {
    /// Digits are ASCII, and lower case is that of single characters: the original runs on Python 2.
    pub python2: bool,
    /// Take Porter's stem of the whole text.
    pub stem: bool,
}

impl Normalizer {
    /// All steps.
    pub fn all(self, text: &str) -> Normalized {
        let marks = self.marks(text);
        let text = self.words(&marks);
        Normalized { marks, text }
    }

    /// Marks, periods and the stem.
    pub fn marks(self, text: &str) -> String {
        let digits = text.chars().collect::<Vec<_>>();
        let between_digits = digits
            .windows(3)
            .any(|w| w[1] == ',' && self.is_digit(w[0]) && self.is_digit(w[2]));
        let mut out = text.to_string();
        for mark in MARKS {
            let beside_a_space =
                text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
            out = out.replace(
                mark,
                if beside_a_space || between_digits {
                    ""
                } else {
                    " "
                },
            );
        }
        let out = self.without_periods(&out);
        if self.stem { porter::stem(&out) } else { out }
    }

    /// Removes the periods that no digit follows.
    fn without_periods(self, text: &str) -> String {
        let mut left = PERIODS;
        let mut out = String::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            let digit_follows = characters.peek().is_some_and(|next| self.is_digit(*next));
            if c == '.' && !digit_follows && left > 0 {
                left -= 1;
            } else {
                out.push(c);
            }
        }
        out
    }

    /// Lower case, numbers, articles, contractions.
    fn words(self, text: &str) -> String {
        let lower = if self.python2 {
            simple_lower(text)
        } else {
            text.to_lowercase()
        };
        let words: Vec<&str> = words(&lower)
            .map(|word| {
                NUMBERS
                    .iter()
                    .find(|(name, _)| *name == word)
                    .map_or(word, |(_, digit)| *digit)
            })
            .filter(|word| !["a", "an", "the"].contains(word))
            .map(
                |word| match CONTRACTIONS.binary_search_by_key(&word, |(key, _)| *key) {
                    Ok(at) => CONTRACTIONS[at].1,
                    Err(_) => word,
                },
            )
            .collect();
        words.join(" ")
    }

    fn is_digit(self, c: char) -> bool {
        if self.python2 {
            c.is_ascii_digit()
        } else {
            is_digit(c)
        }
    }
}
