//! Messages of a chat become a conversation.

use serde::Deserialize;
use serde_json::Value;

use super::fields::TextOr;
use crate::engine::{Conversation, Part, Turn};
use crate::error::ApiError;
use crate::pictures::Album;

/// A message.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    role: String,
    #[serde(default)]
    content: Option<TextOr<ContentPart>>,
}

/// A part of a message.
#[derive(Debug, Deserialize)]
pub(super) struct ContentPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

/// The address of a picture. `detail` is ignored: the encoder has one size.
#[derive(Debug, Deserialize)]
struct ImageUrl {
    url: String,
}

impl ContentPart {
    /// The part and its picture, if it is one.
    pub async fn load(
        self,
        album: &mut Album<'_>,
        sees: bool,
        param: &str,
    ) -> Result<Part, ApiError> {
        match (self.kind.as_str(), self.text, self.image_url) {
            ("text", Some(text), _) => Ok(Part::Text(text)),
            ("image_url", _, Some(_)) if !sees => Err(ApiError::unsupported(
                param,
                "This model reads no pictures. Ask in words, or use a model that sees.",
            )),
            ("image_url", _, Some(image)) => {
                let param = format!("{param}.image_url.url");
                let picture = album.address(&image.url, &param).await?;
                Ok(Part::Picture(picture))
            }
            ("text", None, _) => Err(ApiError::value(
                param,
                "The part has no text. Send {\"type\": \"text\", \"text\": TEXT}.",
            )),
            ("image_url", _, None) => Err(ApiError::value(
                param,
                "The part has no address of a picture. Send {\"type\": \"image_url\", \"image_url\": {\"url\": ADDRESS}}.",
            )),
            (kind, ..) => Err(ApiError::unsupported(
                param,
                format!(
                    "A part of the type {kind:?} cannot be read. Send parts of the types text and image_url."
                ),
            )),
        }
    }
}

/// Reads messages: first the system's, then those of user and assistant, the user's last.
pub(super) async fn conversation(
    messages: Vec<Message>,
    album: &mut Album<'_>,
    sees: bool,
) -> Result<Conversation, ApiError> {
    let mut conversation = Conversation::default();
    // Who spoke last: a message of the same speaker continues the last one.
    let mut last = "";
    for (at, message) in messages.into_iter().enumerate() {
        let param = format!("messages[{at}]");
        let role = match message.role.as_str() {
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" => "assistant",
            role => {
                let message = format!(
                    "This model knows no messages of the role {role:?}. Use system, user and assistant."
                );
                return Err(ApiError::unsupported(format!("{param}.role"), message));
            }
        };
        let parts = contents(message.content, role, album, sees, &param).await?;
        let again = role == last;
        match role {
            "system" if !conversation.turns.is_empty() => {
                let message = "A system message follows another message. Put it first.";
                return Err(ApiError::value(format!("{param}.role"), message));
            }
            "system" => {
                let system = conversation.system.get_or_insert_default();
                append(system, &text_of(parts), again);
            }
            "user" => match conversation.turns.last_mut() {
                Some(turn) if again => {
                    turn.user.push(Part::Text("\n".into()));
                    turn.user.extend(parts);
                }
                _ => conversation.turns.push(Turn {
                    user: parts,
                    answer: String::new(),
                }),
            },
            _ => match conversation.turns.last_mut() {
                Some(turn) => append(&mut turn.answer, &text_of(parts), again),
                None => {
                    let message = "The conversation begins with an answer. Put a message of the user before it.";
                    return Err(ApiError::value(format!("{param}.role"), message));
                }
            },
        }
        last = role;
    }
    match last {
        "user" => Ok(conversation),
        _ => Err(ApiError::value(
            "messages",
            "The last message is not the user's, so there is nothing to answer. Put a message of the user at the end.",
        )),
    }
}

/// The parts of a message. Pictures of an answer are not loaded: the model reads nothing but its text.
async fn contents(
    content: Option<TextOr<ContentPart>>,
    role: &str,
    album: &mut Album<'_>,
    sees: bool,
    param: &str,
) -> Result<Vec<Part>, ApiError> {
    let parts = match content {
        Some(TextOr::Text(text)) => return Ok(vec![Part::Text(text)]),
        Some(TextOr::Many(parts)) => parts,
        // An answer that consisted of calls of functions.
        None if role == "assistant" => return Ok(vec![]),
        None => {
            let message = "The message has no content. Send a string, or an array of parts.";
            return Err(ApiError::value(format!("{param}.content"), message));
        }
    };
    let mut read = vec![];
    for (at, part) in parts.into_iter().enumerate() {
        let param = format!("{param}.content[{at}]");
        match (role, part.kind.as_str()) {
            ("assistant", "image_url") => {}
            ("system", "image_url") => {
                let message =
                    "A system message contains a picture. Put it into a message of the user.";
                return Err(ApiError::value(param, message));
            }
            _ => read.push(part.load(album, sees, &param).await?),
        }
    }
    Ok(read)
}

fn text_of(parts: Vec<Part>) -> String {
    let text = |part| match part {
        Part::Text(text) => Some(text),
        Part::Picture(_) => None,
    };
    parts.into_iter().filter_map(text).collect()
}

fn append(text: &mut String, more: &str, again: bool) {
    if again {
        text.push('\n');
    }
    text.push_str(more);
}

/// The parameter of a chat that this server cannot honour, if there is one: ignoring it would change the answer.
pub(super) fn refused(body: &Refusable) -> Option<ApiError> {
    let given = |value: &Option<Value>| match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(values)) => !values.is_empty(),
        Some(_) => true,
    };
    let functions = [("tools", &body.tools), ("functions", &body.functions)];
    if let Some((param, _)) = functions.iter().find(|(_, value)| given(value)) {
        let message = format!("This model calls no functions. Leave {param} out.");
        return Some(ApiError::unsupported(*param, message));
    }
    if given(&body.audio) {
        return Some(ApiError::unsupported(
            "audio",
            "This model does not speak. Leave audio out.",
        ));
    }
    let format = body
        .response_format
        .as_ref()
        .and_then(|format| format.get("type"));
    match format {
        None | Some(Value::Null) => None,
        Some(kind) if kind == "text" => None,
        Some(kind) => Some(ApiError::unsupported(
            "response_format",
            format!(
                "The response format {kind} is not supported. Leave it out, or use the type text."
            ),
        )),
    }
}

/// Parameters of a chat that are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusable {
    tools: Option<Value>,
    functions: Option<Value>,
    audio: Option<Value>,
    response_format: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pictures::Loader;
    use serde_json::json;

    const GIF: &str = "data:image/gif;base64,R0lGODlhAQAB";

    fn read(messages: Value) -> Result<Conversation, ApiError> {
        let messages = serde_json::from_value(messages).expect("messages");
        let loader = Loader::new(&Config::default()).expect("a loader");
        let mut album = loader.album();
        let reading = conversation(messages, &mut album, true);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(reading)
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    #[test]
    fn messages_become_turns() {
        let conversation = read(json!([
            {"role": "system", "content": "be"},
            {"role": "developer", "content": [{"type": "text", "text": "brief"}]},
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": GIF, "detail": "low"}}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "nonsense"}}]},
            {"role": "assistant", "content": "y"},
            {"role": "user", "content": "c", "name": "u"},
        ]))
        .expect("a conversation");
        assert_eq!(conversation.system.as_deref(), Some("be\nbrief"));
        let picture = Part::Picture(bytes::Bytes::from_static(b"GIF89a\x01\0\x01"));
        let turns = [
            (vec![text("a"), text("\n"), picture, text("b")], "x\ny"),
            (vec![text("c")], ""),
        ];
        let turns = turns.map(|(user, answer)| Turn {
            user,
            answer: answer.into(),
        });
        assert_eq!(conversation.turns, turns);
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        let user = json!({"role": "user", "content": "a"});
        let assistant = json!({"role": "assistant", "content": "b"});
        let system = json!({"role": "system", "content": "c"});
        let part = |part: Value| json!({"role": "user", "content": [part]});
        for (messages, param) in [
            (json!([]), "messages"),
            (json!([system]), "messages"),
            (json!([user, assistant]), "messages"),
            (json!([assistant, user]), "messages[0].role"),
            (json!([user, system, user]), "messages[1].role"),
            (
                json!([{"role": "tool", "content": "a"}]),
                "messages[0].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([part(json!({"type": "input_audio"}))]),
                "messages[0].content[0]",
            ),
            (
                json!([part(json!({"type": "text"}))]),
                "messages[0].content[0]",
            ),
            (
                json!([part(json!({"type": "image_url"}))]),
                "messages[0].content[0]",
            ),
            (
                json!([part(
                    json!({"type": "image_url", "image_url": {"url": "x"}})
                )]),
                "messages[0].content[0].image_url.url",
            ),
            (
                json!([{"role": "system", "content": [{"type": "image_url", "image_url": {"url": GIF}}]}, user]),
                "messages[0].content[0]",
            ),
        ] {
            let error = read(messages.clone()).expect_err(&messages.to_string());
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{messages}"
            );
        }
    }

    #[test]
    fn what_would_change_the_answer_is_refused() {
        let refused = |body: Value| {
            let body = serde_json::from_value(body).expect("a body");
            super::refused(&body)?.param
        };
        for fine in [
            json!({}),
            json!({"tools": [], "functions": null, "response_format": {"type": "text"}}),
            json!({"user": "me", "store": true, "metadata": {}}),
        ] {
            assert_eq!(refused(fine), None);
        }
        assert_eq!(refused(json!({"tools": [{}]})).as_deref(), Some("tools"));
        assert_eq!(refused(json!({"audio": {}})).as_deref(), Some("audio"));
        let json_object = json!({"response_format": {"type": "json_object"}});
        assert_eq!(refused(json_object).as_deref(), Some("response_format"));
    }
}
