//! A step that is only measured is a step.

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Optimizer, Storage};
use data::{Place, Sequence};
use model::Base;
use serde_json::json;
use train::trainer::{Trial, TrialConfig};

fn base(scratch: &std::path::Path) -> Base {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu"
    });
    Base::synthetic(&config, "test", Storage::Bf16, scratch).unwrap()
}

fn rows(count: usize) -> Vec<Sequence> {
    let row = |row: usize| Sequence {
        row: row as u64,
        part: 0,
        role: 0,
        tokens: (0..9).map(|i| (i * 7 + row as u32 * 3) % 50).collect(),
        weights: (0..9).map(|i| f32::from(i >= 1)).collect(),
        place: Place { file: std::path::Path::new("rows").into(), line: row + 1, element: None },
    };
    (0..count).map(row).collect()
}

fn config(method: &str) -> TrialConfig {
    TrialConfig {
        method: train::method::named(method).unwrap(),
        rank: Some(4),
        quantization: None,
        optimizer: Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8 },
        micro_batch_tokens: 64,
        recompute: false,
        shares_prefixes: true,
        memory_limit: usize::MAX,
    }
}

/// Loss of the first step, and its work.
fn step(config: &TrialConfig, count: usize) -> (f64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let config_cpu = CpuConfig { threads: 2, isa: None, precision: Precision::F32 };
    let mut cpu = Cpu::new(config_cpu).unwrap();
    let mut trial = Trial::new(&base, &mut cpu, config, &rows(count)).unwrap();
    let loss = trial.step(&mut cpu).unwrap();
    // The stack is empty again.
    let again = trial.step(&mut cpu).unwrap();
    assert!((loss - again).abs() < 1e-3, "{loss}, {again}");
    (loss, trial.flops)
}

#[test]
fn work_counts_what_is_useful() {
    let lora = config("sft");
    let (loss, work) = step(&lora, 2);
    assert!(loss.is_finite() && loss > 1.0, "{loss}");
    // Computing again is not useful, and changes no bit.
    let checkpointed = TrialConfig { recompute: true, ..lora.clone() };
    assert_eq!(step(&checkpointed, 2), (loss, work));
    assert_eq!(step(&lora, 4).1, 2 * work);
    // The gradients of all weights come on top, those of the adapter's go.
    let whole = TrialConfig { rank: None, ..lora };
    assert!(step(&whole, 2).1 > work);
}

#[test]
fn a_step_with_a_known_reference_is_the_live_one() {
    for (method, pairs) in [("dpo", true), ("kto", false), ("reward", true)] {
        let rows = rows(4).into_iter().map(|sequence| {
            let index = sequence.row;
            let row = if pairs { index / 2 } else { index };
            Sequence { row, role: (index % 2) as u8, ..sequence }
        });
        let rows: Vec<_> = rows.collect();
        let dir = tempfile::tempdir().unwrap();
        let base = base(dir.path());
        let config_cpu = CpuConfig { threads: 2, isa: None, precision: Precision::F32 };
        let mut cpu = Cpu::new(config_cpu).unwrap();
        let mut new = || {
            let mut trial = Trial::new(&base, &mut cpu, &config(method), &rows).unwrap();
            trial.know_reference(&mut cpu).unwrap();
            let forward = trial.forward(&mut cpu).unwrap();
            (trial, forward)
        };
        let ((mut live, forward), (mut known, _)) = (new(), new());
        assert_eq!(live.has_reference(), method != "reward");
        for step in 0..3 {
            let loss = live.step(&mut cpu).unwrap();
            assert_eq!(known.step_with_known_reference(&mut cpu).unwrap(), loss, "{method} {step}");
            assert!(step > 0 || loss == forward, "{method}: {loss} {forward}");
        }
    }
}
