//! Presets: prompts and decoding for each task, as TOML files in `configs/eval/`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::EvalError;
use super::files::read_text;
use super::model::{Decoding, Form};
use super::question::ExampleAnswer;
use super::task::Task;
use super::template::{Slot, Template};
use crate::score::clean;

/// The presets that come with the program.
const BUILT_IN: [(&str, &str); 3] = [
    ("emu", include_str!("../../../../configs/eval/emu.toml")),
    ("emu-i", include_str!("../../../../configs/eval/emu-i.toml")),
    ("pack", include_str!("../../../../configs/eval/pack.toml")),
];

/// Prompts and decoding of all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name in results.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// System texts.
    #[serde(default)]
    pub system: System,
    /// How few-shot examples are chosen.
    pub few_shot: FewShot,
    /// How each task is asked.
    pub ask: Vec<Ask>,
}

/// System texts, for `{system}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Before a picture.
    pub picture: String,
    /// Before a video.
    pub video: String,
}

/// How few-shot examples are chosen from the training split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Those whose pictures are the most similar to the question's; the most similar last.
    Rices,
    /// Drawn for each question.
    Random,
    /// Drawn once for all questions.
    Fixed,
}

/// Few-shot settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// Choice of examples with pictures.
    pub examples: Choice,
    /// Choice of text-only examples.
    pub text_only: Choice,
    /// Which human answer an example shows.
    pub answer: ExampleAnswer,
    /// No two examples about the same picture.
    pub one_per_picture: bool,
}

/// What is done with a generated text before it is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clean {
    /// White space at both ends is removed.
    #[default]
    None,
    /// The released evaluation's rule for captions: up to the first line break or `. `, no final `.`, lower case.
    Caption,
    /// The released evaluation's rule for answers (`short_answer`).
    ShortAnswer,
}

impl Clean {
    /// Applies the rule.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.trim().to_owned(),
            Self::Caption => clean::caption(text).trim().to_owned(),
            Self::ShortAnswer => clean::short_answer(text),
        }
    }
}

/// How some tasks are asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Whether the prompt is complete or a turn of a conversation.
    #[serde(default)]
    pub form: Form,
    /// The prompt.
    pub prompt: Template,
    /// A few-shot example.
    pub example: Option<Template>,
    /// An earlier round of a dialog.
    pub round: Option<Template>,
    /// Clean-up of the answer.
    #[serde(default)]
    pub clean: Clean,
    /// Decoding; only needed where answers are generated.
    pub decoding: Option<Decoding>,
    /// A first step that captions the picture.
    pub caption: Option<CaptionStep>,
    /// A first step that asks whether the question can be answered.
    pub answerable: Option<AnswerableStep>,
}

/// The first of two steps: a caption, which `{caption}` then stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionStep {
    /// The prompt.
    pub prompt: Template,
    /// Whether the second step sees the picture again. With examples that have pictures it always does.
    pub keep_picture: bool,
    /// Clean-up of the caption.
    #[serde(default)]
    pub clean: Clean,
    /// Decoding.
    pub decoding: Decoding,
}

/// A step before the answer: can the question be answered?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerableStep {
    /// The prompt.
    pub prompt: Template,
    /// The only continuations.
    pub allowed: Vec<String>,
    /// The continuation upon which the answer is replaced.
    pub unanswerable_if: String,
    /// The answer then.
    pub answer: String,
    /// Decoding.
    pub decoding: Decoding,
}

impl Preset {
    /// Names of the presets that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A preset by its name, or from a file that ends in `.toml`.
    ///
    /// # Errors
    /// If there is none, or it is wrong.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        if name.ends_with(".toml") {
            return Self::parse(name, &read_text(Path::new(name), "a preset")?);
        }
        let known: Vec<_> = Self::names().collect();
        Err(EvalError::Preset {
            name: name.to_owned(),
            reason: format!(
                "there is none of this name. Name {} or a file that ends in .toml",
                known.join(", ")
            ),
        })
    }

    /// Parses and validates a preset.
    ///
    /// # Errors
    /// If it is no TOML, has unknown or missing fields, or a template lacks a placeholder.
    pub fn parse(name: &str, text: &str) -> Result<Self, EvalError> {
        let fault = |reason: String| EvalError::Preset {
            name: name.to_owned(),
            reason,
        };
        let preset: Self = toml::from_str(text).map_err(|error| fault(error.to_string()))?;
        preset.validate().map_err(fault)?;
        Ok(preset)
    }

    /// How a task is asked.
    ///
    /// # Errors
    /// If the preset does not have it.
    pub fn ask(&self, task: Task) -> Result<&Ask, EvalError> {
        self.ask.iter().find(|ask| ask.tasks.contains(&task)).ok_or_else(|| EvalError::Preset {
            name: self.name.clone(),
            reason: format!(
                "has no prompt for {}. Use another preset, or copy its file and add an [[ask]] for it",
                task.name()
            ),
        })
    }

    fn validate(&self) -> Result<(), String> {
        let mut seen = vec![];
        for ask in &self.ask {
            for task in &ask.tasks {
                if seen.contains(task) {
                    return Err(format!(
                        "asks {} twice. Remove it from one [[ask]]",
                        task.name()
                    ));
                }
                seen.push(*task);
                ask.validate(*task)
                    .map_err(|reason| format!("[[ask]] for {}: {reason}", task.name()))?;
            }
            let system = ask.prompt.count(Slot::System) > 0;
            if system && self.system == System::default() {
                return Err(
                    "has {system} in a prompt but no [system]. Add picture and video texts to it"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

impl Ask {
    fn validate(&self, task: Task) -> Result<(), String> {
        let mut once = vec![Slot::Media];
        let mut perhaps = vec![Slot::System, Slot::Examples];
        if !task.is_caption() {
            once.push(Slot::Question);
        }
        match (&self.caption, self.prompt.count(Slot::Caption)) {
            (Some(_), _) => once.push(Slot::Caption),
            (None, 0) => {}
            (None, _) => {
                return Err(
                    "the prompt has {caption} but there is no [ask.caption] to make it".into(),
                );
            }
        }
        match (&self.round, task) {
            (Some(round), Task::Visdial) => {
                once.push(Slot::History);
                round.check(&[Slot::Question, Slot::Answer], &[])?;
            }
            (None, Task::Visdial) => return Err("a dialog needs `round`".into()),
            (Some(_), _) => return Err("only dialogs have a `round`. Remove it".into()),
            (None, _) => {}
        }
        self.prompt.check(&once, &perhaps)?;
        if self.form == Form::Turn && self.prompt.count(Slot::System) > 0 {
            return Err("form = \"turn\" uses the pack's own template. Remove {system}".into());
        }
        if let Some(example) = &self.example {
            if self.prompt.count(Slot::Examples) == 0 {
                return Err("there is an `example`, but the prompt has no {examples}".into());
            }
            let mut once = vec![Slot::Media, Slot::Answer];
            if !task.is_caption() {
                once.push(Slot::Question);
            }
            let caption: &[Slot] = if self.caption.is_some() {
                &[Slot::Caption]
            } else {
                &[]
            };
            example.check(&once, caption)?;
        }
        match &self.decoding {
            Some(decoding) => decoding.validate()?,
            None if task == Task::Visdial => {}
            None => return Err("it needs [ask.decoding]".into()),
        }
        perhaps.retain(|slot| *slot == Slot::System);
        if let Some(step) = &self.caption {
            step.prompt.check(&[Slot::Media], &perhaps)?;
            step.decoding.validate()?;
        }
        if let Some(step) = &self.answerable {
            step.prompt
                .check(&[Slot::Media, Slot::Question], &perhaps)?;
            step.decoding.validate()?;
            if step
                .allowed
                .iter()
                .all(|text| *text != step.unanswerable_if)
            {
                return Err(format!(
                    "`allowed` does not contain {:?}, which `unanswerable_if` waits for",
                    step.unanswerable_if
                ));
            }
            if step.allowed.iter().any(|text| text.trim().is_empty()) {
                return Err("`allowed` contains a blank text".into());
            }
        }
        Ok(())
    }
}

impl Decoding {
    fn validate(&self) -> Result<(), String> {
        let wrong = |field: &str, advice: &str| Err(format!("decoding: {field} {advice}"));
        match self {
            Self { beams: 0, .. } => wrong("beams", "must be at least 1"),
            Self {
                max_new_tokens: 0, ..
            } => wrong("max_new_tokens", "must be at least 1"),
            Self {
                min_length,
                max_new_tokens,
                ..
            } if min_length > max_new_tokens => {
                wrong("min_length", "must not be above max_new_tokens")
            }
            Self { length_penalty, .. } if !length_penalty.is_finite() => {
                wrong("length_penalty", "must be a number")
            }
            Self {
                repetition_penalty, ..
            } if !(repetition_penalty.is_finite() && *repetition_penalty > 0.0) => {
                wrong("repetition_penalty", "must be above 0; 1 switches it off")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_of_the_program_are_valid() {
        for name in Preset::names() {
            let preset = Preset::named(name).expect(name);
            assert_eq!(preset.name, name);
        }
        let instructed = Preset::named("emu-i").expect("emu-i");
        for task in Task::ALL {
            let asked = instructed.ask(task);
            assert!(asked.is_ok(), "{}", task.name());
        }
        let pretrained = Preset::named("emu").expect("emu");
        let error = pretrained.ask(Task::Mmvet).expect_err("not in the paper");
        assert!(
            error.to_string().contains("has no prompt for mmvet"),
            "{error}"
        );
        assert!(
            Preset::named("emu-2")
                .expect_err("unknown")
                .to_string()
                .contains("emu, emu-i, pack")
        );
    }

    #[test]
    fn the_released_settings() {
        let preset = Preset::named("emu-i").expect("emu-i");
        let decoding = |task| {
            let decoding = preset
                .ask(task)
                .expect("ask")
                .decoding
                .clone()
                .expect("decoding");
            (
                decoding.beams,
                decoding.max_new_tokens,
                decoding.min_length,
                decoding.length_penalty,
            )
        };
        assert_eq!(decoding(Task::Coco), (5, 20, 8, -1.0));
        assert_eq!(decoding(Task::Vqav2), (5, 20, 1, -1.0));
        assert_eq!(decoding(Task::Mmvet), (5, 128, 1, 1.0));
        let step = preset
            .ask(Task::Vizwiz)
            .expect("ask")
            .answerable
            .as_ref()
            .expect("step");
        assert_eq!(
            (step.decoding.max_new_tokens, step.decoding.length_penalty),
            (50, 0.0)
        );
        assert_eq!(step.allowed, ["yes.", "no."]);
    }

    /// The preset `emu` with one text replaced.
    fn changed(from: &str, to: &str) -> Result<Preset, EvalError> {
        let text = include_str!("../../../../configs/eval/emu-i.toml");
        assert!(text.contains(from), "{from}");
        Preset::parse("mine.toml", &text.replace(from, to))
    }

    #[test]
    fn mistakes_are_found_and_named() {
        for (from, to, words) in [
            ("beams = 5", "beam = 5", "unknown field `beam`"),
            ("beams = 5", "beams = 0", "beams must be at least 1"),
            (
                "min_length = 8",
                "min_length = 80",
                "min_length must not be above",
            ),
            (
                "length_penalty = 1.0",
                "length_penalty = nan",
                "length_penalty must be a number",
            ),
            ("\"nocaps\"", "\"nocap\"", "nocap"),
            ("\"easyvqa\"", "\"vqav2\"", "asks vqav2 twice"),
            (
                "[USER]: {media} please",
                "[USER]: please",
                "{media} 0 times",
            ),
            (
                "phrase. {question} [ASSISTANT]: the answer is:\"",
                "phrase. [ASSISTANT]: the answer is:\"",
                "{question} 0 times",
            ),
            ("{history}", "", "{history} 0 times"),
            ("round = ", "# round = ", "a dialog needs `round`"),
            (
                "clean = \"none\"",
                "clean = \"none\"\nround = \"{question}{answer}\"",
                "only dialogs",
            ),
            (
                "\"mmvet\"]\nprompt = \"{system} {examples}[USER]: {media}",
                "\"mmvet\"]\nprompt = \"{system} {examples}[USER]: {media}{caption}",
                "no [ask.caption]",
            ),
            ("clean = \"none\"", "clean = \"tidy\"", "tidy"),
            (
                "unanswerable_if = \"no.\"",
                "unanswerable_if = \"no\"",
                "`allowed` does not contain",
            ),
            ("{question}, is", "{questions}, is", "unknown placeholder"),
        ] {
            let error = changed(from, to).expect_err(to).to_string();
            assert!(
                error.contains(words) && error.contains("mine.toml"),
                "{to}: {error}"
            );
        }
        assert!(changed("[system]\n", "[few_shot]\n").is_err());
    }

    #[test]
    fn the_rules_of_clean_up() {
        assert_eq!(Clean::None.apply("  A Cat. \n"), "A Cat.");
        assert_eq!(
            Clean::Caption.apply("A small Kite. It flies.\nHigh"),
            "a small kite"
        );
        assert_eq!(Clean::ShortAnswer.apply("The kite, of course."), "kite");
    }
}
