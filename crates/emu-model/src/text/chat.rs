//! ChatML: `<|im_start|>role`, a newline, the message, `<|im_end|>`, a newline.

use emu_tokenizer::names::{CHAT_END as END, CHAT_START as START};
use emu_tokenizer::{PlainTokenizer, TokenizerError};

use crate::config::PromptConfig;

/// Role of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The system message.
    System,
    /// The user.
    User,
    /// The model.
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

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its role.
    pub speaker: Speaker,
    /// Its text; special tokens spelled in it are plain text.
    pub text: String,
}

/// A model's variant of ChatML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMl {
    /// Default system message.
    pub system: Option<String>,
    start: u32,
    end: u32,
}

impl ChatMl {
    /// Recognizes a Jinja chat template that is ChatML: it must contain ChatML's special tokens and output the role of
    /// each message. A literal system message in the template becomes the default.
    ///
    /// `id`: maps the text of a token to its id.
    pub fn from_template(template: &str, id: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let roles = ["message['role']", "message.role", "message[\"role\"]"];
        if !template.contains(END) || !roles.iter().any(|role| template.contains(role)) {
            return None;
        }
        // Newlines may be escaped or literal.
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

    /// The start and end token of a turn.
    pub(super) fn marks(&self) -> [u32; 2] {
        [self.start, self.end]
    }

    /// The same format as prompt templates of a multimodal model: images belong to the user turn, before the text.
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

    /// Appends a conversation and the start of the answer.
    ///
    /// # Errors
    /// If a text is too long.
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
        // With an empty system message the user asks for none.
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
