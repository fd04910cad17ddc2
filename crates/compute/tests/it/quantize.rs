//! 4-bit and 8-bit storage against bitsandbytes.

use std::sync::Arc;

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::dequant::dequantize;
use compute::op::{Linear, Term};
use compute::quantize::{BlockAbsmax, DYNAMIC, FourBit, NF4, Quantized, int8_row};
use compute::{
    Absmax, Backend, DType, LookupSource, Op, Quantization, QuantizedValues, Reference, Storage,
    WeightSource,
};
use serde_json::Value;

use crate::dequant::hex;

/// How near to a threshold (in parts of its block's magnitude) another code is no error.
const NEAR: f32 = 1e-6;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/nf4.json")).expect("golden")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex(value.as_str().expect("hexadecimal"))
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(Storage::F32, &bytes(value))
}

fn numbers(storage: Storage, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / storage.block_bytes()];
    dequantize(storage, bytes, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn count(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

struct Input {
    rows: usize,
    cols: usize,
    storage: Storage,
    bytes: Vec<u8>,
}

impl Input {
    fn new(golden: &Value, name: &Value) -> Self {
        let input = &golden["inputs"][name.as_str().expect("a name")];
        Input {
            rows: count(&input["shape"][0]),
            cols: count(&input["shape"][1]),
            storage: if input["dtype"] == "bfloat16" { Storage::Bf16 } else { Storage::F32 },
            bytes: bytes(&input["values"]),
        }
    }

    fn nf4(&self) -> FourBit {
        let Input { rows, cols, storage, ref bytes } = *self;
        let source = WeightSource { rows, cols, storage, bytes, row_order: None };
        match Quantized::new(source, Quantization::Nf4).expect("finite numbers") {
            Quantized::FourBit(matrix) => matrix,
            Quantized::EightBit(_) => panic!("NF4 has 4 bits"),
        }
    }
}

#[test]
fn maps_are_those_of_the_package() {
    let maps = &golden()["maps"];
    assert_eq!(bits(&floats(&maps["nf4"])), bits(&NF4));
    assert_eq!(bits(&floats(&maps["nested"])), bits(&*DYNAMIC));
}

/// Codes, the first in the high half.
fn unpack(packed: &[u8]) -> impl Iterator<Item = u8> {
    packed.iter().flat_map(|byte| [byte >> 4, byte & 15])
}

/// Codes are equal, or the number lies on the threshold between them.
#[track_caller]
fn check_codes(codes: &[u8], expected: &[u8], scaled: &[f32], map: &[f32]) {
    assert_eq!(codes.len(), expected.len());
    for ((&code, &expected), &scaled) in codes.iter().zip(expected).zip(scaled) {
        let middle = (map[usize::from(code)] + map[usize::from(expected)]) / 2.0;
        let near = code.abs_diff(expected) == 1 && (scaled - middle).abs() <= NEAR;
        assert!(code == expected || near, "{scaled} has code {code}, not {expected}");
    }
}

fn scaled(values: &[f32], absmax: &[f32], block_len: usize) -> Vec<f32> {
    let scale = |index: usize| absmax[index / block_len].max(1e-38);
    values.iter().enumerate().map(|(index, value)| value / scale(index)).collect()
}

#[test]
fn nf4_has_the_codes_of_the_package() {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("cases").iter();
    let cases: Vec<_> = cases.filter(|case| case["quant_type"] == "nf4").collect();
    assert!(cases.len() > 10);
    for case in cases {
        let input = Input::new(&golden, &case["input"]);
        let values = numbers(input.storage, &input.bytes);
        let matrix = input.nf4();
        let plain = if case["double_quant"] == true {
            check_nested(&matrix.absmax, case);
            floats(&case["unquantized_absmax"])
        } else {
            floats(&case["absmax"])
        };
        if case["packed"].is_string() {
            let codes: Vec<u8> = unpack(&matrix.codes).collect();
            let expected: Vec<u8> = unpack(&bytes(&case["packed"])).collect();
            let mut scaled = scaled(&values, &plain, 64);
            scaled.resize(expected.len(), 0.0);
            check_codes(&codes, &expected, &scaled, &NF4);
        }
    }
}

fn check_nested(absmax: &BlockAbsmax, case: &Value) {
    let BlockAbsmax::Nested { codes, absmax: nested, offset, .. } = absmax else {
        panic!("NF4 is quantised twice")
    };
    let expected = floats(&case["nested_offset"])[0];
    assert!((offset - expected).abs() <= 4.0 * f32::EPSILON * expected, "{offset}, not {expected}");
    let plain = floats(&case["unquantized_absmax"]);
    let distances: Vec<f32> = plain.iter().map(|absmax| absmax - expected).collect();
    let expected = floats(&case["nested_absmax"]);
    for (nested, expected) in nested.iter().zip(&expected) {
        assert!((nested - expected).abs() <= 1e-6 * expected.max(*offset), "{nested}, {expected}");
    }
    let scaled = scaled(&distances, &expected, 256);
    check_codes(codes, &bytes(&case["absmax_codes"]), &scaled, &*DYNAMIC);
}

#[test]
fn a_stored_state_comes_back_to_the_bit() {
    let golden = golden();
    let maps = &golden["maps"];
    let nested_map = floats(&maps["nested"]);
    for case in golden["cases"].as_array().expect("cases") {
        let Input { cols, .. } = Input::new(&golden, &case["input"]);
        let map = floats(&maps[case["quant_type"].as_str().expect("a name")]);
        let packed = case["packed"].as_str().map(hex).unwrap_or_default();
        let restored = floats(&case["absmax"]);
        let [codes, nested] = ["absmax_codes", "nested_absmax"]
            .map(|key| case[key].as_str().map(hex).unwrap_or_default());
        let nested = numbers(Storage::F32, &nested);
        let absmax = if case["double_quant"] == true {
            let offset = floats(&case["nested_offset"])[0];
            let block_len = count(&case["nested_blocksize"]);
            Absmax::Nested { codes: &codes, map: &nested_map, block_len, absmax: &nested, offset }
        } else {
            Absmax::Plain(&restored)
        };
        let own: Vec<f32> = (0..restored.len()).map(|block| absmax.get(block)).collect();
        assert_eq!(bits(&own), bits(&restored), "{}", case["input"]);
        let Some(expected) = case["dequantized_f32"].as_str() else { continue };
        let map = map.as_slice().try_into().expect("16 numbers");
        let block_len = count(&case["blocksize"]);
        let values = QuantizedValues::FourBit { codes: &packed, map, block_len, absmax };
        let len = count(&case["count"]);
        values.check(len / cols, cols).expect("whole");
        let mut out = vec![0.0; len];
        values.read(cols, 0..len, &mut out);
        assert_eq!(bits(&out), bits(&numbers(Storage::F32, &hex(expected))), "{}", case["input"]);
    }
}

#[test]
fn rows_of_8_bits_equal_the_package() {
    let golden = &golden()["int8"];
    let (rows, cols) = (count(&golden["shape"][0]), count(&golden["shape"][1]));
    let values = numbers(Storage::F16, &bytes(&golden["input_f16"]));
    let codes = bytes(&golden["CB"]);
    let (codes, absmax) = (compute::weight::signed(&codes), floats(&golden["SCB"]));
    for row in 0..rows {
        let mut own = vec![0; cols];
        let largest = int8_row(&values[row * cols..][..cols], &mut own);
        assert_eq!(own, codes[row * cols..][..cols], "row {row}");
        assert_eq!(largest.to_bits(), absmax[row].to_bits());
    }
    let stored = QuantizedValues::EightBit { codes, absmax: &absmax };
    let mut out = vec![0.0; rows * cols];
    stored.read(cols, 0..rows * cols, &mut out);
    assert_eq!(bits(&out), bits(&floats(&golden["dequantized_f32"])));
}

/// A matrix of 2 x 3 in these bytes of 16.
fn lookup(range: std::ops::Range<usize>) -> LookupSource {
    let owner = Arc::new([0_u8; 16]);
    LookupSource { rows: 2, cols: 3, storage: Storage::Bf16, owner, range }
}

fn cpu() -> Cpu {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::Bf16 };
    Cpu::new(config).expect("a CPU")
}

#[test]
fn a_lookup_has_the_bytes_of_its_shape() {
    #[track_caller]
    fn check(range: std::ops::Range<usize>, actual: usize) {
        let backends: [Box<dyn Backend>; 2] = [Box::new(cpu()), Box::new(Reference::new())];
        for mut backend in backends {
            let error = backend.load_lookup(lookup(range.clone())).unwrap_err();
            let expected = format!("a Bf16 matrix of 2 x 3 has 12 bytes, not {actual}");
            assert_eq!(error.to_string(), expected);
        }
    }
    check(0..11, 11);
    // Beyond the end of the owner's bytes.
    check(5..17, 0);
}

fn multiply_a_lookup(backend: &mut dyn Backend) {
    backend.reserve(1 << 10).expect("a stack");
    let weight = backend.load_lookup(lookup(2..14)).expect("a lookup");
    let input = backend.alloc(3, backend.operand()).expect("room");
    backend.upload(&[1.0; 3], input).expect("upload");
    let out = backend.alloc(2, DType::F32).expect("room");
    let terms = [Term { input, weight, transposed: false }];
    let op = Linear::product(1, &terms, out);
    backend.run(Op::Linear(&[op])).expect("run");
    backend.sync().expect("sync");
}

#[test]
#[should_panic(expected = "it can only be embedded")]
fn a_product_over_a_lookup_is_a_bug() {
    multiply_a_lookup(&mut cpu());
}

#[test]
#[should_panic(expected = "it can only be embedded")]
fn a_product_over_a_lookup_is_a_bug_to_the_reference_too() {
    multiply_a_lookup(&mut Reference::new());
}
