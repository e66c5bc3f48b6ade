//! Generated text, ranked candidates and regressed embeddings against the goldens.
//!
//! The original runs prompts as one padded batch; here each runs alone, so that equal results also show that padding
//! changes nothing.

use burn::tensor::{Int, Tensor, TensorData};
use emu_kernels::sample::Processors;
use serde_json::Value;

use super::core::Subject;
use super::{Bound, Goldens, ParityError, Row, compare, exact};
use crate::generate::{
    BeamOptions, BeamSearch, ImageEmbedder, Prompt, TextEvent, TextMachine, TextOptions,
    rank_losses,
};
use crate::tokenizer::{EmuTokenizer, Roles, expand_pictures, names};

/// A model with what it needs to generate from texts.
#[derive(Clone, Copy)]
pub struct Generator<'a> {
    /// Networks, sizes, device.
    pub subject: Subject<'a>,
    /// Texts to ids and back.
    pub tokenizer: &'a EmuTokenizer,
    /// `[B, Q, D]`, of the goldens' pictures in order.
    pub visual: &'a Tensor<3>,
}

/// Which tokens a tokenizer of the goldens needs.
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
/// Where a case is incomplete or a prompt does not fit.
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
        rows.extend(image(generator, goldens, name, case)?);
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

/// A case of generated text.
struct TextCase<'a> {
    /// Of its tensors.
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

/// Processed logits `[B, steps, V]`. A row that ended early runs on over padding in the original: not compared.
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

/// Sequences padded as the original pads them, and their texts.
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
            // The original has no room for the end of a sequence that is as long as may be.
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

/// Candidates by loss. The original takes them in segments; losses of different segments are divided by different
/// lengths and compared all the same.
async fn predict(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
) -> Result<Vec<Row>, ParityError> {
    let lacks = |what: &str| ParityError::Json(format!("predict.{name}.{what}"));
    let losses = case.get("losses").ok_or_else(|| lacks("losses"))?;
    let ranks = case.get("ranks").ok_or_else(|| lacks("ranks"))?;
    let candidates = case.get("candidates").ok_or_else(|| lacks("candidates"))?;
    let segments = case
        .get("n_segments")
        .and_then(Value::as_u64)
        .unwrap_or(1)
        .max(1) as usize;
    let listed: Vec<&str> = match case.get("prompt").ok_or_else(|| lacks("prompt"))? {
        Value::String(one) => vec![one.as_str(); list(ranks).len().max(1)],
        many => list(many).iter().filter_map(Value::as_str).collect(),
    };
    let own_candidates = list(candidates).iter().all(Value::is_array);
    let ids: Vec<Vec<u32>> = listed
        .iter()
        .map(|prompt| generator.tokenizer.encode(prompt))
        .collect::<Result<_, _>>()?;

    let mut kept = vec![];
    for pictures in generator.assignments(goldens, &listed, &ids, case) {
        let prompts = generator.prompts(&ids, &pictures)?;
        let mut found = vec![vec![]; prompts.len()];
        for (i, prompt) in prompts.iter().enumerate() {
            let texts = match own_candidates {
                true => list(candidates).get(i).map_or(&[][..], |own| list(own)),
                false => list(candidates),
            };
            for segment in split(texts, segments) {
                let tokens: Vec<Vec<u32>> = segment
                    .iter()
                    .map(|text| {
                        let text = text.as_str().unwrap_or_default();
                        generator.tokenizer.encode_without_bos(text)
                    })
                    .collect::<Result<_, _>>()?;
                let Subject { emu, config, .. } = generator.subject;
                found[i].extend(rank_losses(emu, config, prompt, &tokens).await?);
            }
        }
        let order: Vec<u64> = found.iter().flat_map(|losses| ascending(losses)).collect();
        let want: Vec<u64> = flat(ranks).into_iter().filter_map(Value::as_u64).collect();
        let rows = vec![
            exact(&format!("predict.{name}.ranks"), &order, &want),
            compare(
                &format!("predict.{name}.losses"),
                &found.concat(),
                &numbers(losses),
                Bound::Forward,
            ),
        ];
        if settled(&mut kept, rows) {
            break;
        }
    }
    Ok(kept)
}

/// Equal parts, the last one taking what is left.
fn split<T>(all: &[T], parts: usize) -> Vec<&[T]> {
    let size = all.len() / parts;
    (0..parts)
        .map(|i| match i + 1 == parts {
            true => &all[i * size..],
            false => &all[i * size..(i + 1) * size],
        })
        .collect()
}

fn ascending(losses: &[f32]) -> Vec<u64> {
    let mut order: Vec<u64> = (0..losses.len() as u64).collect();
    order.sort_by(|&a, &b| losses[a as usize].total_cmp(&losses[b as usize]));
    order
}

/// Embeddings regressed for a prompt and, where the case has one, for the empty prompt of guidance.
fn image(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
) -> Result<Vec<Row>, ParityError> {
    let Subject {
        emu,
        config,
        device,
    } = generator.subject;
    let q = config.causal.queries;
    let mut texts = vec![];
    for text in strings(case, "text")? {
        let marks = text.matches(crate::tokenizer::RELEASED_MARK).count();
        texts.push(expand_pictures(text, marks, q)?);
    }
    // White space before [IMG] is dropped, so it must be there when the text is encoded.
    let asks: Vec<String> = texts
        .iter()
        .map(|text| format!("{text}{}", names::IMG))
        .collect();
    let mut ids: Vec<Vec<u32>> = asks
        .iter()
        .map(|text| generator.tokenizer.encode(text))
        .collect::<Result<_, _>>()?;
    for row in &mut ids {
        row.pop();
    }

    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut kept = vec![];
    for pictures in generator.assignments(goldens, &refs, &ids, case) {
        let mut made = vec![];
        for prompt in generator.prompts(&ids, &pictures)? {
            made.push(ImageEmbedder::new(emu, config, &prompt)?.run().0);
        }
        let embeds = match made.is_empty() {
            true => Tensor::zeros([0, q, config.lm.width], device),
            false => Tensor::cat(made, 0), // [B, Q, D]
        };
        let mut rows = vec![];
        for key in goldens.names() {
            let Some(part) = key.strip_prefix(&format!("genimg.{name}.")) else {
                continue;
            };
            let step = part
                .strip_prefix("step")
                .and_then(|k| k.parse::<usize>().ok());
            match step {
                Some(k) if k < q => {
                    let so_far = embeds.clone().narrow(1, 0, k + 1);
                    rows.push(goldens.compare(key, &so_far, Bound::Forward));
                }
                None if part == "embeds" => {
                    rows.push(goldens.compare(key, &embeds, Bound::Forward));
                }
                _ => {}
            }
        }
        if settled(&mut kept, rows) {
            break;
        }
    }
    kept.extend(final_prompts(generator, goldens, name, case, &texts, &ids)?);
    Ok(kept)
}

/// What the original's last run reads: the prompt, [IMG], all embeddings but the last; padded on the right.
fn final_prompts(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
    texts: &[String],
    ids: &[Vec<u32>],
) -> Result<Vec<Row>, ParityError> {
    let config = generator.subject.config;
    let (special, fed) = (&config.special, config.causal.queries.saturating_sub(1));
    let mut rows = vec![];
    let full: Vec<Vec<u32>> = ids
        .iter()
        .map(|row| {
            let tail = std::iter::once(special.img).chain(std::iter::repeat_n(special.image, fed));
            row.iter().copied().chain(tail).collect()
        })
        .collect();
    let width = full.iter().map(Vec::len).max().unwrap_or(0);
    let padded = |fill: u32, value: &dyn Fn(u32) -> u32| -> Vec<u32> {
        let row = |row: &Vec<u32>| {
            let mut row: Vec<u32> = row.iter().map(|&id| value(id)).collect();
            row.resize(width, fill);
            row
        };
        full.iter().flat_map(row).collect()
    };
    for (part, got) in [
        ("final_input_ids", padded(special.pad, &|id| id)),
        ("final_attention_mask", padded(0, &|_| 1)),
    ] {
        let key = format!("genimg.{name}.{part}");
        if goldens.has(&key) {
            rows.push(exact(&key, &got, &goldens.token_rows(&key)?.concat()));
        }
    }
    if let Some(want) = case.get("final_text") {
        let got: Vec<String> = texts
            .iter()
            .map(|text| format!("{text}{}{}", names::IMG, names::IMAGE.repeat(fed)))
            .collect();
        let want: Vec<&str> = list(want).iter().filter_map(Value::as_str).collect();
        let got: Vec<&str> = got.iter().map(String::as_str).collect();
        rows.push(exact(&format!("genimg.{name}.final_text"), &got, &want));
    }
    Ok(rows)
}

/// Keeps the rows of the first assignment of pictures, or of the one that fits; true when it does.
fn settled(kept: &mut Vec<Row>, rows: Vec<Row>) -> bool {
    let fits = rows.iter().all(Row::passes);
    if fits || kept.is_empty() {
        *kept = rows;
    }
    fits
}

impl Generator<'_> {
    /// Which pictures may be meant, as lists of their numbers for all prompts in order.
    ///
    /// A case either lists them or says only how many there are. In the latter case the goldens' `texts` tell: a
    /// prompt that begins one of them has its pictures. Where none does, the first or the last so many are meant;
    /// the numbers decide between these, which they do beyond doubt.
    fn assignments(
        &self,
        goldens: &Goldens<'_>,
        prompts: &[&str],
        ids: &[Vec<u32>],
        case: &Value,
    ) -> Vec<Vec<usize>> {
        let rows = case.get("image_rows").unwrap_or(&Value::Null);
        if let Some(listed) = rows.as_array() {
            let listed = listed.iter().filter_map(Value::as_u64);
            return vec![listed.map(|i| i as usize).collect()];
        }
        let wanted: Vec<usize> = ids.iter().map(|row| self.pictures_in(row)).collect();
        let n: usize = wanted.iter().sum();
        let [held, ..] = self.visual.dims();
        if n == 0 || n > held {
            return vec![(0..n).collect()];
        }
        let mut found: Vec<Vec<usize>> = vec![];
        found.extend(by_texts(goldens, prompts, &wanted));
        found.push((0..n).collect());
        found.push((held - n..held).collect());
        // One picture for several prompts, or any other single one.
        if n == 1 {
            found.extend((0..held).map(|i| vec![i]));
        }
        let mut distinct: Vec<Vec<usize>> = vec![];
        for list in found {
            if !distinct.contains(&list) {
                distinct.push(list);
            }
        }
        distinct
    }

    fn pictures_in(&self, ids: &[u32]) -> usize {
        let config = self.subject.config;
        let marks = ids.iter().filter(|&&id| id == config.special.image).count();
        marks / config.causal.queries.max(1)
    }

    /// Prompts with their pictures, which are handed out in order.
    fn prompts(&self, ids: &[Vec<u32>], pictures: &[usize]) -> Result<Vec<Prompt>, ParityError> {
        let [held, ..] = self.visual.dims();
        if let Some(&absent) = pictures.iter().find(|&&i| i >= held) {
            return Err(ParityError::Json(format!(
                "image_rows: there is no picture {absent}"
            )));
        }
        let mut rest = pictures.iter();
        let prompt = |ids: &Vec<u32>| {
            let own = rest.by_ref().take(self.pictures_in(ids));
            let own: Vec<i32> = own.map(|&i| i as i32).collect();
            let visual = (!own.is_empty()).then(|| {
                let n = own.len();
                let index = TensorData::new(own, [n]);
                let index: Tensor<1, Int> = Tensor::from_data(index, self.subject.device);
                self.visual.clone().select(0, index)
            });
            Prompt {
                ids: ids.clone(),
                visual,
            }
        };
        Ok(ids.iter().map(prompt).collect())
    }
}

/// The pictures of the texts that prompts begin, if each prompt with pictures begins one.
fn by_texts(goldens: &Goldens<'_>, prompts: &[&str], wanted: &[usize]) -> Option<Vec<usize>> {
    let texts = list(goldens.json.get("texts")?);
    let mut starts = vec![];
    let mut next = 0;
    for text in texts {
        let text = text.as_str()?;
        starts.push((text, next));
        next += text.matches(names::END_IMG).count();
    }
    let mut pictures = vec![];
    for (prompt, &n) in prompts.iter().zip(wanted).filter(|(_, n)| **n > 0) {
        let (_, start) = starts.iter().find(|(text, _)| text.starts_with(prompt))?;
        pictures.extend(*start..start + n);
    }
    Some(pictures)
}

/// The elements of a list; none of anything else.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The leaves of nested lists, in order.
fn flat(value: &Value) -> Vec<&Value> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(flat).collect(),
        None => vec![value],
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    let leaves = flat(value).into_iter();
    leaves
        .map(|v| v.as_f64().map_or(f32::NAN, |n| n as f32))
        .collect()
}

fn json_rows(value: Option<&Value>) -> Option<Vec<Vec<u32>>> {
    serde_json::from_value(value?.clone()).ok()
}

fn strings<'a>(value: &'a Value, key: &str) -> Result<Vec<&'a str>, ParityError> {
    let texts = value.get(key).and_then(Value::as_array);
    let texts = texts.and_then(|texts| texts.iter().map(Value::as_str).collect());
    texts.ok_or_else(|| ParityError::Json(format!("list of texts {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_take_what_is_left() {
        assert_eq!(split(&[1, 2, 3, 4, 5], 2), [&[1, 2][..], &[3, 4, 5]]);
        assert_eq!(split(&[1, 2], 1), [&[1, 2]]);
    }

    #[test]
    fn a_failing_assignment_is_kept_only_until_one_fits() {
        let (bad, good) = (Row::new("a", 2.0, 1.0), Row::new("a", 0.0, 1.0));
        let mut kept = vec![];
        assert!(!settled(&mut kept, vec![bad.clone()]));
        assert_eq!(kept, [bad]);
        assert!(settled(&mut kept, vec![good.clone()]));
        assert_eq!(kept, [good]);
    }
}
