//! Answers of a model to one prompt, streamed to stdout.

use anyhow::Result;
use emu_kernels::burn::tensor::read_sync;
use emu_model::generate::{Cost, Prompt, TextEvent, TextMachine};
use emu_tokenizer::DecodeStream;

use super::dialogue::Printer;
use super::usage::Usage;
use crate::args::ChatArgs;
use crate::output::{json_line, print_now};
use crate::text_options::logprobs_json;

/// What is said where the model begins a picture, and there is no folder for it.
pub(super) const NOWHERE: &str = "A picture is asked for. Give a folder for pictures with --out.";

/// Gives as many answers as asked for, each followed by its usage; `usage` is that of the first. Returns the text of the
/// first.
pub(super) fn answers(
    args: &ChatArgs,
    prompt: &Prompt,
    device: &str,
    mut usage: Usage,
    mut give: impl FnMut(u64, &mut Usage) -> Result<(String, Cost)>,
) -> Result<String> {
    let mut first = None;
    for index in 0..args.n {
        if index > 0 {
            usage = Usage::start();
        }
        let (text, cost) = give(index as u64, &mut usage)?;
        match args.model.json {
            true => json_line(&usage.json(index, prompt.ids.len(), cost, device))?,
            false => print_now("\n")?,
        }
        first.get_or_insert(text);
    }
    Ok(first.unwrap_or_default())
}

/// Runs the machine to its end, or to a stop string, and prints what it generates. `image` is the token that ends the
/// answer because nobody draws; `show` takes what is no token. Returns the text.
pub(super) fn follow(
    machine: &mut TextMachine<'_>,
    mut decoder: DecodeStream,
    args: &ChatArgs,
    usage: &mut Usage,
    image: Option<u32>,
    mut show: impl FnMut(TextEvent, &mut Printer, &mut Usage) -> Result<()>,
) -> Result<String> {
    let mut printer = Printer::new(args);
    while !printer.stopped() {
        match read_sync(machine.step())? {
            TextEvent::Token(id) if Some(id) == image => {
                // Behind words it needs no explanation: documents go on with pictures.
                if usage.tokens == 0 {
                    eprintln!("{NOWHERE}");
                }
                break;
            }
            TextEvent::Token(id) => {
                usage.token();
                let logprobs = machine.next_logprobs();
                let logprobs = logprobs.map(|of| logprobs_json(&of, &decoder));
                let piece = decoder.push(id)?;
                printer.say(&piece, logprobs)?;
            }
            TextEvent::Done(_) => break,
            other => show(other, &mut printer, usage)?,
        }
    }
    printer.say(&decoder.finish(), None)?;
    printer.flush()?;
    Ok(printer.text)
}
