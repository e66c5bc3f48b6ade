//! Generated text, ranked candidates and regressed embeddings against the goldens.
//!
//! The original runs prompts as one padded batch; here each runs alone. Equal results thus also show that padding has
//! no effect.

use emu_kernels::sample::Processors;
use emu_tokenizer::Roles;
use serde_json::Value;

use super::cases::{json_rows, list, numbers, settled, strings};
use super::core::Subject;
use super::embed::image;
use super::predict::predict;
use super::{Bound, Goldens, ParityError, Row, compare, exact};
use crate::generate::{BeamOptions, BeamSearch, Prompt, TextEvent, TextMachine, TextOptions};

pub use super::generator::Generator;

/// Special tokens of the goldens' tokenizer.
pub fn roles(instruct: bool) -> Roles {
    if instruct {
        Roles::Instruct
    } else {
        Roles::Pretrain
    }
}

/// Every case of the JSON's `generate`, `predict` and `generate_image`.
///
/// # Errors
/// If a case is incomplete or a prompt exceeds the context.
pub async fn all(generator: Generator<'_>, goldens: &Goldens<'_>) -> Result<Vec<Row>, ParityError> {
    let mut rows = vec![];
    for (name, case) in goldens.cases("generate") {
        let prompts = strings(case, "prompts")?;
        let case = TextCase::new(format!("gen.{name}"), prompts, case)?;
        rows.extend(text(generator, goldens, &case).await?);
    }
    for (name, case) in goldens.cases("predict") {
        rows.extend(predict(generator, goldens, name, case).await?);
    }
    for (name, case) in goldens.cases("generate_image") {
        rows.extend(image(generator, goldens, name, case).await?);
    }
    Ok(rows)
}

/// The instruction-tuned model's cases: `generate_<name>` of the JSON's `instruct`, all on its `texts`.
///
/// # Errors
/// As [`all`].
pub async fn instruct(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
) -> Result<Vec<Row>, ParityError> {
    let mut rows = vec![];
    for (key, case) in goldens.cases("instruct") {
        let Some(name) = key.strip_prefix("generate_") else {
            continue;
        };
        let prompts = strings(
            goldens.json.get("instruct").unwrap_or(&Value::Null),
            "texts",
        )?;
        let case = TextCase::new(format!("instruct.gen.{name}"), prompts, case)?;
        rows.extend(text(generator, goldens, &case).await?);
    }
    Ok(rows)
}

/// A case of text generation.
struct TextCase<'a> {
    /// Prefix of its tensors.
    prefix: String,
    prompts: Vec<&'a str>,
    json: &'a Value,
    beams: usize,
    captions: usize,
    max_new_tokens: usize,
    length_penalty: f32,
    processors: Processors,
}

impl<'a> TextCase<'a> {
    fn new(prefix: String, prompts: Vec<&'a str>, json: &'a Value) -> Result<Self, ParityError> {
        let known = [
            "num_beams",
            "max_new_tokens",
            "num_captions",
            "length_penalty",
            "repetition_penalty",
            "no_repeat_ngram_size",
            "min_length",
        ];
        let kwargs = json.get("kwargs").and_then(Value::as_object);
        let kwargs = kwargs.ok_or_else(|| ParityError::Json(format!("{prefix} kwargs")))?;
        if let Some(key) = kwargs.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(ParityError::Json(format!(
                "{prefix} kwargs: {key} is unknown"
            )));
        }
        let size = |key: &str, default: usize| match kwargs.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .map(|n| n as usize)
                .ok_or_else(|| ParityError::Json(format!("{prefix} {key}"))),
        };
        let number = |key: &str, default: f64| match kwargs.get(key) {
            None => Ok(default as f32),
            Some(value) => value
                .as_f64()
                .map(|n| n as f32)
                .ok_or_else(|| ParityError::Json(format!("{prefix} {key}"))),
        };
        Ok(Self {
            beams: size("num_beams", 5)?,
            captions: size("num_captions", 1)?,
            max_new_tokens: size("max_new_tokens", 50)?,
            length_penalty: number("length_penalty", 0.0)?,
            processors: Processors {
                repetition_penalty: number("repetition_penalty", 1.0)?,
                no_repeat_ngram: size("no_repeat_ngram_size", 0)?,
                min_length: size("min_length", 1)?,
                ..Processors::default()
            },
            prefix,
            prompts,
            json,
        })
    }
}

async fn text(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    case: &TextCase<'_>,
) -> Result<Vec<Row>, ParityError> {
    let ids: Vec<Vec<u32>> = case
        .prompts
        .iter()
        .map(|prompt| generator.tokenizer.encode(prompt))
        .collect::<Result<_, _>>()?;
    let mut kept = vec![];
    for pictures in generator.assignments(goldens, &case.prompts, &ids, case.json) {
        let prompts = generator.prompts(&ids, &pictures)?;
        let rows = match case.beams {
            1 => greedy(generator, goldens, case, &prompts).await?,
            _ => beams(generator, goldens, case, &prompts).await?,
        };
        if settled(&mut kept, rows) {
            break;
        }
    }
    Ok(kept)
}

async fn greedy(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    case: &TextCase<'_>,
    prompts: &[Prompt],
) -> Result<Vec<Row>, ParityError> {
    let Subject { emu, config, .. } = generator.subject;
    let options = TextOptions {
        max_new_tokens: case.max_new_tokens,
        processors: case.processors.clone(),
        images: false,
        ban_images: false,
        keep_logits: true,
        ..Default::default()
    };
    let (mut sequences, mut scores) = (vec![], vec![]);
    for prompt in prompts {
        let mut machine = TextMachine::new(emu, config, prompt, options.clone())?;
        let mut steps: Vec<Vec<f32>> = vec![];
        while let TextEvent::Token(_) = machine.step().await? {
            steps.extend(machine.processed().map(<[f32]>::to_vec));
        }
        sequences.push(machine.sequence().to_vec());
        scores.push(steps);
    }
    let mut rows = compare_sequences(generator, goldens, case, &sequences)?;
    let name = format!("{}.scores", case.prefix);
    if goldens.has(&name) {
        rows.push(compare_scores(goldens, &name, &scores)?);
    }
    Ok(rows)
}

/// Compares processed logits `[B, steps, V]`. After an early end the original continues over padding, which is not
/// compared.
fn compare_scores(
    goldens: &Goldens<'_>,
    name: &str,
    scores: &[Vec<Vec<f32>>],
) -> Result<Row, ParityError> {
    let (shape, want) = goldens.floats(name)?;
    let &[batch, steps, vocab] = shape.as_slice() else {
        let tensor = name.into();
        return Err(ParityError::Shape { tensor, shape });
    };
    if scores.len() != batch || scores.iter().any(|row| row.len() > steps) {
        return Ok(Row::failed(
            name,
            "another number of rows or steps was generated",
        ));
    }
    let (mut got, mut kept) = (vec![], vec![]);
    for (row, want) in scores.iter().zip(want.chunks((steps * vocab).max(1))) {
        got.extend(row.iter().flatten().copied());
        kept.extend(want.iter().take(row.len() * vocab).copied());
    }
    Ok(compare(name, &got, &kept, Bound::Forward))
}

async fn beams(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    case: &TextCase<'_>,
    prompts: &[Prompt],
) -> Result<Vec<Row>, ParityError> {
    let Subject { emu, config, .. } = generator.subject;
    let options = BeamOptions {
        beams: case.beams,
        max_new_tokens: case.max_new_tokens,
        length_penalty: case.length_penalty,
        processors: case.processors.clone(),
        ban_images: false,
    };
    let (mut sequences, mut scores) = (vec![], vec![]);
    for prompt in prompts {
        let found = BeamSearch::new(emu, config, prompt, options.clone())?
            .run()
            .await?;
        for hypothesis in found.into_iter().take(case.captions) {
            sequences.push(hypothesis.tokens);
            scores.push(hypothesis.score);
        }
    }
    let mut rows = compare_sequences(generator, goldens, case, &sequences)?;
    if let Some(want) = case.json.get("sequences_scores") {
        let name = format!("{}.sequences_scores", case.prefix);
        rows.push(compare(&name, &scores, &numbers(want), Bound::Forward));
    }
    Ok(rows)
}

/// Compares sequences, padded as in the original, and their texts.
fn compare_sequences(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    case: &TextCase<'_>,
    sequences: &[Vec<u32>],
) -> Result<Vec<Row>, ParityError> {
    let special = &generator.subject.config.special;
    let name = format!("{}.sequences", case.prefix);
    let want = match goldens.has(&name) {
        true => goldens.token_rows(&name)?,
        false => json_rows(case.json.get("sequences"))
            .ok_or_else(|| ParityError::Json(format!("{name} in it")))?,
    };
    let width = want.iter().map(Vec::len).max().unwrap_or(0);
    let padded: Vec<Vec<u32>> = sequences
        .iter()
        .map(|row| {
            let mut row = row.clone();
            // The original has no room for the end token of a sequence of maximum length.
            if row.len() == width + 1 && row.last() == Some(&special.eos) {
                row.pop();
            }
            row.resize(width.max(row.len()), special.pad);
            row
        })
        .collect();
    let mut rows = vec![exact(&name, &padded.concat(), &want.concat())];
    if let Some(want) = case.json.get("text") {
        let got: Vec<String> = sequences
            .iter()
            .map(|row| generator.tokenizer.decode(row, true))
            .collect::<Result<_, _>>()?;
        let want: Vec<String> = list(want)
            .iter()
            .map(|t| t.as_str().unwrap_or_default().into())
            .collect();
        rows.push(exact(&format!("{}.text", case.prefix), &got, &want));
    }
    Ok(rows)
}
