//! A soft prompt that tells a frozen language model who it is ([`emu_model::persona`]): the embeddings in place of its system
//! message learn from questions with answers, and from what the model itself answers to ordinary questions under its own
//! system message, so that those answers stay close.
//!
//! Questions that are held out decide which step is kept, and when there is no use in going on.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Processors, argmax};
use emu_model::TextModel;
use emu_model::generate::{TextEvent, TextOptions};
use emu_model::lm::{Lm, Visibility};
use emu_model::persona::SoftPrompt;
use emu_model::text::Speaker;
use emu_model::weights;
use serde::{Deserialize, Serialize};

use super::decoder::floats;
use super::speller::open_lm;
use super::states::{conversation, message, sequence, system_turn, told};
use crate::checkpoint::{create_file, replace_file, replace_tensors};
use crate::data::emoji::ConceptList;
use crate::data::requests::{Persona, Seen, Shows, Topic};
use crate::objectives::{cross_entropy, rows};
use crate::{RunOptions, Stage, StepContext, StepLoss, StopFlag, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// GGUF file of the language model.
    lm: PathBuf,
    /// Questions and answers.
    persona: PathBuf,
    /// Embeddings that learn.
    length: usize,
    /// The system message that they start as; the model's own without it.
    #[serde(default)]
    start: Option<String>,
    /// Questions about pictures, and what pictures may show.
    #[serde(default)]
    seen: Option<SeenOptions>,
    /// Share of the questions that are of the judged topics, whatever their number.
    #[serde(default)]
    focus: f64,
    /// Questions whose answers are to stay.
    ordinary: Vec<String>,
    /// Share of the samples that are such questions.
    ordinary_share: f64,
    /// Tokens of an answer at most, of those that are generated.
    answer: usize,
    /// What logits of tokens said before are divided by where answers are generated.
    repetition_penalty: f32,
    /// Evaluations in a row without a better one before the run ends.
    patience: usize,
    /// Topics at the beginning of the list whose held-out questions are answered and judged.
    judged: usize,
}

/// Pictures, spelled in words, and questions about them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenOptions {
    /// How pictures are spelled, questions and answers.
    questions: PathBuf,
    /// What pictures may show: a list of concepts.
    concepts: PathBuf,
    /// Share of the samples that are such questions.
    share: f64,
    /// Questions in held-out wordings that are answered and compared.
    judged: usize,
}

/// The same, read.
struct Pictures {
    list: Seen,
    names: Vec<String>,
    colours: Vec<String>,
    share: f64,
    seed: u64,
    /// In held-out wordings.
    held_out: Vec<(String, String)>,
}

impl Pictures {
    fn open(options: &SeenOptions, seed: u64) -> Result<Self, TrainError> {
        let concepts = ConceptList::read(&options.concepts)?;
        let mut pictures = Self {
            list: Seen::read(&options.questions)?,
            names: concepts.read.iter().map(|c| c.name.clone()).collect(),
            colours: concepts.colours.iter().map(|c| c.name.clone()).collect(),
            share: options.share,
            seed,
            held_out: vec![],
        };
        if pictures.names.len() < 2 || pictures.colours.len() < 2 {
            let key = "options.seen.concepts";
            return Err(TrainError::config(
                key,
                "it has less than two things or colours",
            ));
        }
        let asked = (0..options.judged as u64).map(|index| pictures.pair(true, index));
        pictures.held_out = asked.collect();
        Ok(pictures)
    }

    fn pair(&self, held_out: bool, index: u64) -> (String, String) {
        let shows = Shows {
            names: &self.names,
            colours: &self.colours,
        };
        self.list.pair(shows, held_out, (self.seed, index))
    }
}

/// The file of the best soft prompt in the folder of the run.
pub const FILE: &str = "persona.safetensors";
/// What is known of it.
const BEST: &str = "best.json";
/// What the model itself says.
const ORDINARY: &str = "ordinary.json";

/// A conversation and its answer, in tokens, and where the answer begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    tokens: Vec<u32>,
    answer: usize,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    step: u64,
    loss: f32,
}

/// The stage.
pub struct PersonaStage {
    options: Options,
    /// As inference has it.
    model: TextModel,
    /// The same weights where they can be differentiated through; nothing of it learns.
    frozen: Lm,
    topics: Vec<Topic>,
    own: Vec<Pair>,
    /// Of these, how many are of the judged topics; they stand in front.
    focused: usize,
    ordinary: Vec<Pair>,
    held_out: Vec<Pair>,
    pictures: Option<Pictures>,
    batch: usize,
    out: PathBuf,
    best: Option<Best>,
    /// Evaluations since.
    worse: usize,
    stop: StopFlag,
    /// Whether it asked the run to end.
    ended: bool,
}

fn other(error: impl std::fmt::Display) -> TrainError {
    TrainError::Stage(error.to_string())
}

/// A question and its answer.
fn pair(model: &TextModel, question: &str, answer: &[u32]) -> Result<Pair, TrainError> {
    let mut tokens = conversation(model, &[message(Speaker::User, question)])?;
    let from = tokens.len();
    tokens.extend(answer);
    tokens.extend(model.config.ends.first());
    Ok(Pair {
        tokens,
        answer: from,
    })
}

/// What the model answers to ordinary questions under its own system message: from a file, or generated and kept.
fn ordinary(options: &Options, model: &TextModel, path: &Path) -> Result<Vec<Pair>, TrainError> {
    #[derive(Serialize, Deserialize)]
    struct Kept {
        questions: Vec<String>,
        pairs: Vec<Pair>,
    }
    let kept = std::fs::read(path).ok();
    let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    if let Some(kept) = kept.filter(|kept| kept.questions == options.ordinary) {
        return Ok(kept.pairs);
    }
    let mut pairs = vec![];
    for question in &options.ordinary {
        let prompt = model
            .chat(&[message(Speaker::User, question)])
            .map_err(other)?;
        let text = TextOptions {
            max_new_tokens: options.answer,
            processors: processors(options),
            ..TextOptions::default()
        };
        let mut machine = model.generate(&prompt, text).map_err(other)?;
        let mut answer = vec![];
        loop {
            match read_sync(machine.step()).map_err(other)? {
                TextEvent::Token(token) => answer.push(token),
                TextEvent::Done(_) => break,
                TextEvent::Embedding(..) | TextEvent::Image(_) | TextEvent::Words(_) => {}
            }
        }
        // Where it was cut, its last token is learnt like any other, and no end behind it.
        let ended = answer
            .last()
            .is_some_and(|token| model.config.ends.contains(token));
        if ended {
            answer.pop();
        }
        let mut pair = pair(model, question, &answer)?;
        if !ended {
            pair.tokens.pop();
        }
        pairs.push(pair);
    }
    let kept = Kept {
        questions: options.ordinary.clone(),
        pairs,
    };
    let bytes = serde_json::to_vec(&kept).map_err(|e| TrainError::other("json", e))?;
    replace_file(path, &bytes, &create_file)?;
    Ok(kept.pairs)
}

fn processors(options: &Options) -> Processors {
    Processors {
        repetition_penalty: options.repetition_penalty,
        ..Processors::default()
    }
}

/// Mean cross-entropy of the answers of some pairs behind a soft prompt.
fn answer_loss(lm: &Lm, prompt: &SoftPrompt, pairs: &[&Pair]) -> Tensor<1> {
    let [n, _] = prompt.embeddings.dims();
    let t = pairs
        .iter()
        .map(|pair| pair.tokens.len())
        .max()
        .unwrap_or(1);
    // Padding behind a sequence is seen by nothing in front of it, and nothing is learnt of it.
    let mut ids = vec![0i32; pairs.len() * t];
    let (mut from, mut targets) = (vec![], vec![]);
    for (b, pair) in pairs.iter().enumerate() {
        let row = ids[b * t..].iter_mut().zip(&pair.tokens);
        row.for_each(|(id, &token)| *id = token as i32);
        for (i, &token) in pair.tokens.iter().enumerate().skip(pair.answer) {
            from.push(b * (n + t) + n + i - 1);
            targets.push(token);
        }
    }
    let device = prompt.embeddings.val().device();
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [pairs.len(), t]), &device);
    let x = Tensor::cat(vec![prompt.begin(pairs.len()), lm.embed(ids)], 1);
    let positions = [(0..n + t).collect()];
    let hidden = lm.forward(x, &positions, &Visibility::All);
    let picked = rows(hidden, &from);
    let logits = lm.logits(picked.unsqueeze_dim::<3>(0)).squeeze_dim::<2>(0);
    cross_entropy(logits, &targets)
}

/// Words in small letters, for comparing answers.
fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    parts
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// How much two answers share: the harmonic mean of the shares of each one's words that the other has.
fn likeness(a: &str, b: &str) -> f64 {
    let (a, b) = (words(a), words(b));
    let mut left = b.clone();
    let common = a.iter().filter(|word| {
        let found = left.iter().position(|w| w == *word);
        found.map(|i| left.swap_remove(i)).is_some()
    });
    2.0 * common.count() as f64 / (a.len() + b.len()).max(1) as f64
}

/// The topic whose answers a text is most like, if it shares half of its words with one.
fn topic_of(text: &str, topics: &[Topic]) -> Option<usize> {
    let all = topics.iter().enumerate().flat_map(|(i, topic)| {
        let answers = topic.answers.iter();
        answers.map(move |answer| (likeness(text, answer), i))
    });
    let best = all.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(like, _)| *like >= 0.5).map(|(_, i)| i)
}

impl PersonaStage {
    /// Opens the language model on `device`, and once more where it can be differentiated through, and has it answer the
    /// ordinary questions.
    ///
    /// # Errors
    /// Where the configuration, the questions or the language model cannot be used, or a file cannot be written.
    pub fn new(
        train: &TrainConfig,
        device: &Device,
        training: &Device,
        run: &RunOptions,
    ) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let model = open_lm(&options.lm, device)?;
        let frozen = open_lm(&options.lm, training)?.lm;
        Self::over(options, model, frozen, train, run)
    }

    fn over(
        options: Options,
        model: TextModel,
        frozen: Lm,
        train: &TrainConfig,
        run: &RunOptions,
    ) -> Result<Self, TrainError> {
        let wrong = |key: &str, what: &str| Err(TrainError::config(format!("options.{key}"), what));
        if options.length == 0 || options.length > 256 {
            return wrong("length", "it is not 1 to 256");
        }
        if !(0.0..1.0).contains(&options.ordinary_share) {
            return wrong("ordinary_share", "it is not in 0..1");
        }
        if !(0.0..=1.0).contains(&options.focus) || (options.focus > 0.0 && options.judged == 0) {
            return wrong("focus", "it is not 0 to 1, or no topic is judged");
        }
        let shares = options.ordinary_share + options.seen.as_ref().map_or(0.0, |seen| seen.share);
        if !(0.0..1.0).contains(&shares) {
            return wrong("seen.share", "with ordinary_share it is not in 0..1");
        }
        if options.ordinary.is_empty() && options.ordinary_share > 0.0 {
            return wrong("ordinary", "it is empty, but has a share");
        }
        let Persona { topic: topics } = Persona::read(&options.persona)?;
        std::fs::create_dir_all(&train.out).map_err(TrainError::io("create", &train.out))?;
        let ordinary = ordinary(&options, &model, &train.out.join(ORDINARY))?;
        let pairs =
            |pick: fn(&Topic) -> (&Vec<String>, &[String])| -> Result<Vec<Pair>, TrainError> {
                let mut found = vec![];
                for topic in &topics {
                    let (questions, answers) = pick(topic);
                    for question in questions {
                        for answer in answers {
                            let answer = model.tokenizer.encode(answer).map_err(other)?;
                            found.push(pair(&model, question, &answer)?);
                        }
                    }
                }
                Ok(found)
            };
        let own = pairs(|t| (&t.train, &t.answers))?;
        let judged = topics.iter().take(options.judged);
        let focused = judged.map(|t| t.train.len() * t.answers.len()).sum();
        // One answer is enough to see whether it learns.
        let held_out = pairs(|t| (&t.held_out, &t.answers[..1]))?;
        // What an earlier run left in the folder is not this one's.
        let pictures = { options.seen.as_ref() }
            .map(|seen| Pictures::open(seen, train.seed))
            .transpose()?;
        let best = std::fs::read(train.out.join(BEST))
            .ok()
            .filter(|_| run.resume);
        Ok(Self {
            own,
            focused,
            pictures,
            held_out,
            ordinary,
            topics,
            model,
            frozen: burn::module::Module::no_grad(frozen),
            batch: train.batch,
            out: train.out.clone(),
            best: best.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            worse: 0,
            stop: run.stop.clone(),
            ended: false,
            options,
        })
    }

    /// A soft prompt that says what the configured system message says, or the model's own.
    ///
    /// # Errors
    /// Where there is none.
    pub fn init(&self, device: &Device) -> Result<SoftPrompt, TrainError> {
        let turn = match &self.options.start {
            Some(text) => told(&self.model, text)?,
            None => system_turn(&self.model)?,
        };
        if turn.is_empty() {
            return Err(TrainError::config(
                "options.lm",
                "the model has no system message to start from",
            ));
        }
        let table = &self.model.lm.embed_tokens;
        Ok(SoftPrompt::of_turn(
            table,
            &turn,
            self.options.length,
            device,
        ))
    }

    /// Whether it asked the run to end, because nothing got better.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn pair(&self, question: &str, answer: &str) -> Result<Pair, TrainError> {
        let answer = self.model.tokenizer.encode(answer).map_err(other)?;
        pair(&self.model, question, &answer)
    }

    /// The model's answer to a question behind a soft prompt.
    fn answer(&self, prompt: &SoftPrompt, question: &str) -> Result<String, TrainError> {
        let lm = &self.model.lm;
        let ids = conversation(&self.model, &[message(Speaker::User, question)])?;
        let [n, _] = prompt.embeddings.dims();
        let mut cache = lm.cache(1, n + ids.len() + self.options.answer);
        lm.step(prompt.begin(1), &mut cache).map_err(other)?;
        let hidden = lm
            .step_tokens(sequence(&self.model, &ids), &mut cache)
            .map_err(other)?;
        let mut hidden = hidden.narrow(1, ids.len() - 1, 1);
        let end = self.model.config.ends.first().copied().unwrap_or(u32::MAX);
        let mut said = vec![];
        while said.len() < self.options.answer {
            let mut logits = floats(lm.logits(hidden))?;
            processors(&self.options).apply(&said, end, &mut logits);
            let token = argmax(&logits);
            if self.model.config.ends.contains(&token) {
                break;
            }
            said.push(token);
            hidden = lm
                .step_tokens(sequence(&self.model, &[token]), &mut cache)
                .map_err(other)?;
        }
        self.model.tokenizer.decode(&said).map_err(other)
    }

    /// Held-out questions of the topics at the beginning, the answers, and whether they are of the right topic.
    fn judged(&self, prompt: &SoftPrompt) -> Result<Vec<(String, String, bool)>, TrainError> {
        let mut found = vec![];
        for (i, topic) in self.topics.iter().take(self.options.judged).enumerate() {
            for question in &topic.held_out {
                let answer = self.answer(prompt, question)?;
                let right = topic_of(&answer, &self.topics) == Some(i);
                found.push((question.clone(), answer, right));
            }
        }
        Ok(found)
    }

    /// Keeps a soft prompt if it is the best so far; ends the run where none was for long.
    fn keep(&mut self, prompt: &SoftPrompt, step: u64, loss: f32) -> Result<(), TrainError> {
        self.worse += 1;
        if self.best.is_none_or(|best| loss < best.loss) {
            self.worse = 0;
            let mut tensors = vec![];
            weights::export(prompt, |tensor| {
                tensors.push(tensor);
                Ok::<_, TrainError>(())
            })?;
            replace_tensors(&self.out.join(FILE), &tensors)?;
            let best = Best { step, loss };
            let bytes = serde_json::to_vec(&best).map_err(|e| TrainError::other("json", e))?;
            replace_file(&self.out.join(BEST), &bytes, &create_file)?;
            self.best = Some(best);
        }
        if self.worse >= self.options.patience {
            tracing::info!("step {step}: nothing got better, the run ends");
            self.ended = true;
            self.stop.stop();
        }
        Ok(())
    }
}

impl Stage for PersonaStage {
    type Model = SoftPrompt;

    fn name(&self) -> &str {
        "persona"
    }

    fn loss(&mut self, model: &SoftPrompt, context: &StepContext) -> Result<StepLoss, TrainError> {
        let mut random: Philox = context.random(Stream::Data);
        let (mut own, mut ordinary, mut seen) = (vec![], vec![], vec![]);
        let share = self
            .pictures
            .as_ref()
            .map_or(0.0, |pictures| pictures.share);
        for _ in 0..self.batch {
            let drawn = f64::from(random.uniform());
            match &self.pictures {
                _ if drawn < self.options.ordinary_share => {
                    ordinary.push(&self.ordinary[random.below(self.ordinary.len())]);
                }
                Some(pictures) if drawn < self.options.ordinary_share + share => {
                    let index = u64::from(random.next_u32());
                    let (question, answer) = pictures.pair(false, index);
                    seen.push(self.pair(&question, &answer)?);
                }
                _ => {
                    let focused = f64::from(random.uniform()) < self.options.focus;
                    let among = if focused {
                        self.focused
                    } else {
                        self.own.len()
                    };
                    own.push(&self.own[random.below(among)]);
                }
            }
        }
        let mut loss = StepLoss::new(Tensor::zeros([1], &context.device), self.batch);
        let seen = seen.iter().collect();
        for (name, pairs) in [("own", own), ("ordinary", ordinary), ("seen", seen)] {
            if pairs.is_empty() {
                continue;
            }
            let share = pairs.len() as f64 / self.batch as f64;
            let part = answer_loss(&self.frozen, model, &pairs);
            loss.loss = loss.loss + part.clone().mul_scalar(share);
            loss = loss.with_term(name, part);
        }
        Ok(loss)
    }

    fn evaluate(
        &mut self,
        model: &SoftPrompt,
        step: u64,
    ) -> Result<Vec<(String, f32)>, TrainError> {
        let mean = |pairs: &[Pair]| -> Result<f32, TrainError> {
            let (mut sum, mut count) = (0.0, 0);
            for chunk in pairs.chunks(8) {
                let chunk: Vec<&Pair> = chunk.iter().collect();
                let tokens: usize = chunk.iter().map(|p| p.tokens.len() - p.answer).sum();
                let loss = floats(answer_loss(&self.model.lm, model, &chunk))?;
                sum += loss[0] * tokens as f32;
                count += tokens;
            }
            Ok(sum / count.max(1) as f32)
        };
        let mut loss = mean(&self.held_out)?;
        let mut figures = vec![("held_out".to_string(), loss)];
        if let Some(pictures) = &self.pictures {
            let pairs = pictures.held_out.iter();
            let pairs: Vec<Pair> =
                { pairs.map(|(q, a)| self.pair(q, a)) }.collect::<Result<_, _>>()?;
            let seen = mean(&pairs)?;
            loss += seen;
            figures.push(("seen".into(), seen));
        }
        if !self.ordinary.is_empty() {
            figures.push(("ordinary".into(), mean(&self.ordinary)?));
        }
        if self.options.judged > 0 {
            let judged = self.judged(model)?;
            let right = judged.iter().filter(|(_, _, right)| *right).count();
            figures.push(("judged".into(), right as f32));
            figures.push(("judged.of".into(), judged.len() as f32));
        }
        self.keep(model, step, loss)?;
        Ok(figures)
    }

    fn sample(&mut self, model: &SoftPrompt, _step: u64, dir: &Path) -> Result<(), TrainError> {
        let judged = self.judged(model)?;
        let right = judged.iter().filter(|(_, _, right)| *right).count();
        let mut text = format!("{right} of {} right\n", judged.len());
        for (question, answer, right) in judged {
            let mark = if right { "+" } else { "-" };
            text += &format!("{mark} {question} -> {answer}\n");
        }
        for (question, wanted) in self.pictures.iter().flat_map(|pictures| &pictures.held_out) {
            let answer = self.answer(model, question)?;
            let mark = if answer == *wanted { "+" } else { "-" };
            text += &format!("{mark} {question} -> {answer}\n");
        }
        let path = dir.join("answers.txt");
        std::fs::write(&path, text).map_err(TrainError::io("write", &path))
    }
}

#[cfg(test)]
#[path = "persona_tests.rs"]
mod tests;
