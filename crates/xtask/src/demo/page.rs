//! The demo as a single self-contained page.

use std::fmt::Write;
use std::path::Path;

use super::embed;
use super::perform::{Outcome, Performance, Run};
use super::plan::{Item, Kind, Plan, Step};

/// Colours, sizes and layout of the page.
const STYLE: &str = include_str!("page.css");

/// Renders the whole page.
pub fn render(plan: &Plan, performance: &Performance) -> String {
    let mut html = String::new();
    let runs: usize = performance.steps.iter().map(Vec::len).sum();
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n<p>{about}</p>\n<ul class=\"facts\"><li><b>{runs}</b> runs</li><li><b>{seconds:.0} s</b> in all, each run loading the model anew</li></ul>\n</header>\n<main>\n",
        title = escape(&plan.title),
        about = escape(&plan.about),
        seconds = performance.seconds,
    );
    for (step, runs) in plan.steps.iter().zip(&performance.steps) {
        section(&mut html, step, runs);
    }
    html.push_str("</main>\n<footer>Written by <code>cargo xtask demo</code>. Nothing on this page was chosen from several tries.</footer>\n</body>\n</html>\n");
    html
}

fn section(html: &mut String, step: &Step, runs: &[Run]) {
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    let _ = write!(
        html,
        "<section>\n<h2>{} <small>{seconds:.1} s</small></h2>\n<p>{}</p>\n<div class=\"cards {}\">\n",
        escape(&step.title),
        escape(&step.about),
        step.kind.name(),
    );
    if let Some(item) = one_scene(step) {
        conversation(html, item, step, runs);
    } else {
        for (item, run) in step.items.iter().zip(runs) {
            card(html, item, run);
        }
    }
    html.push_str("</div>\n</section>\n");
}

/// The first item of a step, if all questions of the step are about the same pictures. The pictures are then shown once.
fn one_scene(step: &Step) -> Option<&Item> {
    let first = step.items.first()?;
    let same = |item: &Item| item.images == first.images && !item.prompt.contains("<image>");
    (step.kind == Kind::Answer && step.items.iter().all(same)).then_some(first)
}

/// A scene with all questions about it.
fn conversation(html: &mut String, scene: &Item, step: &Step, runs: &[Run]) {
    html.push_str("<article>\n<div class=\"in\">\n");
    scene
        .images
        .iter()
        .for_each(|file| image(html, file, "the scene", "given"));
    html.push_str("</div>\n<dl>\n");
    for (item, run) in step.items.iter().zip(runs) {
        let _ = writeln!(
            html,
            "<div class=\"qa\"><dt>{}</dt>\n<dd>",
            escape(&item.prompt)
        );
        came(html, item, run);
        html.push_str("</dd></div>\n");
    }
    html.push_str("</dl>\n</article>\n");
}

fn card(html: &mut String, item: &Item, run: &Run) {
    html.push_str("<article>\n<div class=\"in\">\n");
    given(html, item);
    html.push_str("</div>\n<div class=\"out\">\n");
    came(html, item, run);
    html.push_str("</div>\n</article>\n");
}

/// The result, the expected answer, the time and the command.
fn came(html: &mut String, item: &Item, run: &Run) {
    match &run.outcome {
        Ok(Outcome::Text(text)) => {
            let _ = writeln!(html, "<p class=\"said\">{}</p>", escape(text));
        }
        Ok(Outcome::Picture { file, flagged }) => {
            let alt = if item.prompt.is_empty() {
                "what the model drew"
            } else {
                &item.prompt
            };
            image(html, file, alt, "drawn");
            if *flagged {
                html.push_str("<p class=\"note\">The safety checker flagged this picture.</p>\n");
            }
        }
        Err(error) => {
            let _ = writeln!(
                html,
                "<p class=\"failed\">This did not work: {}</p>",
                escape(&format!("{error:#}"))
            );
        }
    }
    let expected = item
        .truth
        .as_ref()
        .map(|truth| format!("expected: {} · ", escape(truth)))
        .unwrap_or_default();
    let _ = writeln!(
        html,
        "<details><summary>{expected}{:.1} s</summary><code>{}</code></details>",
        run.seconds,
        escape(&run.line),
    );
}

/// The input: pictures, each followed by its text, in the order in which the model reads them.
fn given(html: &mut String, item: &Item) {
    let words = |html: &mut String, words: &str| {
        if !words.trim().is_empty() {
            let _ = writeln!(
                html,
                "<span class=\"words\">{}</span>",
                escape(words.trim())
            );
        }
    };
    let mut pieces = item.prompt.split("<image>");
    if !item.prompt.contains("<image>") {
        item.images
            .iter()
            .for_each(|file| image(html, file, "", "given"));
    }
    words(html, pieces.next().unwrap_or_default());
    for (file, piece) in item.images.iter().zip(pieces) {
        html.push_str("<div class=\"example\">\n");
        image(html, file, "", "given");
        words(html, piece);
        html.push_str("</div>\n");
    }
}

fn image(html: &mut String, file: &Path, alt: &str, class: &str) {
    match embed::picture(file) {
        Some(picture) => {
            let size = picture
                .size
                .map(|(width, height)| format!(" title=\"{width} x {height} pixels\""))
                .unwrap_or_default();
            let _ = writeln!(
                html,
                "<img class=\"{class}\" alt=\"{}\"{size} src=\"{}\">",
                escape(alt),
                picture.uri
            );
        }
        None => {
            let _ = writeln!(
                html,
                "<p class=\"failed\">{} cannot be read</p>",
                escape(&file.to_string_lossy())
            );
        }
    }
}

/// Escapes text for HTML elements and quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_a_model_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }

    #[test]
    fn questions_about_one_scene_share_its_picture() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.png");
        std::fs::write(&file, b"\x89PNG").expect("a picture");
        let item = |prompt: &str| Item {
            images: vec![file.clone()],
            prompt: prompt.into(),
            truth: None,
        };
        let step = Step {
            kind: Kind::Answer,
            title: "Questions".into(),
            about: String::new(),
            arguments: Vec::new(),
            items: vec![item("how many?"), item("what colour?")],
        };
        let plan = Plan {
            title: "T".into(),
            about: String::new(),
            steps: vec![step],
        };
        let run = |text: &str| Run {
            line: "emu chat".into(),
            seconds: 1.0,
            outcome: Ok(Outcome::Text(text.into())),
        };
        let html = render(
            &plan,
            &Performance {
                steps: vec![vec![run("two"), run("red")]],
                seconds: 2.0,
            },
        );
        assert_eq!(html.matches("<img").count(), 1);
        assert!(
            html.contains("how many?") && html.contains("two") && html.contains("what colour?")
        );
    }

    #[test]
    fn the_page_is_self_contained_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.png");
        std::fs::write(&file, b"\x89PNG").expect("a picture");
        let item = Item {
            images: vec![file.clone(), file.clone()],
            prompt: "<image> a fish <image>".into(),
            truth: Some("a <bird>".into()),
        };
        let step = Step {
            kind: Kind::Complete,
            title: "Few".into(),
            about: String::new(),
            arguments: Vec::new(),
            items: vec![item],
        };
        let plan = Plan {
            title: "T".into(),
            about: String::new(),
            steps: vec![step],
        };
        let run = Run {
            line: "emu chat".into(),
            seconds: 1.0,
            outcome: Ok(Outcome::Text("a bird".into())),
        };
        let html = render(
            &plan,
            &Performance {
                steps: vec![vec![run]],
                seconds: 1.0,
            },
        );
        assert_eq!(html.matches("data:image/png;base64,").count(), 2);
        let (first, words, last) = (html.find("<img"), html.find("a fish"), html.rfind("<img"));
        assert!(
            first < words && words < last,
            "pictures and words in the order of the prompt"
        );
        assert!(html.contains("a &lt;bird&gt;"));
        for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
