//! Contents of the demo: `demo.json`, next to the pictures it names.
//!
//! ```json
//! {
//!   "title": "emu-mini",
//!   "about": "One sentence under the title.",
//!   "steps": [
//!     { "kind": "caption",  "title": "…", "about": "…", "items": [ { "images": ["a.png"], "truth": "a red fish" } ] },
//!     { "kind": "answer",   "title": "…", "items": [ { "images": ["scene.png"], "prompt": "how many birds?", "truth": "two" } ] },
//!     { "kind": "complete", "title": "…", "items": [ { "images": ["a.png", "b.png", "c.png"],
//!                                                      "prompt": "<image> a red fish <image> a blue bird <image>" } ] },
//!     { "kind": "draw",     "title": "…", "arguments": ["--steps", "20"], "items": [ { "prompt": "a green frog" } ] },
//!     { "kind": "blend",    "title": "…", "items": [ { "images": ["a.png", "b.png"] } ] }
//!   ]
//! }
//! ```
//!
//! `kind` selects the command: `caption` is `emu caption`, `answer` and `complete` are `emu chat`, `draw` and `blend` are
//! `emu imagine`. `arguments` are appended to that command unchanged. `truth` is a human's answer; it is shown next to the
//! model's answer and not checked. `<image>` marks in a prompt stand for the item's pictures in order; without marks the
//! pictures come first. A blend without a prompt consists of its pictures only.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The whole demo.
#[derive(Debug)]
pub struct Plan {
    /// The page's title.
    pub title: String,
    /// One sentence below the title.
    pub about: String,
    /// Steps in display order.
    pub steps: Vec<Step>,
}

/// Kind of a step, which selects the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pictures in, one line of text each.
    Caption,
    /// A picture and a question in, text out.
    Answer,
    /// Alternating pictures and texts; the model writes the last text.
    Complete,
    /// Text in, a picture out.
    Draw,
    /// Pictures in, a picture out.
    Blend,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Caption,
        Kind::Answer,
        Kind::Complete,
        Kind::Draw,
        Kind::Blend,
    ];

    /// Its name in `demo.json`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Caption => "caption",
            Kind::Answer => "answer",
            Kind::Complete => "complete",
            Kind::Draw => "draw",
            Kind::Blend => "blend",
        }
    }
}

/// One section of the page.
#[derive(Debug)]
pub struct Step {
    /// Its kind.
    pub kind: Kind,
    /// Its heading.
    pub title: String,
    /// A sentence below the heading.
    pub about: String,
    /// Arguments added to every command of this step.
    pub arguments: Vec<String>,
    /// The runs.
    pub items: Vec<Item>,
}

/// One run of `emu`.
#[derive(Debug)]
pub struct Item {
    /// Input pictures.
    pub images: Vec<PathBuf>,
    /// Input text.
    pub prompt: String,
    /// A human's answer.
    pub truth: Option<String>,
}

impl Plan {
    /// Reads `demo.json` in `folder` and checks that all pictures exist.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("demo.json");
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "{} cannot be read; it lists what the demo shows",
                file.display()
            )
        })?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", file.display()))?;
        Self::parse(&value, folder)
            .with_context(|| format!("{} does not describe a demo", file.display()))
    }

    fn parse(value: &Value, folder: &Path) -> Result<Self> {
        let steps = list(value, "steps")?
            .iter()
            .map(|step| Step::parse(step, folder))
            .collect::<Result<Vec<_>>>()?;
        if steps.is_empty() {
            bail!("`steps` is empty; add at least one");
        }
        Ok(Self {
            title: text(value, "title")?,
            about: optional_text(value, "about"),
            steps,
        })
    }
}

impl Step {
    fn parse(value: &Value, folder: &Path) -> Result<Self> {
        let title = text(value, "title")?;
        let kind_name = text(value, "kind")?;
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == kind_name) else {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            bail!(
                "the kind `{kind_name}` of step \"{title}\" is unknown; use one of {}",
                known.join(", ")
            );
        };
        let items = list(value, "items")?
            .iter()
            .map(|item| Item::parse(item, kind, folder))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("in step \"{title}\""))?;
        let arguments = match value.get("arguments") {
            None => Vec::new(),
            Some(_) => strings(value, "arguments")?,
        };
        Ok(Self {
            kind,
            title,
            about: optional_text(value, "about"),
            arguments,
            items,
        })
    }
}

impl Item {
    fn parse(value: &Value, kind: Kind, folder: &Path) -> Result<Self> {
        let names = if value.get("images").is_some() {
            strings(value, "images")?
        } else {
            Vec::new()
        };
        let images: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        if let Some(missing) = images.iter().find(|image| !image.is_file()) {
            bail!(
                "the picture {} is missing; add it or take it off the list",
                missing.display()
            );
        }
        let prompt = optional_text(value, "prompt");
        let marks = prompt.matches("<image>").count();
        if marks != 0 && marks != images.len() {
            bail!(
                "the prompt \"{prompt}\" holds {marks} <image> marks for {} pictures; make them agree",
                images.len()
            );
        }
        match kind {
            Kind::Caption if images.len() != 1 => {
                bail!("a caption takes one picture, not {}", images.len())
            }
            Kind::Answer | Kind::Complete | Kind::Draw if prompt.is_empty() => {
                bail!("a `prompt` is missing")
            }
            Kind::Complete | Kind::Blend if images.is_empty() => {
                bail!("`images` are missing")
            }
            _ => {}
        }
        Ok(Self {
            images,
            prompt,
            truth: value["truth"].as_str().map(str::to_owned),
        })
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the text `{key}` is missing"))
}

fn optional_text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("the list `{key}` is missing"))
}

fn strings(value: &Value, key: &str) -> Result<Vec<String>> {
    list(value, key)?
        .iter()
        .map(|item| {
            item.as_str()
                .map(str::to_owned)
                .with_context(|| format!("`{key}` holds {item}, which is not a text"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(kind: &str, item: Value) -> Value {
        json!({"title": "t", "steps": [{"kind": kind, "title": "s", "items": [item]}]})
    }

    #[test]
    fn a_plan_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.png"), "").expect("a picture");
        let plan = Plan::parse(
            &step(
                "answer",
                json!({"images": ["a.png"], "prompt": "what?", "truth": "a fish"}),
            ),
            folder.path(),
        )
        .expect("a plan");
        assert_eq!(plan.steps[0].kind, Kind::Answer);
        assert_eq!(plan.steps[0].items[0].truth.as_deref(), Some("a fish"));
    }

    #[test]
    fn the_models_plans_can_be_performed() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        for model in ["emu-mini", "emu-smol"] {
            let plan = Plan::read(&models.join(model).join("demo")).expect(model);
            assert!(plan.steps.len() > 2, "{model}");
        }
    }

    #[test]
    fn a_plan_that_cannot_be_performed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.png"), "").expect("a picture");
        for (plan, word) in [
            (json!({"title": "t", "steps": []}), "steps"),
            (json!({"steps": [1]}), "title"),
            (step("sing", json!({"prompt": "x"})), "sing"),
            (step("draw", json!({})), "prompt"),
            (step("caption", json!({"images": ["b.png"]})), "b.png"),
            (
                step("caption", json!({"images": ["a.png", "a.png"]})),
                "one picture",
            ),
            (
                step(
                    "complete",
                    json!({"images": ["a.png"], "prompt": "<image> x <image>"}),
                ),
                "2 <image> marks",
            ),
            (step("blend", json!({"prompt": "x"})), "images"),
            (step("caption", json!({"images": [3]})), "not a text"),
        ] {
            let error = Plan::parse(&plan, folder.path()).expect_err("refused");
            assert!(format!("{error:#}").contains(word), "{plan}: {error:#}");
        }
    }
}
