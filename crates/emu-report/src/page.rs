//! Composes the page.

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::chart::{number, svg};
use crate::run::{Curve, Run, Sample, Shown};

const STYLE: &str = include_str!("style.css");
/// Maximum number of characters of a sample that are shown.
const MAX_TEXT: usize = 20_000;

/// The page of a run, compared with another one if given, as HTML.
pub fn page(run: &Run, other: Option<&Run>) -> String {
    let runs: Vec<&Run> = [run].into_iter().chain(other).collect();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = compose(&mut out, &runs);
    out
}

fn compose(out: &mut String, runs: &[&Run]) -> std::fmt::Result {
    let names: Vec<String> = runs.iter().map(|run| text(&run.name)).collect();
    let title = names.join(" and ");
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    )?;
    overview(out, runs)?;
    figures(out, runs)?;
    for run in runs {
        notes(out, run)?;
    }
    samples(out, runs)?;
    settings(out, runs)?;
    out.write_str("</body>\n</html>\n")
}

fn overview(out: &mut String, runs: &[&Run]) -> std::fmt::Result {
    out.write_str("<table>\n")?;
    row(out, "", runs, |i, run| {
        format!("<span class=\"key run{i}\"></span> {}", text(&run.name))
    })?;
    row(out, "stage", runs, |_, run| text(&run.stage))?;
    row(out, "steps", runs, |_, run| run.steps.to_string())?;
    row(out, "training time", runs, |_, run| duration(run.seconds))?;
    row(out, "checkpoints", runs, |_, run| {
        match (run.checkpoints.first(), run.checkpoints.last()) {
            (Some(first), Some(last)) => {
                format!("{}, steps {first} to {last}", run.checkpoints.len())
            }
            _ => "none".into(),
        }
    })?;
    row(out, "best", runs, |_, run| {
        run.best.as_deref().map_or("not kept".into(), text)
    })?;
    row(out, "unusable samples", runs, |_, run| {
        run.bad_samples.to_string()
    })?;
    if runs.iter().any(|run| run.unreadable > 0) {
        row(out, "unreadable lines of metrics", runs, |_, run| {
            run.unreadable.to_string()
        })?;
    }
    out.write_str("</table>\n")
}

fn row(
    out: &mut String,
    name: &str,
    runs: &[&Run],
    cell: impl Fn(usize, &Run) -> String,
) -> std::fmt::Result {
    write!(out, "<tr><th scope=\"row\">{name}</th>")?;
    for (i, run) in runs.iter().enumerate() {
        write!(out, "<td>{}</td>", cell(i, run))?;
    }
    out.write_str("</tr>\n")
}

/// A chart and a table for every figure of any run.
fn figures(out: &mut String, runs: &[&Run]) -> std::fmt::Result {
    let mut names: Vec<&str> = vec![];
    for (name, _) in runs.iter().flat_map(|run| &run.curves) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return out.write_str("<p>The run has no metrics yet.</p>\n");
    }
    out.write_str("<h2>Figures</h2>\n<div class=\"figures\">\n")?;
    let none = Curve::default();
    for name in names {
        let curves: Vec<&Curve> = { runs.iter() }
            .map(|run| run.curve(name).unwrap_or(&none))
            .collect();
        let name = text(name);
        let label = format!("{name} by step; the table has its figures");
        writeln!(
            out,
            "<figure>\n<figcaption>{name}</figcaption>\n{}\n<table>\n\
             <tr><th></th><th scope=\"col\">first</th><th scope=\"col\">last</th><th scope=\"col\">lowest</th>\
             <th scope=\"col\">highest</th></tr>",
            svg(&label, &curves)
        )?;
        for (i, (run, curve)) in runs.iter().zip(&curves).enumerate() {
            let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
            let points = &curve.points;
            let cells = [
                points.first(),
                points.last(),
                points.iter().min_by(by_value),
                points.iter().max_by(by_value),
            ];
            let run = text(&run.name);
            write!(
                out,
                "<tr><th scope=\"row\"><span class=\"key run{i}\" title=\"{run}\"></span></th>"
            )?;
            for cell in cells {
                match cell {
                    Some((step, value)) => {
                        write!(out, "<td>{} <small>at {step}</small></td>", number(*value))?
                    }
                    None => out.write_str("<td>–</td>")?,
                }
            }
            out.write_str("</tr>\n")?;
        }
        out.write_str("</table>\n")?;
        let odd: usize = curves.iter().map(|curve| curve.not_finite).sum();
        if odd > 0 {
            writeln!(out, "<p class=\"bad\">No finite number at {odd} steps.</p>")?;
        }
        out.write_str("</figure>\n")?;
    }
    out.write_str("</div>\n")
}

fn notes(out: &mut String, run: &Run) -> std::fmt::Result {
    if run.notes.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Warnings and changes of {}</h2>\n<table>",
        text(&run.name)
    )?;
    for (step, note) in &run.notes {
        writeln!(
            out,
            "<tr><th scope=\"row\">step {step}</th><td>{}</td></tr>",
            text(note)
        )?;
    }
    out.write_str("</table>\n")
}

fn samples(out: &mut String, runs: &[&Run]) -> std::fmt::Result {
    for run in runs.iter().filter(|run| !run.samples.is_empty()) {
        writeln!(out, "<h2>Samples of {}</h2>", text(&run.name))?;
        if run.unshown > 0 {
            writeln!(
                out,
                "<p>Those of {} more steps are in the run's folder.</p>",
                run.unshown
            )?;
        }
        out.write_str("<div class=\"samples\">\n")?;
        for (step, samples) in &run.samples {
            writeln!(out, "<section>\n<h3>Step {step}</h3>")?;
            for sample in samples {
                show(out, *step, sample)?;
            }
            out.write_str("</section>\n")?;
        }
        out.write_str("</div>\n")?;
    }
    Ok(())
}

fn show(out: &mut String, step: u64, sample: &Sample) -> std::fmt::Result {
    let name = text(&sample.name);
    match &sample.shown {
        Shown::Picture(mime, bytes) => writeln!(
            out,
            "<img alt=\"{name} of step {step}\" src=\"data:{mime};base64,{}\">",
            STANDARD.encode(bytes)
        ),
        Shown::Text(whole) => {
            let shown: String = whole.chars().take(MAX_TEXT).collect();
            let rest = if shown.len() < whole.len() {
                " …"
            } else {
                ""
            };
            writeln!(
                out,
                "<details><summary>{name}</summary><pre>{}{rest}</pre></details>",
                text(&shown)
            )
        }
        Shown::Nothing(why) => writeln!(out, "<p>{name} is not shown: {why}.</p>"),
    }
}

/// All settings of a run; of two, those that differ first.
fn settings(out: &mut String, runs: &[&Run]) -> std::fmt::Result {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let differs = |key: &&&String| {
        let mut values = runs.iter().map(|run| run.settings.get(**key));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let mut table = |title: &str, keys: &[&String]| {
        writeln!(
            out,
            "<details{}><summary>{title}</summary>\n<table>",
            if runs.len() > 1 { " open" } else { "" }
        )?;
        for key in keys {
            row(out, &text(key), runs, |_, run| {
                run.settings
                    .get(*key)
                    .map_or("–".into(), |value| text(value))
            })?;
        }
        out.write_str("</table>\n</details>\n")
    };
    let (different, same): (Vec<&String>, Vec<&String>) = keys.iter().partition(differs);
    if runs.len() > 1 {
        table(&format!("{} settings differ", different.len()), &different)?;
    }
    table(
        &format!(
            "{} settings{}",
            same.len(),
            if runs.len() > 1 { " are the same" } else { "" }
        ),
        &same,
    )
}

/// Hours, minutes and seconds.
fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, minutes) => format!("{minutes} min {} s", whole % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// A text as HTML.
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

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
