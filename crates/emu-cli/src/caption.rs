//! `emu caption`

use anyhow::Result;
use emu_kernels::burn::tensor::read_sync;
use emu_model::generate::{BeamSearch, TextEvent, TextMachine};
use serde_json::json;

use crate::args::CaptionArgs;
use crate::chat::{beam_options, check, text_options};
use crate::media;
use crate::output::{bar, json_line, print_now};
use crate::runtime::Runtime;

/// Captions each picture in one line.
pub fn run(args: &CaptionArgs) -> Result<()> {
    check(&args.text)?;
    // Reads the pictures first, so that a wrong path fails before the model is loaded.
    let pictures = args.images.iter().map(|path| media::picture(path));
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    let runtime = Runtime::open(&args.model)?;
    let bar = bar(pictures.len() as u64, "pictures");
    for (path, picture) in args.images.iter().zip(pictures) {
        let prompt = runtime.prompter()?.caption(picture)?;
        let (emu, config) = (runtime.emu()?, runtime.emu_config());
        let tokens = match args.text.beams {
            1 => {
                let options = text_options(&args.text, &config.generation, args.model.seed, false);
                let mut machine = TextMachine::new(emu, config, &prompt, options)?;
                loop {
                    match read_sync(machine.step())? {
                        // A token that begins a picture ends the caption.
                        TextEvent::Token(id) if id == config.special.img => break,
                        TextEvent::Done(_) => break,
                        _ => {}
                    }
                }
                machine.sequence().to_vec()
            }
            _ => {
                let search = BeamSearch::new(
                    emu,
                    config,
                    &prompt,
                    beam_options(&args.text, &config.generation),
                )?;
                let best = read_sync(search.run())?.into_iter().next();
                best.map_or(vec![], |best| best.tokens)
            }
        };
        let caption = runtime.tokenizer.decode(&tokens, true)?;
        let caption = caption.trim();
        bar.suspend(|| match args.model.json {
            true => json_line(&json!({"image": path, "caption": caption})),
            // One line per picture: line breaks in the caption become spaces.
            false => print_now(&format!("{}\n", caption.replace(['\n', '\r'], " "))),
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
