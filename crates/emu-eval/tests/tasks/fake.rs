//! A model that knows some answers by heart.

use std::collections::HashMap;
use std::sync::Arc;

use emu_eval::tasks::{Media, Model, ModelError, Outcome, Part, Request};

/// Answers by question id; whatever it does not know is "nothing". Every call is recorded.
#[derive(Default)]
pub struct Fake {
    pub answers: HashMap<String, String>,
    /// For rankings: the index of the candidate that it prefers.
    pub preferred: HashMap<String, usize>,
    /// Names of media that it cannot read.
    pub unreadable: Vec<String>,
    /// Prompts in order, as [`shown`].
    pub prompts: Vec<String>,
    /// Requests of the last call, to check batches.
    pub batches: Vec<usize>,
    /// Fails when it has been called so often.
    pub dies_after: Option<usize>,
    pub calls: usize,
    pub name: String,
}

impl Fake {
    pub fn knowing(answers: &[(&str, &str)]) -> Self {
        let answers = answers
            .iter()
            .map(|(id, answer)| ((*id).to_owned(), (*answer).to_owned()));
        Self {
            answers: answers.collect(),
            name: "fake".into(),
            ..Self::default()
        }
    }

    fn call(&mut self) -> Result<(), ModelError> {
        self.calls += 1;
        match self.dies_after {
            Some(last) if self.calls > last => Err("killed".into()),
            _ => Ok(()),
        }
    }

    fn blind(&self, request: &Request) -> Option<String> {
        let media = request.parts.iter().filter_map(|part| match part {
            Part::Media(media) => Some(media),
            Part::Template(_) | Part::Text(_) => None,
        });
        let mut unread = media.filter(|media| self.unreadable.contains(&media.name));
        unread
            .next()
            .map(|media| format!("{} is no picture", media.name))
    }
}

/// Media as `<name>`, plain text in quotation marks.
pub fn shown(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Template(text) => text.clone(),
        Part::Text(text) => format!("\"{text}\""),
        Part::Media(media) => format!("<{}>", media.name),
    };
    parts.iter().map(part).collect()
}

impl Model for Fake {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn generate(&mut self, requests: &[Request]) -> Result<Vec<Outcome<String>>, ModelError> {
        self.call()?;
        self.batches.push(requests.len());
        let answer = |fake: &mut Self, request: &Request| {
            let prompt = shown(&request.parts);
            fake.prompts.push(prompt.clone());
            if let Some(reason) = fake.blind(request) {
                return Err(reason);
            }
            if !request.decoding.allowed.is_empty() {
                let known = fake.answers.contains_key(&request.id);
                return Ok(if known { "yes." } else { "no." }.to_owned());
            }
            if prompt.contains("in detail") && !fake.answers.contains_key("caption") {
                return Ok("A Hill by the sea. More words.".to_owned());
            }
            Ok(fake
                .answers
                .get(&request.id)
                .cloned()
                .unwrap_or_else(|| "nothing".to_owned()))
        };
        Ok(requests
            .iter()
            .map(|request| answer(self, request))
            .collect())
    }

    fn rank(
        &mut self,
        request: &Request,
        candidates: &[Arc<str>],
    ) -> Result<Outcome<Vec<f64>>, ModelError> {
        self.call()?;
        self.prompts.push(shown(&request.parts));
        if let Some(reason) = self.blind(request) {
            return Ok(Err(reason));
        }
        let first = self.preferred.get(&request.id).copied().unwrap_or(0);
        let score = |i: usize| {
            if i == first {
                0.1
            } else {
                -1.0 / 3.0 - i as f64
            }
        };
        Ok(Ok((0..candidates.len()).map(score).collect()))
    }

    fn features(&mut self, media: &[Media]) -> Result<Vec<Outcome<Vec<f32>>>, ModelError> {
        self.call()?;
        let one = |media: &Media| match self.unreadable.contains(&media.name) {
            true => Err("no picture".to_owned()),
            false => {
                let digits: String = media.name.chars().filter(char::is_ascii_digit).collect();
                let last = digits
                    .chars()
                    .last()
                    .and_then(|digit| digit.to_digit(10))
                    .unwrap_or(0);
                Ok(vec![last as f32, 3.0])
            }
        };
        Ok(media.iter().map(one).collect())
    }
}
