//! Texts around what is said, and how answers are generated.

use serde::{Deserialize, Serialize};

/// Texts around what the user says. `{}` is what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Put first in a chat, unless the user gives another.
    pub system: String,
    /// A system message that the user gives; without it, it stands as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_turn: Option<String>,
    /// A user's turn. Pictures without a mark in the text go where `{pictures}` stands, or else before the text.
    pub user: String,
    /// What asks for the answer.
    pub assistant: String,
    /// What ends an answer before the next turn.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answered: String,
    /// Turns of a conversation that the model follows; all of them without it. Earlier ones are left out, but for their pictures
    /// where no later turn has any; a turn with pictures of its own is read by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<usize>,
    /// What stands for a picture, with an `<image>` for each of its embeddings; without it these stand between `[IMG]` and
    /// `[/IMG]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// What stands for a drawing of several things, where a namer reads them one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenes: Option<ScenePrompts>,
    /// A turn whose text marks the places of its pictures, where that is no turn of `user` and `assistant` but a text
    /// to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<String>,
    /// What asks for a caption, after the picture. Empty: the picture alone does.
    pub caption: String,
    /// What asks for a picture.
    pub imagine: String,
    /// What asks for a picture with words and pictures, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<String>,
}

/// What stands for a drawing of several things on a plain background: an `<image>` for each embedding of each thing's name, in
/// reading order, and behind them one for the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenePrompts {
    /// Two beside each other.
    pub beside: String,
    /// Two above each other.
    pub above: String,
    /// Three.
    pub three: String,
    /// Four.
    pub four: String,
}

impl ScenePrompts {
    /// Each with the number of its things.
    pub fn each(&self) -> [(&str, usize); 4] {
        [
            (&self.beside, 2),
            (&self.above, 2),
            (&self.three, 3),
            (&self.four, 4),
        ]
    }
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            system: String::new(),
            system_turn: None,
            user: "{}".into(),
            assistant: String::new(),
            answered: String::new(),
            turns: None,
            picture: None,
            scenes: None,
            marked: None,
            caption: String::new(),
            imagine: "{}".into(),
            blend: None,
        }
    }
}

impl PromptConfig {
    /// Of models that this project trains, as the sequences of its training are made: a question follows its picture,
    /// a text with marks is a document, a request to draw is a turn, and pictures to blend stand alone.
    pub fn trained() -> Self {
        Self {
            user: "{pictures}[USER]{}".into(),
            assistant: "[ASSISTANT]".into(),
            marked: Some("{}".into()),
            imagine: "[USER]{}[ASSISTANT]".into(),
            blend: Some("{}".into()),
            ..Default::default()
        }
    }
}

/// How text is generated where the user does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationConfig {
    /// Above 1 makes tokens that were used before less likely; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
