//! The JSON member of a sample.

use serde::{Deserialize, Serialize};

/// The JSON member of a sample, tagged by the field `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// A picture (`png`) with its caption and questions.
    Scene(Scene),
    /// A sequence of text and pictures (`0.png`, `1.png`, ...).
    Document(Document),
    /// A single drawing (`png`) with its name, for training the judge.
    Drawing(Drawing),
    /// A picture with a caption, as in third-party WebDatasets.
    Pair(Pair),
    /// Frames (`0.jpg`, `1.jpg`, ...) of a video with a caption.
    Video(Video),
    /// Turns of a user and an assistant, with or without pictures (`0.jpg`, `1.jpg`, ...).
    Conversation(Conversation),
}

/// Spatial arrangement of the objects in a scene.
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
    /// The words for layouts in spelled pictures ([`Layout::word`]).
    pub const WORDS: [&'static str; 2] = ["left", "above"];

    /// The layout's word when a picture is spelled in words. `None` for a single object.
    pub fn word(self) -> Option<&'static str> {
        let [row, column] = Self::WORDS;
        match self {
            Self::Single => None,
            Self::Row => Some(row),
            Self::Column => Some(column),
        }
    }
}

/// Position of an object within its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The only object.
    Center,
    /// First in a row.
    Left,
    /// Second of three.
    Middle,
    /// Last in a row.
    Right,
    /// First in a column.
    Top,
    /// Last in a column.
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
    /// Its position.
    pub place: Place,
    /// Horizontal centre, as a fraction of the width.
    pub cx: f64,
    /// Vertical centre, as a fraction of the height.
    pub cy: f64,
    /// Larger side of the drawing, as a fraction of the picture's side.
    pub size: f64,
}

/// A question about a scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qa {
    /// `name`, `colour`, `count`, `relation` or `yesno`.
    pub kind: String,
    /// For `yesno`: `presence`, `place`, `relation` or `background`. Every form has as many yes as no questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The question, ending with "?".
    pub question: String,
    /// The short answer.
    pub answer: String,
}

/// A composed picture with its complete description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// `train`, `val`, `t1`, `t2` or `t3`.
    pub split: String,
    /// Name of the background colour.
    pub background: String,
    /// Arrangement of the objects.
    pub layout: Layout,
    /// In reading order: left to right, top to bottom.
    pub objects: Vec<Object>,
    /// A caption that describes the whole picture.
    pub caption: String,
    /// Questions with answers.
    pub qa: Vec<Qa>,
    /// In T3, the kind of combination that is not in the training data: `pair`, `relation` or `colour`.
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

/// A sequence of text and pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// `train` or a test split.
    pub split: String,
    /// `draw`, `fewshot`, `blend` or `story`.
    pub task: String,
    /// The document.
    pub parts: Vec<Part>,
    /// Index in `parts` of the target, which is to be produced from the parts before it (`draw`, `fewshot`, `blend`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<usize>,
    /// For `fewshot`: what the texts of the examples name (`name`, `colour`, `count` or `name+colour`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// For `draw` and `blend`: the background of the target picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// For `draw` and `blend`: the layout of the target picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// For `draw` and `blend`: the objects of the target picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Object>,
    /// In the test split, what is not in the training data: `template`, `pair`, `relation`, `colour`.
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

/// Frames of a video with a caption. The numbered pictures are the frames in order, each stored once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    /// The caption.
    pub caption: String,
    /// Index of each stored frame in the source, ascending.
    pub offsets: Vec<usize>,
    /// Number of frames of the source.
    pub total: usize,
}

/// Author of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one who asks.
    User,
    /// The one who answers; the target of training.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Who says it.
    pub role: Role,
    /// What is said, with pictures in their places.
    pub parts: Vec<Part>,
}

/// Turns of a user and an assistant, alternating, from the user's first to an assistant's last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The data's own system text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Whether the pictures are the frames of one video.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub video: bool,
    /// The turns.
    pub turns: Vec<Turn>,
}

impl Conversation {
    /// All parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.turns.iter().flat_map(|turn| &turn.parts)
    }
}
