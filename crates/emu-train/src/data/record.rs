//! What the JSON member of a sample holds.

use serde::{Deserialize, Serialize};

/// The JSON member of one sample, told apart by its field `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// A picture (`png`) with its caption and questions.
    Scene(Scene),
    /// Text and pictures (`0.png`, `1.png`, ...) in an order.
    Document(Document),
    /// One drawing (`png`) with its name, for a judge of drawings.
    Drawing(Drawing),
    /// A picture with a caption, as other people's WebDatasets hold it.
    Pair(Pair),
}

/// How the objects of a scene lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One object.
    Single,
    /// From left to right.
    Row,
    /// From top to bottom.
    Column,
}

impl Layout {
    /// The words that spell layouts ([`Layout::word`]).
    pub const WORDS: [&'static str; 2] = ["left", "above"];

    /// What stands for it where a picture is spelled in words: one word where several objects lie.
    pub fn word(self) -> Option<&'static str> {
        let [row, column] = Self::WORDS;
        match self {
            Self::Single => None,
            Self::Row => Some(row),
            Self::Column => Some(column),
        }
    }
}

/// Where an object lies within its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The only object.
    Center,
    /// First of a row.
    Left,
    /// Second of three.
    Middle,
    /// Last of a row.
    Right,
    /// First of a column.
    Top,
    /// Last of a column.
    Bottom,
}

/// One object of a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Name of the concept ("dog").
    pub name: String,
    /// Code point of the concept ("1f436").
    pub hexcode: String,
    /// Drawing set ("noto").
    pub set: String,
    /// Where it lies.
    pub place: Place,
    /// Horizontal centre, as a share of the width.
    pub cx: f64,
    /// Vertical centre, as a share of the height.
    pub cy: f64,
    /// Larger side of the drawing, as a share of the picture's side.
    pub size: f64,
}

/// A question about a scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qa {
    /// `name`, `colour`, `count`, `relation` or `yesno`.
    pub kind: String,
    /// For `yesno`: `presence`, `place`, `relation` or `background`; every form asks as many yes as no questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The question, ending with "?".
    pub question: String,
    /// The short answer.
    pub answer: String,
}

/// A composed picture with everything that is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// `train`, `val`, `t1`, `t2` or `t3`.
    pub split: String,
    /// Name of the background colour.
    pub background: String,
    /// How the objects lie.
    pub layout: Layout,
    /// In reading order: left to right, top to bottom.
    pub objects: Vec<Object>,
    /// One phrase that names all of it.
    pub caption: String,
    /// Questions with answers.
    pub qa: Vec<Qa>,
    /// In T3, which combination training never showed: `pair`, `relation` or `colour`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// One element of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Some text.
    Text(String),
    /// A picture: the member `<key>.<image>.png`.
    Image(String),
}

/// Text and pictures in an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// `train` or a test split.
    pub split: String,
    /// `draw`, `fewshot`, `blend` or `story`.
    pub task: String,
    /// The document.
    pub parts: Vec<Part>,
    /// Index in `parts` of what is to be produced from the parts before it (`draw`, `fewshot`, `blend`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<usize>,
    /// For `fewshot`: what the examples ask for (`name`, `colour`, `count` or `name+colour`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// For `draw` and `blend`: the background of the picture to be produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// For `draw` and `blend`: the layout of the picture to be produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// For `draw` and `blend`: the objects of the picture to be produced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Object>,
    /// In the test split, what training never showed: `template`, `pair`, `relation`, `colour`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

/// One drawing on a plain background.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// `train` or `val`.
    pub split: String,
    /// Name of the background colour.
    pub background: String,
    /// The drawing.
    pub object: Object,
}

/// A picture with a caption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The caption.
    pub caption: String,
}
