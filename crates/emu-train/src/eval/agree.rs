//! Agreement of two models: the most likely next token at every position of captions and questions.

use burn::tensor::Tensor;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::argmax;
use emu_model::Emu;

use super::text::Subject;
use super::{Item, Score, Scores};
use crate::TrainError;
use crate::data::ShardDataset;
use crate::data::record::Record;
use crate::stages::sequence::{Sequence, pad};

/// Categories of positions in a scene's sequence.
const CAPTION: &str = "caption";
const ANSWER: &str = "answer";
const QUESTION: &str = "question";
/// Captions and answers together: the text that the model is trained to produce.
const ALL: &str = "all";

impl Subject<'_> {
    /// Agreement with another model of the same sizes and tokenizer, both under teacher forcing on the data: `caption`,
    /// `answer`, both as `all`, and `question` (the user's turns, which no model is trained to produce).
    ///
    /// # Errors
    /// If the data cannot be read or a sequence does not fit the model.
    pub fn agrees_with(
        &self,
        other: &Emu,
        set: &ShardDataset,
        limit: usize,
        questions: usize,
    ) -> Result<Scores, TrainError> {
        let composer = self.composer();
        let mut scores = Scores::default();
        for found in set.samples(limit) {
            let (i, sample) = found?;
            let (Ok(Record::Scene(scene)), [picture, ..]) =
                (sample.record(), sample.images.as_slice())
            else {
                continue;
            };
            let mut random = Philox::new(0, Stream::Data, i as u64);
            let sequence = composer.scene(&scene, questions, &mut random)?;
            let pixels = self.pixels(std::slice::from_ref(picture))?;
            let ours = self.next_tokens(self.emu, &sequence, pixels.clone())?;
            let theirs = self.next_tokens(other, &sequence, pixels)?;
            let kinds = agreement(&sequence, &ours, &theirs);
            let given = kinds.first().map_or_else(String::new, |(_, all)| {
                format!("{} of {} next tokens are the same", all.right, all.total)
            });
            scores.add(Item {
                sample: i,
                picture: Some(0),
                question: String::new(),
                wanted: scene.caption.clone(),
                given,
                scores: kinds,
            });
        }
        Ok(scores)
    }

    /// The most likely next token at each position of a sequence.
    fn next_tokens(
        &self,
        emu: &Emu,
        sequence: &Sequence,
        pixels: Tensor<4>,
    ) -> Result<Vec<u32>, TrainError> {
        let special = &self.words.special;
        let batch = pad(vec![sequence.clone()], special.pad, self.device);
        let visual = emu.embed_images(pixels);
        let embeds = emu
            .splice(&batch.ids, Some(visual), special.image)
            .map_err(|e| TrainError::Stage(e.to_string()))?;
        let hidden = emu.lm.forward(embeds, &batch.positions, &batch.visibility);
        let logits = emu.lm.logits(hidden);
        let [_, _, vocab] = logits.dims();
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        Ok(logits.chunks(vocab.max(1)).map(argmax).collect())
    }
}

/// Agreement of two models' next tokens by category, first of captions and answers together.
fn agreement(sequence: &Sequence, ours: &[u32], theirs: &[u32]) -> Vec<(String, Score)> {
    let mut kinds = [ALL, CAPTION, ANSWER, QUESTION].map(|kind| (kind, Score::default()));
    for (at, found) in places(sequence) {
        let same = ours.get(at - 1) == theirs.get(at - 1);
        for (kind, score) in &mut kinds {
            if *kind == found || (*kind == ALL && found != QUESTION) {
                score.count(same);
            }
        }
    }
    let counted = kinds.into_iter().filter(|(_, score)| score.total > 0);
    counted
        .map(|(kind, score)| (kind.to_owned(), score))
        .collect()
}

/// The text positions of a scene whose preceding position is in the same segment or in the picture, with their
/// category.
fn places(sequence: &Sequence) -> impl Iterator<Item = (usize, &'static str)> {
    (1..sequence.ids.len()).filter_map(|at| {
        let (segment, before) = (sequence.segments[at], sequence.segments[at - 1]);
        match (segment, sequence.wanted[at]) {
            (0, _) => None,
            (1, true) => Some((at, CAPTION)),
            (_, true) => Some((at, ANSWER)),
            // The first token of a turn is conditioned on the picture, not on the preceding turn in the sequence.
            (_, false) => (segment == before).then_some((at, QUESTION)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place_is_counted_once() {
        // <s> [IMG] [/IMG] | caption of two | question of three, answer of one | question of two, answer of two
        let segments = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3];
        let wanted = [0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1];
        let sequence = Sequence {
            ids: (0..13).collect(),
            positions: (0..13).collect(),
            segments: segments.to_vec(),
            wanted: wanted.iter().map(|w| *w == 1).collect(),
        };
        let of = |kind: &str| -> Vec<usize> {
            let places = places(&sequence).filter(|(_, k)| *k == kind);
            places.map(|(at, _)| at).collect()
        };
        assert_eq!(of(CAPTION), [3, 4]);
        assert_eq!(of(ANSWER), [8, 11, 12]);
        assert_eq!(of(QUESTION), [6, 7, 10]);

        // They differ at a caption's position (the token after 3) and at a question's (the token after 6).
        let ours: Vec<u32> = (0..13).collect();
        let mut theirs = ours.clone();
        theirs[3] = 99;
        theirs[6] = 99;
        let score = |right, total| Score { right, total };
        assert_eq!(
            agreement(&sequence, &ours, &theirs),
            [
                (ALL.to_owned(), score(4, 5)),
                (CAPTION.to_owned(), score(1, 2)),
                (ANSWER.to_owned(), score(3, 3)),
                (QUESTION.to_owned(), score(2, 3)),
            ]
        );
    }
}
