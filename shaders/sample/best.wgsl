// best: the index of the greatest logit of each row, the first of several; -1 where one is not a number. A workgroup per row.
// twin  crates/emu-kernels/src/cpu/decode.rs     test  crates/emu-kernels/src/decode/tests.rs

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;  // [rows, WIDTH]
@group(0) @binding(1) var<storage, read_write> best: array<i32>;    // [rows]

const WIDTH = {{width}}u;
// One more than the index that may not be taken; 0 for none.
const BANNED = {{banned}}u;
const INVOCATIONS = {{invocations}}u;

var<workgroup> values: array<f32, INVOCATIONS>;
var<workgroup> indices: array<u32, INVOCATIONS>;
var<workgroup> strange: array<u32, INVOCATIONS>;

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x;
    let inside = (row + 1u) * WIDTH <= arrayLength(&logits) && row < arrayLength(&best);
    var value = -3.4028234e38;
    var index = WIDTH;
    var not_a_number = 0u;
    if inside {
        for (var i = local; i < WIDTH; i += INVOCATIONS) {
            let logit = logits[row * WIDTH + i];
            // By its bits: comparisons may be compiled as if there were no such value.
            if (bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u {
                not_a_number = 1u;
            }
            if i + 1u != BANNED && (logit > value || index == WIDTH) {
                value = logit;
                index = i;
            }
        }
    }
    values[local] = value;
    indices[local] = index;
    strange[local] = not_a_number;
    workgroupBarrier();
    for (var step = INVOCATIONS / 2u; step > 0u; step /= 2u) {
        if local < step {
            let other = local + step;
            let better = values[other] > values[local]
                || (values[other] == values[local] && indices[other] < indices[local]);
            if indices[local] == WIDTH || (better && indices[other] < WIDTH) {
                values[local] = values[other];
                indices[local] = indices[other];
            }
            strange[local] |= strange[other];
        }
        workgroupBarrier();
    }
    if local == 0u && inside {
        best[row] = select(i32(indices[0]), -1, strange[0] == 1u);
    }
}
