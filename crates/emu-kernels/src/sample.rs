//! Logit processors and token sampling, on one row of logits.
//!
//! Order: logit bias, repetition penalty, presence and frequency penalties; n-gram ban, minimum length; then temperature,
//! top-k, top-p, min-p. Of these, bias and penalties are in llama.cpp's order, the others in that of transformers.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::count;
use crate::ops::sampling;
use crate::random::Philox;
use crate::spec::{SAMPLE_HEADER, SampleSpec};

/// Logit processors, applied before a token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Processors {
    /// Logits of tokens seen before are divided by this (multiplied where negative); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each generated token, however often it occurs; 0 changes nothing.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each generated token, as many times as it occurs; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Tokens, and what is added to their logits. Of several entries of a token, all are added.
    pub logit_bias: Vec<(u32, f32)>,
    /// No n-gram of this size may repeat; 0 disables the ban.
    pub no_repeat_ngram: usize,
    /// The end token is banned while there are fewer tokens than this, `<s>` included.
    pub min_length: usize,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: vec![],
            no_repeat_ngram: 0,
            min_length: 0,
        }
    }
}

/// Sampling parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy. On a device, the least non-zero value is [`f32::MIN_POSITIVE`].
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Nucleus: only the most likely tokens whose probabilities together reach this; 1 for all.
    pub top_p: f32,
    /// Only tokens that are at least this likely in relation to the most likely one; 0 for all.
    pub min_p: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        }
    }
}

impl Processors {
    /// Whether there is a presence or frequency penalty.
    pub fn counts(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// The biased tokens in order, each once.
    fn biases(&self) -> BTreeMap<u32, f32> {
        let mut biases = BTreeMap::new();
        for &(token, bias) in &self.logit_bias {
            *biases.entry(token).or_insert(0.0) += bias;
        }
        biases
    }

    /// Processes `scores` (logits, or log-probabilities in beam search), given the tokens generated so far: they start with
    /// `<s>` and exclude the prompt.
    pub fn apply(&self, history: &[u32], end: u32, scores: &mut [f32]) {
        for (token, bias) in self.biases() {
            if let Some(score) = scores.get_mut(token as usize) {
                *score += bias;
            }
        }
        if self.repetition_penalty != 1.0 {
            let mut seen = history.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                if let Some(score) = scores.get_mut(token as usize) {
                    *score *= if *score < 0.0 {
                        self.repetition_penalty
                    } else {
                        1.0 / self.repetition_penalty
                    };
                }
            }
        }
        if self.counts() {
            let mut occurrences = BTreeMap::new();
            // `<s>` was not generated.
            for &token in history.iter().skip(1) {
                *occurrences.entry(token).or_insert(0u32) += 1;
            }
            for (token, count) in occurrences {
                if let Some(score) = scores.get_mut(token as usize) {
                    *score -= self.presence_penalty + count as f32 * self.frequency_penalty;
                }
            }
        }
        let n = self.no_repeat_ngram;
        if n > 0 && history.len() + 1 >= n {
            let tail = &history[history.len() + 1 - n..];
            for window in history.windows(n) {
                if &window[..n - 1] == tail
                    && let Some(score) = scores.get_mut(window[n - 1] as usize)
                {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        if history.len() < self.min_length
            && let Some(score) = scores.get_mut(end as usize)
        {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// In-place log-softmax, accumulated in f64.
pub fn log_softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&s| f64::from(s - max).exp()).sum();
    let log_sum = sum.ln() as f32;
    scores.iter_mut().for_each(|s| *s = (*s - max) - log_sum);
}

/// Least log-probability that is given, as in OpenAI's API: JSON has no infinities.
const LEAST_LOGPROB: f32 = -9999.0;

/// Log-probabilities at the position of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token at this position.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, best first, of equals the lower token first.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Those of the model's own distribution: of `logits` that nothing has processed. `top`: number of most likely tokens.
    pub fn of(logits: &[f32], token: u32, most: usize) -> Self {
        let mut scores = logits.to_vec();
        log_softmax(&mut scores);
        let logprob = |token: u32| {
            let score = scores.get(token as usize).copied();
            score.unwrap_or(LEAST_LOGPROB).max(LEAST_LOGPROB)
        };
        let best = top(&scores, most).into_iter();
        Self {
            token,
            logprob: logprob(token),
            top: best.map(|token| (token, logprob(token))).collect(),
        }
    }
}

/// Indices of the `n` greatest scores, in descending order, the lower index first among equals.
pub fn top(scores: &[f32], n: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| {
        let [left, right] = [a, b].map(|index| scores[*index as usize]);
        right.total_cmp(&left).then(a.cmp(b))
    };
    let mut all: Vec<u32> = (0..scores.len() as u32).collect();
    if all.len() > n {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

/// Index of the greatest score, the lowest of equals; NaN never wins.
pub fn argmax(scores: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (i, &score) in scores.iter().enumerate() {
        if score > best.0 {
            best = (score, i as u32);
        }
    }
    best.1
}

impl Sampling {
    /// Draws a token, given a uniform number in [0, 1). Top-k and top-p keep the most likely tokens, the lower token first among
    /// equals; the cumulative sum that the draw inverts runs in vocabulary order.
    pub fn sample(&self, logits: &[f32], uniform: f32) -> u32 {
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let heated = |token: u32| (logits[token as usize] - max) / self.temperature;
        let weight = |token: u32| f64::from(heated(token)).exp();
        let mut kept: Vec<u32> = (0..logits.len() as u32).collect();
        if self.is_narrow() {
            kept.sort_by(|&a, &b| {
                logits[b as usize]
                    .total_cmp(&logits[a as usize])
                    .then(a.cmp(&b))
            });
            if self.top_k > 0 {
                kept.truncate(self.top_k);
            }
            let wanted = f64::from(self.top_p) * kept.iter().map(|&t| weight(t)).sum::<f64>();
            // The shortest prefix whose probability reaches top_p.
            let mut sum = 0.0;
            let reached = kept.iter().position(|&token| {
                sum += weight(token);
                sum >= wanted
            });
            kept.truncate(reached.map_or(kept.len(), |last| last + 1));
            kept.sort_unstable();
        }
        if self.min_p > 0.0 {
            let least = self.log_min_p();
            kept.retain(|&token| heated(token) >= least);
        }
        let mut left = f64::from(uniform) * kept.iter().map(|&t| weight(t)).sum::<f64>();
        for &token in &kept {
            left -= weight(token);
            if left < 0.0 {
                return token;
            }
        }
        kept.last().copied().unwrap_or(0)
    }

    /// Least logarithm of a token's probability in relation to the most likely one's.
    fn log_min_p(&self) -> f32 {
        self.min_p.max(f32::MIN_POSITIVE).ln()
    }

    /// Whether top-k or top-p excludes tokens.
    fn is_narrow(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0
    }
}

/// Bound of the tokens that are exact as f32; vocabularies are smaller.
const EXACT: u32 = 1 << f32::MANTISSA_DIGITS;

/// Samples the tokens of one sequence on its device. Its inputs are uploaded once; only tokens are read back.
#[derive(Debug)]
pub struct Sampler {
    processors: Processors,
    sampling: Sampling,
    end: u32,
    device: Device,
    /// See [`sampling::sample`].
    numbers: Tensor<1>,
    /// `[1 + tokens]`: number of tokens, then the tokens.
    history: Tensor<1, Int>,
    /// `[1]`
    token: Tensor<1, Int>,
    capacity: usize,
}

/// `[1 + capacity]`: number of tokens, then the tokens.
fn upload(history: &[u32], capacity: usize, device: &Device) -> Tensor<1, Int> {
    let mut all = vec![history.len() as i32];
    all.extend(history.iter().map(|&token| token as i32));
    all.resize(1 + capacity, 0);
    count::flushed();
    Tensor::from_data(TensorData::new(all, [1 + capacity]), (device, DType::I32))
}

impl Sampler {
    /// A sampler for a sequence that starts with `history` and has at most `capacity` tokens.
    pub fn new(
        processors: Processors,
        sampling: Sampling,
        end: u32,
        history: &[u32],
        capacity: usize,
        random: &mut Philox,
        device: &Device,
    ) -> Self {
        let capacity = capacity.max(history.len()) + 1;
        let mut biases = processors.biases();
        biases.retain(|&token, _| token < EXACT);
        let header: [f32; SAMPLE_HEADER] = [
            // Kernels multiply by the reciprocal, which is infinite for a subnormal number.
            sampling.temperature.max(f32::MIN_POSITIVE),
            sampling.top_p,
            processors.repetition_penalty,
            sampling.log_min_p(),
            processors.presence_penalty,
            processors.frequency_penalty,
            biases.len() as f32,
        ];
        let mut numbers = header.to_vec();
        numbers.extend(
            biases
                .iter()
                .flat_map(|(&token, &bias)| [token as f32, bias]),
        );
        if sampling.temperature > 0.0 {
            numbers.extend((0..capacity).map(|_| random.uniform()));
        }
        Self {
            processors,
            sampling,
            end,
            device: device.clone(),
            numbers: Tensor::from_data(numbers.as_slice(), device),
            history: upload(history, capacity, device),
            token: Tensor::from_data(TensorData::new(vec![0i32], [1]), (device, DType::I32)),
            capacity,
        }
    }

    /// Resets the history to these tokens.
    pub fn rewind(&mut self, history: &[u32]) {
        self.history = upload(history, self.capacity, &self.device);
    }

    /// The next token, from the logits of the last position: `[1, 1, V]` to `[1]`; -1 if a logit is NaN. On a GPU, each call
    /// returns the same tensor, overwritten.
    pub fn sample(&mut self, logits: Tensor<3>, banned: Option<usize>) -> Tensor<1, Int> {
        let [_, _, vocab] = logits.dims();
        let spec = SampleSpec {
            banned,
            end: self.end as usize,
            min_length: self.processors.min_length,
            ngram: self.processors.no_repeat_ngram,
            penalty: self.processors.repetition_penalty != 1.0,
            counts: self.processors.counts(),
            bias: !self.processors.logit_bias.is_empty(),
            sample: self.sampling.temperature > 0.0,
            top_k: self.sampling.top_k.min(vocab),
            top_p: self.sampling.top_p < 1.0,
            min_p: self.sampling.min_p > 0.0,
        };
        let logits = logits.reshape([1, vocab]);
        let (numbers, history) = (self.numbers.clone(), self.history.clone());
        (self.token, self.history) =
            sampling::sample(logits, numbers, self.token.clone(), history, spec);
        self.token.clone()
    }

    /// The token sampled last, `[1]`.
    pub fn token(&self) -> Tensor<1, Int> {
        self.token.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn processors_follow_transformers() {
        let p = Processors {
            repetition_penalty: 2.0,
            no_repeat_ngram: 2,
            min_length: 4,
            ..Processors::default()
        };
        let mut scores = vec![1.0, -1.0, 4.0, 0.5];
        p.apply(&[1, 3, 1], 2, &mut scores);
        // 1 and 3 are penalised; 3 is banned since (1, 3) occurred; the end token 2 comes before the minimum length.
        assert_eq!(scores, [1.0, -2.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    }

    #[test]
    fn sampling_obeys_its_limits() {
        let logits = [0.0, 3.0, 2.0, -1.0];
        let mut random = Philox::new(1, Stream::Tokens, 0);
        let top_k = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::default()
        };
        let top_p = Sampling {
            temperature: 1.0,
            top_p: 0.5,
            ..Sampling::default()
        };
        let mut seen = [0usize; 4];
        for _ in 0..2000 {
            seen[top_k.sample(&logits, random.uniform()) as usize] += 1;
            assert_eq!(top_p.sample(&logits, random.uniform()), 1);
        }
        assert!(seen[0] == 0 && seen[3] == 0);
        let share = seen[1] as f64 / 2000.0;
        assert!((share - 0.731).abs() < 0.04, "{share}");
        assert_eq!(Sampling::default().sample(&[f32::NAN, 1.0, 1.0], 0.0), 1);
        // Draws run in vocabulary order; of equal logits, top-k keeps the lower tokens.
        let ties = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::default()
        };
        let drawn = [0.0, 0.49, 0.51, 0.999].map(|u| ties.sample(&[1.0, 0.0, 1.0, 1.0], u));
        assert_eq!(drawn, [0, 0, 2, 2]);
    }

    #[test]
    fn bias_and_penalties_follow_llama_cpp() {
        let p = Processors {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(0, 3.0), (4, -2.0), (0, 1.0), (77, 5.0)],
            ..Processors::default()
        };
        assert!(p.counts());
        let mut scores = vec![1.0, 1.0, 1.0, 1.0, 1.0];
        // `<s>` is token 4. Token 2 was generated twice, token 3 once.
        p.apply(&[4, 2, 3, 2], u32::MAX, &mut scores);
        // 4: biased to -1, then multiplied, since `<s>` counts as seen; but it was not generated.
        assert_eq!(scores, [5.0, 1.0, 0.5 - 0.5 - 0.5, 0.5 - 0.5 - 0.25, -2.0]);
        // Negative penalties favour what was generated.
        let p = Processors {
            presence_penalty: -1.0,
            ..Processors::default()
        };
        let mut scores = vec![0.0, 0.0];
        p.apply(&[0, 1, 1], u32::MAX, &mut scores);
        assert_eq!(scores, [0.0, 1.0]);
        assert!(!Processors::default().counts());
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely_token_after_temperature() {
        let logits = [0.0f32, 2.0, 1.0, -3.0];
        for temperature in [0.5f32, 1.0, 2.0] {
            for min_p in [0.01f32, 0.1, 0.3, 0.5, 0.9, 1.0] {
                let sampling = Sampling {
                    temperature,
                    min_p,
                    ..Sampling::default()
                };
                let mut random = Philox::new(3, Stream::Tokens, 0);
                let mut seen = [false; 4];
                for _ in 0..4000 {
                    seen[sampling.sample(&logits, random.uniform()) as usize] = true;
                }
                let kept = logits.map(|logit| {
                    let share = (f64::from(logit - 2.0) / f64::from(temperature)).exp();
                    share >= f64::from(min_p)
                });
                assert_eq!(seen, kept, "{temperature}, {min_p}");
            }
        }
        // Together with top-k, tokens have to pass both.
        let both = Sampling {
            temperature: 1.0,
            top_k: 3,
            min_p: 0.3,
            ..Sampling::default()
        };
        assert_eq!([0.0, 0.999].map(|u| both.sample(&logits, u)), [1, 2]);
    }

    #[test]
    fn log_probabilities_are_those_of_the_raw_logits() {
        let logits = [1.5f32, -0.25, 1.5, 900.0, 899.0, f32::NEG_INFINITY];
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - 900.0).exp()).sum();
        let want = |token: u32| f64::from(logits[token as usize]) - 900.0 - sum.ln();
        let found = Logprobs::of(&logits, 1, 4);
        assert_eq!(found.token, 1);
        assert!((f64::from(found.logprob) - want(1)).abs() < 1e-3);
        let tokens: Vec<u32> = found.top.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [3, 4, 0, 2]);
        for (token, logprob) in found.top {
            assert!((f64::from(logprob) - want(token)).abs() < 1e-3, "{token}");
        }
        // What cannot occur has a finite number, and more tokens than there are cannot be given.
        assert_eq!(Logprobs::of(&logits, 5, 0).logprob, LEAST_LOGPROB);
        assert_eq!(Logprobs::of(&logits, 0, 20).top.len(), logits.len());
    }

    #[test]
    fn log_softmax_sums_to_one() {
        let mut scores = vec![1000.0, 1001.0, -5.0];
        log_softmax(&mut scores);
        assert!((scores.iter().map(|s| s.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
