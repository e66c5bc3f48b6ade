//! The forms of conversations, and their common form.

use serde::Serialize;

use super::options::Place;
use crate::build::Skip;
use crate::input::Value;
use crate::record::Role;

const IMAGE: &str = "<image>";
const VIDEO: &str = "<video>";
/// Fields of the pictures of a record.
const IMAGES: &[&str] = &[
    "image",
    "images",
    "image_path",
    "img",
    "img_path",
    "image_file",
    "jpg",
    "png",
];

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) enum Piece {
    Text(String),
    /// A picture, by its index in the record.
    Image(usize),
    /// All frames of the video.
    Video,
}

/// Turns in their common form. Before [`Spoken::place`], marks are text.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Spoken {
    pub system: Option<String>,
    pub turns: Vec<(Role, Vec<Piece>)>,
}

/// What a record shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Media {
    pub images: Vec<Value>,
    pub video: Option<String>,
}

/// Reads a record of any form.
pub(super) fn read(record: &Value) -> Result<(Spoken, Media), Skip> {
    let mut media = media(record);
    let mut spoken = Spoken {
        system: record
            .text_of("system")
            .filter(|text| !text.trim().is_empty()),
        turns: vec![],
    };
    if let Some(turns) = record.any_field(&["conversations", "messages", "conversation"]) {
        let turns = written(turns)?;
        for turn in turns.list() {
            said(turn, &mut spoken, &mut media)?;
        }
    } else if let Some(pairs) = record.field("texts").or_else(|| record.field("QA")) {
        for pair in pairs.list() {
            let texts = [
                pair.any_field(&["user", "q", "question"]),
                pair.any_field(&["assistant", "a", "answer"]),
            ];
            let [Some(question), Some(answer)] = texts.map(|text| text?.text()) else {
                return Err(Skip::new("turn without question or answer", pair.names()));
            };
            spoken.push(Role::User, question);
            spoken.push(Role::Assistant, answer);
        }
    } else if let Some(answer) = record.text_of("output") {
        let Some(instruction) = record.text_of("instruction") else {
            return Err(Skip::new("no instruction", record.names()));
        };
        let input = record.text_of("input").unwrap_or_default();
        spoken.push(
            Role::User,
            match input.trim() {
                "" => instruction,
                input => format!("{instruction}\n{input}"),
            },
        );
        spoken.push(Role::Assistant, answer);
    } else {
        let question = record.any_field(&["q", "question"]).and_then(Value::text);
        let answer = record.any_field(&["a", "answer"]).and_then(Value::text);
        let (Some(question), Some(answer)) = (question, answer) else {
            return Err(Skip::new("record of an unknown form", record.names()));
        };
        spoken.push(Role::User, question);
        spoken.push(Role::Assistant, answer);
    }
    Ok((spoken, media))
}

/// A list, or one that is written as JSON (in CSV and parquet).
fn written(turns: &Value) -> Result<Value, Skip> {
    match turns {
        Value::Text(text) => serde_json::from_str::<serde_json::Value>(text)
            .map(Value::from)
            .map_err(|error| Skip::new("turns are no JSON", error)),
        other => Ok(other.clone()),
    }
}

/// One turn of `conversations` or `messages`.
fn said(turn: &Value, spoken: &mut Spoken, media: &mut Media) -> Result<(), Skip> {
    let Some(name) = turn.any_field(&["from", "role"]).and_then(Value::text) else {
        return Err(Skip::new("turn without a role", turn.names()));
    };
    let role = match name.to_ascii_lowercase().as_str() {
        "human" | "user" => Some(Role::User),
        "gpt" | "chatgpt" | "bing" | "bard" | "assistant" | "model" => Some(Role::Assistant),
        "system" => None,
        _ => return Err(Skip::new("turn of an unknown role", name)),
    };
    let text = match turn.any_field(&["value", "content"]) {
        Some(Value::List(parts)) => parts
            .iter()
            .map(|part| listed(part, media))
            .collect::<Result<Vec<_>, _>>()?
            .join("\n"),
        Some(value) => value.text().unwrap_or_default(),
        None => String::new(),
    };
    match role {
        Some(role) => spoken.push(role, text),
        // the first system text counts; a record's own field comes first
        None => {
            spoken.system = spoken
                .system
                .take()
                .or(Some(text).filter(|text| !text.trim().is_empty()))
        }
    }
    Ok(())
}

/// A part of a content list: its text, or a mark with the picture that it has with it.
fn listed(part: &Value, media: &mut Media) -> Result<String, Skip> {
    let kind = part.text_of("type").unwrap_or_default();
    match kind.as_str() {
        "text" | "input_text" | "output_text" => Ok(part.text_of("text").unwrap_or_default()),
        "image" | "image_url" | "input_image" => {
            let named = part.any_field(&["image_url", "image", "url", "path"]);
            // without a name the picture is the next one of the record's list
            if let Some(value) = named {
                media.images.push(match value.field("url") {
                    Some(url) => url.clone(),
                    None => value.clone(),
                });
            }
            Ok(IMAGE.into())
        }
        "video" => {
            media.video = media.video.take().or(part.text_of("video"));
            Ok(VIDEO.into())
        }
        "" => part
            .text()
            .ok_or_else(|| Skip::new("content of an unknown form", part.names())),
        other => Err(Skip::new("content of an unknown form", other)),
    }
}

fn media(record: &Value) -> Media {
    let mut images = vec![];
    for name in IMAGES {
        match record.field(name) {
            Some(Value::List(list)) => {
                images.extend(list.iter().filter(|v| **v != Value::Null).cloned())
            }
            // an empty name stands for no picture
            Some(Value::Text(text)) if text.trim().is_empty() => {}
            Some(value) => images.push(value.clone()),
            None => continue,
        }
        break;
    }
    let video = record
        .any_field(&["video", "videos", "video_id"])
        .and_then(|value| value.texts().into_iter().next())
        .filter(|name| !name.trim().is_empty());
    Media { images, video }
}

impl Spoken {
    fn push(&mut self, role: Role, text: String) {
        self.turns.push((role, vec![Piece::Text(text)]));
    }

    /// Replaces the marks in the user's turns by `images` pictures or the video. Without any mark they come first.
    pub fn place(&mut self, images: usize, video: bool, place: Place) -> Result<(), Skip> {
        let (mark, wanted) = match (images, video) {
            (0, false) => return Ok(()),
            (0, true) => (VIDEO, 1),
            (images, _) => (IMAGE, images),
        };
        let mut next = 0;
        for (_, pieces) in self
            .turns
            .iter_mut()
            .filter(|(role, _)| *role == Role::User)
        {
            let mut split = vec![];
            for piece in pieces.drain(..) {
                let Piece::Text(text) = piece else {
                    split.push(piece);
                    continue;
                };
                for (i, text) in text.split(mark).enumerate() {
                    if i > 0 {
                        split.push(match video {
                            true => Piece::Video,
                            false => Piece::Image(next),
                        });
                        next += 1;
                    }
                    split.push(Piece::Text(text.into()));
                }
            }
            *pieces = split;
        }
        if next == 0 {
            let first = self.turns.iter_mut().find(|(role, _)| *role == Role::User);
            let Some((_, pieces)) = first else {
                return Err(Skip::plain("no question"));
            };
            let shown = (0..wanted).map(|i| match video {
                true => Piece::Video,
                false => Piece::Image(i),
            });
            drop(pieces.splice(0..0, shown));
        } else if next != wanted {
            let detail = format!("{next} marks {mark}, {wanted} files");
            return Err(Skip::new("marks and pictures differ in number", detail));
        }
        if place == Place::First {
            for (_, pieces) in &mut self.turns {
                // stable: pictures and texts keep their orders
                pieces.sort_by_key(|piece| matches!(piece, Piece::Text(_)));
            }
        }
        Ok(())
    }

    /// Brings the turns into the order user, assistant, user, ...: what an assistant says first and a question without an
    /// answer are left out, turns of one role in a row become one. Texts are trimmed, empty ones left out.
    pub fn alternate(&mut self) -> Result<(), Skip> {
        let mut turns: Vec<(Role, Vec<Piece>)> = vec![];
        for (role, pieces) in self.turns.drain(..) {
            let mut kept = vec![];
            for piece in pieces {
                match piece {
                    Piece::Text(text) => match (text.trim(), kept.last_mut()) {
                        ("", _) => {}
                        (text, Some(Piece::Text(last))) => {
                            last.push('\n');
                            last.push_str(text);
                        }
                        (text, _) => kept.push(Piece::Text(text.into())),
                    },
                    other => kept.push(other),
                }
            }
            if kept.is_empty() {
                continue;
            }
            match turns.last_mut() {
                None if role == Role::Assistant => {}
                Some((last, pieces)) if *last == role => pieces.extend(kept),
                _ => turns.push((role, kept)),
            }
        }
        if turns.last().is_some_and(|(role, _)| *role == Role::User) {
            turns.pop();
        }
        self.turns = turns;
        match self.turns.is_empty() {
            true => Err(Skip::plain("no question with an answer")),
            false => Ok(()),
        }
    }

    /// Leaves out the rounds after the one that would be too long.
    pub fn shorten(&mut self, max_words: usize) -> Result<(), Skip> {
        let mut words = self.system.as_deref().map_or(0, count);
        let mut kept = 0;
        for round in self.turns.chunks(2) {
            words += round
                .iter()
                .map(|(_, pieces)| spoken(pieces))
                .sum::<usize>();
            if words > max_words {
                break;
            }
            kept += round.len();
        }
        if kept == 0 {
            let detail = format!("{words} words in the first round");
            return Err(Skip::new("conversation is too long", detail));
        }
        self.turns.truncate(kept);
        Ok(())
    }

    /// Number of words of a role.
    pub fn words(&self, role: Role) -> usize {
        let turns = self.turns.iter().filter(|(other, _)| *other == role);
        turns.map(|(_, pieces)| spoken(pieces)).sum()
    }
}

fn spoken(pieces: &[Piece]) -> usize {
    let texts = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => count(text),
        Piece::Image(_) | Piece::Video => 0,
    });
    texts.sum()
}

fn count(text: &str) -> usize {
    text.split_whitespace().count()
}
