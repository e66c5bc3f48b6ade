// reduce: workgroup reductions (sum, maximum) whose result every invocation gets. This text is prepended to shaders that
// define INVOCATIONS, the workgroup size.
// params     subgroups: reduce by subgroups, else by trees in workgroup memory
// shared     4 bytes per invocation, 8 with subgroups
// reference  crates/emu-kernels/src/selftest.rs     test  crates/emu-kernels/tests/variants.rs
//
// With subgroups: each subgroup reduces its values; its first invocation writes the result to workgroup memory, the others
// write neutral values; then each subgroup reduces what was written. Neither the subgroup size nor the mapping of invocations
// to subgroups is assumed: the active invocations are counted.

//@if subgroups
// Two halves, used alternately: an invocation that writes one has passed a barrier after its last read.
var<workgroup> partial: array<f32, 2u * INVOCATIONS>;
var<private> side: u32;
var<private> lanes: u32;
var<private> rank: u32;

// Must be called once, before the reductions.
fn find_lanes() {
    lanes = subgroupAdd(1u);
    rank = subgroupExclusiveAdd(1u);
}

fn total(local: u32, value: f32) -> f32 {
    let first = side * INVOCATIONS;
    side = 1u - side;
    let own = subgroupAdd(value);
    partial[first + local] = select(0.0, own, rank == 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = rank; i < INVOCATIONS; i += lanes) {
        sum += partial[first + i];
    }
    return subgroupAdd(sum);
}

fn most(local: u32, value: f32) -> f32 {
    let first = side * INVOCATIONS;
    side = 1u - side;
    partial[first + local] = subgroupMax(value);
    workgroupBarrier();
    var greatest = value;
    for (var i = rank; i < INVOCATIONS; i += lanes) {
        greatest = max(greatest, partial[first + i]);
    }
    return subgroupMax(greatest);
}
//@else
var<workgroup> partial: array<f32, INVOCATIONS>;

fn total(local: u32, value: f32) -> f32 {
    partial[local] = value;
    workgroupBarrier();
    for (var step = INVOCATIONS / 2u; step > 0u; step /= 2u) {
        if local < step {
            partial[local] += partial[local + step];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

fn most(local: u32, value: f32) -> f32 {
    partial[local] = value;
    workgroupBarrier();
    for (var step = INVOCATIONS / 2u; step > 0u; step /= 2u) {
        if local < step {
            partial[local] = max(partial[local], partial[local + step]);
        }
        workgroupBarrier();
    }
    let greatest = partial[0];
    workgroupBarrier();
    return greatest;
}
//@end

