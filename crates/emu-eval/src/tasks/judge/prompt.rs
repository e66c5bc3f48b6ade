//! What a language model that grades is told, and the number in its reply.

use super::Case;

/// Where a prompt takes the fields of a case.
const FIELDS: [&str; 3] = ["{question}", "{answer}", "{prediction}"];

/// The prompt of this project. The official one has other words and other examples; it can be given as a file.
const OWN: &str = include_str!("prompt.txt");

/// Ends the prompt when a reply had no grade.
const CUE: &str = "\nThe correctness, as one number from 0.0 to 1.0, is:";

/// A prompt with the places `{question}`, `{answer}` (the truth) and `{prediction}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgePrompt {
    text: String,
    own: bool,
}

impl Default for JudgePrompt {
    /// The prompt of this project.
    fn default() -> Self {
        Self {
            text: OWN.trim_end().to_owned(),
            own: true,
        }
    }
}

impl JudgePrompt {
    /// A prompt of one's own, such as the official one.
    ///
    /// # Errors
    /// If a place is missing or occurs twice.
    pub fn new(text: &str) -> Result<Self, String> {
        for field in FIELDS {
            let times = text.matches(field).count();
            if times != 1 {
                return Err(format!(
                    "The judge's prompt has {field} {times} times. Write it once, where the text belongs"
                ));
            }
        }
        Ok(Self {
            text: text.trim_end().to_owned(),
            own: false,
        })
    }

    /// Whose prompt it is, for results.
    pub fn origin(&self) -> &'static str {
        match self.own {
            true => "this project's prompt",
            false => "a given prompt",
        }
    }

    /// The text with its places.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The prompt for a case. Line breaks of its fields become spaces, because the official prompt has a row for each case.
    pub fn fill(&self, case: &Case) -> String {
        let values = [case.question, case.answer, case.prediction];
        let mut text = String::new();
        let mut rest = self.text.as_str();
        // In one pass: a field that spells a place is text.
        while let Some((at, field)) = FIELDS
            .iter()
            .enumerate()
            .filter_map(|(i, field)| Some((rest.find(field)?, i)))
            .min()
        {
            let (before, after) = rest.split_at(at);
            text.push_str(before);
            let value = values.get(field).copied().unwrap_or_default();
            text.push_str(&value.split_whitespace().collect::<Vec<_>>().join(" "));
            let length = FIELDS.get(field).map_or(0, |field| field.len());
            rest = after.get(length..).unwrap_or_default();
        }
        text.push_str(rest);
        if case.attempt > 0 {
            text.push_str(CUE);
        }
        text
    }
}

/// The grade in a reply: the only number in it, if that is between 0 and 1.
pub fn grade(reply: &str) -> Option<f64> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let mut numbers = reply
        .split(|c: char| !is_part(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.contains(|c: char| c.is_ascii_digit()));
    let (first, second) = (numbers.next()?, numbers.next());
    let number: f64 = first.parse().ok()?;
    (second.is_none() && (0.0..=1.0).contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case<'a>(question: &'a str, prediction: &'a str, attempt: usize) -> Case<'a> {
        Case {
            id: "v1_0",
            question,
            answer: "a <AND> b",
            prediction,
            attempt,
        }
    }

    #[test]
    fn a_reply_has_one_number_between_zero_and_one() {
        for (reply, number) in [
            ("0.5", Some(0.5)),
            (" 1\n", Some(1.0)),
            ("1.0.", Some(1.0)),
            ("Correctness: 0.25", Some(0.25)),
            (".7", Some(0.7)),
            ("0", Some(0.0)),
            ("", None),
            ("none", None),
            ("7", None),
            ("-0.5", None),
            ("0.5 or 0.6", None),
            ("1/2", None),
            ("0.5.1", None),
            ("1e0", None),
            ("NaN", None),
        ] {
            assert_eq!(grade(reply), number, "{reply:?}");
        }
    }

    #[test]
    fn a_field_cannot_fill_another_place() {
        let prompt =
            JudgePrompt::new("Q {question}\nA {answer}\nP {prediction} =").expect("prompt");
        assert_eq!(
            prompt.fill(&case("what is {prediction}?", "one\ntwo {answer}", 0)),
            "Q what is {prediction}?\nA a <AND> b\nP one two {answer} ="
        );
        let again = prompt.fill(&case("q", "p", 1));
        assert!(again.ends_with("from 0.0 to 1.0, is:"), "{again}");
        let own = JudgePrompt::default();
        assert!(JudgePrompt::new(own.text()).is_ok());
        let filled = own.fill(&case("Which?", "the answer", 0));
        assert!(
            filled.ends_with("\nWhich? | a <AND> b | the answer |"),
            "{filled}"
        );
        assert_ne!(own.origin(), prompt.origin());
    }

    #[test]
    fn a_prompt_without_a_place_is_refused() {
        let error = JudgePrompt::new("{question} {prediction}").expect_err("no truth");
        assert!(error.contains("{answer} 0 times"), "{error}");
        let error = JudgePrompt::new("{question}{answer}{prediction}{answer}").expect_err("twice");
        assert!(error.contains("{answer} 2 times"), "{error}");
    }
}
