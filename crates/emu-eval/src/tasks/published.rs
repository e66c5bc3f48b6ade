//! The paper's numbers, with how certain they are.

use serde::{Deserialize, Serialize};

use super::task::Task;

/// How certain a published number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// Second-hand, and confirmed by the tables of a later paper by the same authors.
    #[serde(rename = "S+")]
    Confirmed,
    /// Second-hand: from notes on the paper, or papers that quote it.
    S,
    /// From memory.
    M,
}

impl Mark {
    /// The mark as printed.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Confirmed => "S+",
            Self::S => "S",
            Self::M => "M",
        }
    }
}

/// What the marks mean, for tables that print them.
pub const LEGEND: &str = "S+: second-hand, confirmed by a later paper of the same authors; S: second-hand, from notes on the paper \
                          (ICLR version); M: from memory. None was checked against the paper itself.";

/// A number of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The row: Emu or Emu-I; a star means two text-only examples.
    pub row: String,
    /// Its number.
    pub value: f64,
    /// How certain it is.
    pub mark: Mark,
}

type Row = (&'static str, [Option<f64>; 10]);

/// Table 1, in the order of [`COLUMNS`].
const TABLE_1: [Row; 4] = [
    (
        "Emu",
        [
            Some(112.4),
            Some(96.5),
            Some(72.0),
            Some(52.0),
            Some(38.2),
            Some(34.2),
            Some(47.4),
            Some(18.8),
            Some(8.3),
            Some(19.6),
        ],
    ),
    (
        "Emu*",
        [
            None,
            None,
            None,
            Some(52.9),
            Some(42.8),
            Some(34.4),
            Some(47.8),
            Some(34.3),
            Some(17.8),
            Some(23.4),
        ],
    ),
    (
        "Emu-I",
        [
            Some(120.4),
            Some(108.8),
            Some(77.4),
            Some(57.2),
            Some(43.4),
            Some(32.2),
            Some(43.0),
            Some(34.6),
            Some(16.8),
            Some(5.8),
        ],
    ),
    (
        "Emu-I*",
        [
            None,
            None,
            None,
            Some(62.0),
            Some(49.2),
            Some(38.3),
            Some(51.1),
            Some(37.0),
            Some(21.2),
            Some(19.9),
        ],
    ),
];

const COLUMNS: [Task; 10] = [
    Task::Coco,
    Task::Nocaps,
    Task::Flickr30k,
    Task::Vqav2,
    Task::Okvqa,
    Task::Vizwiz,
    Task::Visdial,
    Task::Msvdqa,
    Task::Msrvttqa,
    Task::Nextqa,
];

/// Table 3: Emu with 2, 4 and 8 examples.
const TABLE_3: [(Task, [(f64, Mark); 3]); 4] = [
    (
        Task::Vqav2,
        [
            (56.4, Mark::S),
            (58.4, Mark::Confirmed),
            (59.0, Mark::Confirmed),
        ],
    ),
    (
        Task::Vizwiz,
        [
            (37.8, Mark::S),
            (41.3, Mark::Confirmed),
            (43.9, Mark::Confirmed),
        ],
    ),
    (
        Task::Msvdqa,
        [(36.0, Mark::M), (37.1, Mark::M), (39.8, Mark::M)],
    ),
    (
        Task::Msrvttqa,
        [(21.2, Mark::M), (21.8, Mark::S), (24.1, Mark::M)],
    ),
];

/// The paper's numbers for a task. Empty if it has none.
pub fn published(task: Task) -> Vec<Published> {
    let mut numbers = vec![];
    if let Some(column) = COLUMNS.iter().position(|other| *other == task) {
        for (row, values) in &TABLE_1 {
            let Some(value) = values.get(column).copied().flatten() else {
                continue;
            };
            let confirmed = match *row {
                "Emu*" => matches!(task, Task::Vqav2 | Task::Okvqa | Task::Vizwiz),
                "Emu-I*" => matches!(
                    task,
                    Task::Vqav2 | Task::Okvqa | Task::Vizwiz | Task::Msvdqa | Task::Msrvttqa
                ),
                _ => false,
            };
            let mark = if confirmed { Mark::Confirmed } else { Mark::S };
            numbers.push(Published {
                row: (*row).to_owned(),
                value,
                mark,
            });
        }
    }
    for (_, values) in TABLE_3.iter().filter(|(other, _)| *other == task) {
        for (k, (value, mark)) in [2, 4, 8].into_iter().zip(values) {
            numbers.push(Published {
                row: format!("Emu, {k} examples"),
                value: *value,
                mark: *mark,
            });
        }
    }
    if task == Task::Mmvet {
        numbers.push(Published {
            row: "Emu-I".to_owned(),
            value: 36.3,
            mark: Mark::Confirmed,
        });
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_marks_of_the_tables() {
        let find = |task, row: &str| {
            published(task)
                .into_iter()
                .find(|number| number.row == row)
                .map(|number| (number.value, number.mark))
        };
        assert_eq!(find(Task::Coco, "Emu-I"), Some((120.4, Mark::S)));
        assert_eq!(find(Task::Coco, "Emu*"), None);
        assert_eq!(find(Task::Nextqa, "Emu-I"), Some((5.8, Mark::S)));
        assert_eq!(find(Task::Okvqa, "Emu*"), Some((42.8, Mark::Confirmed)));
        assert_eq!(
            find(Task::Vizwiz, "Emu, 8 examples"),
            Some((43.9, Mark::Confirmed))
        );
        assert_eq!(find(Task::Msvdqa, "Emu, 4 examples"), Some((37.1, Mark::M)));
        assert_eq!(find(Task::Mmvet, "Emu-I"), Some((36.3, Mark::Confirmed)));
        assert_eq!(published(Task::Own), []);
    }
}
