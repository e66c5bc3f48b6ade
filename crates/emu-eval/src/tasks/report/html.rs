//! The report as one page: no scripts, no other files but pictures without a thumbnail.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use super::view::{Card, Section, Thumbnail, beside, coverage, number, shots};
use crate::tasks::model::{Media, MediaKind};
use crate::tasks::published::LEGEND;
use crate::tasks::result::TaskResult;

const STYLE: &str = include_str!("style.css");

pub(super) fn write(
    result: &TaskResult,
    sections: &[Section],
    folder: &Path,
    thumbnail: &mut dyn FnMut(&Media) -> Option<Thumbnail>,
) -> String {
    let mut out = String::new();
    let mut page = Page {
        out: &mut out,
        folder,
        thumbnail,
        shown: HashMap::new(),
    };
    // Writing to a String cannot fail.
    let _ = page.compose(result, sections);
    out
}

struct Page<'a> {
    out: &'a mut String,
    folder: &'a Path,
    thumbnail: &'a mut dyn FnMut(&Media) -> Option<Thumbnail>,
    /// Pictures by name: several questions may be about one.
    shown: HashMap<String, String>,
}

impl Page<'_> {
    fn compose(&mut self, result: &TaskResult, sections: &[Section]) -> std::fmt::Result {
        let title = format!(
            "{} ({}), {}",
            result.task.title(),
            result.split,
            shots(result)
        );
        write!(
            self.out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n",
            text(&title)
        )?;
        writeln!(
            self.out,
            "<p>Model <b>{}</b>, preset <b>{}</b></p>",
            text(&result.model),
            text(&result.preset)
        )?;
        if let Some(metric) = result.metrics.first() {
            write!(
                self.out,
                "<p class=\"score\"><strong>{}</strong> {}",
                number(metric.value),
                text(&metric.name)
            )?;
            if let Some(interval) = metric.interval {
                let level = interval.level * 100.0;
                write!(
                    self.out,
                    " <small>{level:.0}% interval {} to {}</small>",
                    number(interval.low),
                    number(interval.high)
                )?;
            }
            writeln!(self.out, "</p>")?;
        }
        let class = if result.complete {
            "complete"
        } else {
            "incomplete"
        };
        writeln!(
            self.out,
            "<p class=\"{class}\">{}</p>\n</header>\n<main>",
            text(&coverage(result))
        )?;
        self.beside(result)?;
        self.tables(result)?;
        for section in sections {
            writeln!(
                self.out,
                "<section>\n<h2>{}</h2>\n<div class=\"cards\">",
                section.title
            )?;
            for card in &section.cards {
                self.card(card)?;
            }
            writeln!(self.out, "</div>\n</section>")?;
        }
        let settings = format!("{:#}", result.settings);
        writeln!(
            self.out,
            "<details>\n<summary>Settings</summary>\n<pre>{}</pre>\n</details>",
            text(&settings)
        )?;
        writeln!(self.out, "</main>\n</body>\n</html>")
    }

    /// Bars of our number and the paper's.
    fn beside(&mut self, result: &TaskResult) -> std::fmt::Result {
        if result.metrics.is_empty() {
            return writeln!(
                self.out,
                "<p>The references of this split are not public: the submission file is scored by a server.</p>"
            );
        }
        if result.published.is_empty() {
            return Ok(());
        }
        let rows = beside(result);
        let most = rows
            .iter()
            .map(|row| row.value.max(row.interval.map_or(0.0, |(_, high)| high)))
            .fold(1e-9, f64::max);
        let share = |value: f64| (value / most * 100.0).clamp(0.0, 100.0);
        writeln!(
            self.out,
            "<section>\n<h2>Beside the paper</h2>\n<table class=\"bars\">"
        )?;
        for row in rows {
            let class = match (row.mark, row.counterpart) {
                (None, _) => "ours",
                (_, true) => "same",
                _ => "",
            };
            let range = row.interval.map_or(String::new(), |(low, high)| {
                let (from, width) = (share(low), share(high) - share(low));
                format!("<i style=\"left:{from:.2}%;width:{width:.2}%\"></i>")
            });
            let mark = row.mark.map_or("", |mark| mark.symbol());
            let same = if row.counterpart {
                " <small>same setting</small>"
            } else {
                ""
            };
            writeln!(
                self.out,
                "<tr class=\"{class}\"><th>{}{same}</th><td class=\"bar\"><div><b style=\"width:{:.2}%\"></b>{range}</div></td>\
                 <td class=\"n\">{}</td><td>{mark}</td></tr>",
                text(&row.label),
                share(row.value),
                number(row.value),
            )?;
        }
        writeln!(
            self.out,
            "</table>\n<p class=\"legend\">{}</p>\n</section>",
            text(LEGEND)
        )
    }

    fn tables(&mut self, result: &TaskResult) -> std::fmt::Result {
        writeln!(self.out, "<section class=\"tables\">")?;
        if !result.metrics.is_empty() {
            writeln!(
                self.out,
                "<div><h2>Metrics</h2>\n<table><tr><th>metric</th><th class=\"n\">value</th><th class=\"n\">interval</th><th class=\"n\">questions</th></tr>"
            )?;
            for metric in &result.metrics {
                let interval = metric.interval.map_or(String::new(), |i| {
                    format!("{} – {}", number(i.low), number(i.high))
                });
                let note = metric.note.as_deref().map_or(String::new(), |note| {
                    format!("<br><small>{}</small>", text(note))
                });
                let (name, value) = (text(&metric.name), number(metric.value));
                writeln!(
                    self.out,
                    "<tr><td>{name}{note}</td><td class=\"n\">{value}</td><td class=\"n\">{interval}</td><td class=\"n\">{}</td></tr>",
                    metric.questions
                )?;
            }
            writeln!(self.out, "</table></div>")?;
        }
        if !result.groups.is_empty() {
            writeln!(
                self.out,
                "<div><h2>By group</h2>\n<div class=\"long\"><table><tr><th>group</th><th class=\"n\">value</th><th class=\"n\">questions</th></tr>"
            )?;
            for group in &result.groups {
                writeln!(
                    self.out,
                    "<tr><td><small>{}</small> {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                    text(&group.by),
                    text(&group.name),
                    number(group.value),
                    group.questions
                )?;
            }
            writeln!(self.out, "</table></div></div>")?;
        }
        writeln!(self.out, "</section>")?;
        if !result.problems.is_empty() {
            writeln!(
                self.out,
                "<section>\n<h2>Faulty records</h2>\n<table class=\"problems\">"
            )?;
            for (kind, records) in result.problems.iter() {
                let more = if records.count > records.named.len() {
                    ", …"
                } else {
                    ""
                };
                writeln!(
                    self.out,
                    "<tr><td>{}</td><td class=\"n\">{}</td><td><small>{}{more}</small></td></tr>",
                    kind.meaning(),
                    records.count,
                    text(&records.named.join(", "))
                )?;
            }
            writeln!(self.out, "</table>\n</section>")?;
        }
        if !result.notes.is_empty() {
            writeln!(self.out, "<section>\n<h2>Notes</h2>\n<ul>")?;
            for note in &result.notes {
                writeln!(self.out, "<li>{}</li>", text(note))?;
            }
            writeln!(self.out, "</ul>\n</section>")?;
        }
        Ok(())
    }

    fn card(&mut self, card: &Card) -> std::fmt::Result {
        writeln!(self.out, "<article>")?;
        for media in &card.question.media {
            let shown = self.media(media);
            writeln!(self.out, "<figure>{shown}</figure>")?;
        }
        if let Some(score) = card.score {
            writeln!(self.out, "<p class=\"points\">{}</p>", number(score))?;
        }
        for (question, answer) in &card.question.history {
            writeln!(
                self.out,
                "<p class=\"before\">{}? {}</p>",
                text(question),
                text(answer)
            )?;
        }
        if !card.question.text.is_empty() {
            writeln!(
                self.out,
                "<p class=\"question\">{}</p>",
                text(&card.question.text)
            )?;
        }
        writeln!(self.out, "<p class=\"answer\">{}</p>", text(&card.given()))?;
        if let Some(raw) = card.raw() {
            writeln!(self.out, "<p class=\"raw\">written: {}</p>", text(raw))?;
        }
        if let Some(caption) = &card.answer.caption {
            writeln!(
                self.out,
                "<p class=\"raw\">first step: {}</p>",
                text(caption)
            )?;
        }
        writeln!(self.out, "<p class=\"truth\">{}</p>", text(&card.wanted()))?;
        if !card.answer.examples.is_empty() {
            writeln!(
                self.out,
                "<p class=\"raw\">examples: {}</p>",
                text(&card.answer.examples.join(", "))
            )?;
        }
        let names: Vec<_> = card
            .question
            .media
            .iter()
            .map(|media| media.name.as_str())
            .collect();
        writeln!(
            self.out,
            "<p class=\"id\">{} · {}</p>\n</article>",
            text(&card.question.id),
            text(&names.join(", "))
        )
    }

    fn media(&mut self, media: &Media) -> String {
        if let Some(known) = self.shown.get(&media.name) {
            return known.clone();
        }
        let tag = match ((self.thumbnail)(media), media.kind) {
            (Some(small), _) => {
                format!(
                    "<img alt=\"\" loading=\"lazy\" src=\"data:{};base64,{}\">",
                    small.mime,
                    base64(&small.bytes)
                )
            }
            (None, MediaKind::Picture) => format!(
                "<img alt=\"\" loading=\"lazy\" src=\"{}\">",
                link(&media.path, self.folder)
            ),
            (None, MediaKind::Video) if media.path.is_dir() => String::new(),
            (None, MediaKind::Video) => {
                format!(
                    "<video controls preload=\"metadata\" src=\"{}\"></video>",
                    link(&media.path, self.folder)
                )
            }
        };
        self.shown.insert(media.name.clone(), tag.clone());
        tag
    }
}

/// A text without markup.
fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A path relative to a folder, as a URL.
fn link(path: &Path, folder: &Path) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (path, folder) = (absolute(path), absolute(folder));
    let common = path
        .components()
        .zip(folder.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder
        .components()
        .skip(common)
        .map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(common)).collect();
    let mut url = String::new();
    for byte in relative.to_string_lossy().replace('\\', "/").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(byte))
            }
            other => {
                let _ = write!(url, "%{other:02X}");
            }
        }
    }
    url
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| {
            bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0))
        });
        for i in 0..4 {
            let digit = DIGITS
                .get((bits >> (18 - 6 * i) & 63) as usize)
                .copied()
                .unwrap_or(b'=');
            text.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_remainders() {
        for (bytes, digits) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), digits);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn links_are_relative_and_escaped() {
        assert_eq!(
            link(
                Path::new("/data/pictures/a b#.jpg"),
                Path::new("/data/out/run")
            ),
            "../../pictures/a%20b%23.jpg"
        );
        assert_eq!(
            link(Path::new("/data/out/x.jpg"), Path::new("/data/out")),
            "x.jpg"
        );
    }

    #[test]
    fn data_cannot_write_markup() {
        assert_eq!(text("<script>'&\""), "&lt;script&gt;&#39;&amp;&quot;");
    }
}
