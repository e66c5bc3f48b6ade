//! ChatML: `<|im_start|>role`, a line's end, what was said, `<|im_end|>`, a line's end.

use crate::config::PromptConfig;
use crate::tokenizer::names::{CHAT_END as END, CHAT_START as START};
use crate::tokenizer::{PlainTokenizer, TokenizerError};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who set the conversation up.
    System,
    /// Who asks.
    User,
    /// Who answers: the model.
    Assistant,
}

impl Speaker {
    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// By whom.
    pub speaker: Speaker,
    /// In these words; marks in them mean nothing.
    pub text: String,
}

/// A model's manner of ChatML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMl {
    /// Said first where the conversation has no system message.
    pub system: Option<String>,
    start: u32,
    end: u32,
}

impl ChatMl {
    /// Understands a template in Jinja as far as ChatML goes: it must write ChatML's marks and the roles as they are
    /// given. A system message that it writes out is what the model wants where there is none.
    ///
    /// `id`: of a token by its spelling.
    pub fn from_template(template: &str, id: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let roles = ["message['role']", "message.role", "message[\"role\"]"];
        if !template.contains(END) || !roles.iter().any(|role| template.contains(role)) {
            return None;
        }
        // Line ends may be written out or be there.
        let written = template.replace("\\n", "\n");
        let system = written
            .split_once(&format!("{START}{}\n", Speaker::System.name()))
            .and_then(|(_, rest)| Some(rest.split_once(END)?.0))
            .filter(|text| !text.is_empty() && !text.contains(['\'', '"', '{', '+']));
        Some(Self {
            system: system.map(str::to_owned),
            start: id(START)?,
            end: id(END)?,
        })
    }

    /// The tokens that begin and end turns.
    pub(super) fn marks(&self) -> [u32; 2] {
        [self.start, self.end]
    }

    /// The same as the templates of a model that sees: a picture is part of what the user says, before the words.
    pub fn prompts(&self) -> PromptConfig {
        let turn =
            |speaker: Speaker, said: &str| format!("{START}{}\n{said}{END}\n", speaker.name());
        let assistant = format!("{START}{}\n", Speaker::Assistant.name());
        let system = { self.system.as_ref() }.map(|said| turn(Speaker::System, said));
        PromptConfig {
            system: system.unwrap_or_default(),
            system_turn: Some(turn(Speaker::System, "{}")),
            user: turn(Speaker::User, "{pictures}{}"),
            imagine: turn(Speaker::User, "{pictures}{}") + &assistant,
            assistant,
            answered: format!("{END}\n"),
            ..PromptConfig::default()
        }
    }

    /// Appends a conversation and the start of the answer to it.
    ///
    /// # Errors
    /// Where a text is too long.
    pub(super) fn write(
        &self,
        messages: &[Message],
        tokenizer: &PlainTokenizer,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let line_end = tokenizer.encode("\n")?;
        let mut say = |speaker: Speaker, text: &str| {
            ids.push(self.start);
            ids.extend(tokenizer.encode(&format!("{}\n{text}", speaker.name()))?);
            ids.push(self.end);
            ids.extend(&line_end);
            Ok::<(), TokenizerError>(())
        };
        let set_up = messages
            .first()
            .is_some_and(|m| m.speaker == Speaker::System);
        if let (false, Some(system)) = (set_up, &self.system) {
            say(Speaker::System, system)?;
        }
        // An empty system message is how a user asks for none.
        let empty = |m: &&Message| m.speaker == Speaker::System && m.text.is_empty();
        for message in messages.iter().filter(|m| !empty(m)) {
            say(message.speaker, &message.text)?;
        }
        ids.push(self.start);
        ids.extend(tokenizer.encode(&format!("{}\n", Speaker::Assistant.name()))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOLLM: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn ids(token: &str) -> Option<u32> {
        [START, END]
            .iter()
            .position(|t| *t == token)
            .map(|i| i as u32)
    }

    #[test]
    fn templates_are_understood_as_far_as_chatml_goes() {
        let own = ChatMl::from_template(SMOLLM, ids).expect("ChatML");
        assert_eq!(own.system.as_deref(), Some("You are helpful"));
        assert_eq!((own.start, own.end), (0, 1));
        let escaped = SMOLLM.replace('\n', "\\n");
        assert_eq!(ChatMl::from_template(&escaped, ids), Some(own));

        let plain = "{% for message in messages %}{{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>'}}{% endfor %}";
        let plain = ChatMl::from_template(plain, ids).expect("ChatML");
        assert_eq!(plain.system, None);
        let computed = SMOLLM.replace("You are helpful", "' + system + '");
        let computed = ChatMl::from_template(&computed, ids).expect("ChatML");
        assert_eq!(computed.system, None);

        assert_eq!(
            ChatMl::from_template("[INST] {{ message['role'] }}", ids),
            None
        );
        assert_eq!(ChatMl::from_template(SMOLLM, |_| None), None);
    }
}
