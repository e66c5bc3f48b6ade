//! The contents of a requested picture.

use emu_model::spelling::describe;

use crate::data::record::Layout;

/// The contents of a requested picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Names of one or two objects, in reading order.
    pub names: Vec<String>,
    /// Arrangement of the objects.
    pub layout: Layout,
    /// The background, if requested.
    pub colour: Option<String>,
}

impl Shown {
    /// The word of the layout's slot.
    pub fn layout_word(&self) -> Option<&'static str> {
        self.layout.word()
    }

    /// The description used in histories.
    pub(super) fn description(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        describe(&names, self.layout_word(), self.colour.as_deref())
    }
}
