//! Tokens and times of an answer.

use std::time::Instant;

use emu_model::generate::Cost;
use serde_json::{Value, json};

/// Measures an answer while it is generated.
pub(super) struct Usage {
    start: Instant,
    /// The last token, or the end of other work.
    mark: Instant,
    /// Time to first token in seconds.
    first: Option<f64>,
    /// Seconds between the tokens.
    decoding: f64,
    /// Tokens generated.
    pub tokens: usize,
}

impl Usage {
    /// Measures from now on.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            mark: now,
            first: None,
            decoding: 0.0,
            tokens: 0,
        }
    }

    /// A token was generated.
    pub fn token(&mut self) {
        self.tokens += 1;
        match self.first {
            None => self.first = Some(self.start.elapsed().as_secs_f64()),
            Some(_) => self.decoding += self.mark.elapsed().as_secs_f64(),
        }
        self.mark = Instant::now();
    }

    /// Other work than decoding was done.
    pub fn skip(&mut self) {
        self.mark = Instant::now();
    }

    /// The line that is printed at the end of answer `index`. The rate of the prefill is that of all work up to the first
    /// token, pictures included.
    pub fn json(&self, index: usize, prompt_tokens: usize, cost: Cost, device: &str) -> Value {
        let rate = |tokens: usize, seconds: f64| (seconds > 0.0).then(|| tokens as f64 / seconds);
        let prefill = self
            .first
            .and_then(|first| rate(cost.prefill_tokens, first));
        let decode = rate(self.tokens.saturating_sub(1), self.decoding);
        json!({
            "type": "usage", "index": index, "prompt_tokens": prompt_tokens,
            "cached_tokens": cost.cached_tokens, "prefill_tokens": cost.prefill_tokens,
            "tokens": self.tokens, "first_token_seconds": self.first,
            "prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode,
            "seconds": self.start.elapsed().as_secs_f64(), "device": device,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_those_of_the_phases() {
        let mut usage = Usage::start();
        let cost = Cost {
            prefill_tokens: 30,
            cached_tokens: 70,
            ..Cost::default()
        };
        let none = usage.json(0, 100, cost, "cpu");
        assert!(none["first_token_seconds"].is_null());
        assert!(none["prefill_tokens_per_second"].is_null());
        assert!(none["decode_tokens_per_second"].is_null());
        sleep(Duration::from_millis(20));
        usage.token();
        // Not between two tokens, but before one: a picture.
        sleep(Duration::from_millis(200));
        usage.skip();
        for _ in 0..4 {
            sleep(Duration::from_millis(5));
            usage.token();
        }
        let told = usage.json(2, 100, cost, "cpu");
        let number = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
        assert_eq!(told["index"], 2);
        assert_eq!(
            (
                &told["prompt_tokens"],
                &told["cached_tokens"],
                &told["prefill_tokens"]
            ),
            (&json!(100), &json!(70), &json!(30))
        );
        assert_eq!(told["tokens"], 5);
        let first = number("first_token_seconds");
        assert!(first >= 0.02, "{first}");
        assert!((number("prefill_tokens_per_second") * first - 30.0).abs() < 1e-6);
        // Four tokens in at least 20 ms.
        let decode = number("decode_tokens_per_second");
        assert!(decode > 0.0 && decode <= 200.0, "{decode}");
        // The 200 ms are no part of it.
        assert!(usage.decoding < number("seconds") - first - 0.19);
    }
}
