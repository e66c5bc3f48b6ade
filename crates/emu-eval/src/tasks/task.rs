//! The tasks: their names and splits.

use serde::{Deserialize, Serialize};

use super::error::EvalError;

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// COCO captions.
    Coco,
    /// NoCaps.
    Nocaps,
    /// Flickr30K captions.
    Flickr30k,
    /// VQAv2.
    Vqav2,
    /// OK-VQA.
    Okvqa,
    /// VizWiz VQA.
    Vizwiz,
    /// VisDial 1.0.
    Visdial,
    /// MM-Vet.
    Mmvet,
    /// MSVD-QA.
    Msvdqa,
    /// MSRVTT-QA.
    Msrvttqa,
    /// NExT-QA.
    Nextqa,
    /// The package easy-vqa.
    Easyvqa,
    /// A user's own table of picture, question and answer.
    Own,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 13] = [
        Self::Coco,
        Self::Nocaps,
        Self::Flickr30k,
        Self::Vqav2,
        Self::Okvqa,
        Self::Vizwiz,
        Self::Visdial,
        Self::Mmvet,
        Self::Msvdqa,
        Self::Msrvttqa,
        Self::Nextqa,
        Self::Easyvqa,
        Self::Own,
    ];

    /// A task by its name on the command line.
    ///
    /// # Errors
    /// If there is none of that name; the message has all names.
    pub fn from_name(name: &str) -> Result<Self, EvalError> {
        Self::ALL
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| EvalError::UnknownTask {
                name: name.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            })
    }

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Nocaps => "nocaps",
            Self::Flickr30k => "flickr30k",
            Self::Vqav2 => "vqav2",
            Self::Okvqa => "okvqa",
            Self::Vizwiz => "vizwiz",
            Self::Visdial => "visdial",
            Self::Mmvet => "mmvet",
            Self::Msvdqa => "msvdqa",
            Self::Msrvttqa => "msrvttqa",
            Self::Nextqa => "nextqa",
            Self::Easyvqa => "easyvqa",
            Self::Own => "own",
        }
    }

    /// Its name in prose.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Coco => "COCO captions",
            Self::Nocaps => "NoCaps",
            Self::Flickr30k => "Flickr30K captions",
            Self::Vqav2 => "VQAv2",
            Self::Okvqa => "OK-VQA",
            Self::Vizwiz => "VizWiz VQA",
            Self::Visdial => "VisDial 1.0",
            Self::Mmvet => "MM-Vet",
            Self::Msvdqa => "MSVD-QA",
            Self::Msrvttqa => "MSRVTT-QA",
            Self::Nextqa => "NExT-QA",
            Self::Easyvqa => "easy-vqa",
            Self::Own => "own questions",
        }
    }

    /// Its splits; the first is the one that is evaluated unless another is named.
    pub const fn splits(self) -> &'static [&'static str] {
        match self {
            Self::Coco => &["test", "val", "train", "val2014", "train2014"],
            Self::Nocaps => &["val", "test"],
            Self::Flickr30k | Self::Msvdqa | Self::Msrvttqa | Self::Nextqa => {
                &["test", "val", "train"]
            }
            Self::Vqav2 => &["val", "test", "test-dev", "train"],
            Self::Okvqa => &["val", "train"],
            Self::Vizwiz | Self::Visdial => &["val", "test", "train"],
            Self::Mmvet => &["test"],
            Self::Easyvqa => &["test", "train"],
            Self::Own => &["questions", "examples"],
        }
    }

    /// The split that few-shot examples come from, if there is one.
    pub const fn example_split(self) -> Option<&'static str> {
        match self {
            Self::Nocaps | Self::Mmvet => None,
            Self::Own => Some("examples"),
            _ => Some("train"),
        }
    }

    /// Whether the task asks for captions: there is no question.
    pub const fn is_caption(self) -> bool {
        matches!(self, Self::Coco | Self::Nocaps | Self::Flickr30k)
    }

    /// Subfolders of the benchmark folder of the released evaluation that belong to the task.
    pub(super) const fn homes(self) -> &'static [&'static str] {
        match self {
            Self::Coco => &["coco"],
            Self::Nocaps => &["nocaps"],
            Self::Flickr30k => &["flickr30k"],
            Self::Vqav2 => &["coco", "vqav2"],
            // Before `coco`: LAVIS' lists of both tasks have the same name.
            Self::Okvqa => &["okvqa", "coco"],
            Self::Vizwiz => &["vizwiz"],
            Self::Visdial => &["visdial", "coco"],
            Self::Mmvet => &["mm-vet"],
            Self::Msvdqa => &["msvd", "msvdqa", "MSVD-QA"],
            Self::Msrvttqa => &["msrvtt", "msrvttqa", "MSRVTT-QA"],
            Self::Nextqa => &["nextqa", "dataset/nextqa"],
            Self::Easyvqa => &["easy_vqa"],
            Self::Own => &[],
        }
    }
}
