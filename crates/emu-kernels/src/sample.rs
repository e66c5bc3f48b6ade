//! From logits to a token: the processors of generation, on one row of logits.
//!
//! Order as in transformers 4.31: repetition penalty, n-gram ban, minimum length; then temperature, top-k, top-p.

use crate::random::Philox;

/// What changes logits before a token is chosen from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Processors {
    /// Logits of tokens seen before are divided by this (multiplied where negative); 1 changes nothing.
    pub repetition_penalty: f32,
    /// No n-gram of this size occurs twice; 0 bans nothing.
    pub no_repeat_ngram: usize,
    /// The end token is banned while fewer tokens than this were made, `<s>` counted.
    pub min_length: usize,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            min_length: 0,
        }
    }
}

/// How a token is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}

impl Processors {
    /// Whether [`Processors::apply`] would change nothing after so many tokens.
    pub fn are_idle(&self, tokens: usize) -> bool {
        self.repetition_penalty == 1.0 && self.no_repeat_ngram == 0 && tokens >= self.min_length
    }

    /// Changes `scores` (logits, or log-probabilities in beam search) given the tokens made so far, which start with
    /// `<s>` and do not hold the prompt.
    pub fn apply(&self, history: &[u32], end: u32, scores: &mut [f32]) {
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

/// `log softmax`, in f64 inside.
pub fn log_softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&s| f64::from(s - max).exp()).sum();
    let log_sum = sum.ln() as f32;
    scores.iter_mut().for_each(|s| *s = (*s - max) - log_sum);
}

/// The index of the greatest score, the first one of several; NaN never wins.
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
    /// Draws a token. Ties are broken by the lower token.
    pub fn choose(&self, logits: &[f32], random: &mut Philox) -> u32 {
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| {
            logits[b as usize]
                .total_cmp(&logits[a as usize])
                .then(a.cmp(&b))
        });
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let max = order.first().map_or(0.0, |&i| logits[i as usize]);
        let weights: Vec<f64> = order
            .iter()
            .map(|&i| f64::from((logits[i as usize] - max) / self.temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        // The shortest head of the order whose probability reaches top_p.
        let mut kept = weights.len();
        let mut sum = 0.0;
        for (i, w) in weights.iter().enumerate() {
            sum += w;
            if sum >= f64::from(self.top_p) * total {
                kept = i + 1;
                break;
            }
        }
        let kept_total: f64 = weights[..kept].iter().sum();
        let mut left = f64::from(random.uniform()) * kept_total;
        for (i, w) in weights[..kept].iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return order[i];
            }
        }
        order.get(kept.saturating_sub(1)).copied().unwrap_or(0)
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
        };
        let mut scores = vec![1.0, -1.0, 4.0, 0.5];
        p.apply(&[1, 3, 1], 2, &mut scores);
        // 1 and 3 penalised, (1, 3) was seen so 3 is banned, the end token 2 comes too early.
        assert_eq!(scores, [1.0, -2.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    }

    #[test]
    fn sampling_obeys_its_limits() {
        let logits = [0.0, 3.0, 2.0, -1.0];
        let mut random = Philox::new(1, Stream::Tokens, 0);
        let top_k = Sampling {
            temperature: 1.0,
            top_k: 2,
            top_p: 1.0,
        };
        let top_p = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 0.5,
        };
        let mut seen = [0usize; 4];
        for _ in 0..2000 {
            seen[top_k.choose(&logits, &mut random) as usize] += 1;
            assert_eq!(top_p.choose(&logits, &mut random), 1);
        }
        assert!(seen[0] == 0 && seen[3] == 0);
        let share = seen[1] as f64 / 2000.0;
        assert!((share - 0.731).abs() < 0.04, "{share}");
        assert_eq!(
            Sampling::default().choose(&[f32::NAN, 1.0, 1.0], &mut random),
            1
        );
    }

    #[test]
    fn log_softmax_sums_to_one() {
        let mut scores = vec![1000.0, 1001.0, -5.0];
        log_softmax(&mut scores);
        assert!((scores.iter().map(|s| s.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
