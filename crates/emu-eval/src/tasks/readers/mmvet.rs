//! MM-Vet: an object by question id.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Collector, Split, text};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};

#[derive(Deserialize)]
struct Entry {
    imagename: Option<String>,
    question: Option<String>,
    answer: Option<String>,
    #[serde(default)]
    capability: Vec<String>,
}

/// An object as its entries in order, repeated keys included.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each question")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = vec![];
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(All(std::marker::PhantomData))
    }
}

/// MM-Vet; it has one split.
pub fn mmvet(folder: &Folder) -> Result<Split, EvalError> {
    let path = folder.file("questions of MM-Vet", &["mm-vet.json"])?;
    let Entries(entries) = read_json::<Entries<Entry>>(&path, "MM-Vet questions")?;
    let mut collector = Collector::new(Problems::default());
    for (id, entry) in entries {
        collector.expect(&id);
        let mut field =
            |value: &Option<String>| text(value.as_deref(), &id, &mut collector.problems);
        let (Some(image), Some(words), Some(answer)) = (
            field(&entry.imagename),
            field(&entry.question),
            field(&entry.answer),
        ) else {
            continue;
        };
        if entry.capability.is_empty() {
            collector
                .problems
                .note(ProblemKind::NoReference, format!("capabilities of {id}"));
            continue;
        }
        collector.add(
            folder.picture(std::slice::from_ref(&image)),
            &image,
            |media| {
                let mut question = Question::new(id, media, words, Truth::Elements(answer));
                let each = entry
                    .capability
                    .iter()
                    .map(|name| ("capability", name.clone()));
                question.groups.extend(each);
                let mut set = entry.capability.clone();
                set.sort_unstable();
                question.groups.push(("capability set", set.join("+")));
                question
            },
        );
    }
    Ok(collector.finish())
}
