//! Emulated subgroups of any size, in workgroup memory, for tests: real adapters have one size each. The scope
//! `variants::with_emulated` asks for them.

const OPERATIONS: &str = "
var<private> emulated_place: u32;
var<workgroup> emulated_cells: array<f32, INVOCATIONS>;

fn emulated_first(value: f32) -> u32 {
    workgroupBarrier();
    emulated_cells[emulated_place] = value;
    workgroupBarrier();
    return emulated_place / {{emulated_lanes}}u * {{emulated_lanes}}u;
}

fn emulated_rank() -> u32 {
    return emulated_place % {{emulated_lanes}}u;
}

fn emulated_add(value: f32) -> f32 {
    let first = emulated_first(value);
    var sum = 0.0;
    for (var i = first; i < min(first + {{emulated_lanes}}u, INVOCATIONS); i++) {
        sum += emulated_cells[i];
    }
    workgroupBarrier();
    return sum;
}

fn emulated_max(value: f32) -> f32 {
    let first = emulated_first(value);
    var greatest = value;
    for (var i = first; i < min(first + {{emulated_lanes}}u, INVOCATIONS); i++) {
        greatest = max(greatest, emulated_cells[i]);
    }
    workgroupBarrier();
    return greatest;
}
";

/// Replaces a shader's subgroup built-ins by emulated ones.
pub fn text(text: &str) -> String {
    let text = text
        .replace("subgroupAdd(1u)", "u32(emulated_add(1.0))")
        .replace("subgroupExclusiveAdd(1u)", "emulated_rank()")
        .replace("subgroupAdd(", "emulated_add(")
        .replace("subgroupMax(", "emulated_max(");
    assert!(!text.contains("subgroupA") && !text.contains("subgroupE"));
    // Inserted at the start of the body of `main`, which is after its parameters.
    let main = text.find("fn main(").expect("an entry point");
    let body = main + text[main..].find(") {\n").expect("a body") + 4;
    let place = "    emulated_place = (local * {{emulated_step}}u + 3u) % INVOCATIONS;\n";
    format!("{}{place}{}{OPERATIONS}", &text[..body], &text[body..])
}
