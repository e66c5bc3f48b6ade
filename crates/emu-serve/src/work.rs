//! Runs calls on the engine and sends their results to the connections that wait for them.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use emu_tokenizer::StopStream;
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{
    Answer, Chat, Drawing, Drawn, Embedding, Engine, EngineError, Event, Finish, Flow, TextOptions,
    TokenLogprob,
};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::queue::Queue;

/// What the engine is to do for one HTTP request.
#[derive(Debug)]
pub(crate) enum Work {
    /// `n` answers, with consecutive seeds.
    Chat {
        chat: Chat,
        n: usize,
        stops: Vec<String>,
    },
    /// `n` continuations of each prompt.
    Complete {
        prompts: Vec<String>,
        options: TextOptions,
        n: usize,
        stops: Vec<String>,
    },
    /// `n` pictures, with consecutive seeds.
    Draw { drawing: Drawing, n: usize },
    /// Embeddings of pictures.
    Embed { pictures: Vec<Bytes> },
}

/// A result, or a part of one.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Text of a choice.
    Text {
        index: usize,
        text: String,
        logprobs: Vec<TokenLogprob>,
    },
    /// A picture of a choice.
    Picture { index: usize, drawn: Drawn },
    /// The end of a choice.
    Finished {
        index: usize,
        answer: Answer,
        times: Times,
    },
    /// Embeddings of all pictures.
    Embeddings(Vec<Embedding>),
    /// The call failed. Nothing follows.
    Failed(ApiError),
    /// The call is complete. Nothing follows.
    Done,
}

/// Seconds that the phases of a choice took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// Up to the first token.
    pub prefill: f64,
    /// Between tokens, without the drawing of pictures.
    pub decode: f64,
}

/// A queued call.
#[derive(Debug)]
pub(crate) struct Job {
    pub work: Work,
    /// Closed by the receiver when its client leaves.
    pub replies: UnboundedSender<Reply>,
    pub queued: Instant,
}

/// Answers calls until the queue is closed and empty.
pub(crate) fn run_all(engine: &mut impl Engine, queue: &Queue<Job>, metrics: &Metrics) {
    while let Some(job) = queue.pop() {
        let started = Instant::now();
        metrics.waited(started.duration_since(job.queued));
        let stop = || job.replies.is_closed() || queue.is_aborted();
        let call = Call {
            metrics,
            replies: &job.replies,
            stop: &stop,
        };
        // A panic ends the call, not the server.
        let result = catch_unwind(AssertUnwindSafe(|| call.run(engine, job.work)));
        let result = result.unwrap_or_else(|_| {
            metrics.engine_failed();
            Err(ApiError::broken())
        });
        if job.replies.is_closed() {
            metrics.abandoned();
        }
        metrics.ran(started.elapsed());
        queue.done();
        let last = result.map_or_else(Reply::Failed, |()| Reply::Done);
        // Fails only if the client has left.
        let _ = job.replies.send(last);
    }
}

struct Call<'a> {
    metrics: &'a Metrics,
    replies: &'a UnboundedSender<Reply>,
    /// Whether the client has left, or the server stops.
    stop: &'a dyn Fn() -> bool,
}

impl Call<'_> {
    fn run(&self, engine: &mut impl Engine, work: Work) -> Result<(), ApiError> {
        match work {
            Work::Chat { chat, n, stops } => {
                for index in 0..n {
                    let mut chat = chat.clone();
                    chat.text.seed = nth(chat.text.seed, index);
                    if let Some(draw) = &mut chat.draw {
                        draw.seed = nth(draw.seed, index);
                    }
                    self.text(index, &stops, |tell| engine.chat(&chat, tell))?;
                }
            }
            Work::Complete {
                prompts,
                options,
                n,
                stops,
            } => {
                for index in 0..prompts.len() * n {
                    let (prompt, choice) = (&prompts[index / n], index % n);
                    let mut options = options.clone();
                    options.seed = nth(options.seed, choice);
                    self.text(index, &stops, |tell| {
                        engine.complete(prompt, &options, tell)
                    })?;
                }
            }
            Work::Draw { drawing, n } => {
                for index in 0..n {
                    let mut drawing = drawing.clone();
                    drawing.options.seed = nth(drawing.options.seed, index);
                    let result = engine.draw(&drawing, &mut |_| self.flow());
                    let drawn = self.checked(result)?;
                    self.metrics.drew();
                    self.send(Reply::Picture { index, drawn });
                }
            }
            Work::Embed { pictures } => {
                let result = engine.embed(&pictures, &mut |_| self.flow());
                let embeddings = self.checked(result)?;
                self.metrics.embedded(embeddings.len());
                self.send(Reply::Embeddings(embeddings));
            }
        }
        Ok(())
    }

    /// Generates the text of one choice.
    fn text(
        &self,
        index: usize,
        stops: &[String],
        generate: impl FnOnce(&mut dyn FnMut(Event) -> Flow) -> Result<Answer, EngineError>,
    ) -> Result<(), ApiError> {
        let mut text = StopStream::new(stops);
        let mut tokens = 0;
        let mut times = Times::default();
        let mut mark = Instant::now();
        let result = generate(&mut |event| {
            if text.stopped() || (self.stop)() {
                return ControlFlow::Break(());
            }
            let since = mark.elapsed().as_secs_f64();
            mark = Instant::now();
            match event {
                Event::Step if tokens == 0 => times.prefill += since,
                Event::Step => {}
                Event::Text(piece) => {
                    match tokens {
                        0 => times.prefill += since,
                        _ => times.decode += since,
                    }
                    tokens += 1;
                    if let Some((text, logprobs)) = text.push(&piece.text, piece.logprob) {
                        self.send(Reply::Text {
                            index,
                            text,
                            logprobs,
                        });
                    }
                }
                Event::Picture(drawn) => {
                    // Text before the picture is complete: no stop string extends across a picture.
                    if let Some((text, logprobs)) = text.finish() {
                        self.send(Reply::Text {
                            index,
                            text,
                            logprobs,
                        });
                    }
                    self.metrics.drew();
                    self.send(Reply::Picture { index, drawn });
                }
            }
            match text.stopped() {
                true => ControlFlow::Break(()),
                false => self.flow(),
            }
        });
        let stopped = text.stopped();
        let mut answer = match result {
            Err(EngineError::Stopped) if stopped => Answer {
                finish: Finish::End,
                prompt_tokens: 0,
                cached_tokens: 0,
                tokens,
            },
            result => self.checked(result)?,
        };
        if stopped {
            answer.finish = Finish::End;
        }
        if let Some((text, logprobs)) = text.finish() {
            self.send(Reply::Text {
                index,
                text,
                logprobs,
            });
        }
        self.metrics.tokens(answer.prompt_tokens, answer.tokens);
        self.send(Reply::Finished {
            index,
            answer,
            times,
        });
        Ok(())
    }

    /// Counts failures of the engine. A call that was cut short by the end of the server is an error too.
    fn checked<T>(&self, result: Result<T, EngineError>) -> Result<T, ApiError> {
        if let Err(EngineError::Failed { code, message }) = &result {
            self.metrics.engine_failed();
            tracing::error!(code, "the engine failed: {message}");
        }
        let value = result?;
        match (self.stop)() {
            true => Err(ApiError::stopping()),
            false => Ok(value),
        }
    }

    fn flow(&self) -> Flow {
        match (self.stop)() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn send(&self, reply: Reply) {
        // Fails only if the client has left, which the next `stop` tells.
        let _ = self.replies.send(reply);
    }
}

/// The seed of a choice.
fn nth(seed: u64, index: usize) -> u64 {
    seed.wrapping_add(index as u64)
}
