//! What a picture is to show.

use emu_model::spelling::describe;

use crate::data::record::Layout;

/// What a picture is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Names of one or two objects, in reading order.
    pub names: Vec<String>,
    /// How they lie.
    pub layout: Layout,
    /// The background, if one is asked for.
    pub colour: Option<String>,
}

impl Shown {
    /// The word of the layout's slot.
    pub fn layout_word(&self) -> Option<&'static str> {
        self.layout.word()
    }

    /// As histories describe it.
    pub(super) fn description(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        describe(&names, self.layout_word(), self.colour.as_deref())
    }
}
