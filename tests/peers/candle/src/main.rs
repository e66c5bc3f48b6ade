//! Tokens a second of a GGUF model in candle.
//!
//! Reads an object of JSON: `model` (a path), `ids` (of the prompt's tokens), `tokens` (to say). Prints one: seconds until the
//! first token is known, seconds of the tokens after it, and how many there are in all. Threads are those of `RAYON_NUM_THREADS`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let request: Value = serde_json::from_reader(std::io::stdin())?;
    let model = request["model"].as_str().ok_or("`model` is no text")?;
    let prompt: Vec<u32> = serde_json::from_value(request["ids"].clone())?;
    let tokens: usize = serde_json::from_value(request["tokens"].clone())?;

    let mut reader = BufReader::new(File::open(model)?);
    let content = Content::read(&mut reader)?;
    let device = Device::Cpu;
    let mut model = ModelWeights::from_gguf(content, &mut reader, &device)?;

    let mut position = 0;
    let mut next = |ids: &[u32]| -> candle_core::Result<u32> {
        let input = Tensor::new(ids, &device)?.unsqueeze(0)?;
        let logits = model.forward(&input, position)?;
        position += ids.len();
        logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar::<u32>()
    };

    let start = Instant::now();
    let mut said = vec![next(&prompt)?];
    let first = start.elapsed().as_secs_f64();
    while said.len() < tokens {
        said.push(next(&said[said.len() - 1..])?);
    }
    let rest = start.elapsed().as_secs_f64() - first;
    println!(
        "{}",
        serde_json::json!({
            "prompt_tokens": prompt.len(), "tokens": said.len(), "first_seconds": first, "rest_seconds": rest, "said": said,
        })
    );
    Ok(())
}
