//! An engine that answers what it is told to, at a chosen pace.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use emu_serve::engine::{
    Answer, Chat, Drawing, Drawn, Embedding, Engine, EngineError, Event, Finish, Likelihood, Model,
    Part, Piece, Tell, TextOptions, TokenLogprob,
};

/// A picture of one pixel.
pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDATx\x9cc\xf8\xdf\xe0\0\0\x04A\x01\xc0\x0c\xd1\xed\x91\0\0\0\0IEND\xaeB`\x82";

/// What the engine did, as seen from another thread.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that began.
    pub begun: AtomicUsize,
    /// Calls that reached their end.
    pub finished: AtomicUsize,
    /// Calls that were told to stop.
    pub stopped: AtomicUsize,
    /// Tokens and steps.
    pub steps: AtomicUsize,
    /// Milliseconds per token or step.
    pub pace: AtomicU64,
}

/// The engine.
#[derive(Debug, Default)]
pub struct Fake {
    pub counts: Arc<Counts>,
    /// Without abilities other than text.
    pub plain: bool,
}

impl Fake {
    fn step(&self, tell: &mut Tell<'_>, event: Event) -> Result<(), EngineError> {
        std::thread::sleep(Duration::from_millis(
            self.counts.pace.load(Ordering::SeqCst),
        ));
        self.counts.steps.fetch_add(1, Ordering::SeqCst);
        match tell(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.counts.stopped.fetch_add(1, Ordering::SeqCst);
                Err(EngineError::Stopped)
            }
        }
    }

    /// Says a text in tokens of three characters.
    fn say(
        &self,
        text: &str,
        prompt_tokens: usize,
        options: &TextOptions,
        tell: &mut Tell<'_>,
        mut tokens: usize,
    ) -> Result<Answer, EngineError> {
        let most = options.max_new_tokens.unwrap_or(10_000);
        let characters: Vec<char> = text.chars().collect();
        for token in characters.chunks(3) {
            if tokens == most {
                return Ok(Answer {
                    finish: Finish::Length,
                    prompt_tokens,
                    cached_tokens: prompt_tokens / 2,
                    tokens,
                });
            }
            tokens += 1;
            let token: String = token.iter().collect();
            let likelihood = |token: &str, logprob| Likelihood {
                bytes: token.into(),
                logprob,
            };
            let logprob = options.logprobs.map(|top| TokenLogprob {
                chosen: likelihood(&token, -0.5),
                top: (0..top)
                    .map(|i| likelihood(&format!("t{i}"), -0.5 - i as f32))
                    .collect(),
            });
            match self.step(
                tell,
                Event::Text(Piece {
                    text: token,
                    logprob,
                }),
            ) {
                Err(EngineError::Stopped) => {
                    return Ok(Answer {
                        finish: Finish::End,
                        prompt_tokens,
                        cached_tokens: prompt_tokens / 2,
                        tokens,
                    });
                }
                result => result?,
            }
        }
        Ok(Answer {
            finish: Finish::End,
            prompt_tokens,
            cached_tokens: prompt_tokens / 2,
            tokens,
        })
    }

    fn begin(&self, words: &str) -> Result<(), EngineError> {
        self.counts.begun.fetch_add(1, Ordering::SeqCst);
        let message = "It is as the test wants it.".to_owned();
        match words {
            "fail" => Err(EngineError::Failed {
                code: "device".into(),
                message,
            }),
            "too long" => Err(EngineError::Request {
                code: "context_length_exceeded".into(),
                message,
            }),
            "panic" => panic!("as the test wants it"),
            _ => Ok(()),
        }
    }

    fn finished<T>(&self, result: T) -> Result<T, EngineError> {
        self.counts.finished.fetch_add(1, Ordering::SeqCst);
        Ok(result)
    }
}

/// A signature alone is a picture that cannot be decoded.
fn decode(pictures: &[&Bytes]) -> Result<(), EngineError> {
    match pictures.iter().find(|picture| picture.len() <= 8) {
        None => Ok(()),
        Some(_) => Err(EngineError::Request {
            code: "bad-image".into(),
            message: "The picture is damaged. Send another one.".into(),
        }),
    }
}

fn pictures(parts: &[Part]) -> Vec<&Bytes> {
    fn picture(part: &Part) -> Option<&Bytes> {
        match part {
            Part::Picture(bytes) => Some(bytes),
            Part::Text(_) => None,
        }
    }
    parts.iter().filter_map(picture).collect()
}

fn words(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Picture(_) => "*".into(),
    };
    parts.iter().map(text).collect()
}

impl Engine for Fake {
    fn model(&self) -> Model {
        Model {
            id: "fake".into(),
            created: 1_700_000_000,
            owner: "tests".into(),
            sees: !self.plain,
            draws: !self.plain,
            embeds: !self.plain,
            logprobs: !self.plain,
        }
    }

    /// `count to N` counts; `flood` goes on until it is stopped, in large pieces; `draw` draws; everything else is repeated, with the system message and the number of turns. With
    /// a temperature, the seed follows; with a logit bias, the penalties.
    fn chat(&mut self, chat: &Chat, tell: &mut Tell<'_>) -> Result<Answer, EngineError> {
        let turns = &chat.conversation.turns;
        let last = &turns.last().expect("a turn").user;
        let said = words(last);
        self.begin(&said)?;
        for turn in turns {
            decode(&pictures(&turn.user))?;
        }
        let prompt = turns.iter().map(|turn| words(&turn.user).len()).sum();
        self.step(tell, Event::Step)?;
        if said == "flood" {
            loop {
                self.step(tell, Event::Text(Piece::text("x".repeat(1 << 16))))?;
            }
        }
        let mut text = if let Some(n) = said
            .strip_prefix("count to ")
            .and_then(|n| n.parse::<u32>().ok())
        {
            (1..=n).map(|n| format!("{n} ")).collect()
        } else if let (true, Some(draw)) = (said.starts_with("draw"), &chat.draw) {
            let before = self.say("Here: ", prompt, &chat.text, tell, 0)?;
            let drawn = Drawn {
                png: Bytes::from_static(PNG),
                seed: draw.seed,
                flagged: Some(false),
            };
            self.step(tell, Event::Picture(drawn))?;
            let answer = self.say(" done.", prompt, &chat.text, tell, before.tokens)?;
            return self.finished(answer);
        } else {
            let system = chat.conversation.system.as_deref().unwrap_or("-");
            format!("[{system}] {}: {said}", turns.len())
        };
        let options = &chat.text;
        if !options.logit_bias.is_empty() {
            let (min_p, bias) = (options.min_p, &options.logit_bias);
            let (presence, frequency) = (options.presence_penalty, options.frequency_penalty);
            text += &format!(" min-p {min_p:?} penalties {presence} {frequency} bias {bias:?}");
        }
        if chat.text.temperature.is_some_and(|t| t > 0.0) {
            text += &format!(" seed {}", chat.text.seed);
        }
        let answer = self.say(&text, prompt, &chat.text, tell, 0)?;
        self.finished(answer)
    }

    fn complete(
        &mut self,
        prompt: &str,
        options: &TextOptions,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError> {
        self.begin(prompt)?;
        let answer = self.say(
            &format!(" and {prompt} again"),
            prompt.len(),
            options,
            tell,
            0,
        )?;
        self.finished(answer)
    }

    fn draw(&mut self, drawing: &Drawing, tell: &mut Tell<'_>) -> Result<Drawn, EngineError> {
        self.begin(&words(&drawing.prompt))?;
        decode(&pictures(&drawing.prompt))?;
        if drawing
            .options
            .size
            .is_some_and(|(width, _)| width % 8 != 0)
        {
            return Err(EngineError::Request {
                code: "picture-size".into(),
                message: "The size is not a multiple of 8. Give one that is.".into(),
            });
        }
        for _ in 0..drawing.options.steps.unwrap_or(4) {
            self.step(tell, Event::Step)?;
        }
        self.finished(Drawn {
            png: Bytes::from_static(PNG),
            seed: drawing.options.seed,
            flagged: None,
        })
    }

    /// Two embeddings of width 3: (n, 0, 1) and (n, 2, 3), with n the length of the file.
    fn embed(
        &mut self,
        pictures: &[Bytes],
        tell: &mut Tell<'_>,
    ) -> Result<Vec<Embedding>, EngineError> {
        self.begin("")?;
        decode(&pictures.iter().collect::<Vec<_>>())?;
        let mut embeddings = vec![];
        for picture in pictures {
            self.step(tell, Event::Step)?;
            let n = picture.len() as f32;
            embeddings.push(Embedding {
                width: 3,
                values: vec![n, 0.0, 1.0, n, 2.0, 3.0],
            });
        }
        self.finished(embeddings)
    }
}
