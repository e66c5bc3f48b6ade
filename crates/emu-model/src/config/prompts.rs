//! Prompt templates and generation defaults.

use serde::{Deserialize, Serialize};

/// Prompt templates. `{}` is the user's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// System turn at the start of a chat, unless the user gives another one.
    pub system: String,
    /// Template of a system message that the user gives; without a template the message is inserted verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_turn: Option<String>,
    /// Template of a user turn. Images without a mark in the text are inserted at `{pictures}`, or else before the
    /// text.
    pub user: String,
    /// Start of the answer.
    pub assistant: String,
    /// End of an answer before the next turn.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answered: String,
    /// Number of turns that the model can follow; `None` for all. Earlier turns are dropped, but their images are kept
    /// if no later turn has any. A turn with its own images is read without earlier turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<usize>,
    /// Template of an image, with one `<image>` per embedding; by default these stand between `[IMG]` and `[/IMG]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Templates of a drawing of several objects, if a namer reads them one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenes: Option<ScenePrompts>,
    /// Template of a turn whose text contains image marks, if that is not a turn of `user` and `assistant` but a text
    /// to continue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<String>,
    /// Caption prompt after the image. If empty, the image alone is the prompt.
    pub caption: String,
    /// Template of a request for an image.
    pub imagine: String,
    /// Template of a request for an image with text and images, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<String>,
}

/// Templates of a drawing of several objects on a plain background: one `<image>` per embedding of each object's name,
/// in reading order, then one for the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenePrompts {
    /// Two objects side by side.
    pub beside: String,
    /// Two objects one above the other.
    pub above: String,
    /// Three objects.
    pub three: String,
    /// Four objects.
    pub four: String,
}

impl ScenePrompts {
    /// Each template with its number of objects.
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
    /// Templates of models that this project trains, in the format of their training sequences: a question follows its
    /// image, a text with marks is a document, a request to draw is a turn, and images to blend have no text around
    /// them.
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

/// Generation defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationConfig {
    /// Repetition penalty: above 1 makes tokens that already occurred less likely; 1 if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
