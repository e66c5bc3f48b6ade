//! How the program reports this machine's devices, and how `--device` selects one.

mod common;

use common::{NO_DRIVERS, emu, emu_in, json_of, text, tiny_pack};
use serde_json::Value;

#[test]
fn devices_are_listed_with_the_cpu_last() {
    let lines = json_of(&["devices", "--json"]);
    let (cpu, adapters) = lines.split_last().expect("lines");
    assert_eq!(
        (&cpu["device"], &cpu["kind"]),
        (&"cpu".into(), &"cpu".into())
    );
    assert!(cpu["threads"].as_u64().is_some_and(|n| n >= 1), "{cpu}");
    assert!(cpu["features"].is_array(), "{cpu}");
    for (number, adapter) in adapters.iter().enumerate() {
        assert_eq!(adapter["device"], format!("gpu:{number}"));
        let kind = adapter["kind"].as_str().expect("a kind");
        let kinds = ["discrete", "integrated", "virtual", "software", "other"];
        assert!(kinds.contains(&kind), "{adapter}");
        assert_eq!(adapter["software"], kind == "software");
        for key in ["name", "backend", "driver"] {
            assert!(adapter[key].is_string(), "{key}: {adapter}");
        }
        for key in [
            "largest_buffer",
            "largest_binding",
            "workgroup",
            "shared_memory",
        ] {
            let limit = adapter["limits"][key].as_u64();
            assert!(limit.is_some_and(|limit| limit > 0), "{key}: {adapter}");
        }
        let features: Vec<&str> = { adapter["features"].as_array().expect("a list") }
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(features.iter().all(|f| ["subgroups", "f16"].contains(f)));
        let sizes = &adapter["subgroup_sizes"];
        assert_eq!(
            features.contains(&"subgroups"),
            sizes.is_array(),
            "{adapter}"
        );
    }
    let autos = lines.iter().filter(|line| line["auto"] == true).count();
    assert_eq!(autos, 1, "auto takes one");

    let said = emu(&["devices"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in &lines {
        let device = line["device"].as_str().expect("a device");
        assert!(said.out.contains(device), "{}", said.out);
    }
}

#[test]
fn without_drivers_there_is_the_cpu() {
    let said = emu_in(&NO_DRIVERS, &["devices", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let line: Value = serde_json::from_str(said.out.trim()).expect("one line of JSON");
    assert_eq!(
        (&line["device"], &line["auto"]),
        (&"cpu".into(), &true.into())
    );
    assert!(
        emu_in(&NO_DRIVERS, &["devices"])
            .out
            .contains("Vulkan driver")
    );
}

#[test]
fn a_missing_device_is_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let run = |device: &str| {
        let arguments = ["chat", "--model", &pack, "--device", device, "hi"];
        emu_in(&NO_DRIVERS, &arguments)
    };
    for (device, code, words) in [
        ("gpu", 1, "No GPU adapter was found"),
        ("gpu:1", 1, "No GPU adapter was found"),
        ("geforce", 2, "No adapter is called geforce"),
    ] {
        let said = run(device);
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(code), ""),
            "{}",
            said.err
        );
        let expected = format!("error: {words}");
        assert!(said.err.starts_with(&expected), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(said.err.contains("cpu"), "{}", said.err);
    }
    // With auto, no message is printed.
    let said = run("auto");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn an_adapter_is_chosen_by_number_or_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let said = emu(&["inspect", &pack, "--device", "no such adapter"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    let lines = json_of(&["devices", "--json"]);
    let Some(first) = lines.iter().find(|line| line["device"] == "gpu:0") else {
        println!("SKIP devices: there is no adapter");
        return;
    };
    let name = first["name"].as_str().expect("a name");
    assert!(
        said.err.contains(&format!("gpu:0 is {name}")),
        "{}",
        said.err
    );
    let inspected = |device: &str| {
        let lines = json_of(&["inspect", &pack, "--device", device, "--json"]);
        lines[0]["device"].as_str().expect("a device").to_owned()
    };
    assert!(inspected("gpu:0").starts_with(name));
    let alike = lines.iter().filter(|line| line["name"] == name).count();
    if alike == 1 {
        assert!(inspected(&name.to_uppercase()).starts_with(name));
    }
}

#[test]
fn drivers_do_not_complain_on_the_terminal() {
    for folder in [None, Some("relative"), Some("")] {
        let said = emu_in(&[("XDG_RUNTIME_DIR", folder)], &["devices"]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{folder:?}");
    }
}

#[test]
fn threads_are_bounded() {
    let threads = |n: &str| json_of(&["--threads", n, "devices", "--json"]);
    for n in [1, 3] {
        let lines = threads(&n.to_string());
        assert_eq!(lines.last().expect("the CPU")["threads"], n);
    }
    for wrong in ["0", "-1", "all", "1000000"] {
        assert_eq!(
            emu(&["devices", "--threads", wrong]).code,
            Some(2),
            "{wrong}"
        );
    }
}

/// `--threads` bounds the threads of a command: those of the pool, those that a token's matrix products keep awake, and the
/// main thread.
#[cfg(target_os = "linux")]
#[test]
fn a_command_starts_no_more_threads_than_it_may() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    for n in [1usize, 3] {
        let threads = n.to_string();
        let arguments = [
            "chat",
            "--model",
            &pack,
            "--device",
            "cpu",
            "--threads",
            &threads,
            "--max-new-tokens",
            "3",
            "--json",
        ];
        let mut child = Command::new(env!("CARGO_BIN_EXE_emu"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let cat = common::cat();
        writeln!(input, "/image {cat}\nwhat is this ?").expect("written");
        // Once there is an answer, every part of the model has run.
        let answered = output
            .lines()
            .map_while(Result::ok)
            .find(|l| l.contains("usage"));
        assert!(answered.is_some());
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads");
        let names: Vec<String> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        drop(input);
        child.wait().expect("it ends");
        let team = names.iter().filter(|name| *name == "emu-team").count();
        assert!(team < n, "{n}: {names:?}");
        assert!(names.len() <= 1 + n + (n - 1), "{n}: {names:?}");
    }
}

#[test]
fn commands_without_a_device_take_threads_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = text(&folder.path().join("tiny"));
    let source = text(&common::fixtures());
    let arguments = [
        "convert",
        &source,
        "-o",
        &out,
        "--no-decoder",
        "--threads",
        "1",
    ];
    let said = emu(&arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
}
