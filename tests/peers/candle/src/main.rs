//! Tokens a second of a GGUF model in candle: `candle-peer MODEL.gguf IDS.json TOKENS`.
//!
//! `IDS.json` is a list of the prompt's token ids. Prints one line of JSON: seconds until the first token is known, seconds
//! of the tokens after it, and how many there are in all. Threads are those of `RAYON_NUM_THREADS`.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufReader;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, ids, tokens] = arguments.as_slice() else {
        return Err("Give MODEL.gguf IDS.json TOKENS.".into());
    };
    let prompt: Vec<u32> = serde_json::from_str(&fs::read_to_string(ids)?)?;
    let tokens: usize = tokens.parse()?;

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
