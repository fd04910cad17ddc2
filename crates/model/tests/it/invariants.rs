//! What must not change a result, of a tiny Llama: dropout and packing, splitting, partial adapters. What
//! holds for every family stands in `combinations`.

use compute::cpu::Precision;
use data::{Packing, Sequence, pack};
use model::{LoraConfig, Module};

use crate::support::{
    How, Lora, Rig, batch, by_place, check_same, check_same_all, cpu, distance, random_sequence,
    random_tokens, split_trees, tiny,
};

const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Rows of many lengths, none with a common beginning.
fn rows() -> Vec<Sequence> {
    let lengths = [150, 40, 17, 9, 33, 2, 64];
    let rows = lengths.iter().enumerate();
    rows.map(|(row, &len)| random_sequence(row as u64, &random_tokens(row as u64, len, 128)))
        .collect()
}

/// Two families over long beginnings, one of them with a beginning of its own, and a row apart.
fn families() -> Vec<Sequence> {
    let (first, second) = (random_tokens(50, 70, 128), random_tokens(51, 20, 128));
    let inner = random_tokens(52, 19, 128);
    let tail = |seed, len| random_tokens(seed, len, 128);
    let all = [
        [first.clone(), tail(60, 30)].concat(),
        [first.clone(), inner.clone(), tail(61, 5)].concat(),
        [first.clone(), inner, tail(62, 41)].concat(),
        [first, tail(63, 1)].concat(),
        [second.clone(), tail(64, 12)].concat(),
        [second, tail(65, 25)].concat(),
        tail(66, 37),
    ];
    let rows = all.iter().enumerate();
    rows.map(|(row, tokens)| random_sequence(row as u64, tokens)).collect()
}

/// A family that is larger than the budget is split, and its prefix computed again.
#[test]
fn a_split_family_equals_a_whole_one() {
    let rows = families();
    let whole = batch(&rows, 16);
    let micros = pack(&rows, &Packing { min_shared: 16, ..Packing::new(130) });
    assert!(micros.len() > 2);
    for precision in BOTH {
        let mut rig = Rig::tiny(precision, 2);
        let expected = by_place(&rows, &whole, &rig.logprobs(&whole));
        let mut split = std::collections::BTreeMap::new();
        for micro in &micros {
            split.append(&mut by_place(&rows, &micro.batch, &rig.logprobs(&micro.batch)));
        }
        assert_eq!(split, expected, "{precision:?}");
    }
}

#[test]
fn threads_change_no_bit() {
    let batch = batch(&[families(), rows()].concat(), 16);
    let how = How { dropout_key: Some(3), ..How::default() };
    for precision in BOTH {
        let results = [1, 2, 3].map(|threads| {
            let mut rig = dropping(precision, threads);
            (rig.accumulate(&batch, how), rig.take_gradients())
        });
        for (logprobs, gradients) in &results[1..] {
            check_same("log-probs", logprobs, &results[0].0);
            check_same_all("gradient", gradients, &results[0].1);
        }
    }
}

#[test]
fn checkpointed_blocks_change_no_bit() {
    let batch = batch(&families(), 16);
    for precision in BOTH {
        for dropout_key in [None, Some(5)] {
            let mut rig = dropping(precision, 2);
            let [kept, again] = [false, true].map(|checkpoint| {
                let how = How { checkpoint, dropout_key, ..How::default() };
                (rig.accumulate(&batch, how), rig.take_gradients())
            });
            check_same("log-probs", &again.0, &kept.0);
            check_same_all("gradient", &again.1, &kept.1);
        }
    }
}

#[test]
fn one_pass_over_the_vocabulary_equals_two() {
    let batch = batch(&rows(), 0);
    for precision in BOTH {
        let mut rig = Rig::tiny(precision, 2);
        let [two, one] = [false, true].map(|one_pass| {
            let how = How { one_pass, ..How::default() };
            (rig.accumulate(&batch, how), rig.take_gradients())
        });
        assert!(distance(&one.0, &two.0) < 1e-6, "log-probs");
        for (one, two) in one.1.iter().zip(&two.1) {
            let distance = distance(one, two);
            assert!(distance < 1e-6, "{precision:?} gradient: distance {distance:e}");
        }
    }
}

/// The tiny model with dropout on its adapter.
fn dropping(precision: Precision, threads: usize) -> Rig {
    let (base, (config, values)) = tiny("gqa");
    let lora = (LoraConfig { dropout: 0.3, ..config }, values);
    Rig::new(Box::new(cpu(precision, threads)), &base, &lora)
}

/// Masks belong to rows and positions, not to places in a batch.
#[test]
fn dropout_does_not_depend_on_packing() {
    let packed = batch(&rows(), 0);
    let trees = split_trees(&packed);
    let how = How { dropout_key: Some(11), ..How::default() };
    for precision in BOTH {
        let mut rig = dropping(precision, 2);
        let logprobs = rig.accumulate(&packed, how);
        let gradients = rig.take_gradients();
        let apart: Vec<_> = trees.iter().map(|tree| rig.accumulate(tree, how)).collect();
        check_same("log-probs", &apart.concat(), &logprobs);
        check_same_all("gradient", &rig.take_gradients(), &gradients);

        let other = rig.accumulate(&packed, How { dropout_key: Some(12), ..how });
        assert!(distance(&other, &logprobs) > 1e-3, "another key gives another mask");
        rig.take_gradients();
        let none = rig.accumulate(&packed, How { dropout_key: None, ..how });
        assert!(distance(&none, &logprobs) > 1e-3, "dropout does something");
        check_same("without dropout", &none, &Rig::tiny(precision, 2).logprobs(&packed));
    }
}

/// Keeps `keep` of an adapter, and of the whole one sets every other B to zero.
fn subset(lora: &Lora, keep: impl Fn(usize, Module) -> bool) -> (Lora, Lora) {
    let (mut part, mut whole) = (lora.clone(), lora.clone());
    part.0.modules.retain(|&(layer, module), _| keep(layer, module));
    part.1.clear();
    for (index, &(layer, module)) in lora.0.modules.keys().enumerate() {
        if keep(layer, module) {
            part.1.extend(lora.1[2 * index..][..2].iter().cloned());
        } else {
            whole.1[2 * index + 1].fill(0.0);
        }
    }
    (part, whole)
}

/// Modules that are not covered are as if their B were zero, and nothing is computed for them.
#[test]
fn a_partial_adapter_equals_a_whole_one_with_zeros() {
    type Keep = fn(usize, Module) -> bool;
    let kept: [Keep; 6] = [
        |layer, _| layer == 1,
        |layer, _| layer == 0,
        |_, module| matches!(module, Module::Q | Module::V),
        |_, module| module == Module::Down,
        |layer, module| layer == 1 && module == Module::K,
        |layer, module| (layer == 0) == (module == Module::O) && module != Module::Gate,
    ];
    let batch = batch(&families(), 16);
    let (base, lora) = tiny("gqa");
    for keep in kept {
        let (part, whole) = subset(&lora, keep);
        let order: Vec<bool> = lora.0.modules.keys().map(|&(l, m)| keep(l, m)).collect();
        for (precision, checkpoint) in BOTH.into_iter().zip([false, true]) {
            let how = How { checkpoint, ..How::default() };
            let mut rig = Rig::new(Box::new(cpu(precision, 2)), &base, &part);
            let logprobs = rig.accumulate(&batch, how);
            let gradients = rig.take_gradients();
            let mut rig = Rig::new(Box::new(cpu(precision, 2)), &base, &whole);
            check_same("log-probs", &logprobs, &rig.accumulate(&batch, how));
            let expected = rig.take_gradients();
            let expected = expected.chunks(2).zip(&order).filter(|(_, kept)| **kept);
            let expected: Vec<Vec<f32>> = expected.flat_map(|(pair, _)| pair.to_vec()).collect();
            check_same_all("gradient", &gradients, &expected);
        }
    }
}

/// A batch in which nobody reads one of the trees, and one that nobody reads at all.
#[test]
fn trees_without_reads_add_nothing() {
    let mut rows = rows();
    let read = batch(&rows[..2], 0);
    rows[2].weights.fill(0.0);
    let with_unread = batch(&rows[..3], 0);
    assert_eq!(with_unread.targets.len(), read.targets.len());
    for precision in BOTH {
        let mut rig = Rig::tiny(precision, 2);
        let expected = rig.gradients(&read, How::default());
        check_same_all("gradient", &rig.gradients(&with_unread, How::default()), &expected);
        let unread = batch(&rows[2..3], 0);
        assert!(rig.accumulate(&unread, How::default()).is_empty());
        assert!(rig.take_gradients().iter().flatten().all(|&gradient| gradient == 0.0));
    }
}
