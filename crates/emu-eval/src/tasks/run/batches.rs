//! Batches: what the model is asked at once, and what is stored at once.

use serde_json::Value;

use super::runner::Runner;
use crate::tasks::error::EvalError;
use crate::tasks::journal::{Journal, Line};
use crate::tasks::model::{Outcome, Request};
use crate::tasks::progress::{Progress, Stage};

impl Runner<'_, '_> {
    /// Has the model do what a file does not have yet. `request` gives the request for an item, or why there is none.
    pub(super) fn generate(
        &mut self,
        stage: Stage,
        file: &str,
        settings: &Value,
        items: &[String],
        request: &dyn Fn(&Self, usize) -> Outcome<Request>,
    ) -> Result<Vec<Line>, EvalError> {
        let batch = self.options.batch.max(1);
        let mut journal = Journal::open(&self.out.join(file), settings, items, batch)?;
        while journal.lines.len() < items.len() {
            let from = journal.lines.len();
            if !(self.progress)(Progress {
                stage,
                done: from,
                total: items.len(),
            }) {
                return Err(EvalError::Stopped);
            }
            let to = (from + batch).min(items.len());
            let requests: Vec<_> = (from..to).map(|at| request(self, at)).collect();
            let mut results = self.ask_model(stage, from, &requests)?.into_iter();
            let mut lines = vec![];
            for (at, request) in (from..to).zip(&requests) {
                let mut line = Line {
                    id: items.get(at).cloned().unwrap_or_default(),
                    text: None,
                    scores: None,
                    error: None,
                    examples: vec![],
                };
                if let (Stage::Answers, Some(Ok(shots))) = (stage, self.shots.get(at)) {
                    line.examples = shots.iter().map(|question| question.id.clone()).collect();
                }
                match request.as_ref().map(|_| results.next()) {
                    Err(reason) => line.error = Some(reason.clone()),
                    Ok(Some(Ok(Raw::Text(text)))) => line.text = Some(text),
                    Ok(Some(Ok(Raw::Scores(scores)))) => line.scores = Some(scores),
                    Ok(Some(Err(reason))) => line.error = Some(reason),
                    Ok(None) => line.error = Some("no result".to_owned()),
                }
                lines.push(line);
            }
            journal.append(lines)?;
        }
        (self.progress)(Progress {
            stage,
            done: items.len(),
            total: items.len(),
        });
        Ok(journal.lines)
    }

    /// The results for the requests of a batch that exist, in their order.
    fn ask_model(
        &mut self,
        stage: Stage,
        from: usize,
        requests: &[Outcome<Request>],
    ) -> Result<Vec<Outcome<Raw>>, EvalError> {
        let data = self.data;
        let (mut ranked, mut written) = (vec![], vec![]);
        for (i, request) in requests.iter().enumerate() {
            let Ok(request) = request else { continue };
            let question = self
                .asked
                .get(from + i)
                .and_then(|at| data.questions.get(*at));
            match question {
                Some(question) if stage == Stage::Answers && !question.candidates.is_empty() => {
                    ranked.push((question, request))
                }
                _ => written.push(request.clone()),
            }
        }
        let mut results = vec![];
        for (question, request) in ranked {
            let failed = |source| EvalError::Model {
                at: format!("question {}", request.id),
                source,
            };
            let scores = self
                .model
                .rank(request, &question.candidates)
                .map_err(failed)?;
            if let Ok(scores) = &scores
                && (scores.len() != question.candidates.len()
                    || scores.iter().any(|score| !score.is_finite()))
            {
                return Err(EvalError::Contract {
                    at: format!("question {}", request.id),
                    got: format!(
                        "{} scores, {} of them finite",
                        scores.len(),
                        scores.iter().filter(|x| x.is_finite()).count()
                    ),
                    expected: format!("{} finite scores", question.candidates.len()),
                });
            }
            results.push(scores.map(Raw::Scores));
        }
        if let (Some(first), Some(last)) = (written.first(), written.last()) {
            let at = if written.len() == 1 {
                format!("question {}", first.id)
            } else {
                format!("questions {} to {}", first.id, last.id)
            };
            let failed = |source| EvalError::Model {
                at: at.clone(),
                source,
            };
            let texts = self.model.generate(&written).map_err(failed)?;
            if texts.len() != written.len() {
                let (got, expected) = (format!("{} texts", texts.len()), written.len().to_string());
                return Err(EvalError::Contract { at, got, expected });
            }
            results.extend(texts.into_iter().map(|text| text.map(Raw::Text)));
        }
        Ok(results)
    }
}

/// What a model returned for a request.
enum Raw {
    Text(String),
    Scores(Vec<f64>),
}
