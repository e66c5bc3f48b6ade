//! The report for people, in lines of at most [`WIDTH`] columns.

use std::time::Duration;

use serde_json::Value;

use super::machine::Candidate;
use super::needs::TaskNeeds;
use super::report::{Report, Stored};
use super::variant::Variant;
use crate::output::bytes;

/// Maximum number of columns.
pub const WIDTH: usize = 100;
/// Columns of the names at the start of a line.
const NAMES: usize = 10;

/// The report as text.
pub fn text(report: &Report<'_>) -> String {
    let subject = report.subject;
    let mut lines = vec![];
    match &report.stored {
        Some(stored) => stored_lines(stored, &mut lines),
        None => lines.extend(wrapped(
            &subject.name,
            &format!("checkpoint {}", subject.source),
        )),
    }
    lines.extend(wrapped("model", &sizes(&report.summary)));
    lines.push(String::new());
    table(report, &mut lines);
    lines.push(String::new());
    for (i, candidate) in report.candidates.iter().enumerate() {
        lines.extend(wrapped(&marked(candidate, i), &limits(candidate)));
    }
    if let Some(free) = report.free {
        lines.extend(wrapped("disk", &format!("{} free here", bytes(free))));
    }
    if let Some(download) = &subject.download {
        let mut text = format!(
            "{} to fetch, {} of it in the cache",
            bytes(download.bytes),
            bytes(download.bytes.saturating_sub(download.missing))
        );
        if let Some(free) = download.free {
            text += &format!("; {} free at {}", bytes(free), download.cache.display());
            if free < download.missing {
                text += ": too little. Free some space, or name another folder in HF_HOME";
            }
        }
        lines.extend(wrapped("download", &(text + ".")));
    }
    lines.push(String::new());
    for planned in &report.plan {
        lines.extend(wrapped(planned.task, &planned.text));
    }
    lines.push(String::new());
    let notes = [LEGEND, TIMES].into_iter().map(str::to_owned);
    for note in notes.chain(subject.notes.iter().cloned()) {
        lines.extend(wrapped("", &note));
    }
    lines.join("\n") + "\n"
}

/// What the marks of the table mean.
const LEGEND: &str = "* The device that a command takes by itself. ! More than this machine has. Disk, memory and encoding are those of `emu convert --quantize PRECISION`.";
/// What the times mean.
const TIMES: &str = "Encoding is estimated from samples measured now; fetching, reading, writing and the empty prompt of a decoder come on top. The time of a task is not estimated: `emu bench` measures it.";

fn stored_lines(stored: &Stored<'_>, lines: &mut Vec<String>) {
    let manifest = stored.manifest;
    lines.extend(wrapped(
        &manifest.name,
        &format!("({}) {}", manifest.license, manifest.attribution),
    ));
    let total = stored.bytes();
    let verified = match stored.verified {
        true => ", every byte verified",
        false => "",
    };
    lines.push(format!(
        "{:NAMES$} {}, {} tensors quantized{verified}",
        "stored",
        bytes(total),
        manifest.quantization.len()
    ));
    lines.push(format!(
        "{:NAMES$} {:>12} {:>11} {:>11} {:>11}",
        "", "parameters", "download", "in memory", "one tensor"
    ));
    for (name, need) in &stored.components {
        lines.push(format!(
            "{name:NAMES$} {:>12} {:>11} {:>11} {:>11}",
            need.parameters,
            bytes(need.download),
            bytes(need.resident),
            bytes(need.largest_buffer)
        ));
    }
}

/// One row for each precision and device.
fn table(report: &Report<'_>, lines: &mut Vec<String>) {
    let tasks = report.variants.first().and_then(|v| v.needs.first());
    let tasks: &[TaskNeeds] = tasks.map_or(&[][..], Vec::as_slice);
    let names = tasks.iter().map(|task| format!("{:>10}", task.name));
    let above = format!(
        "{:9} {:8} {:^27}{:^50}",
        "", "", "conversion", "memory of a task"
    );
    lines.push(above.trim_end().to_owned());
    lines.push(format!(
        "{:9} {:8} {:>9}{:>9}{:>9}{}",
        "precision",
        "device",
        "disk",
        "memory",
        "encoding",
        names.collect::<String>()
    ));
    for variant in report.variants {
        for (i, candidate) in report.candidates.iter().enumerate() {
            let name = if i == 0 { variant.name } else { "" };
            let conversion = match i {
                0 => conversion(report, variant),
                _ => String::new(),
            };
            let needs = variant.needs.get(i).into_iter().flatten();
            let cells = needs.map(|task| {
                let fits = task.reasons(&candidate.machine).is_empty();
                format!("{:>10}", cell(task.memory(), fits))
            });
            let device = marked(candidate, i);
            let row = format!(
                "{name:9} {device:8} {conversion:27}{}",
                cells.collect::<String>()
            );
            lines.push(row.trim_end().to_owned());
        }
    }
}

/// The three columns of a conversion.
fn conversion(report: &Report<'_>, variant: &Variant<'_>) -> String {
    let Some(conversion) = variant.conversion else {
        return String::new();
    };
    let (disk, memory) = (conversion.forecast.disk, conversion.memory);
    let fits = |free: Option<u64>, needed: u64| free.is_none_or(|free| free >= needed);
    format!(
        "{:>9}{:>9}{:>9}",
        cell(disk, fits(report.free, disk)),
        cell(memory, fits(report.memory, memory)),
        time(conversion.encoding)
    )
}

fn marked(candidate: &Candidate, place: usize) -> String {
    let mark = if place == 0 { "*" } else { "" };
    format!("{}{mark}", candidate.device)
}

fn cell(n: u64, fits: bool) -> String {
    let mark = if fits { "" } else { "!" };
    format!("{}{mark}", short(n))
}

/// A size in at most eight characters.
fn short(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match unit > 0 && value < 99.95 {
        true => format!("{value:.1} {name}"),
        false => format!("{value:.0} {name}"),
    }
}

/// A time in at most eight characters.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 1.0 => "< 1 s".into(),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn limits(candidate: &Candidate) -> String {
    let machine = &candidate.machine;
    let memory = machine.memory.map_or_else(
        || "memory unknown".into(),
        |memory| format!("{} of memory for a model", bytes(memory)),
    );
    let buffer = machine.largest_buffer.map_or_else(String::new, |limit| {
        format!(", buffers to {}", bytes(limit))
    });
    format!("{}: {memory}{buffer}", machine.device)
}

/// The model's sizes, from the report's JSON: names and values, without those that are null.
fn sizes(summary: &Value) -> String {
    let entries = summary.as_object().into_iter().flatten();
    let known = entries.filter(|(_, value)| !value.is_null());
    let shown = known.map(|(name, value)| match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            format!("{name} {}", values.join(" x "))
        }
        value => format!("{name} {value}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A name and a text behind it, in lines of at most [`WIDTH`] columns where words permit.
fn wrapped(name: &str, text: &str) -> Vec<String> {
    let mut lines = vec![];
    // A longer name has the first line to itself.
    let indent = if name.is_empty() { 0 } else { NAMES + 1 };
    let mut line = match name.chars().count() {
        0 => String::new(),
        n if n > NAMES => {
            lines.push(name.to_owned());
            " ".repeat(indent)
        }
        _ => format!("{name:NAMES$} "),
    };
    let mut empty = true;
    for word in text.split_whitespace() {
        let space = usize::from(!empty);
        if !empty && line.chars().count() + space + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_fit_their_columns() {
        for (n, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (150 << 20, "150 MiB"),
            (1023 << 20, "1023 MiB"),
            (9_500_000_000, "8.8 GiB"),
            (52_185_000_000, "48.6 GiB"),
        ] {
            assert_eq!(short(n), expected);
            assert!(short(n).len() <= 8);
        }
        for (seconds, expected) in [
            (0.2, "< 1 s"),
            (59.6, "60 s"),
            (638.0, "11 min"),
            (7200.0, "2.0 h"),
        ] {
            assert_eq!(time(Duration::from_secs_f64(seconds)), expected);
        }
    }

    #[test]
    fn lines_are_wrapped_behind_their_name() {
        let long = "word ".repeat(50);
        let lines = wrapped("caption", &long);
        assert!(lines.len() == 3 && lines[0].starts_with("caption    word"));
        assert!(lines[1].starts_with("           word"));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        let words = lines.iter().flat_map(|line| line.split_whitespace());
        assert_eq!(words.count(), 51);
        assert_eq!(
            wrapped("a-long-model-name", "x"),
            ["a-long-model-name", "           x"]
        );
        assert_eq!(wrapped("", "a  b"), ["a b"]);
        assert_eq!(wrapped("disk", ""), ["disk"]);
    }

    #[test]
    fn a_model_is_told_by_its_sizes() {
        let summary = serde_json::json!({"lm": [40, 5120], "causal": null, "draws": 512});
        assert_eq!(sizes(&summary), "lm 40 x 5120, draws 512");
    }
}
