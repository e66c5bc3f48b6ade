//! Token ids and decoded texts against the goldens.

use emu_tokenizer::{EmuTokenizer, Side, names};
use serde_json::Value;

use super::{ParityError, Row, exact};

/// Texts with their `ids` (starting with `<s>`) and decoded forms, one row per kind of comparison: the error is the
/// number of texts that differ.
///
/// # Errors
/// If a case lacks its text or ids, or the tokenizer fails.
pub fn cases(
    name: &str,
    tokenizer: &EmuTokenizer,
    cases: &[Value],
) -> Result<Vec<Row>, ParityError> {
    let lacks = |what: &str| ParityError::Json(format!("{what} in {name}"));
    let (mut encoded, mut skipped, mut marked) = (
        Compared::default(),
        Compared::default(),
        Compared::default(),
    );
    for case in cases {
        let text = case.get("text").and_then(Value::as_str);
        let text = text.ok_or_else(|| lacks("text"))?;
        let ids = case.get("ids").and_then(ids).ok_or_else(|| lacks("ids"))?;
        encoded.add(text, &tokenizer.encode(text)?, Some(&ids));
        let decoded = |key: &str| case.get(key).and_then(Value::as_str).map(str::to_owned);
        skipped.add(
            text,
            &tokenizer.decode(&ids, true)?,
            decoded("decode_skip_special").as_ref(),
        );
        marked.add(
            text,
            &tokenizer.decode(&ids, false)?,
            decoded("decode_keep_special").as_ref(),
        );
    }
    let parts = [
        ("ids", encoded),
        ("decode", skipped),
        ("decode_keep_special", marked),
    ];
    let rows = parts.into_iter().filter(|(_, compared)| compared.made > 0);
    Ok(rows
        .map(|(part, compared)| compared.row(format!("{name}.{part}")))
        .collect())
}

/// Number of comparisons, and the texts that differ.
#[derive(Default)]
struct Compared {
    made: usize,
    different: Vec<String>,
}

impl Compared {
    fn add<T: PartialEq>(&mut self, text: &str, got: &T, want: Option<&T>) {
        if let Some(want) = want {
            self.made += 1;
            if got != want {
                self.different.push(text.to_owned());
            }
        }
    }

    fn row(self, name: String) -> Row {
        let mut row = Row::new(name, self.different.len() as f64, 0.0);
        if let Some(first) = self.different.first() {
            row.note = Some(format!("{first:?} is the first that differs"));
        }
        row
    }
}

/// Ids of the special tokens, and rows padded on either side.
///
/// # Errors
/// If a row of the JSON is not a list, or the tokenizer fails.
pub fn specials_and_padding(
    name: &str,
    tokenizer: &EmuTokenizer,
    special_ids: Option<&Value>,
    padding: Option<&Value>,
) -> Result<Vec<Row>, ParityError> {
    let mut rows = vec![];
    if let Some(special) = special_ids.and_then(Value::as_object) {
        let wrong = special
            .iter()
            .filter(|(token, id)| tokenizer.token_to_id(token).map(u64::from) != id.as_u64());
        rows.push(Row::new(
            format!("{name}.special_ids"),
            wrong.count() as f64,
            0.0,
        ));
        let known = special.contains_key(names::IMAGE);
        if !known {
            rows.push(Row::failed(
                format!("{name}.special_ids"),
                "<image> is not among them",
            ));
        }
    }
    for (key, side) in [("left", Side::Left), ("right", Side::Right)] {
        let Some(case) = padding.and_then(|p| p.get(key)) else {
            continue;
        };
        let lacks = |what: &str| ParityError::Json(format!("padding.{key}.{what}"));
        let texts = case.get("texts").and_then(Value::as_array);
        let texts = texts.ok_or_else(|| lacks("texts"))?;
        let batch: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| tokenizer.encode(text.as_str().unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        let padded = tokenizer.pad(&batch, side);
        let ids = case.get("input_ids").and_then(table);
        let mask = case.get("attention_mask").and_then(table);
        let got: Vec<Vec<u32>> = padded
            .mask
            .iter()
            .map(|row| row.iter().map(|&m| m.into()).collect())
            .collect();
        let part = |part: &str| format!("{name}.padding.{key}.{part}");
        rows.push(exact(
            &part("input_ids"),
            &padded.ids,
            &ids.ok_or_else(|| lacks("input_ids"))?,
        ));
        rows.push(exact(
            &part("attention_mask"),
            &got,
            &mask.ok_or_else(|| lacks("attention_mask"))?,
        ));
    }
    Ok(rows)
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    serde_json::from_value(value.clone()).ok()
}

fn table(value: &Value) -> Option<Vec<Vec<u32>>> {
    serde_json::from_value(value.clone()).ok()
}
