//! After the first step compute threads allocate nothing: memory is planned before it is needed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::{Optimizer, Quantization, Storage};
use data::{Place, Sequence};
use model::Base;
use serde_json::json;
use train::trainer::{Trial, TrialConfig};

/// The system's allocator, which counts what threads ask for.
struct Counting;

/// Of threads that the test did not mark as its own: the pool's.
static ON_COMPUTE_THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this is the thread that lists operations, and how often it asked.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

fn count() {
    match OWN.get() {
        Some(times) => OWN.set(Some(times + 1)),
        None => {
            ON_COMPUTE_THREADS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's duty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's duty.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's duty.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's duty.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn base(scratch: &Path) -> Base {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu"
    });
    Base::synthetic(&config, "test", Storage::Bf16, scratch).unwrap()
}

/// Rows that begin alike, so that they share a prefix.
fn rows() -> Vec<Sequence> {
    let row = |row: u32| Sequence {
        row: u64::from(row),
        part: 0,
        role: 0,
        tokens: (0..90).map(|i| if i < 40 { i } else { (i * 7 + row * 3) % 50 }).collect(),
        weights: (0..90).map(|i| f32::from(i >= 50_u16)).collect(),
        place: Place { file: Path::new("rows").into(), line: row as usize + 1, element: None },
    };
    (0..6).map(row).collect()
}

/// What three steps after the first one ask for, on compute threads and on the one that lists operations.
fn asked_for(base: &Base, config: &TrialConfig, precision: Precision, isa: Isa) -> (usize, usize) {
    let mut cpu = Cpu::new(CpuConfig { threads: 3, isa: Some(isa), precision }).unwrap();
    let mut trial = Trial::new(base, &mut cpu, config, &rows()).unwrap();
    trial.step(&mut cpu).unwrap();
    OWN.set(Some(0));
    let before = ON_COMPUTE_THREADS.load(Ordering::Relaxed);
    for _ in 0..3 {
        trial.step(&mut cpu).unwrap();
    }
    let own = OWN.replace(None).unwrap();
    (ON_COMPUTE_THREADS.load(Ordering::Relaxed) - before, own)
}

#[test]
fn compute_threads_allocate_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let lora = TrialConfig {
        method: train::method::named("sft").unwrap(),
        rank: Some(4),
        quantization: None,
        optimizer: Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8 },
        micro_batch_tokens: 300,
        recompute: false,
        shares_prefixes: true,
        memory_limit: usize::MAX,
    };
    let nf4 = Quantization::Nf4;
    let configs = [
        ("LoRA", lora.clone()),
        ("LoRA, computed twice", TrialConfig { recompute: true, ..lora.clone() }),
        ("LoRA over NF4", TrialConfig { quantization: Some(nf4), ..lora.clone() }),
        ("the whole model", TrialConfig { rank: None, ..lora }),
    ];
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            for (name, config) in &configs {
                let (compute, own) = asked_for(&base, config, precision, isa);
                assert!(own > 0, "what the thread asks for that lists operations is counted");
                assert_eq!(compute, 0, "{isa}, {precision:?}, {name}");
            }
        }
    }
}
