//! Heads whose reads take several chunks.

use super::*;
use crate::DType;
use crate::cpu::operand::Operand;
use crate::cpu::panel::Format;
use crate::cpu::testing::normal;
use crate::cpu::{Isa, Pool};

const READS: usize = 71;
const VOCAB: usize = 90;
const COLS: usize = 24;

/// `d_hidden` and `d_weight` with this much room for logits.
fn gradients(machine: Machine<'_>, groups: &[u32], logits_bytes: usize) -> [Vec<f32>; 2] {
    let matrix = Matrix::trained(machine, VOCAB, COLS, &normal(1, VOCAB * COLS));
    let hidden = normal(2, READS * COLS);
    let narrow: Vec<u16> = hidden.iter().map(|&x| Operand::store(x)).collect();
    let factors = normal(3, READS);
    let reads: Vec<u32> = (0..READS as u32).collect();
    let [mut d_hidden, mut d_weight] = [vec![0.0; READS * COLS], normal(4, VOCAB * COLS)];
    let none = std::ptr::null_mut();
    let job = HeadJob {
        reads: READS,
        hidden: match machine.format {
            Format::Floats => hidden.as_ptr().cast(),
            Format::Pairs | Format::Tiles | Format::Halves => narrow.as_ptr().cast(),
        },
        matrix: &matrix,
        scale: 1.0,
        softcap: None,
        temperature: 1.0,
        target_reads: &reads,
        target_tokens: &reads,
        outputs: HeadResults {
            logprob: none,
            entropy: none,
            lse: none,
            mean_logprob: none,
            log_sum_sq_probs: none,
            top1: std::ptr::null_mut(),
        },
        gradients: HeadFactors { logprob: &factors, entropy: &[], lse: &[], mean_logprob: &[] },
        d_hidden: d_hidden.as_mut_ptr(),
        d_weight: Some(HeadWeight { groups, rows: None, gradient: d_weight.as_mut_ptr() }),
        teacher: None,
    };
    let mut memory = HeadMemory { logits_bytes, ..HeadMemory::new() };
    // SAFETY: all lengths are as the job says.
    unsafe { head(machine, &mut Packing::new(), &mut memory, &job) };
    [d_hidden, d_weight]
}

#[test]
fn chunks_change_no_bit() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        for format in [DType::Bf16, DType::F32].map(|operand| Format::new(isa, operand)) {
            let machine = Machine { pool: &pool, isa, format };
            let groups = [0, 1, 1, 20, 43, READS as u32];
            let [d_hidden, d_weight] = gradients(machine, &groups, LOGITS_BYTES);
            for reads in [1, 13, 25, 40] {
                let again = gradients(machine, &groups, reads * VOCAB * 4);
                assert!(again[0] == d_hidden && again[1] == d_weight, "{isa}, {reads} reads");
            }
        }
    }
}

#[test]
fn chunks_end_between_rows_that_are_added_up_together() {
    let groups = [0, 3, 3, 70, 131];
    let weight = HeadWeight { groups: &groups, rows: None, gradient: std::ptr::null_mut() };
    for (format, together) in [(Format::Pairs, 2), (Format::Tiles, 32)] {
        for most in together..131 {
            let mut first = 0;
            while first < 131 {
                let count = weight.chunk(format, first, most, 131);
                assert!((1..=most).contains(&count), "{count} reads from {first} on");
                first += count;
                let start = groups.iter().rev().find(|&&start| start as usize <= first);
                let inside = first - *start.expect("the first group starts at 0") as usize;
                assert!(first == 131 || inside.is_multiple_of(together), "a chunk ends at {first}");
            }
        }
    }
}
