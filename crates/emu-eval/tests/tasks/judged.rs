//! What needs other programs: a judge of MM-Vet, and METEOR. The programs are scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use emu_eval::tasks::{Judge, Meteor, Script, Task, Who};

use crate::end_to_end::{evaluated, fresh, options};
use crate::fake::Fake;
use crate::fixtures;

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, text).expect("script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

fn judge(folder: &Path, text: &str, runs: usize) -> Judge {
    let path = script(folder, "grade.sh", text);
    let line = path.display().to_string();
    Judge {
        who: Who::Script(Script::new(&line, Duration::from_secs(20)).expect("command")),
        runs,
    }
}

/// Grades by the id, so that it shows which answer got which grade; the second run is harsher to the first answer.
const GRADER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"; echo x >> calls; read -r line
case $line in
  *'"v1_0"'*) if [ "$(wc -l < calls)" -le 4 ]; then echo 1.0; else echo 0.5; fi;;
  *'"v1_1"'*'"answer":"mauve <AND> teal","prediction":"Mauve and blue"'*) echo 0.5;;
  *'"v1_3"'*) echo 0.25;;
  *) echo 0;;
esac
"#;

#[test]
fn a_judge_grades_mm_vet() {
    let tools = tempfile::tempdir().expect("folder");
    let mut choice = options("emu-i", 0, false);
    choice.judge = Some(judge(tools.path(), GRADER, 2));
    let known = [
        ("v1_0", "There are 3 of them."),
        ("v1_1", "Mauve and blue"),
        ("v1_2", "QUIET HILL"),
        ("v1_3", "once"),
    ];
    let (folder, done) = fresh(Task::Mmvet, &choice, &mut Fake::knowing(&known));
    let metrics = &done.result.metrics;
    assert_eq!(metrics[0].name, "judged by command grade.sh");
    // The mean of the two runs' means: (1 + 0.5 + 0 + 0.25) / 4 and (0.5 + 0.5 + 0 + 0.25) / 4.
    assert!(
        (metrics[0].value - 37.5).abs() < 1e-9,
        "{}",
        metrics[0].value
    );
    assert!(metrics[0].interval.is_some());
    assert!(metrics[1].name.contains("no judge"), "{}", metrics[1].name);
    assert_eq!(done.result.questions.scored, 4);
    assert!(done.result.complete);
    // It is not gpt-4 with the official prompt, whatever it is.
    assert_eq!(done.result.paper_metric.as_deref(), Some("judged by GPT-4"));
    let group = |by: &str, name: &str| {
        let groups = &done.result.groups;
        let group = groups
            .iter()
            .find(|group| group.by == by && group.name == name);
        group.map(|group| group.value).expect(name)
    };
    assert!((group("capability", "rec") - 100.0 * (0.75 + 0.5 + 0.25) / 3.0).abs() < 1e-9);
    assert_eq!(group("capability set", "gen+rec"), 25.0);
    assert_eq!(done.result.settings["judge"]["runs"], 2);
    let notes = done.result.notes.join("\n");
    assert!(
        notes.contains("in 2 runs: mean 37.5, population standard deviation 6.2"),
        "{notes}"
    );
    let calls = fs::read_to_string(tools.path().join("calls")).expect("calls");
    assert_eq!(calls.lines().count(), 8);
    // Again from the stored grades, with the same report.
    let report = |folder: &Path| fs::read_to_string(folder.join("out/report.md")).expect("report");
    let before = report(folder.path());
    evaluated(
        Task::Mmvet,
        folder.path(),
        &choice,
        &mut Fake::knowing(&known),
    )
    .expect("again");
    assert_eq!(before, report(folder.path()));
    let calls = fs::read_to_string(tools.path().join("calls")).expect("calls");
    assert_eq!(calls.lines().count(), 8);
}

#[test]
fn a_failing_judge_leaves_the_predictions_and_its_grades() {
    let tools = tempfile::tempdir().expect("folder");
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(Task::Mmvet, &folder.path().join("data"));
    let mut choice = options("emu-i", 0, false);
    let text =
        "#!/bin/sh\ncase \"$(cat)\" in *v1_2*) echo 'no credit' >&2; exit 1;; esac; echo 1\n";
    choice.judge = Some(judge(tools.path(), text, 1));
    let error = evaluated(Task::Mmvet, folder.path(), &choice, &mut Fake::knowing(&[]));
    let error = error.expect_err("it fails").to_string();
    assert!(
        error.contains("v1_2") && error.contains("no credit"),
        "{error}"
    );
    let out = folder.path().join("out");
    assert!(out.join("mmvet-test-predictions.json").is_file());
    let kept = fs::read_to_string(out.join("judged-1.jsonl")).expect("grades");
    assert_eq!(kept.lines().count(), 1 + 2, "{kept}");
    assert!(!out.join("result.json").exists());
}

#[test]
fn only_mm_vet_has_a_judge() {
    let tools = tempfile::tempdir().expect("folder");
    let folder = tempfile::tempdir().expect("folder");
    let mut choice = options("emu-i", 0, false);
    choice.judge = Some(judge(tools.path(), "#!/bin/sh\necho 1\n", 1));
    let error = evaluated(Task::Vqav2, folder.path(), &choice, &mut Fake::knowing(&[]));
    let error = error.expect_err("no judge").to_string();
    assert!(
        error.contains("vqav2") && error.contains("mmvet"),
        "{error}"
    );
}

/// Speaks METEOR's protocol: each caption scores the share of its words that the first reference has, 0.5 if it cannot tell.
const JAVA: &str = r#"#!/bin/sh
while IFS= read -r line; do
  case $line in
  SCORE*) case ${line##*" ||| "} in *fog*) echo "0 1";; *) echo "1 1";; esac;;
  EVAL*) n=0; a=0
    rest=${line#"EVAL ||| "}
    while :; do
      stat=${rest%%" ||| "*}
      n=$((n + 1)); a=$((a + ${stat% *})); echo "${stat% *}.0"
      case $rest in *" ||| "*) rest=${rest#*" ||| "};; *) break;; esac
    done
    echo "0.$((a * 100 / n))";;
  esac
done
"#;

#[test]
fn meteor_is_a_metric_of_captions_where_it_runs() {
    let tools = tempfile::tempdir().expect("folder");
    let jar = tools.path().join("meteor-1.5.jar");
    fs::write(&jar, "").expect("jar");
    let java = script(tools.path(), "java", JAVA);
    let mut choice = options("emu-i", 0, false);
    choice.meteor = Some(Meteor {
        jar: jar.clone(),
        java,
    });
    let answers = [
        ("0", "a kite"),
        ("1", "a boat"),
        ("2", "fog"),
        ("3", "a goat"),
    ];
    let (_folder, done) = fresh(Task::Coco, &choice, &mut Fake::knowing(&answers));
    let metric = done
        .result
        .metrics
        .iter()
        .find(|metric| metric.name == "METEOR");
    let metric = metric.expect("METEOR");
    assert!((metric.value - 75.0).abs() < 1e-9, "{}", metric.value);
    assert!(metric.interval.is_none(), "it is no mean over captions");
    assert_eq!(done.result.metrics[0].name, "CIDEr");
    assert!(!done.result.notes.join(" ").contains("METEOR"));

    // Without Java the other metrics stand, and the report says why METEOR is not there.
    choice.meteor = Some(Meteor {
        jar,
        java: tools.path().join("no-java"),
    });
    let (folder, done) = fresh(Task::Flickr30k, &choice, &mut Fake::knowing(&answers));
    assert!(
        done.result
            .metrics
            .iter()
            .all(|metric| metric.name != "METEOR")
    );
    let report = fs::read_to_string(folder.path().join("out/report.md")).expect("report");
    assert!(
        report.contains("METEOR was not computed") && report.contains("no-java"),
        "{report}"
    );
    choice.meteor = None;
    let (_folder, done) = fresh(Task::Coco, &choice, &mut Fake::knowing(&answers));
    assert!(done.result.notes.join(" ").contains("--meteor-jar"));
}
