//! The steps of a run, and the requests of each.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::types::{Answer, Given, Run, RunOptions};
use crate::tasks::TaskData;
use crate::tasks::error::EvalError;
use crate::tasks::examples::Chooser;
use crate::tasks::features::FeatureIndex;
use crate::tasks::files::sha256;
use crate::tasks::journal::Line;
use crate::tasks::model::{Decoding, Media, Model, Outcome, Request};
use crate::tasks::preset::{AnswerableStep, Ask, CaptionStep, Choice, Preset};
use crate::tasks::progress::{Progress, Stage};
use crate::tasks::prompt::{Example, Filling};
use crate::tasks::question::Question;
use crate::tasks::template::{Slot, Template};

/// A run in progress.
pub(super) struct Runner<'a, 'm> {
    pub(super) data: &'a TaskData,
    pub(super) preset: &'a Preset,
    pub(super) ask: &'a Ask,
    pub(super) options: &'a RunOptions,
    pub(super) out: &'a Path,
    pub(super) asked: Vec<usize>,
    /// Examples of each asked question; empty without examples.
    pub(super) shots: Vec<Outcome<Vec<&'a Question>>>,
    /// Fingerprints of the features, for the settings.
    pub(super) features: Option<Value>,
    /// Captions by name of the medium.
    pub(super) captions: HashMap<String, Outcome<String>>,
    pub(super) model: &'m mut dyn Model,
    pub(super) progress: &'m mut dyn FnMut(Progress) -> bool,
}

impl<'a> Runner<'a, '_> {
    fn questions(&self) -> impl Iterator<Item = &'a Question> + use<'a> {
        let data = self.data;
        self.asked
            .clone()
            .into_iter()
            .filter_map(move |at| data.questions.get(at))
    }

    fn pictured(&self) -> bool {
        self.options.shots.k > 0 && !self.options.shots.text_only
    }

    fn choice(&self) -> Choice {
        match self.options.shots.text_only {
            true => self.preset.few_shot.text_only,
            false => self.preset.few_shot.examples,
        }
    }

    pub(super) fn choose_examples(&mut self, pool: Option<&'a TaskData>) -> Result<(), EvalError> {
        let k = self.options.shots.k;
        if k == 0 {
            return Ok(());
        }
        let fault = |reason: String| EvalError::Preset {
            name: self.preset.name.clone(),
            reason,
        };
        if self.ask.example.is_none() {
            let task = self.data.task.name();
            return Err(fault(format!(
                "has no `example` for {task}. Add one to its [[ask]], or use --shots 0"
            )));
        }
        let pool =
            pool.ok_or_else(|| EvalError::Examples("the training split was not given".to_owned()))?;
        let choice = self.choice();
        let vectors = match choice {
            Choice::Rices => Some(self.vectors(&pool.questions)?),
            Choice::Random | Choice::Fixed => None,
        };
        self.features = vectors
            .as_ref()
            .map(|(pool, asked)| json!([pool.fingerprint(), asked.fingerprint()]));
        let vectors = vectors.as_ref().map(|(pool, asked)| (pool, asked));
        let one = self.preset.few_shot.one_per_picture;
        let mut chooser =
            Chooser::new(&pool.questions, k, choice, one, self.options.seed, vectors)?;
        self.shots = self
            .questions()
            .map(|question| chooser.choose(question))
            .collect();
        Ok(())
    }

    /// Features of the pool and of the asked questions.
    fn vectors(&mut self, pool: &[Question]) -> Result<(FeatureIndex, FeatureIndex), EvalError> {
        let pool = distinct(pool.iter());
        let asked = distinct(self.questions());
        if let Some(path) = &self.options.features {
            let index = FeatureIndex::read(path)?;
            let mut absent = pool
                .iter()
                .chain(&asked)
                .filter(|media| !index.has(&media.name));
            if let Some(first) = absent.next() {
                let count = 1 + absent.count();
                let reason = format!(
                    "it lacks {count} of the pictures and videos, such as {}",
                    first.name
                );
                return Err(EvalError::Index {
                    path: path.clone(),
                    reason,
                });
            }
            return Ok((index.clone(), index));
        }
        let folder = self.options.index.as_deref().unwrap_or(self.out);
        let name = format!("{}-examples.features", self.data.task.name());
        let batch = self.options.batch;
        let pool =
            FeatureIndex::build(&folder.join(name), self.model, &pool, batch, self.progress)?;
        let asked = FeatureIndex::build(
            &self.out.join("questions.features"),
            self.model,
            &asked,
            batch,
            self.progress,
        )?;
        Ok((pool, asked))
    }

    pub(super) fn caption(&mut self, step: &CaptionStep) -> Result<(), EvalError> {
        let with_examples = self
            .ask
            .example
            .as_ref()
            .is_some_and(|example| example.count(Slot::Caption) > 0);
        let shots = self
            .shots
            .iter()
            .flatten()
            .flatten()
            .copied()
            .filter(|_| with_examples);
        let shown: Vec<&Question> = self.questions().chain(shots).collect();
        let mut seen = HashMap::new();
        let one_each: Vec<&Question> = shown
            .into_iter()
            .filter(|question| {
                let name = question.media.first().map(|media| media.name.as_str());
                name.is_some_and(|name| seen.insert(name, ()).is_none())
            })
            .collect();
        let items: Vec<String> = one_each
            .iter()
            .filter_map(|question| Some(question.media.first()?.name.clone()))
            .collect();
        let mut settings = self.settings(Stage::Captions);
        settings["prompt"] =
            json!({"caption": step.prompt, "form": self.ask.form, "system": self.preset.system});
        settings["decoding"] = json!(step.decoding);
        settings["items_sha256"] = json!(sha256(items.iter().map(String::as_str)));
        let requests = |runner: &Self, at: usize| {
            let question = one_each.get(at).copied();
            question
                .map(|question| runner.request(question, &step.prompt, &step.decoding))
                .ok_or_else(String::new)
        };
        let lines = self.generate(
            Stage::Captions,
            "captions.jsonl",
            &settings,
            &items,
            &requests,
        )?;
        self.captions = lines
            .into_iter()
            .map(|line| {
                (
                    line.id.clone(),
                    line.outcome().map(|text| step.clean.apply(&text)),
                )
            })
            .collect();
        Ok(())
    }

    pub(super) fn answerable(
        &mut self,
        step: &AnswerableStep,
    ) -> Result<Vec<Outcome<String>>, EvalError> {
        let items: Vec<_> = self
            .questions()
            .map(|question| question.id.clone())
            .collect();
        let decoding = Decoding {
            allowed: step.allowed.clone(),
            ..step.decoding.clone()
        };
        let mut settings = self.settings(Stage::Answerable);
        settings["prompt"] =
            json!({"answerable": step.prompt, "form": self.ask.form, "system": self.preset.system});
        settings["decoding"] = json!(decoding);
        let requests = |runner: &Self, at: usize| {
            let question = runner
                .asked
                .get(at)
                .and_then(|at| runner.data.questions.get(*at));
            question
                .map(|question| runner.request(question, &step.prompt, &decoding))
                .ok_or_else(String::new)
        };
        let lines = self.generate(
            Stage::Answerable,
            "answerable.jsonl",
            &settings,
            &items,
            &requests,
        )?;
        Ok(lines.into_iter().map(Line::outcome).collect())
    }

    pub(super) fn answer(
        mut self,
        pool: Option<&TaskData>,
        answerable: Option<Vec<Outcome<String>>>,
    ) -> Result<Run, EvalError> {
        let items: Vec<_> = self
            .questions()
            .map(|question| question.id.clone())
            .collect();
        let settings = self.answer_settings(pool);
        let requests = |runner: &Self, at: usize| runner.question(at);
        let lines = self.generate(
            Stage::Answers,
            "answers.jsonl",
            &settings,
            &items,
            &requests,
        )?;
        let mut answers = vec![];
        for (i, (line, at)) in lines.into_iter().zip(&self.asked).enumerate() {
            let known = answerable.as_ref().and_then(|known| known.get(i));
            let step = self.ask.answerable.as_ref();
            let examples = line.examples.clone();
            let given = match (line.scores.clone(), line.outcome()) {
                (Some(scores), _) => Given::Scores(scores),
                (None, Err(reason)) => Given::Nothing(reason),
                (None, Ok(raw)) => match (step, known) {
                    (Some(_), Some(Err(reason))) => Given::Nothing(reason.clone()),
                    (Some(step), Some(Ok(word))) if word.trim() == step.unanswerable_if => {
                        Given::Text {
                            raw,
                            answer: step.answer.clone(),
                        }
                    }
                    _ => Given::Text {
                        answer: self.ask.clean.apply(&raw),
                        raw,
                    },
                },
            };
            let medium = self
                .data
                .questions
                .get(*at)
                .and_then(|question| question.media.first());
            let caption = medium.and_then(|media| self.captions.get(&media.name)?.clone().ok());
            answers.push(Answer {
                question: *at,
                given,
                caption,
                examples,
            });
        }
        Ok(Run { answers, settings })
    }

    /// The request for the n-th asked question, or why there can be none.
    fn question(&self, n: usize) -> Outcome<Request> {
        let question = self
            .asked
            .get(n)
            .and_then(|at| self.data.questions.get(*at))
            .ok_or_else(String::new)?;
        let shots = match self.shots.get(n) {
            Some(shots) => shots.clone()?,
            None => vec![],
        };
        let captioned = self
            .ask
            .example
            .as_ref()
            .is_some_and(|example| example.count(Slot::Caption) > 0);
        let mut examples = vec![];
        for question in shots {
            let caption = if captioned {
                self.captioned(question)?
            } else {
                None
            };
            examples.push(Example { question, caption });
        }
        let media = self
            .ask
            .caption
            .as_ref()
            .is_none_or(|step| step.keep_picture || self.pictured());
        let filling = Filling {
            question,
            system: &self.preset.system,
            examples: &examples,
            example: self.ask.example.as_ref(),
            round: self.ask.round.as_ref(),
            answer: self.preset.few_shot.answer,
            pictured: self.pictured(),
            media,
            caption: self.captioned(question)?,
        };
        let decoding = self.ask.decoding.clone().unwrap_or(RANKING);
        let parts = filling.fill(&self.ask.prompt);
        Ok(Request {
            id: question.id.clone(),
            form: self.ask.form,
            parts,
            decoding,
        })
    }

    fn captioned(&self, question: &Question) -> Outcome<Option<&str>> {
        let found = question
            .media
            .first()
            .and_then(|media| self.captions.get(&media.name));
        match found {
            None => Ok(None),
            Some(Ok(caption)) => Ok(Some(caption)),
            Some(Err(reason)) => Err(reason.clone()),
        }
    }

    /// A request without examples.
    fn request(&self, question: &Question, prompt: &Template, decoding: &Decoding) -> Request {
        let filling = Filling {
            question,
            system: &self.preset.system,
            examples: &[],
            example: None,
            round: None,
            answer: self.preset.few_shot.answer,
            pictured: false,
            media: true,
            caption: None,
        };
        Request {
            id: question.id.clone(),
            form: self.ask.form,
            parts: filling.fill(prompt),
            decoding: decoding.clone(),
        }
    }

    fn settings(&self, stage: Stage) -> Value {
        json!({
            "stage": stage,
            "task": self.data.task,
            "split": self.data.split,
            "data_sha256": self.data.sha256(),
            "model": self.model.name(),
            "limit": self.options.limit,
            "seed": self.options.seed,
            "batch": self.options.batch.max(1),
        })
    }

    fn answer_settings(&self, pool: Option<&TaskData>) -> Value {
        let ask = self.ask;
        let mut settings = self.settings(Stage::Answers);
        settings["preset"] = json!(self.preset.name);
        settings["shots"] = json!(self.options.shots.k);
        settings["text_only"] = json!(self.options.shots.text_only);
        settings["prompt"] = json!({
            "form": ask.form, "system": self.preset.system, "question": ask.prompt, "example": ask.example, "round": ask.round,
        });
        settings["decoding"] = json!(ask.decoding);
        settings["caption"] = json!(ask.caption);
        settings["answerable"] = json!(ask.answerable);
        if self.options.shots.k > 0 {
            settings["few_shot"] = json!({
                "choice": self.choice(),
                "answer": self.preset.few_shot.answer,
                "one_per_picture": self.preset.few_shot.one_per_picture,
                "examples_sha256": pool.map(TaskData::sha256),
                "features": self.features,
            });
        }
        settings
    }
}

/// Stands for the decoding of a ranking, which has none.
const RANKING: Decoding = Decoding {
    beams: 1,
    max_new_tokens: 1,
    min_length: 1,
    length_penalty: 0.0,
    repetition_penalty: 1.0,
    allowed: vec![],
};

/// Media of questions, each once, in order.
fn distinct<'q>(questions: impl Iterator<Item = &'q Question>) -> Vec<&'q Media> {
    let mut seen = HashMap::new();
    questions
        .filter_map(|question| question.media.first())
        .filter(|media| seen.insert(&media.name, ()).is_none())
        .collect()
}
