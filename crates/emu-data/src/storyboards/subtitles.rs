//! Subtitles: SRT, WebVTT, JSON.

use crate::build::{Skip, tidy};
use crate::input::Value;

/// A line of subtitles.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cue {
    /// Start in seconds.
    pub start: f64,
    pub text: String,
}

/// Reads subtitles, sorted by their starts, by the extension of their file.
pub(super) fn parse(kind: &str, text: &str) -> Result<Vec<Cue>, Skip> {
    let mut cues = match kind {
        "json" => json(text)?,
        "vtt" => without_rolling(lines(text)),
        _ => lines(text),
    };
    if cues.is_empty() {
        return Err(Skip::plain("subtitles are empty or of no known form"));
    }
    for cue in &mut cues {
        cue.text = tidy(&cue.text);
    }
    cues.retain(|cue| !cue.text.is_empty());
    cues.sort_by(|a, b| a.start.total_cmp(&b.start));
    Ok(cues)
}

/// The cues of SRT and WebVTT, with line breaks within. What stands before the first times and after a blank line (numbers,
/// headers, notes, styles) is passed over.
fn lines(text: &str) -> Vec<Cue> {
    let mut cues: Vec<Cue> = vec![];
    let mut within = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(start) = start(line) {
            // without a blank line before it, the number of this cue looks like text of the last one
            if let Some(last) = cues.last_mut().filter(|_| within) {
                let (before, number) = last.text.rsplit_once('\n').unwrap_or(("", &last.text));
                if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
                    last.text = before.into();
                }
            }
            cues.push(Cue {
                start,
                text: String::new(),
            });
            within = true;
        } else if line.is_empty() {
            within = false;
        } else if let Some(cue) = cues.last_mut().filter(|_| within) {
            if !cue.text.is_empty() {
                cue.text.push('\n');
            }
            cue.text.push_str(&plain(line));
        }
    }
    cues
}

/// The start of a line of times: `[HH:]MM:SS[,.]mmm --> ...`.
fn start(line: &str) -> Option<f64> {
    let (start, end) = line.split_once("-->")?;
    let end = end.split_whitespace().next()?;
    seconds(end)?;
    seconds(start.trim())
}

fn seconds(time: &str) -> Option<f64> {
    let (sign, time) = match time.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, time),
    };
    let time = time.replace(',', ".");
    let mut total = 0.0;
    let mut parts = 0;
    for part in time.split(':') {
        let value: f64 = part
            .trim()
            .parse()
            .ok()
            .filter(|value: &f64| *value >= 0.0)?;
        total = total * 60.0 + value;
        parts += 1;
    }
    (2..=3).contains(&parts).then_some(sign * total)
}

/// A line without markup: the tags of SRT and WebVTT, times within a line, `{\an8}`, entities. Anything else in angle
/// brackets is text.
fn plain(line: &str) -> String {
    const TAGS: &[&str] = &["i", "b", "u", "s", "c", "v", "font", "lang", "ruby", "rt"];
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['<', '{']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (close, is_tag): (char, fn(&str) -> bool) = match tail.starts_with('<') {
            true => ('>', |inner| {
                let name = inner.trim_start_matches('/');
                let name = name.split([' ', '.']).next().unwrap_or_default();
                TAGS.contains(&name.to_ascii_lowercase().as_str()) || seconds(inner).is_some()
            }),
            false => ('}', |inner| inner.starts_with('\\')),
        };
        match tail.find(close) {
            Some(end) if is_tag(&tail[1..end]) => rest = &tail[end + 1..],
            _ => {
                out.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
    }
    out.push_str(rest);
    for (entity, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&nbsp;", " "),
        ("&lrm;", ""),
        ("&rlm;", ""),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ] {
        out = out.replace(entity, character);
    }
    out
}

/// Automatic captions roll: every cue repeats lines of the one before. Each line is kept where it comes first.
fn without_rolling(cues: Vec<Cue>) -> Vec<Cue> {
    let mut before: Vec<String> = vec![];
    let mut kept = vec![];
    for cue in cues {
        let now: Vec<String> = cue
            .text
            .lines()
            .map(tidy)
            .filter(|line| !line.is_empty())
            .collect();
        let new: Vec<String> = now
            .iter()
            .filter(|line| !before.contains(line))
            .cloned()
            .collect();
        if !new.is_empty() {
            kept.push(Cue {
                start: cue.start,
                text: new.join(" "),
            });
        }
        if !now.is_empty() {
            before = now;
        }
    }
    kept
}

/// A list of `text` and `start`, or an object of the lists `start` and `text` (HowTo100M).
fn json(text: &str) -> Result<Vec<Cue>, Skip> {
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| Skip::new("subtitles are damaged or cut short", error))?;
    let value = Value::from(value);
    let cue = |start: Option<&Value>, text: Option<&Value>| {
        Some(Cue {
            start: start?.number()?,
            text: text?.text()?,
        })
    };
    Ok(match &value {
        Value::List(cues) => cues
            .iter()
            .filter_map(|entry| cue(entry.field("start"), entry.field("text")))
            .collect(),
        object => {
            let starts = object.field("start").map(Value::list).unwrap_or_default();
            let texts = object.field("text").map(Value::list).unwrap_or_default();
            starts
                .iter()
                .zip(texts)
                .filter_map(|(start, text)| cue(Some(start), Some(text)))
                .collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cues(kind: &str, text: &str) -> Vec<(f64, String)> {
        let cues = parse(kind, text).expect("subtitles");
        cues.into_iter().map(|cue| (cue.start, cue.text)).collect()
    }

    fn expected(list: &[(f64, &str)]) -> Vec<(f64, String)> {
        list.iter().map(|(t, text)| (*t, (*text).into())).collect()
    }

    #[test]
    fn srt_with_tags_odd_order_and_missing_blank_lines() {
        let srt = "2\r\n00:01:00,500 --> 00:01:02,000\r\n<i>later</i>\r\nand more\r\n\r\n1\r\n00:00:01,000 --> 00:00:02,000\r\n{\\an8}first &amp; <image>\r\n3\r\n-00:00:01,250 --> 00:00:02,000\r\nnegative\r\n4\r\n01:00:00,000 --> 01:00:00,100\r\n \r\n";
        assert_eq!(
            cues("srt", srt),
            expected(&[
                (-1.25, "negative"),
                (1.0, "first & <image>"),
                (60.5, "later and more"),
            ])
        );
    }

    #[test]
    fn vtt_with_header_notes_settings_and_rolling_lines() {
        let vtt = "WEBVTT\nKind: captions\n\nNOTE a note\nof two lines\n\nSTYLE\n::cue { color: red }\n\n00:00.000 --> 00:02.000 align:start\n \nhello<00:00:00.500><c> and</c>\n\n00:02.000 --> 00:02.010\nhello and\n \n\nid\n00:02.010 --> 00:04.000\nhello and\nwelcome<00:00:03.000><c> all</c>\n";
        // a blank line within a cue ends it, so the first one is empty
        assert_eq!(
            cues("vtt", vtt),
            expected(&[(2.0, "hello and"), (2.01, "welcome all")])
        );
        let plain = "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<v Ann>No.\n\n00:00:03.000 --> 00:00:04.000\nNo.\n";
        assert_eq!(cues("vtt", plain), expected(&[(1.0, "No.")]));
    }

    #[test]
    fn json_lists_and_lists_in_an_object() {
        let list = r#"[{"text": "b", "start": 4, "duration": 1}, {"text": "a\nc", "start": 0.5}, {"text": null, "start": 1}, 3]"#;
        assert_eq!(cues("json", list), expected(&[(0.5, "a c"), (4.0, "b")]));
        let object = r#"{"start": [1, 2], "end": [2, 3], "text": ["x", "y"]}"#;
        assert_eq!(cues("json", object), expected(&[(1.0, "x"), (2.0, "y")]));
    }

    #[test]
    fn what_is_no_subtitle_is_told() {
        for (kind, text) in [
            ("json", "["),
            ("json", "{}"),
            ("srt", ""),
            ("srt", "hello"),
            ("vtt", "WEBVTT\n\n12 --> 13\nx"),
        ] {
            assert!(parse(kind, text).is_err(), "{kind} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\PC|\n|-->|00:01,0|<|\\{){0,40}") {
            for kind in ["srt", "vtt", "json"] {
                let _ = parse(kind, &text);
            }
        }
    }
}
