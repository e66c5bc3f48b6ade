//! Converts records to token sequences.
//!
//! A scene becomes `<s>[IMG]…[/IMG]`, followed by its caption and some questions as separate segments. Each segment
//! attends to the picture and itself but not to the others (otherwise answers would be copied from the caption). Each
//! starts at the position after the picture, as at inference. A document is a single sequence in its own order, as are a
//! caption with its picture or the frames of its video, and a conversation in the templates of the model.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use emu_data::emoji::either;
use emu_kernels::random::Philox;
use emu_media::image::RgbImage;
use emu_model::config::PromptConfig;
use emu_model::lm::Visibility;
use emu_model::prompt::{Marked, system_message};
use emu_tokenizer::{PromptText, names};

use super::corpus::Words;
use crate::TrainError;
use crate::data::record::{Conversation, Document, Part, Qa, Scene};
use crate::objectives::unified::Sequences;

/// A sequence before padding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Position of each token.
    pub positions: Vec<usize>,
    /// Segment of each token. Segment 0 is visible to all following tokens, the others only to themselves.
    pub segments: Vec<u32>,
    /// Whether each token (or the embedding in its place) is a target.
    pub wanted: Vec<bool>,
}

/// Builds sequences from records.
pub struct Composer<'a> {
    words: &'a Words,
    queries: usize,
    context: usize,
    relations: usize,
    every_picture: bool,
}

impl<'a> Composer<'a> {
    /// A composer for a model with `queries` embeddings per picture and a context of `context` positions.
    pub fn new(words: &'a Words, queries: usize, context: usize) -> Self {
        Self {
            words,
            queries,
            context,
            relations: 0,
            every_picture: false,
        }
    }

    /// Adds this many relation questions per pair of objects.
    #[must_use]
    pub fn with_relations(self, relations: usize) -> Self {
        Self { relations, ..self }
    }

    /// Makes the pictures before a caption targets too, as in the paper.
    #[must_use]
    pub fn with_every_picture(self, every_picture: bool) -> Self {
        Self {
            every_picture,
            ..self
        }
    }

    /// `<s>` and a picture.
    fn picture_prefix(&self) -> Sequence {
        let mut prefix = Sequence::default();
        prefix.push(self.words.special.bos, 0, false);
        self.push_picture(&mut prefix, 0, false);
        prefix
    }

    fn push_picture(&self, sequence: &mut Sequence, segment: u32, wanted: bool) {
        let special = &self.words.special;
        sequence.push(special.img, segment, wanted);
        for _ in 0..self.queries {
            sequence.push(special.image, segment, wanted);
        }
        sequence.push(special.end_img, segment, false);
    }

    /// A scene's picture, its caption, and up to `questions` of its questions, chosen at random.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn scene(
        &self,
        scene: &Scene,
        questions: usize,
        random: &mut Philox,
    ) -> Result<Sequence, TrainError> {
        let special = &self.words.special;
        let mut sequence = self.picture_prefix();

        // The caption comes first, so that its first token is predicted from [/IMG].
        let start = sequence.ids.len();
        for id in self.words.encode(&scene.caption)? {
            sequence.push(id, 1, true);
        }
        sequence.push(special.eos, 1, true);

        let relations = relations(scene, self.relations);
        let chosen = choose(&scene.qa, questions, random);
        for (i, qa) in chosen.into_iter().chain(&relations).enumerate() {
            let mut segment = Sequence::default();
            self.push_turn(&mut segment, &qa.question, i as u32 + 2)?;
            for id in self.words.encode(&qa.answer)? {
                segment.push(id, i as u32 + 2, true);
            }
            segment.push(special.eos, i as u32 + 2, true);
            if sequence.ids.len() + segment.ids.len() > self.context {
                break;
            }
            segment.positions.iter_mut().for_each(|p| *p += start);
            sequence.append(segment);
        }
        Ok(sequence)
    }

    /// A caption of third-party data with its picture, or the frames of its video, before or after it. The caption is a
    /// target, as are pictures after it.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn captioned(
        &self,
        caption: &str,
        pictures: usize,
        pictures_first: bool,
    ) -> Result<Sequence, TrainError> {
        let mut sequence = Sequence::default();
        sequence.push(self.words.special.bos, 0, false);
        if pictures_first {
            (0..pictures).for_each(|_| self.push_picture(&mut sequence, 0, self.every_picture));
        }
        for id in self.words.encode(caption)? {
            sequence.push(id, 0, true);
        }
        if !pictures_first {
            (0..pictures).for_each(|_| self.push_picture(&mut sequence, 0, true));
        }
        sequence.push(self.words.special.eos, 0, true);
        Ok(sequence)
    }

    /// A conversation in the templates of the model, as at inference, with `</s>` after every answer. Only what the
    /// assistant says and that `</s>` are targets. Exchanges at the end are left out, but for the first, until it fits
    /// `most` tokens. Also returns the number of pictures that are left.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn conversation(
        &self,
        conversation: &Conversation,
        templates: &PromptConfig,
        most: usize,
    ) -> Result<(Sequence, usize), TrainError> {
        let mut sequence = Sequence::default();
        for id in self.words.front()? {
            sequence.push(id, 0, false);
        }
        let mut pictures = 0;
        let mut prompt = system_message(conversation.system.as_deref(), templates);
        for exchange in conversation.turns.chunks_exact(2) {
            let [asked, answered] = exchange else { break };
            // 1. the prompt up to the answer
            let mut marked = Marked::default();
            for part in &asked.parts {
                match part {
                    Part::Text(text) => marked.say(text),
                    // Only its place matters here.
                    Part::Image(_) => marked.show(RgbImage::new(1, 1)),
                }
            }
            prompt.append(marked.turn(templates));
            let mut more = Sequence::default();
            for id in self.words.encode_prompt(&prompt, self.queries)? {
                more.push(id, 0, false);
            }
            // 2. the answer
            for part in &answered.parts {
                match part {
                    Part::Text(text) => {
                        for id in self.words.encode(text)? {
                            more.push(id, 0, true);
                        }
                    }
                    Part::Image(_) => self.push_picture(&mut more, 0, true),
                }
            }
            more.push(self.words.special.eos, 0, true);
            let start = sequence.ids.len();
            if sequence.wanted.contains(&true) && start + more.ids.len() > most {
                break;
            }
            more.positions.iter_mut().for_each(|p| *p += start);
            sequence.append(more);
            let parts = asked.parts.iter().chain(&answered.parts);
            pictures += parts.filter(|p| matches!(p, Part::Image(_))).count();
            // 3. what the template has after that `</s>`
            let mut rest = templates.answered.as_str();
            for end in [names::EOS, names::CHAT_END] {
                rest = rest.strip_prefix(end).unwrap_or(rest);
            }
            prompt = PromptText::default();
            prompt.template(rest);
        }
        Ok((sequence, pictures))
    }

    /// Cuts a sequence after `most` tokens, or before a picture that would be cut. Returns the number of pictures left.
    pub fn cut(&self, sequence: &mut Sequence, most: usize) -> usize {
        let special = &self.words.special;
        if sequence.ids.len() > most {
            let kept = &sequence.ids[..most];
            let opened = kept.iter().rposition(|id| *id == special.img);
            let end = opened.filter(|at| !kept[*at..].contains(&special.end_img));
            sequence.truncate(end.unwrap_or(most));
        }
        let pictures = sequence.ids.iter().filter(|id| **id == special.img);
        pictures.count()
    }

    /// The prompt for an answer about one picture: the picture and the question. Without a question, the prompt is for
    /// a caption.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn prompt(&self, question: Option<&str>) -> Result<Vec<u32>, TrainError> {
        let mut sequence = self.picture_prefix();
        if let Some(question) = question {
            self.push_turn(&mut sequence, question, 0)?;
        }
        Ok(sequence.ids)
    }

    /// The prompt for part `at` of a document.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn before(&self, document: &Document, at: usize) -> Result<Vec<u32>, TrainError> {
        let mut shortened = document.clone();
        shortened.parts.truncate(at);
        let mut ids = self.document(&shortened)?.ids;
        ids.pop(); // </s>
        Ok(ids)
    }

    /// The prompt of a drawing request, without [IMG].
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn request(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let mut sequence = Sequence::default();
        sequence.push(self.words.special.bos, 0, false);
        self.push_turn(&mut sequence, text, 0)?;
        Ok(sequence.ids)
    }

    /// Up to `n` questions, of different kinds if possible.
    pub fn questions<'q>(&self, qa: &'q [Qa], n: usize, random: &mut Philox) -> Vec<&'q Qa> {
        choose(qa, n, random)
    }

    /// Clears all targets outside of answers: before the first [ASSISTANT] and in the user's turns.
    pub fn only_answers(&self, sequence: &mut Sequence) {
        let special = &self.words.special;
        let mut answering = false;
        for (id, wanted) in sequence.ids.iter().zip(&mut sequence.wanted) {
            if Some(*id) == special.user || *id == special.bos {
                answering = false;
            }
            *wanted &= answering;
            if Some(*id) == special.assistant {
                answering = true;
            }
        }
    }

    /// Whether the embeddings of picture `n` in a sequence are targets.
    pub fn is_drawn(&self, sequence: &Sequence, n: usize) -> bool {
        let mut images = sequence
            .ids
            .iter()
            .zip(&sequence.wanted)
            .filter(|(id, _)| **id == self.words.special.image);
        images
            .nth(n * self.queries)
            .is_some_and(|(_, wanted)| *wanted)
    }

    /// Appends a user's turn and the [ASSISTANT] mark.
    fn push_turn(
        &self,
        sequence: &mut Sequence,
        text: &str,
        segment: u32,
    ) -> Result<(), TrainError> {
        let special = &self.words.special;
        special
            .user
            .iter()
            .for_each(|&user| sequence.push(user, segment, false));
        for id in self.words.encode(text)? {
            sequence.push(id, segment, false);
        }
        special
            .assistant
            .iter()
            .for_each(|&assistant| sequence.push(assistant, segment, false));
        Ok(())
    }

    /// A document. In `draw` the request is a user's turn and the picture the target. Otherwise texts are targets, as
    /// are the last picture in `blend` and all pictures in `story`. In the remaining kinds, `[IMG]` is a target after the
    /// first part.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn document(&self, document: &Document) -> Result<Sequence, TrainError> {
        let special = &self.words.special;
        let mut sequence = Sequence::default();
        sequence.push(special.bos, 0, false);
        let last = document.parts.len().saturating_sub(1);
        for (i, part) in document.parts.iter().enumerate() {
            match (part, document.task.as_str()) {
                (Part::Text(text), "draw") => self.push_turn(&mut sequence, text, 0)?,
                (Part::Text(text), _) => {
                    for id in self.words.encode(text)? {
                        sequence.push(id, 0, true);
                    }
                }
                (Part::Image(_), "draw") => self.push_picture(&mut sequence, 0, true),
                (Part::Image(_), "blend") => self.push_picture(&mut sequence, 0, i == last),
                (Part::Image(_), "story") => self.push_picture(&mut sequence, 0, true),
                (Part::Image(_), _) => {
                    self.push_picture(&mut sequence, 0, false);
                    // The start of the next example is a target, so that the model learns where an answer ends.
                    if let (Some(wanted), true) = (sequence.nth_from_end(self.queries + 2), i > 0) {
                        *wanted = true;
                    }
                }
            }
        }
        sequence.push(special.eos, 0, true);
        Ok(sequence)
    }
}

/// `n` questions about which of two objects comes first, with the names in alternating order: the answer depends only
/// on that order.
fn relations(scene: &Scene, n: usize) -> Vec<Qa> {
    let [a, b] = scene.objects.as_slice() else {
        return vec![];
    };
    if a.name == b.name {
        return vec![];
    }
    let ask = |i: usize| {
        let (question, answer) = match i % 2 {
            0 => either(scene.layout, &a.name, &b.name, true),
            _ => either(scene.layout, &b.name, &a.name, false),
        };
        Qa {
            kind: "relation".into(),
            form: None,
            question,
            answer: answer.into(),
        }
    };
    (0..n).map(ask).collect()
}

/// Up to `n` questions, of different kinds if possible.
fn choose<'q>(qa: &'q [Qa], n: usize, random: &mut Philox) -> Vec<&'q Qa> {
    let mut order: Vec<&Qa> = qa.iter().collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    let mut chosen: Vec<&Qa> = vec![];
    let mut rest = vec![];
    for qa in order {
        if chosen.iter().any(|c| c.kind == qa.kind) {
            rest.push(qa)
        } else {
            chosen.push(qa)
        }
    }
    chosen.truncate(n);
    let more = n - chosen.len();
    chosen.extend(rest.into_iter().take(more));
    chosen
}

impl Sequence {
    fn push(&mut self, id: u32, segment: u32, wanted: bool) {
        self.positions.push(self.ids.len());
        self.ids.push(id);
        self.segments.push(segment);
        self.wanted.push(wanted);
    }

    fn append(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.positions.extend(other.positions);
        self.segments.extend(other.segments);
        self.wanted.extend(other.wanted);
    }

    fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.positions.truncate(length);
        self.segments.truncate(length);
        self.wanted.truncate(length);
    }

    fn nth_from_end(&mut self, n: usize) -> Option<&mut bool> {
        let at = self.wanted.len().checked_sub(n)?;
        self.wanted.get_mut(at)
    }
}

/// `wanted` of `stored` frames of a video, in their order: random ones, or all of them, evenly repeated, if there are no
/// more.
pub fn frames(stored: usize, wanted: usize, random: &mut Philox) -> Vec<usize> {
    if stored <= wanted {
        return (0..wanted).map(|i| i * stored / wanted).collect();
    }
    // Knuth's algorithm S: every selection is equally likely.
    let mut chosen = Vec::with_capacity(wanted);
    for frame in 0..stored {
        if random.below(stored - frame) < wanted - chosen.len() {
            chosen.push(frame);
        }
    }
    chosen
}

/// Pads sequences on the right to a common length and builds the mask between segments.
///
/// # Shapes
/// The mask is `[B, 1, T, T]`, true where a key is masked.
pub fn pad(sequences: Vec<Sequence>, pad: u32, device: &Device) -> Sequences {
    let (b, t) = (
        sequences.len(),
        sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0),
    );
    let blocks = sequences.iter().any(|s| s.segments.iter().any(|&x| x != 0));
    let visibility = if blocks {
        let mut hidden = vec![false; b * t * t];
        for (row, sequence) in sequences.iter().enumerate() {
            let segments = &sequence.segments;
            for i in 0..segments.len() {
                for j in 0..i {
                    hidden[(row * t + i) * t + j] = segments[j] != 0 && segments[j] != segments[i];
                }
            }
        }
        let hidden: Tensor<4, Bool> =
            Tensor::from_data(TensorData::new(hidden, [b, 1, t, t]), device);
        Visibility::Blocks(hidden)
    } else {
        Visibility::All
    };
    let mut batch = Sequences {
        ids: vec![],
        positions: vec![],
        visibility,
        wanted: Some(vec![]),
    };
    for mut sequence in sequences {
        // Padding is hidden from all tokens before it, and is not a target.
        while sequence.ids.len() < t {
            sequence.push(pad, 0, false);
        }
        batch.ids.push(sequence.ids);
        batch.positions.push(sequence.positions);
        batch.wanted.get_or_insert_default().push(sequence.wanted);
    }
    batch
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
