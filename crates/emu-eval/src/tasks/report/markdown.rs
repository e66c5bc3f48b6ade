//! The report as Markdown.

use std::fmt::Write;

use super::view::{Section, beside, coverage, number, shots};
use crate::tasks::published::LEGEND;
use crate::tasks::result::TaskResult;

/// Cards of a section: the page has more.
const SHOWN: usize = 5;

pub(super) fn write(result: &TaskResult, sections: &[Section]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = compose(&mut text, result, sections);
    text
}

fn compose(out: &mut String, result: &TaskResult, sections: &[Section]) -> std::fmt::Result {
    writeln!(
        out,
        "# {} ({}), {}\n",
        result.task.title(),
        result.split,
        shots(result)
    )?;
    writeln!(
        out,
        "Model {}, preset {}. {}\n",
        cell(&result.model),
        cell(&result.preset),
        coverage(result)
    )?;
    match result.metrics.first() {
        None => writeln!(
            out,
            "The references of this split are not public: the submission file is scored by a server.\n"
        )?,
        Some(metric) => {
            writeln!(
                out,
                "| {} | value | 95% interval | certainty |\n| --- | ---: | --- | --- |",
                cell(&metric.name)
            )?;
            for row in beside(result) {
                let interval = row.interval.map_or(String::new(), |(low, high)| {
                    format!("{} to {}", number(low), number(high))
                });
                let mark = row.mark.map_or("measured here", |mark| mark.symbol());
                let same = if row.counterpart {
                    " (same setting)"
                } else {
                    ""
                };
                writeln!(
                    out,
                    "| {}{same} | {} | {interval} | {mark} |",
                    cell(&row.label),
                    number(row.value)
                )?;
            }
            if !result.published.is_empty() {
                writeln!(out, "\n{LEGEND}")?;
            }
        }
    }
    if !result.metrics.is_empty() {
        writeln!(
            out,
            "\n## Metrics\n\n| metric | value | interval | questions |\n| --- | ---: | --- | ---: |"
        )?;
        for metric in &result.metrics {
            let interval = metric.interval.map_or(String::new(), |i| {
                format!("{} to {}", number(i.low), number(i.high))
            });
            let note = metric
                .note
                .as_deref()
                .map_or(String::new(), |note| format!(" ({})", cell(note)));
            writeln!(
                out,
                "| {}{note} | {} | {interval} | {} |",
                cell(&metric.name),
                number(metric.value),
                metric.questions
            )?;
        }
    }
    if !result.groups.is_empty() {
        writeln!(
            out,
            "\n## By group\n\n| group | value | questions |\n| --- | ---: | ---: |"
        )?;
        for group in &result.groups {
            writeln!(
                out,
                "| {}: {} | {} | {} |",
                cell(&group.by),
                cell(&group.name),
                number(group.value),
                group.questions
            )?;
        }
    }
    if !result.problems.is_empty() {
        writeln!(out, "\n## Faulty records\n")?;
        for (kind, records) in result.problems.iter() {
            let named: Vec<_> = records
                .named
                .iter()
                .take(SHOWN)
                .map(|name| cell(name))
                .collect();
            let more = if records.count > named.len() {
                ", ..."
            } else {
                ""
            };
            writeln!(
                out,
                "- {}: {} ({}{more})",
                kind.meaning(),
                records.count,
                named.join(", ")
            )?;
        }
    }
    if !result.notes.is_empty() {
        writeln!(out, "\n## Notes\n")?;
        for note in &result.notes {
            writeln!(out, "- {note}")?;
        }
    }
    for section in sections {
        writeln!(out, "\n## {}\n", section.title)?;
        for card in section.cards.iter().take(SHOWN) {
            let score = card
                .score
                .map_or(String::new(), |score| format!(", {}", number(score)));
            let media = card
                .question
                .media
                .first()
                .map_or("", |media| media.name.as_str());
            let asked = if card.question.text.is_empty() {
                String::new()
            } else {
                format!(" {}", cell(&card.question.text))
            };
            writeln!(
                out,
                "- **{}** ({}{score}){asked}",
                cell(&card.question.id),
                cell(media)
            )?;
            writeln!(out, "  answer: {}", cell(&card.given()))?;
            writeln!(out, "  reference: {}", cell(&card.wanted()))?;
        }
    }
    writeln!(out, "\n## Settings\n\n```json\n{:#}\n```", result.settings)
}

/// A text in a line or table cell: no line breaks, no Markdown.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => safe.push(' '),
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_write_markdown() {
        assert_eq!(cell("a|b\n<i>*[x]`"), "a\\|b \\<i>\\*\\[x]\\`");
    }
}
