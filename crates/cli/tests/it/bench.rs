//! Measuring is tried on a tiny model: figures are there and hang together; how large they are is not tested.

use crate::house::House;

fn bench(tokens: &str, more: &[&str]) -> serde_json::Value {
    let order = ["bench", "tiny", "--seconds", "0.001", "--json", "--tokens", tokens];
    House::with_model().run(&[&order, more].concat()).done().result()
}

fn rows_of<'a>(result: &'a serde_json::Value, part: &str) -> Vec<&'a serde_json::Value> {
    let rows = result["rows"].as_array().unwrap();
    rows.iter().filter(|row| row["part"] == part).collect()
}

#[test]
fn every_part_has_its_figures() {
    let result = bench("8", &["--sequences", "2,3", "--prompt-tokens", "3", "--new-tokens", "4"]);
    for limit in ["peak_flops", "read_bytes_per_s", "copy_bytes_per_s"] {
        assert!(result["machine"][limit].as_f64().unwrap() > 0.0, "{limit}");
    }
    for (part, count) in [("attention", 1), ("head", 1), ("train", 2), ("prompt", 1), ("decode", 2)]
    {
        assert_eq!(rows_of(&result, part).len(), count, "{part}");
    }
    for row in result["rows"].as_array().unwrap() {
        assert!(row["seconds"].as_f64().unwrap() > 0.0, "{row}");
    }
    let train = rows_of(&result, "train")[0];
    // Two rows of eight tokens in so many seconds.
    let tokens = train["tokens_per_s"].as_f64().unwrap() * train["seconds"].as_f64().unwrap();
    assert!((tokens - 16.0).abs() < 1e-6, "{train}");
    assert!(train["peak_share"].as_f64().unwrap() > 0.0, "{train}");
    assert!(train["memory"]["activations"].as_u64().unwrap() > 0, "{train}");
    let decode = rows_of(&result, "decode")[1];
    let tokens = decode["tokens_per_s"].as_f64().unwrap() * decode["seconds"].as_f64().unwrap();
    // The first token of each answer comes out of the prompt.
    assert!((tokens - 9.0).abs() < 1e-6, "{decode}");
    let products = rows_of(&result, "gemm");
    assert_eq!(products.last().unwrap()["name"], "all products of a layer");
}

#[test]
fn a_shared_beginning_is_computed_once() {
    let step = ["--only", "train", "--sequences", "4", "--shared", "32"];
    let both = [&[][..], &["--unshared"]].map(|more| bench("40", &[&step[..], more].concat()));
    let computed = both.map(|result| result["rows"][0]["tokens_computed"].as_u64().unwrap());
    // The last token of a row is predicted and not read.
    assert_eq!(computed, [32 + 4 * 7, 4 * 39]);
}

#[test]
fn every_method_has_a_step() {
    for (method, called, sequences, before) in [
        ("sft", "rows", 1, &[][..]),
        ("dpo", "pairs", 2, &["reference forward"]),
        ("kto", "answers", 1, &["reference forward"]),
        ("bco", "answers", 1, &["reference forward"]),
        ("orpo", "pairs", 2, &[]),
        ("simpo", "pairs", 2, &[]),
        ("cpo", "pairs", 2, &[]),
        ("reward", "pairs", 2, &[]),
        ("grpo", "prompts", 8, &["rollout"]),
        ("ppo", "prompts", 8, &["rollout"]),
        ("online_dpo", "pairs", 2, &["rollout", "reference forward"]),
        ("distill", "prompts", 8, &["rollout"]),
    ] {
        let step = ["--only", "train", "--sequences", "4", "--method", method, "--profile"];
        let result = bench("12", &step);
        let row = &result["rows"][0];
        let seconds = row["seconds"].as_f64().unwrap();
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{method} {key}"));
        assert!((number(&format!("{called}_per_s")) * seconds - 4.0).abs() < 1e-6, "{row}");
        let tokens = f64::from(4 * sequences * 12);
        assert!((number("tokens_per_s") * seconds - tokens).abs() < 1e-6, "{row}");
        assert_eq!((row["method"].as_str(), number("loss").is_finite()), (Some(method), true));
        let passes = rows_of(&result, "train");
        let passes: Vec<_> = passes.iter().filter_map(|row| row["pass"].as_str()).collect();
        let mut expected = vec!["policy forward", "backward", "head", "update"];
        for &pass in before.iter().rev() {
            let at = if pass == "rollout" { 0 } else { 1 };
            expected.insert(at, pass);
        }
        assert_eq!(passes, expected, "{method}");
    }
    // A fresh adapter changes nothing, and the steps that are measured little.
    let loss = |result: serde_json::Value| result["rows"][0]["loss"].as_f64().unwrap();
    let dpo = loss(bench("12", &["--only", "train", "--sequences", "2", "--method", "dpo"]));
    assert!((dpo - std::f64::consts::LN_2).abs() < 1e-2, "{dpo}");
}

#[test]
fn a_shape_needs_no_model() {
    let house = House::new();
    let shape = ["bench", "--shape", "smollm2-135m", "--seconds", "0.001"];
    let part = ["--only", "attention", "--tokens", "8"];
    let ended = house.run(&[shape.as_slice(), &part].concat()).done();
    assert!(ended.stdout.contains("attention 8 x 8, forward and backward"), "{}", ended.stdout);
    assert!(ended.stderr.contains("134,515,008 parameters, bf16"), "{}", ended.stderr);
    let ended = house.run(&["bench", "--shape", "gpt-5"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("llama-3.1-8b"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_measured_is_refused_first() {
    let house = House::with_model();
    let cases: [(&[&str], &str); 7] = [
        (&["--adapter", "none", "--quantization", "nf4"], "cannot be trained itself"),
        (&["--adapter", "none", "--method", "dpo"], "method `dpo` trains an adapter only"),
        (&["--adapter", "none", "--method", "reward"], "method `reward` trains an adapter only"),
        (&["--tokens", "8", "--shared", "8"], "leaves nothing of a row"),
        (&["--shared", "48"], "leaves nothing of a prompt"),
        (&["--quantization", "q4_1"], "keeps the blocks that its file has"),
        (&["--seconds", "0"], "a number above 0 is needed"),
    ];
    for (more, message) in cases {
        let ended = house.run(&[&["bench", "tiny"], more].concat());
        assert_eq!(ended.code, 2, "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(message), "{more:?}: {}", ended.stderr);
    }
}
