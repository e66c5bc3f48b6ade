//! MM-Vet's judge: a model or program that grades an answer against the truth, from 0 to 1.
//!
//! [`Judge`] says who is asked: a program or an address in the shape of OpenAI's API. [`grades`] asks about
//! every answer and stores each grade in `judged-N.jsonl`, so that an interrupted run continues, and asks nothing twice.

#[cfg(not(target_arch = "wasm32"))]
mod address;
mod command;
mod grade;
mod prompt;
mod secret;

#[cfg(not(target_arch = "wasm32"))]
pub use address::{Address, AddressError};
pub use command::Script;
pub use grade::{Graded, grades};
pub use prompt::JudgePrompt;
pub use secret::Secret;

use serde::Serialize;

use super::error::{EvalError, ModelError};

/// An answer to be graded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case<'a> {
    /// Id of the question.
    pub id: &'a str,
    /// The question.
    pub question: &'a str,
    /// The truth; `<AND>` and `<OR>` as in the official file.
    pub answer: &'a str,
    /// The model's answer.
    pub prediction: &'a str,
    /// How often the judge was asked about this answer before, because its reply had no grade.
    pub attempt: usize,
}

/// Who grades.
pub trait Grader {
    /// What the grader replies. The one number in it is the grade.
    ///
    /// # Errors
    /// If it cannot be asked; the run ends, and can be continued.
    fn reply(&mut self, case: &Case) -> Result<String, ModelError>;

    /// How often it is asked until a reply has a grade.
    fn tries(&self) -> usize;
}

/// A judge and how it is asked.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Who is asked.
    pub who: Who,
    /// Runs over all answers; the official judge is run five times.
    pub runs: usize,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Who {
    /// A program.
    Script(Script),
    /// An address in the shape of OpenAI's API.
    #[cfg(not(target_arch = "wasm32"))]
    Address(Address),
}

impl Judge {
    /// Its name in results.
    pub fn name(&self) -> String {
        match &self.who {
            Who::Script(script) => script.name(),
            #[cfg(not(target_arch = "wasm32"))]
            Who::Address(address) => address.name(),
        }
    }

    /// The prompt that it gets; a program gets the fields as JSON and no prompt.
    fn prompt(&self) -> Option<&JudgePrompt> {
        match &self.who {
            Who::Script(_) => None,
            #[cfg(not(target_arch = "wasm32"))]
            Who::Address(address) => Some(&address.prompt),
        }
    }

    /// Checks what can be checked without asking.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn check(&self) -> Result<(), EvalError> {
        self.grader().map(|_| ()).map_err(EvalError::JudgeSettings)
    }

    fn grader(&self) -> Result<Box<dyn Grader>, ModelError> {
        Ok(match &self.who {
            Who::Script(script) => Box::new(script.clone()),
            #[cfg(not(target_arch = "wasm32"))]
            Who::Address(address) => Box::new(address.client()?),
        })
    }
}
