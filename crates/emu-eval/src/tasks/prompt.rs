//! From templates to the parts of a request.

use super::Question;
use super::model::{MediaKind, Part};
use super::preset::System;
use super::question::ExampleAnswer;
use super::template::{Piece, Slot, Template};

/// A few-shot example: a question with its answer and, if its template asks for one, its caption.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// The question.
    pub question: &'a Question,
    /// The caption, for `{caption}`.
    pub caption: Option<&'a str>,
}

/// What the placeholders of a prompt stand for.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// The question.
    pub question: &'a Question,
    /// System texts.
    pub system: &'a System,
    /// Few-shot examples and their template.
    pub examples: &'a [Example<'a>],
    /// Template of the examples.
    pub example: Option<&'a Template>,
    /// Template of the earlier rounds of a dialog.
    pub round: Option<&'a Template>,
    /// Which human answer the examples show.
    pub answer: ExampleAnswer,
    /// Whether the examples have their media.
    pub pictured: bool,
    /// Whether the question has its media.
    pub media: bool,
    /// The caption, for `{caption}`.
    pub caption: Option<&'a str>,
}

impl Filling<'_> {
    /// Fills a template. Texts of the data set stay plain text.
    pub fn fill(&self, template: &Template) -> Vec<Part> {
        let mut prompt = Parts::default();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => prompt.template(text),
                Piece::Slot(Slot::System) => {
                    match self.question.media.first().map(|media| media.kind) {
                        Some(MediaKind::Video) => prompt.template(&self.system.video),
                        _ => prompt.template(&self.system.picture),
                    }
                }
                Piece::Slot(Slot::Examples) => {
                    for example in self.examples {
                        self.example(*example, &mut prompt);
                    }
                }
                Piece::Slot(Slot::Media) if self.media => prompt.media(self.question),
                Piece::Slot(Slot::Question) => prompt.text(&self.question.text),
                Piece::Slot(Slot::Caption) => prompt.text(self.caption.unwrap_or_default()),
                Piece::Slot(Slot::History) => {
                    for (question, answer) in &self.question.history {
                        self.round(question, answer, &mut prompt);
                    }
                }
                Piece::Slot(Slot::Media | Slot::Answer) => {}
            }
        }
        prompt.0
    }

    fn example(&self, example: Example, prompt: &mut Parts) {
        let Some(template) = self.example else { return };
        let answer = example
            .question
            .example_answer(self.answer)
            .unwrap_or_default();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => prompt.template(text),
                Piece::Slot(Slot::Media) if self.pictured => prompt.media(example.question),
                Piece::Slot(Slot::Question) => prompt.text(&example.question.text),
                Piece::Slot(Slot::Answer) => prompt.text(answer.trim().trim_end_matches('.')),
                Piece::Slot(Slot::Caption) => prompt.text(example.caption.unwrap_or_default()),
                Piece::Slot(_) => {}
            }
        }
    }

    fn round(&self, question: &str, answer: &str, prompt: &mut Parts) {
        let Some(template) = self.round else { return };
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => prompt.template(text),
                Piece::Slot(Slot::Question) => prompt.text(question),
                Piece::Slot(Slot::Answer) => prompt.text(answer),
                Piece::Slot(_) => {}
            }
        }
    }
}

/// Parts under construction; neighbours of a kind are merged.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn template(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Template(text)) => text.push_str(more),
            _ => self.0.push(Part::Template(more.to_owned())),
        }
    }

    fn text(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.0.push(Part::Text(more.to_owned())),
        }
    }

    fn media(&mut self, question: &Question) {
        self.0
            .extend(question.media.iter().cloned().map(Part::Media));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::preset::Preset;
    use crate::tasks::{Media, Task, Truth};

    fn media(kind: MediaKind, name: &str) -> Media {
        Media {
            kind,
            name: name.to_owned(),
            path: name.into(),
        }
    }

    fn question(text: &str, answer: &str, kind: MediaKind, name: &str) -> Question {
        let truth = Truth::Exact(vec![answer.to_owned()]);
        Question::new(
            name.to_owned(),
            vec![media(kind, name)],
            text.to_owned(),
            truth,
        )
    }

    /// Media as `<name>`, plain text as `"text"`.
    fn shown(parts: &[Part]) -> String {
        let part = |part: &Part| match part {
            Part::Template(text) => text.clone(),
            Part::Text(text) => format!("\"{text}\""),
            Part::Media(media) => format!("<{}>", media.name),
        };
        parts.iter().map(part).collect()
    }

    fn filling<'a>(
        preset: &'a Preset,
        task: Task,
        question: &'a Question,
        examples: &'a [Example<'a>],
    ) -> Filling<'a> {
        let ask = preset.ask(task).expect("ask");
        Filling {
            question,
            system: &preset.system,
            examples,
            example: ask.example.as_ref(),
            round: ask.round.as_ref(),
            answer: ExampleAnswer::First,
            pictured: true,
            media: true,
            caption: Some("a hill"),
        }
    }

    #[test]
    fn two_steps_with_and_without_pictures() {
        let preset = Preset::named("emu").expect("preset");
        let template = &preset.ask(Task::Vqav2).expect("ask").prompt;
        let asked = question("what is it?", "?", MediaKind::Picture, "q");
        let first = question("where?", "Here.", MediaKind::Picture, "e");
        let examples = [Example {
            question: &first,
            caption: None,
        }];
        let full = filling(&preset, Task::Vqav2, &asked, &examples);
        assert_eq!(
            shown(&full.fill(template)),
            "<e>based on the picture, \"where?\" short answer: \"Here\". <q>a picture of \"a hill\". based on the picture, \"what is it?\" short answer:"
        );
        let text_only = Filling {
            pictured: false,
            media: false,
            ..full
        };
        assert_eq!(
            shown(&text_only.fill(template)),
            "based on the picture, \"where?\" short answer: \"Here\". a picture of \"a hill\". based on the picture, \"what is it?\" short answer:"
        );
    }

    #[test]
    fn the_system_text_is_that_of_the_medium() {
        let preset = Preset::named("emu-i").expect("preset");
        for (kind, task, words) in [
            (MediaKind::Picture, Task::Mmvet, "presented with an image"),
            (
                MediaKind::Video,
                Task::Msvdqa,
                "multiple chronological images",
            ),
        ] {
            let asked = question("why", "?", kind, "m");
            let prompt = shown(
                &filling(&preset, task, &asked, &[]).fill(&preset.ask(task).expect("ask").prompt),
            );
            assert!(prompt.contains(words), "{prompt}");
            assert!(prompt.contains("[USER]: <m>"), "{prompt}");
        }
    }

    #[test]
    fn a_dialog_repeats_its_history_and_data_stay_plain_text() {
        let preset = Preset::named("emu-i").expect("preset");
        let mut asked = question("is it [IMG]", "?", MediaKind::Picture, "d");
        asked.history = vec![("one".into(), "yes".into()), ("two".into(), "</s>".into())];
        let prompt = filling(&preset, Task::Visdial, &asked, &[])
            .fill(&preset.ask(Task::Visdial).expect("ask").prompt);
        assert!(shown(&prompt).ends_with(
            "[USER]: <d></s> [USER]: \"one\"? [ASSISTANT]: \"yes\".</s> [USER]: \"two\"? [ASSISTANT]: \"</s>\".</s> [USER]: \"is it [IMG]\"? [ASSISTANT]:"
        ));
        assert!(prompt.contains(&Part::Text("</s>".into())));
    }
}
