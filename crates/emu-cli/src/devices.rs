//! `emu devices`

use anyhow::Result;
use emu_kernels::adapters::{self, Adapter, Cpu};
use emu_kernels::device::has_hardware;
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::output::{bytes, json_line, print_now};

/// Lists the GPU adapters and the CPU.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let (adapters, cpu) = (adapters::list(), adapters::cpu());
    let auto = auto(&adapters);
    if args.json {
        for (number, adapter) in adapters.iter().enumerate() {
            json_line(&adapter_json(number, adapter, auto == Some(number)))?;
        }
        return json_line(&cpu_json(&cpu, auto.is_none()));
    }
    let mut text: String = { adapters.iter().enumerate() }
        .map(|(number, adapter)| adapter_text(number, adapter))
        .collect();
    text += &cpu_text(&cpu);
    text += &match auto {
        Some(number) => format!("--device auto takes gpu:{number}\n"),
        None => "--device auto takes cpu\n".into(),
    };
    if adapters.is_empty() {
        text += "There is no GPU adapter. A Vulkan driver brings one: mesa-vulkan-drivers has drivers for most GPUs, and a software one.\n";
    }
    print_now(&text)
}

/// The adapter that `auto` selects, predicted from wgpu's preference for powerful adapters; `None` for the CPU.
fn auto(adapters: &[Adapter]) -> Option<usize> {
    use adapters::AdapterKind::{Discrete, Integrated, Virtual};
    let first = |kind| adapters.iter().position(|adapter| adapter.kind == kind);
    let hardware = has_hardware(adapters);
    let preferred = [Discrete, Integrated, Virtual].into_iter().find_map(first);
    preferred.filter(|_| hardware)
}

fn features(adapter: &Adapter) -> Vec<&'static str> {
    let subgroups = adapter.subgroups.map(|_| "subgroups");
    let f16 = adapter.f16.then_some("f16");
    subgroups.into_iter().chain(f16).collect()
}

fn adapter_json(number: usize, adapter: &Adapter, auto: bool) -> Value {
    json!({
        "device": format!("gpu:{number}"), "name": adapter.name, "kind": adapter.kind.name(),
        "software": adapter.kind == adapters::AdapterKind::Software, "backend": adapter.backend, "driver": adapter.driver,
        "limits": {
            "largest_buffer": adapter.largest_buffer, "largest_binding": adapter.largest_binding,
            "workgroup": adapter.workgroup, "shared_memory": adapter.shared_memory,
        },
        "features": features(adapter), "subgroup_sizes": adapter.subgroups.map(|(least, most)| [least, most]),
        "memory": adapter.memory, "shares_memory": adapter.shares_memory(), "auto": auto,
    })
}

fn cpu_json(cpu: &Cpu, auto: bool) -> Value {
    json!({
        "device": "cpu", "name": cpu.name, "kind": "cpu", "threads": cpu.threads, "features": cpu.features,
        "memory": cpu.memory, "auto": auto,
    })
}

fn adapter_text(number: usize, adapter: &Adapter) -> String {
    let memory = match (adapter.memory, adapter.shares_memory()) {
        (None, _) => "memory unknown".into(),
        (Some(size), false) => format!("{} of its own", bytes(size)),
        (Some(size), true) => format!("{} shared with the CPU", bytes(size)),
    };
    let subgroups = match adapter.subgroups {
        None => "no subgroups".into(),
        Some((least, most)) if least == most => format!("subgroups of {least}"),
        Some((least, most)) => format!("subgroups of {least} to {most}"),
    };
    let f16 = if adapter.f16 { "f16" } else { "no f16" };
    let Adapter {
        name,
        backend,
        driver,
        workgroup,
        ..
    } = adapter;
    format!(
        "gpu:{number}  {name}\n       {}, {backend}, {driver}\n       {memory}; buffers to {}, bindings to {}; workgroups to {workgroup}, {subgroups}, {f16}\n",
        adapter.kind.name(),
        bytes(adapter.largest_buffer),
        bytes(adapter.largest_binding),
    )
}

fn cpu_text(cpu: &Cpu) -> String {
    let name = cpu.name.as_deref().unwrap_or("the processor");
    let memory = cpu.memory.map_or_else(|| "memory unknown".into(), bytes);
    let threads = match cpu.threads {
        1 => "1 thread".into(),
        n => format!("{n} threads"),
    };
    format!(
        "cpu    {name}\n       {threads}, {memory}; {}\n",
        cpu.features.join(", ")
    )
}
