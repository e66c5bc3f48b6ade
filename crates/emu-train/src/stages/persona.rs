//! Trains a soft prompt that gives a frozen language model an identity ([`emu_model::persona`]). The embeddings that
//! replace the system message are trained on questions with answers, and on the model's own answers to ordinary
//! questions under its system message, so that those answers stay close.
//!
//! The loss on held-out questions selects the step that is kept, and ends the run when it no longer improves.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_data::emoji::ConceptList;
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
use super::states::{conversation, message, sequence, system_message, system_turn};
use crate::checkpoint::{create_file, replace_file, replace_tensors};
use crate::data::requests::{Persona, Seen, Shows, Topic};
use crate::objectives::{cross_entropy, rows};
use crate::{RunOptions, Stage, StepContext, StepLoss, StopFlag, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// GGUF file of the language model.
    lm: PathBuf,
    /// Questions and answers about the model.
    persona: PathBuf,
    /// Number of trainable embeddings.
    length: usize,
    /// System message to initialise the soft prompt from; the model's own if absent.
    #[serde(default)]
    start: Option<String>,
    /// Questions about pictures, and the possible contents of pictures.
    #[serde(default)]
    seen: Option<SeenOptions>,
    /// Share of the questions about the model that are drawn from the judged topics, whatever their number.
    #[serde(default)]
    focus: f64,
    /// Ordinary questions, whose answers should not change.
    ordinary: Vec<String>,
    /// Share of the samples that are ordinary questions.
    ordinary_share: f64,
    /// Whether to leave out the topics marked as ordinary: the language model answers such questions without the soft prompt
    /// (see stage `reader`).
    #[serde(default)]
    alone: bool,
    /// Maximum number of turns in a training conversation.
    #[serde(default = "one")]
    turns: usize,
    /// Maximum number of tokens of a generated answer.
    answer: usize,
    /// Repetition penalty of generated answers: divisor of the logits of tokens already generated.
    repetition_penalty: f32,
    /// Number of consecutive evaluations without improvement after which the run ends.
    patience: usize,
    /// Number of topics, from the beginning of the list, whose held-out questions are answered and judged.
    judged: usize,
}

/// Settings of pictures spelled in words, and questions about them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenOptions {
    /// File with the spelling of pictures, questions and answers.
    questions: PathBuf,
    /// Possible contents of pictures: a list of concepts.
    concepts: PathBuf,
    /// Share of the samples that are questions about pictures.
    share: f64,
    /// Share of the samples that are whole conversations from that list.
    #[serde(default)]
    talks: f64,
    /// Number of questions in held-out wordings that are evaluated.
    judged: usize,
}

fn one() -> usize {
    1
}

/// The files of [`SeenOptions`], read.
struct Pictures {
    list: Seen,
    names: Vec<String>,
    colours: Vec<String>,
    share: f64,
    talks: f64,
    seed: u64,
    /// Questions in held-out wordings, with answers.
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
            talks: options.talks,
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
        let asked = 0..options.judged as u64;
        pictures.held_out = asked
            .flat_map(|index| pictures.exchange(true, 1, index))
            .collect();
        Ok(pictures)
    }

    fn shows(&self) -> Shows<'_> {
        Shows {
            names: &self.names,
            colours: &self.colours,
        }
    }

    fn exchange(&self, held_out: bool, turns: usize, index: u64) -> Vec<(String, String)> {
        let at = (self.seed, index);
        self.list.exchange(self.shows(), held_out, turns, at)
    }

    fn talk(&self, index: u64) -> Vec<(String, String)> {
        self.list.talk(self.shows(), (self.seed, index))
    }
}

/// Name of the file with the best soft prompt in the run's folder.
pub const FILE: &str = "persona.safetensors";
/// Step and loss of the best soft prompt.
const BEST: &str = "best.json";
/// Index distance between a held-out question and the one asked before it; usually enough to reach another topic.
const BEHIND: usize = 17;
/// The model's own answers to ordinary questions.
const ORDINARY: &str = "ordinary.json";

/// A tokenized conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Talk {
    tokens: Vec<u32>,
    /// Token ranges of the answers to train on.
    answers: Vec<Range<usize>>,
    /// Whether the last answer is complete.
    ended: bool,
}

impl Talk {
    /// Appends another conversation to this one. Returns `next` alone if this one is incomplete.
    fn then(&self, between: &[u32], next: &Talk) -> Talk {
        if !self.ended {
            return next.clone();
        }
        let mut talk = self.clone();
        talk.tokens.extend(between);
        let start = talk.tokens.len();
        talk.tokens.extend(&next.tokens);
        let moved = |answer: &Range<usize>| answer.start + start..answer.end + start;
        talk.answers.extend(next.answers.iter().map(moved));
        talk.ended = next.ended;
        talk
    }
}

/// Kind of the last turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A question about the model itself.
    Own,
    /// An ordinary question, which the model should answer as before.
    Ordinary,
    /// A question about a picture or earlier turns.
    Seen,
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
    /// The model, without autodiff.
    model: TextModel,
    /// The same weights on the training device, all frozen. Gradients pass through them.
    frozen: Lm,
    topics: Vec<Topic>,
    own: Vec<Talk>,
    /// Number of conversations in `own` about the judged topics. They come first.
    focused: usize,
    ordinary: Vec<Talk>,
    held_out: Vec<Talk>,
    /// Tokens between two turns.
    between: Vec<u32>,
    pictures: Option<Pictures>,
    batch: usize,
    out: PathBuf,
    best: Option<Best>,
    /// Number of evaluations since `best`.
    worse: usize,
    stop: StopFlag,
    /// Whether the stage has asked the run to end.
    ended: bool,
}

fn other(error: impl std::fmt::Display) -> TrainError {
    TrainError::Stage(error.to_string())
}

/// A single question with its answer.
fn pair(
    model: &TextModel,
    question: &str,
    answer: &[u32],
    ended: bool,
) -> Result<Talk, TrainError> {
    let mut tokens = conversation(model, &[message(Speaker::User, question)])?;
    let from = tokens.len();
    tokens.extend(answer);
    if ended {
        tokens.extend(model.config.ends.first());
    }
    let to = tokens.len();
    Ok(Talk {
        tokens,
        answers: std::iter::once(from..to).collect(),
        ended,
    })
}

/// Tokens between an answer and the next turn.
fn between(model: &TextModel) -> Result<Vec<u32>, TrainError> {
    let turns = [Speaker::User, Speaker::Assistant, Speaker::User].map(|who| message(who, "a"));
    let whole = conversation(model, &turns)?;
    let first = pair(
        model,
        "a",
        &model.tokenizer.encode("a").map_err(other)?,
        true,
    )?;
    let next = conversation(model, &turns[2..])?;
    let until = whole.len().saturating_sub(next.len());
    Ok(whole.get(first.tokens.len()..until).unwrap_or(&[]).to_vec())
}

/// The model's answers to ordinary questions under its own system message, from the cache file or generated.
fn ordinary(options: &Options, model: &TextModel, path: &Path) -> Result<Vec<Talk>, TrainError> {
    #[derive(Serialize, Deserialize)]
    struct Kept {
        questions: Vec<String>,
        pairs: Vec<Talk>,
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
        // A truncated answer is trained on without an end token.
        let ended = answer
            .last()
            .is_some_and(|token| model.config.ends.contains(token));
        if ended {
            answer.pop();
        }
        pairs.push(pair(model, question, &answer, ended)?);
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

/// Mean cross-entropy of the answers in some conversations under a soft prompt.
fn answer_loss(lm: &Lm, prompt: &SoftPrompt, pairs: &[&Talk]) -> Tensor<1> {
    let [n, _] = prompt.embeddings.dims();
    let t = pairs
        .iter()
        .map(|pair| pair.tokens.len())
        .max()
        .unwrap_or(1);
    // Padding follows the sequence: causal attention hides it, and it has no targets.
    let mut ids = vec![0i32; pairs.len() * t];
    let (mut from, mut targets) = (vec![], vec![]);
    for (b, pair) in pairs.iter().enumerate() {
        let row = ids[b * t..].iter_mut().zip(&pair.tokens);
        row.for_each(|(id, &token)| *id = token as i32);
        for i in pair.answers.iter().cloned().flatten() {
            from.push(b * (n + t) + n + i - 1);
            targets.push(pair.tokens[i]);
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

/// Lower-case words of a text, for comparing answers.
fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    parts
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Similarity of two answers: the harmonic mean of the shares of each one's words that occur in the other.
fn likeness(a: &str, b: &str) -> f64 {
    let (a, b) = (words(a), words(b));
    let mut left = b.clone();
    let common = a.iter().filter(|word| {
        let found = left.iter().position(|w| w == *word);
        found.map(|i| left.swap_remove(i)).is_some()
    });
    2.0 * common.count() as f64 / (a.len() + b.len()).max(1) as f64
}

/// The topic with the most similar answer, if the similarity is at least one half.
fn topic_of(text: &str, topics: &[Topic]) -> Option<usize> {
    let all = topics.iter().enumerate().flat_map(|(i, topic)| {
        let answers = topic.answers.iter();
        answers.map(move |answer| (likeness(text, answer), i))
    });
    let best = all.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(like, _)| *like >= 0.5).map(|(_, i)| i)
}

impl PersonaStage {
    /// Opens the language model on `device`, and again on the `training` device, and generates its answers to the
    /// ordinary questions.
    ///
    /// # Errors
    /// If the configuration, the questions or the language model cannot be used, or a file cannot be written.
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
        let seen = options.seen.as_ref();
        let shares = options.ordinary_share + seen.map_or(0.0, |seen| seen.share + seen.talks);
        if !(0.0..1.0).contains(&shares) {
            return wrong(
                "seen.share",
                "with talks and ordinary_share it is not in 0..1",
            );
        }
        if !(1..=16).contains(&options.turns) {
            return wrong("turns", "it is not 1 to 16");
        }
        if options.ordinary.is_empty() && options.ordinary_share > 0.0 {
            return wrong("ordinary", "it is empty, but has a share");
        }
        let Persona { topic: mut topics } = Persona::read(&options.persona)?;
        topics.retain(|topic| !(options.alone && topic.ordinary));
        if topics.is_empty() {
            return wrong("persona", "all of its topics are ordinary");
        }
        std::fs::create_dir_all(&train.out).map_err(TrainError::io("create", &train.out))?;
        let ordinary = ordinary(&options, &model, &train.out.join(ORDINARY))?;
        let pairs =
            |pick: fn(&Topic) -> (&Vec<String>, &[String])| -> Result<Vec<Talk>, TrainError> {
                let mut found = vec![];
                for topic in &topics {
                    let (questions, answers) = pick(topic);
                    for question in questions {
                        for answer in answers {
                            let answer = model.tokenizer.encode(answer).map_err(other)?;
                            found.push(pair(&model, question, &answer, true)?);
                        }
                    }
                }
                Ok(found)
            };
        let own = pairs(|t| (&t.train, &t.answers))?;
        let judged = topics.iter().take(options.judged);
        let focused = judged.map(|t| t.train.len() * t.answers.len()).sum();
        // One answer is enough to measure progress.
        let held_out = pairs(|t| (&t.held_out, &t.answers[..1]))?;
        let pictures = { options.seen.as_ref() }
            .map(|seen| Pictures::open(seen, train.seed))
            .transpose()?;
        // Only a resumed run uses the best result in the folder.
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
            between: between(&model)?,
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

    /// A soft prompt initialised from the configured system message, or from the model's own.
    ///
    /// # Errors
    /// If there is none.
    pub fn init(&self, device: &Device) -> Result<SoftPrompt, TrainError> {
        let turn = match &self.options.start {
            Some(text) => system_message(&self.model, text)?,
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

    /// Whether the stage has asked the run to end, because nothing improved.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Tokenizes a conversation of several turns.
    fn talk(&self, turns: &[(String, String)]) -> Result<Talk, TrainError> {
        let mut talk: Option<Talk> = None;
        for (question, answer) in turns {
            let answer = self.model.tokenizer.encode(answer).map_err(other)?;
            let next = pair(&self.model, question, &answer, true)?;
            talk = Some(match talk {
                Some(talk) => talk.then(&self.between, &next),
                None => next,
            });
        }
        talk.ok_or_else(|| TrainError::Stage("a conversation has no turns".into()))
    }

    /// A random training conversation with its kind.
    fn draw(&self, random: &mut Philox) -> Result<(Kind, Talk), TrainError> {
        let drawn = f64::from(random.uniform());
        let mut until = self.options.ordinary_share;
        if drawn < until {
            let talk = &self.ordinary[random.below(self.ordinary.len())];
            return Ok((Kind::Ordinary, talk.clone()));
        }
        if let Some(pictures) = &self.pictures {
            let index = u64::from(random.next_u32());
            until += pictures.share;
            if drawn < until {
                let turns = 1 + random.below(self.options.turns);
                let exchange = pictures.exchange(false, turns, index);
                return Ok((Kind::Seen, self.talk(&exchange)?));
            }
            until += pictures.talks;
            if drawn < until {
                return Ok((Kind::Seen, self.talk(&pictures.talk(index))?));
            }
        }
        let focused = f64::from(random.uniform()) < self.options.focus;
        let among = if focused {
            self.focused
        } else {
            self.own.len()
        };
        Ok((Kind::Own, self.own[random.below(among)].clone()))
    }

    /// The model's greedy answer to a question under a soft prompt.
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

    /// Held-out questions of the judged topics, the answers, and whether the topic of each answer is correct.
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

    /// Saves a soft prompt if it is the best so far. Ends the run after too many evaluations without improvement.
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
        let mut drawn = vec![];
        for _ in 0..self.batch {
            let (mut kind, mut talk) = self.draw(&mut random)?;
            for _ in 0..random.below(self.options.turns) {
                let (next, more) = self.draw(&mut random)?;
                (kind, talk) = (next, talk.then(&self.between, &more));
            }
            drawn.push((kind, talk));
        }
        let mut loss = StepLoss::new(Tensor::zeros([1], &context.device), self.batch);
        for (name, kind) in [
            ("own", Kind::Own),
            ("ordinary", Kind::Ordinary),
            ("seen", Kind::Seen),
        ] {
            let of_kind = drawn.iter().filter(|(of, _)| *of == kind);
            let pairs: Vec<&Talk> = of_kind.map(|(_, talk)| talk).collect();
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
        let mean = |pairs: &[Talk]| -> Result<f32, TrainError> {
            let (mut sum, mut count) = (0.0, 0);
            for chunk in pairs.chunks(8) {
                let chunk: Vec<&Talk> = chunk.iter().collect();
                let tokens: usize = chunk.iter().flat_map(|p| &p.answers).map(Range::len).sum();
                let loss = floats(answer_loss(&self.model.lm, model, &chunk))?;
                sum += loss[0] * tokens as f32;
                count += tokens;
            }
            Ok(sum / count.max(1) as f32)
        };
        let mut loss = mean(&self.held_out)?;
        let mut figures = vec![("held_out".to_string(), loss)];
        if let Some(pictures) = &self.pictures {
            let pairs = pictures.held_out.chunks(1);
            let pairs: Vec<Talk> =
                { pairs.map(|pair| self.talk(pair)) }.collect::<Result<_, _>>()?;
            let seen = mean(&pairs)?;
            loss += seen;
            figures.push(("seen".into(), seen));
        }
        if self.options.turns > 1 && self.held_out.len() > 1 {
            // The same questions, each after another question with its answer.
            let behind = self.held_out.iter().enumerate().map(|(i, question)| {
                let before = &self.held_out[(i + BEHIND) % self.held_out.len()];
                let mut talk = before.then(&self.between, question);
                talk.answers = talk.answers.split_off(before.answers.len());
                talk
            });
            let followed = mean(&behind.collect::<Vec<_>>())?;
            loss += followed;
            figures.push(("followed".into(), followed));
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
