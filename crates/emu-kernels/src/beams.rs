//! Beam search step: ranks the continuations of all beams on the device of the logits.

use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::count;
use crate::ops::sampling;
use crate::sample::Processors;

/// Parameters of the ranking: logit processors and number of continuations.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Applied to log-probabilities, which are not renormalised.
    pub processors: Processors,
    /// The end token, which a minimum length bans.
    pub end: u32,
    /// A banned token.
    pub banned: Option<u32>,
    /// Maximum number of continuations.
    pub best: usize,
}

/// A beam extended by one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Continuation {
    /// The parent beam.
    pub beam: usize,
    /// The appended token.
    pub token: u32,
    /// Cumulative score: the beam's plus the token's.
    pub sum: f32,
}

impl Ranking {
    /// The best continuations of the beams, from `[B, 1, V]` logits, which may be overwritten. Two numbers per continuation,
    /// greatest cumulative score first, of equal scores the lower beam and token. [`continuations`] decodes them.
    ///
    /// # Arguments
    /// - `beams`: tokens generated so far, equally many for each, and cumulative score
    pub fn rank(&self, logits: Tensor<3>, beams: &[(&[u32], f32)]) -> Tensor<1, Int> {
        let [b, _, vocab] = logits.dims();
        assert_eq!(b, beams.len(), "logits of each beam");
        let device = logits.device();
        let processors = &self.processors;
        let seen = beams.first().map_or(0, |(tokens, _)| tokens.len());
        let remembers = processors.repetition_penalty != 1.0 || processors.no_repeat_ngram > 0;
        let length = if remembers { seen } else { 0 };
        let early = (seen < processors.min_length).then_some(self.end);
        let changes = length > 0 || self.banned.is_some() || early.is_some();
        let token = |token: Option<u32>| token.map_or(-1, |token| token as i32);
        let mut asked = vec![
            processors.repetition_penalty.to_bits() as i32,
            processors.no_repeat_ngram as i32,
            length as i32,
            token(self.banned),
            token(early),
        ];
        asked.extend(beams.iter().map(|(_, sum)| sum.to_bits() as i32));
        for (tokens, _) in beams {
            asked.extend(tokens[..length].iter().map(|&token| token as i32));
        }
        let words = asked.len();
        count::flushed();
        let asked =
            Tensor::<1, Int>::from_data(TensorData::new(asked, [words]), (&device, DType::I32));
        let best = self.best.min(b * vocab);
        sampling::best_beams(logits.reshape([b, vocab]), asked, best, changes)
    }
}

/// Decodes the read-back of [`Ranking::rank`]; `None` if a logit is NaN or a beam has no finite logit.
pub fn continuations(numbers: &[i32], [beams, vocab]: [usize; 2]) -> Option<Vec<Continuation>> {
    let pairs = numbers.chunks_exact(2);
    let read = pairs.map(|pair| {
        let (index, sum) = (pair[0] as u32 as usize, f32::from_bits(pair[1] as u32));
        (!sum.is_nan() && index < beams * vocab).then(|| Continuation {
            beam: index / vocab,
            token: (index % vocab) as u32,
            sum,
        })
    });
    read.collect()
}
