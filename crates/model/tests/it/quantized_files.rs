//! Tensors of folders that bitsandbytes quantised, read in parts or left in place; and what is wrong with
//! such a folder is an error that names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compute::cpu::Precision;
use model::checkpoint::Stored;
use model::{Base, Decoder};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{check_same, cpu, golden};

const CASES: [&str; 4] = ["nf4", "nf4_plain", "fp4", "int8"];

/// Parts of a matrix have the numbers of its rows, wherever they begin.
#[test]
fn rows_of_a_matrix_are_its_rows() {
    for case in CASES {
        let base = Base::open(&golden(&format!("bnb/{case}"))).unwrap();
        for (name, shape) in
            [("mlp.down_proj", [64, 96]), ("mlp.up_proj", [96, 64]), ("self_attn.k_proj", [32, 64])]
        {
            let name = format!("model.layers.0.{name}.weight");
            let tensor = base.tensor(&name, &shape).unwrap();
            let all = tensor.values(0..shape[0]).unwrap();
            tensor.release();
            for rows in [0..shape[0], 0..3, 2..7, 5..6, 4..shape[0]] {
                let expected = &all[rows.start * shape[1]..rows.end * shape[1]];
                check_same(&name, &tensor.values(rows.clone()).unwrap(), expected);
                let part = tensor.rows(rows.clone());
                let mut values = vec![0.0; expected.len()];
                match part.plain() {
                    Some(source) => source.read(0, &mut values),
                    None => {
                        let source = part.quantized();
                        source.values.check(source.rows, source.cols).unwrap();
                        source.values.read(source.cols, 0..values.len(), &mut values);
                    }
                }
                check_same(&format!("{case}: {name}: {rows:?}"), &values, expected);
            }
        }
    }
}

#[test]
fn an_embedding_can_stay_in_its_file() {
    let base = Base::open(&golden("bnb/nf4")).unwrap();
    let name = "model.embed_tokens.weight";
    let source = base.lookup(name, &[128, 64]).unwrap().unwrap();
    let tensor = base.tensor(name, &[128, 64]).unwrap();
    let mut row = vec![0.0; 64];
    source.read_row(77, &mut row);
    check_same(name, &row, &tensor.values(77..78).unwrap());
    drop(base);
    source.read_row(77, &mut row);
    let quantised = Base::open(&golden("bnb/nf4")).unwrap();
    let lookup = quantised.lookup("model.layers.0.self_attn.q_proj.weight", &[64, 64]);
    assert!(lookup.unwrap().is_none());
}

/// Tensors of a file, to be changed.
type Parts = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn parts(case: &str) -> Parts {
    let bytes = std::fs::read(golden(&format!("bnb/{case}/model.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let part = |(name, view): (String, TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(part).collect()
}

fn write(case: &str, parts: &Parts) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let config = golden(&format!("bnb/{case}/config.json"));
    std::fs::copy(config, dir.path().join("config.json")).unwrap();
    let views = parts.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    (dir, path)
}

/// `bnb_4bit_quant_storage: bfloat16`: the same bytes under another type.
#[test]
fn codes_may_be_stored_under_another_type() {
    let name = "model.layers.0.mlp.down_proj.weight";
    let mut changed = parts("nf4");
    let (dtype, shape, _) = changed.get_mut(name).unwrap();
    (*dtype, *shape) = (Dtype::BF16, vec![shape[0] / 2, 1]);
    let (dir, _) = write("nf4", &changed);
    let values = |base: &Path| {
        let base = Base::open(base).unwrap();
        let tensor = base.tensor(name, &[64, 96]).unwrap();
        assert!(matches!(tensor.stored, Stored::Quantized(_)));
        tensor.values(0..64).unwrap()
    };
    check_same(name, &values(dir.path()), &values(&golden("bnb/nf4")));
}

#[test]
fn damaged_and_unknown_layouts_are_refused() {
    const NAME: &str = "model.layers.1.mlp.up_proj";
    #[track_caller]
    fn check(case: &str, edit: impl Fn(&mut Parts), expected: &[&str]) {
        let mut changed = parts(case);
        edit(&mut changed);
        let (dir, path) = write(case, &changed);
        let loaded = Base::open(dir.path())
            .and_then(|base| Decoder::load(&base, &mut cpu(Precision::F32, 1)));
        let Err(error) = loaded else { panic!("{expected:?}: loaded") };
        let message = error.to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        for part in [&[NAME], expected].concat() {
            assert!(message.contains(part), "{message}: no {part}");
        }
    }
    fn put(parts: &mut Parts, name: &str, dtype: Dtype, bytes: Vec<u8>) {
        let size = if dtype == Dtype::F32 { 4 } else { 1 };
        parts.insert(format!("{NAME}.{name}"), (dtype, vec![bytes.len() / size], bytes));
    }
    let state = |text: &str| text.as_bytes().to_vec();
    let key = "weight.quant_state.bitsandbytes__nf4";
    let without = |name: &'static str| {
        move |parts: &mut Parts| assert!(parts.remove(&format!("{NAME}.{name}")).is_some())
    };
    check("nf4", without(key), &["without a `quant_state`"]);
    check("nf4", without("weight.absmax"), &["`absmax` is missing"]);
    check("nf4", without("weight.quant_map"), &["`quant_map` is missing"]);
    check("nf4", without("weight.nested_absmax"), &["`nested_absmax` is missing"]);
    check("nf4", |p| put(p, "weight.absmax", Dtype::F32, vec![0; 96 * 4]), &["F32, not U8"]);
    check("nf4", |p| put(p, "weight.absmax", Dtype::U8, vec![0; 95]), &["96 magnitudes, not 95"]);
    check("nf4", |p| put(p, "weight.quant_map", Dtype::F32, vec![0; 32]), &["8 numbers, not 16"]);
    check("nf4", |p| put(p, key, Dtype::U8, state("{")), &["not JSON"]);
    check("nf4", |p| put(p, key, Dtype::U8, state("{}")), &["bytes of codes"]);
    let large = json!({"shape": [u64::MAX, u64::MAX], "blocksize": 64}).to_string();
    check("nf4", |p| put(p, key, Dtype::U8, state(&large)), &["bytes of codes"]);
    let odd = json!({"shape": [96, 64], "blocksize": 0}).to_string();
    check("nf4_plain", |p| put(p, key, Dtype::U8, state(&odd)), &["block length"]);
    check("int8", without("SCB"), &["without an `SCB`"]);
    check("int8", |p| put(p, "weight_format", Dtype::U8, vec![3]), &["tiles"]);
    check("int8", |p| put(p, "SCB", Dtype::F32, vec![0; 8]), &["96 magnitudes, not 2"]);
}

#[test]
fn only_bitsandbytes_is_known() {
    #[track_caller]
    fn check(quantization: Value, expected: Option<&str>) {
        let (dir, _) = write("nf4", &parts("nf4"));
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["quantization_config"] = quantization;
        std::fs::write(&path, config.to_string()).unwrap();
        let error = Base::open(dir.path()).err().map(|error| error.to_string());
        let expected = expected.map(|expected| {
            format!("{}: weights quantised by `{expected}` are not supported", path.display())
        });
        assert_eq!(error, expected);
    }
    check(json!({"load_in_4bit": true}), None);
    check(json!({"quant_method": "awq"}), Some("awq"));
    check(json!({"quant_method": "fp8"}), Some("fp8"));
    check(json!({"quant_method": "compressed-tensors"}), Some("compressed-tensors"));
    check(json!({"load_in_4bit": false}), Some("?"));
}
