//! A conversation on stdin and stdout, with any model that answers.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use emu_tokenizer::StopStream;
use serde_json::{Value, json};

use crate::args::ChatArgs;
use crate::error_line::message;
use crate::output::{json_line, print_now};

/// A model that answers in a conversation.
pub(super) trait Partner {
    /// Answers a user message with picture and video files. On error the conversation stays unchanged.
    fn hear(&mut self, text: &str, pictures: &[PathBuf], videos: &[PathBuf]) -> Result<()>;

    /// Clears the conversation.
    fn forget(&mut self);
}

/// Answers the prompt, or each line of stdin without one.
pub(super) fn speak_with(partner: &mut dyn Partner, args: &ChatArgs) -> Result<()> {
    match &args.prompt {
        Some(prompt) => partner.hear(prompt, &args.image, &args.video),
        None => converse(partner, (args.image.clone(), args.video.clone())),
    }
}

/// Reads lines until the input ends. Pictures are queued until the next message.
fn converse(
    partner: &mut dyn Partner,
    (mut pictures, mut videos): (Vec<PathBuf>, Vec<PathBuf>),
) -> Result<()> {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    if terminal {
        eprintln!(
            "/image FILE and /video FILE add to what you say next, /reset forgets, /quit leaves."
        );
    }
    let mut lines = stdin.lock().lines();
    loop {
        if terminal {
            eprint!("> ");
        }
        let Some(line) = lines.next() else {
            return Ok(());
        };
        let line = line.context("The input cannot be read. Give text in UTF-8")?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("", _) => {}
            ("/quit", _) => return Ok(()),
            ("/reset", _) => partner.forget(),
            ("/image", path) => pictures.push(path.trim().into()),
            ("/video", path) => videos.push(path.trim().into()),
            _ => {
                let taken = (std::mem::take(&mut pictures), std::mem::take(&mut videos));
                let said = partner.hear(line.trim(), &taken.0, &taken.1);
                // At a terminal, an error ends the turn and not the conversation.
                match said {
                    Err(error) if terminal => eprintln!("error: {}", message(&error)),
                    other => other?,
                }
            }
        }
    }
}

/// Prints an answer while it is generated, up to a stop string.
pub(super) struct Printer {
    stream: StopStream<Value>,
    json: bool,
    /// Whether a picture was printed last.
    pictured: bool,
    /// What was said: the text that was printed, without pictures.
    pub text: String,
}

impl Printer {
    pub fn new(args: &ChatArgs) -> Self {
        Self {
            stream: StopStream::new(&args.text.stop),
            json: args.model.json,
            pictured: false,
            text: String::new(),
        }
    }

    /// Whether a stop string was found: the answer is complete.
    pub fn stopped(&self) -> bool {
        self.stream.stopped()
    }

    /// Prints a piece with the log-probabilities of its token, or holds back what may be the beginning of a stop string.
    pub fn say(&mut self, piece: &str, logprobs: Option<Value>) -> Result<()> {
        let said = self.stream.push(piece, logprobs);
        self.print(said)
    }

    /// Prints what was held back, at the end or before a picture.
    pub fn flush(&mut self) -> Result<()> {
        let said = self.stream.finish();
        self.print(said)
    }

    /// Prints where a picture is, apart from the words around it.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let behind_words = !self.text.is_empty() && !self.text.ends_with(char::is_whitespace);
        let gap = if self.pictured || behind_words {
            " "
        } else {
            ""
        };
        self.pictured = true;
        print_now(&format!("{gap}[{}]", path.display()))
    }

    fn print(&mut self, said: Option<(String, Vec<Value>)>) -> Result<()> {
        let Some((text, logprobs)) = said else {
            return Ok(());
        };
        self.text += &text;
        if !self.json {
            let words = !text.is_empty();
            let gap = match self.pictured && words && !text.starts_with(char::is_whitespace) {
                true => " ",
                false => "",
            };
            self.pictured &= !words;
            return print_now(&format!("{gap}{text}"));
        }
        let mut line = json!({"type": "text", "text": text});
        if !logprobs.is_empty() {
            line["logprobs"] = logprobs.into();
        }
        json_line(&line)
    }
}
