//! A conversation on stdin and stdout, with any model that answers.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

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

/// Prints a piece of an answer.
pub(super) fn print_part(text: &str, json: bool) -> Result<()> {
    match (text.is_empty(), json) {
        (true, _) => Ok(()),
        (false, true) => json_line(&json!({"type": "text", "text": text})),
        (false, false) => print_now(text),
    }
}
