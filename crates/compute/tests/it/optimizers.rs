//! Optimizers against the packages that they follow, and that what they keep is all that they need.

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::op::Optimize;
use compute::random::{key, mix, uniform};
use compute::{Backend, Buffer, DType, DynamicMap, Op, Optimizer, Parameter, Reference, Shape};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/optimizers.json")).expect("golden")
}

fn numbers(value: &Value) -> Vec<f32> {
    let values = value.as_array().expect("numbers").iter();
    values.map(|value| value.as_f64().expect("a number") as f32).collect()
}

fn backends() -> Vec<Box<dyn Backend>> {
    let mut all: Vec<Box<dyn Backend>> = vec![Box::new(Reference::new())];
    for isa in Isa::available() {
        let config = CpuConfig { threads: 2, isa: Some(isa), precision: Precision::F32 };
        all.push(Box::new(Cpu::new(config).expect("an available level")));
    }
    all
}

/// The optimizer of a case, its learning rate and weight decay.
fn settings(case: &Value) -> (Optimizer, f32, f32) {
    let settings = &case["settings"];
    let number = |key: &str| settings[key].as_f64().unwrap_or_else(|| panic!("`{key}`")) as f32;
    let flag = |key: &str| settings[key].as_bool().unwrap_or_else(|| panic!("`{key}`"));
    let betas = || numbers(&settings["betas"]).try_into().expect("two betas");
    let optimizer = match case["optimizer"].as_str().expect("optimizer") {
        "lion" => Optimizer::Lion { betas: betas() },
        "sgd" => Optimizer::Sgd { momentum: number("momentum"), nesterov: flag("nesterov") },
        "adafactor" => Optimizer::Adafactor {
            eps: numbers(&settings["eps"])[0],
            clip_threshold: number("clip_threshold"),
            decay_rate: number("decay_rate"),
        },
        "muon" => Optimizer::Muon {
            momentum: number("momentum"),
            nesterov: flag("nesterov"),
            iterations: number("ns_steps") as u32,
            match_rms: settings["adjust_lr_fn"] == "match_rms_adamw",
        },
        "adamw8bit" => Optimizer::AdamW8bit { betas: betas(), eps: number("eps") },
        other => panic!("no optimizer `{other}`"),
    };
    (optimizer, number("lr"), number("weight_decay"))
}

fn shape(value: &Value) -> Shape {
    let sizes: Vec<usize> =
        value.as_array().expect("shape").iter().map(|n| n.as_u64().expect("n") as usize).collect();
    match sizes[..] {
        [rows, cols] => Shape::Matrix(rows, cols),
        [len] => Shape::Vector(len),
        _ => panic!("a matrix or a vector"),
    }
}

fn read(backend: &mut dyn Backend, buffer: Buffer) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len];
    backend.read(buffer, &mut values).expect("read");
    values
}

fn read_u8(backend: &mut dyn Backend, buffer: Buffer) -> Vec<u8> {
    let mut values = vec![0; buffer.len];
    backend.read_u8(buffer, &mut values).expect("read");
    values
}

/// Uploads a gradient and takes a step; half of the gradient comes from its scale.
fn step(
    backend: &mut dyn Backend,
    parameter: Parameter,
    (optimizer, learning_rate, weight_decay): (Optimizer, f32, f32),
    gradient: &[f32],
    step: u32,
) {
    let doubled: Vec<f32> = gradient.iter().map(|g| 2.0 * g).collect();
    backend.upload(&doubled, parameter.gradient).expect("upload");
    let op = Optimize {
        parameters: &[parameter],
        optimizer,
        gradient_scale: 0.5,
        learning_rate,
        weight_decay,
        step,
    };
    backend.run(Op::Optimize(op)).expect("a step");
}

#[track_caller]
fn assert_near(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    // Relative to the largest: elements of Newton-Schulz and of moments differ in size.
    let size = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= tolerance * size;
        assert!(near, "{what}: number {i} is {got}, not {expected}");
    }
}

/// Betas are rounded to f32, which moves `1 - 0.999` by 1.3e-5 of itself.
const STATE_TOLERANCE: f32 = 3e-5;
/// Five steps in f32, each rounded a little differently.
const VALUE_TOLERANCE: f32 = 2e-6;
/// PyTorch runs Newton-Schulz in bfloat16, which moves single numbers of the update by some hundredths.
const MUON_BF16_TOLERANCE: f32 = 5e-2;

#[test]
fn values_and_states_equal_the_packages() {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 12);
    for mut backend in backends() {
        for case in cases {
            for tensor in case["tensors"].as_array().expect("tensors") {
                check_tensor(&mut *backend, case, tensor);
            }
        }
    }
}

fn check_tensor(backend: &mut dyn Backend, case: &Value, tensor: &Value) {
    let name = format!("{:?} {} {}", backend.device(), case["optimizer"], case["settings"]);
    let settings = settings(case);
    let kind = settings.0.kind();
    let shape = shape(&tensor["shape"]);
    let parameter = backend.load_trained(shape, &numbers(&tensor["initial"]), kind).expect("load");
    let gradients = tensor["gradients"].as_array().expect("gradients");
    for (i, gradient) in gradients.iter().enumerate() {
        step(backend, parameter, settings, &numbers(gradient), i as u32 + 1);
        let value = read(backend, parameter.master);
        let after = numbers(&tensor["after"][i]);
        if let Some(after_f32) = tensor.get("after_f32") {
            assert_near(&name, &value, &numbers(&after_f32[i]), VALUE_TOLERANCE);
            assert_near(&name, &value, &after, MUON_BF16_TOLERANCE);
        } else {
            assert_near(&name, &value, &after, VALUE_TOLERANCE);
        }
        assert!(read(backend, parameter.gradient).iter().all(|&g| g == 0.0), "{name}: gradient");
    }
    // In the order of `OptimizerKind::states`; SGD without momentum keeps the last gradient, PyTorch nothing.
    let names = [
        "exp_avg",
        "momentum_buffer",
        "exp_avg_sq_row",
        "exp_avg_sq_col",
        "exp_avg_sq",
        "state1",
        "state2",
    ];
    let states = names.iter().filter_map(|name| tensor["state"].get(name));
    for (expected, buffer) in states.zip(parameter.state) {
        let state = read(backend, buffer.expect("kept"));
        assert_near(&name, &state, &numbers(expected), STATE_TOLERANCE);
    }
    backend.unload_trained(parameter);
}

#[test]
fn levels_equal_bitsandbytes() {
    let golden = golden();
    let maps = [("signed", DynamicMap::signed()), ("unsigned", DynamicMap::unsigned())];
    for (name, map) in maps {
        assert_eq!(map.levels()[..], numbers(&golden["dynamic_maps"][name]), "{name}");
    }
}

/// The matrix `hashed(10, matrix)` of `xtask/golden/hashed.py`.
fn hashed(matrix: u64, len: usize) -> Vec<f32> {
    let number = |i| (uniform(mix(key(&[10, matrix]) ^ i)) - 0.5) * 2.0;
    (0..len as u64).map(number).collect()
}

fn large_gradient(large: &Value, step: usize, len: usize) -> Vec<f32> {
    let sizes = numbers(&large["gradient_sizes"]);
    let mut gradient = hashed(1 + step as u64, len);
    for (i, g) in gradient.iter_mut().enumerate() {
        *g *= sizes[i / 256 % 4];
    }
    gradient[512..768].fill(0.0);
    gradient
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn moments_of_bytes_equal_bitsandbytes() {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("cases");
    let cases: Vec<&Value> = cases.iter().filter(|case| case.get("large").is_some()).collect();
    assert_eq!(cases.len(), 2);
    for mut backend in backends() {
        cases.iter().for_each(|case| check_large(&mut *backend, case));
    }
}

fn check_large(backend: &mut dyn Backend, case: &Value) {
    let large = &case["large"];
    let what = format!("{:?} {}", backend.device(), case["settings"]);
    let len = large["count"].as_u64().expect("count") as usize;
    let initial = hashed(0, len);
    assert_eq!(initial[..4], numbers(&large["first_weights"]));
    assert_eq!(large_gradient(large, 0, len)[..4], numbers(&large["first_gradients"]));
    let settings = settings(case);
    let shape = Shape::Vector(len);
    let parameter = backend.load_trained(shape, &initial, settings.0.kind()).expect("load");
    let kept = parameter.state.map(|buffer| buffer.expect("kept"));
    for (i, expected) in large["steps"].as_array().expect("steps").iter().enumerate() {
        step(backend, parameter, settings, &large_gradient(large, i, len), i as u32 + 1);
        for (buffer, name) in [(kept[1], "absmax1"), (kept[3], "absmax2")] {
            let absmax = read(backend, buffer);
            assert_near(name, &absmax, &numbers(&expected[name]), STATE_TOLERANCE);
        }
    }
    // A moment halfway between two levels may be rounded to the other one.
    for (buffer, name) in [(kept[0], "state1"), (kept[2], "state2")] {
        let (got, expected) = (read_u8(backend, buffer), bytes(&large[name]));
        let pairs = got.iter().zip(&expected);
        let apart = pairs.filter(|(got, expected)| got != expected).count();
        let next = got.iter().zip(&expected).all(|(got, expected)| got.abs_diff(*expected) <= 1);
        assert!(next && apart <= 4, "{what}: {apart} codes of {name} differ");
    }
    let weight: Vec<f32> = bytes(&large["weight"])
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let value = read(backend, parameter.master);
    assert_near(&what, &value, &weight, VALUE_TOLERANCE);
    backend.unload_trained(parameter);
}

/// What a file of a checkpoint holds of a buffer.
enum Saved {
    Numbers(Vec<f32>),
    Bytes(Vec<u8>),
}

fn save(backend: &mut dyn Backend, parameter: Parameter) -> Vec<Saved> {
    let save = |buffer: Buffer| match buffer.dtype {
        DType::U8 => Saved::Bytes(read_u8(backend, buffer)),
        _ => Saved::Numbers(read(backend, buffer)),
    };
    parameter.buffers().map(save).collect()
}

fn restore(backend: &mut dyn Backend, parameter: Parameter, saved: &[Saved]) {
    for (buffer, saved) in parameter.buffers().zip(saved) {
        match saved {
            Saved::Bytes(values) => backend.upload_u8(values, buffer).expect("upload"),
            Saved::Numbers(values) => backend.upload(values, buffer).expect("upload"),
        }
    }
    backend.run(Op::Refresh(&[parameter])).expect("refresh");
}

fn bits(saved: &[Saved]) -> Vec<u32> {
    let bits = |saved: &Saved| match saved {
        Saved::Numbers(values) => values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
        Saved::Bytes(values) => values.iter().copied().map(u32::from).collect(),
    };
    saved.iter().flat_map(bits).collect()
}

#[test]
fn a_step_goes_on_from_what_was_saved() {
    let config = CpuConfig { threads: 2, isa: None, precision: Precision::Bf16 };
    let shape = Shape::Matrix(50, 90);
    let golden = golden();
    for case in golden["cases"].as_array().expect("cases") {
        let settings = settings(case);
        let kind = settings.0.kind();
        let mut cpu = Cpu::new(config).expect("a CPU");
        let parameter = cpu.load_trained(shape, &hashed(0, shape.len()), kind).expect("load");
        for i in 1..=3 {
            step(&mut cpu, parameter, settings, &hashed(i, shape.len()), i as u32);
        }
        let saved = save(&mut cpu, parameter);
        let mut other = Cpu::new(config).expect("a CPU");
        let zeros = vec![0.0; shape.len()];
        let again = other.load_trained(shape, &zeros, kind).expect("load");
        restore(&mut other, again, &saved);
        for i in 4..=5 {
            step(&mut cpu, parameter, settings, &hashed(i, shape.len()), i as u32);
            step(&mut other, again, settings, &hashed(i, shape.len()), i as u32);
        }
        let ends = [save(&mut cpu, parameter), save(&mut other, again)];
        assert_ne!(bits(&ends[0]), bits(&saved), "{}", case["optimizer"]);
        assert_eq!(bits(&ends[0]), bits(&ends[1]), "{}", case["optimizer"]);
    }
}

#[test]
#[should_panic(expected = "loaded for another optimizer")]
fn a_parameter_keeps_to_its_optimizer() {
    let mut reference = Reference::new();
    let kind = compute::OptimizerKind::Sgd;
    let parameter = reference.load_trained(Shape::Vector(2), &[1.0, 2.0], kind).expect("load");
    let adamw = Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 };
    step(&mut reference, parameter, (adamw, 0.1, 0.0), &[1.0, 1.0], 1);
    reference.sync().expect("sync");
}

#[test]
#[should_panic(expected = "Muon steps matrices")]
fn muon_takes_no_vector() {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::F32 };
    let mut cpu = Cpu::new(config).expect("a CPU");
    let muon = Optimizer::Muon { momentum: 0.95, nesterov: true, iterations: 5, match_rms: false };
    let parameter = cpu.load_trained(Shape::Vector(2), &[1.0, 2.0], muon.kind()).expect("load");
    step(&mut cpu, parameter, (muon, 0.1, 0.0), &[1.0, 1.0], 1);
}
