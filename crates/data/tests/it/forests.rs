use data::random::key;
use data::{Micro, Packing, Reads, Sequence, pack, pack_units};
use text::LastRead;

use crate::support::place;

/// A sequence whose tokens from `prompt` on are learned.
fn sequence(row: usize, tokens: &[u32], prompt: usize) -> Sequence {
    let weight = |i: usize| if i >= prompt.max(1) { 1.0 + row as f32 } else { 0.0 };
    Sequence {
        row: 100 + row as u64,
        part: 0,
        role: (row % 2) as u8,
        tokens: tokens.to_vec(),
        weights: (0..tokens.len()).map(weight).collect(),
        place: place(row),
    }
}

/// `(start, len, parent)` of every segment.
fn segments(micro: &Micro) -> Vec<(usize, usize, Option<usize>)> {
    micro.batch.segments.iter().map(|s| (s.start, s.len, s.parent)).collect()
}

fn range(from: u32, len: u32) -> Vec<u32> {
    (from..from + len).collect()
}

fn packing(budget_tokens: usize, min_shared: usize) -> Packing {
    Packing { min_shared, ..Packing::new(budget_tokens) }
}

#[test]
fn a_shared_prompt_stands_once() {
    let prompt = range(0, 20);
    let rows = [
        sequence(0, &[&prompt[..], &[50, 51]].concat(), 20),
        sequence(1, &[&prompt[..], &[60, 61, 62]].concat(), 20),
        sequence(2, &range(70, 4), 2),
    ];
    let micros = pack(&rows, &packing(100, 16));
    assert_eq!(micros.len(), 1);
    let batch = &micros[0].batch;
    let expected = [(0, 20, None), (20, 2, Some(0)), (22, 3, Some(0)), (25, 4, None)];
    assert_eq!(segments(&micros[0]), expected);
    assert_eq!(batch.segments.iter().map(|s| s.row).collect::<Vec<_>>(), [100, 100, 101, 102]);
    // The prompt's last token predicts the first token of both answers.
    assert_eq!(batch.reads, [19, 20, 22, 23, 26, 27]);
    let targets: Vec<_> = batch.targets.iter().map(|t| (t.read, t.token, t.sequence)).collect();
    let expected =
        [(0, 50, 0), (0, 60, 1), (1, 51, 0), (2, 61, 1), (3, 62, 1), (4, 72, 2), (5, 73, 2)];
    assert_eq!(targets, expected);
    assert_eq!(batch.targets[1].weight, 2.0);
    assert_eq!(batch.targets[1].role, 1);
    assert_eq!(micros[0].sequences, [0, 1, 2]);
}

#[test]
fn prefixes_nest() {
    let system = range(0, 16);
    let prompt = [&system[..], &range(20, 16)].concat();
    let rows = [
        sequence(0, &[&prompt[..], &[1]].concat(), 32),
        sequence(1, &[&system[..], &[2]].concat(), 16),
        sequence(2, &[&prompt[..], &[3]].concat(), 32),
        // Too short to be shared once more, and equal to the first.
        sequence(3, &[&prompt[..], &[1]].concat(), 32),
    ];
    let micros = pack(&rows, &packing(100, 16));
    let expected = [
        (0, 16, None),
        (16, 1, Some(0)),
        (17, 16, Some(0)),
        (33, 1, Some(2)),
        (34, 1, Some(2)),
        (35, 1, Some(2)),
    ];
    let mut found = segments(&micros[0]);
    found.sort_unstable();
    assert_eq!(found.len(), expected.len());
    assert_eq!(micros[0].batch.tokens.len(), 16 + 16 + 4);
}

#[test]
fn equal_rows_and_prefixes_of_rows_have_no_segment_of_their_own() {
    let long = range(0, 40);
    let rows = [sequence(0, &long, 30), sequence(1, &long, 30), sequence(2, &long[..20], 10)];
    let micros = pack(&rows, &packing(100, 16));
    assert_eq!(segments(&micros[0]), [(0, 20, None), (20, 20, Some(0))]);
    assert_eq!(micros[0].batch.targets.len(), 10 + 10 + 10);
    check_all(&rows, &packing(100, 16));
}

#[test]
fn a_large_family_is_cut_and_its_prefix_recomputed() {
    let prompt = range(0, 20);
    let row = |i: u32| sequence(i as usize, &[&prompt[..], &range(100 * (i + 1), 10)].concat(), 20);
    let rows: Vec<Sequence> = (0..5).map(row).collect();
    let micros = pack(&rows, &packing(40, 16));
    let sizes: Vec<usize> = micros.iter().map(|micro| micro.batch.tokens.len()).collect();
    assert_eq!(sizes, [40, 40, 30]);
    let members: Vec<&[usize]> = micros.iter().map(|micro| &micro.sequences[..]).collect();
    assert_eq!(members, [&[0, 1][..], &[2, 3], &[4]]);
    check_all(&rows, &packing(40, 16));
}

#[test]
fn a_long_sequence_gets_a_micro_batch_of_its_own() {
    let rows = [
        sequence(0, &range(0, 5), 2),
        sequence(1, &range(10, 50), 2),
        sequence(2, &range(70, 5), 2),
    ];
    let micros = pack(&rows, &packing(20, 16));
    let members: Vec<&[usize]> = micros.iter().map(|micro| &micro.sequences[..]).collect();
    assert_eq!(members, [&[1][..], &[0, 2]]);
}

#[test]
fn nothing_is_shared_when_told_so() {
    let rows = [sequence(0, &range(0, 30), 2), sequence(1, &range(0, 30), 2)];
    let micros = pack(&rows, &packing(100, 0));
    assert_eq!(segments(&micros[0]), [(0, 30, None), (30, 30, None)]);
    assert!(pack::<Sequence>(&[], &packing(100, 0)).is_empty());
}

#[test]
fn tokens_that_nobody_reads_can_be_left_out() {
    let mut first = sequence(0, &range(0, 8), 3);
    first.weights[6..].fill(0.0);
    let rows = [first, sequence(1, &range(20, 4), 4)];
    let all = pack(&rows, &packing(100, 16));
    let some = pack(&rows, &Packing { drop_unread: true, ..packing(100, 16) });
    assert_eq!(segments(&some[0]), [(0, 5, None), (5, 1, None)]);
    let lengths: Vec<_> = some[0].batch.segments.iter().map(|s| s.sequence_len).collect();
    assert_eq!(lengths, [8, 4], "what is left out counts");
    let targets = |micros: &[Micro]| micros[0].batch.targets.clone();
    assert_eq!(targets(&some), targets(&all));
    let read = |micros: &[Micro]| {
        let batch = &micros[0].batch;
        batch.reads.iter().map(|&at| batch.tokens[at as usize]).collect::<Vec<_>>()
    };
    assert_eq!(read(&some), read(&all));
}

#[test]
fn units_stay_together() {
    // Pairs that share a prompt of 16 tokens with their partner only, or nothing.
    let mut rows = Vec::new();
    for pair in 0..4 {
        let prompt = range(1000 * pair, if pair % 2 == 0 { 16 } else { 3 });
        for answer in 0..2 {
            let tokens = [&prompt[..], &range(500 + 100 * pair + 20 * answer, 8)].concat();
            rows.push(sequence(rows.len(), &tokens, prompt.len()));
        }
    }
    let packing = Packing { keep_units: true, ..Packing::new(34) };
    check_units(&rows, &packing);
    let micros = pack_units(&rows, &halves(&rows), &packing);
    assert!(micros.iter().all(|micro| micro.batch.tokens.len() <= 34));
    assert!(micros.len() > 1);
}

/// Two neighbours make a unit.
fn halves(rows: &[Sequence]) -> Vec<u32> {
    (0..rows.len() as u32).map(|index| index / 2).collect()
}

#[track_caller]
fn check_units(rows: &[Sequence], packing: &Packing) {
    let units = halves(rows);
    let micros = pack_units(rows, &units, packing);
    for micro in micros {
        for index in 0..rows.len() {
            let partner = micro.sequences.iter().any(|&member| units[member] == units[index]);
            assert_eq!(partner, micro.sequences.contains(&index), "unit {}", units[index]);
        }
    }
}

/// Follows a sequence's segments from root to leaf, and compares its tokens and targets.
#[track_caller]
fn check_sequence(index: usize, sequence: &Sequence, micro: &Micro) {
    let batch = &micro.batch;
    let wanted: Vec<(u32, f32)> = (sequence.tokens.iter().copied())
        .zip(sequence.weights.iter().copied())
        .filter(|(_, weight)| *weight != 0.0)
        .collect();
    let mine: Vec<_> = batch.targets.iter().filter(|t| t.sequence == index as u32).collect();
    let found: Vec<(u32, f32)> = mine.iter().map(|t| (t.token, t.weight)).collect();
    assert_eq!(found.len(), wanted.len(), "every weight once");

    // The path to some segment is the sequence, and holds its reads in order.
    let fits = |leaf: usize| {
        let mut path = vec![leaf];
        while let Some(parent) = batch.segments[path[path.len() - 1]].parent {
            path.push(parent);
        }
        let stream: Vec<usize> = path
            .iter()
            .rev()
            .flat_map(|&s| batch.segments[s].start..batch.segments[s].start + batch.segments[s].len)
            .collect();
        let tokens = stream.iter().map(|&at| batch.tokens[at]);
        let is_mine = stream.len() == sequence.len() && tokens.eq(sequence.tokens.iter().copied());
        if !is_mine {
            return false;
        }
        let reads = (1..sequence.len()).filter(|&i| sequence.weights[i] != 0.0);
        let reads: Vec<usize> = reads.map(|i| stream[i - 1]).collect();
        let actual: Vec<usize> =
            mine.iter().map(|t| batch.reads[t.read as usize] as usize).collect();
        let mut sorted = reads.clone();
        sorted.sort_unstable();
        sorted == actual && {
            let mut pairs: Vec<_> = reads.into_iter().zip(wanted.clone()).collect();
            pairs.sort_by_key(|(read, _)| *read);
            pairs.into_iter().map(|(_, pair)| pair).eq(found.iter().copied())
        }
    };
    assert!((0..batch.segments.len()).any(fits), "sequence {index} is in the forest");
}

#[track_caller]
fn check_all(rows: &[Sequence], packing: &Packing) -> usize {
    let pack = || pack_units(rows, &halves(rows), packing);
    let micros = pack();
    let mut members: Vec<usize> = micros.iter().flat_map(|micro| micro.sequences.clone()).collect();
    members.sort_unstable();
    assert_eq!(members, (0..rows.len()).collect::<Vec<_>>(), "every sequence once");
    for micro in &micros {
        micro.batch.assert_valid();
        micro.sequences.iter().for_each(|&index| check_sequence(index, &rows[index], micro));
        // Above the budget only by a sequence that is, and its own prefixes.
        let longest = micro.sequences.iter().map(|&index| rows[index].len()).max().unwrap();
        let most = packing.budget_tokens.max(longest);
        assert!(micro.batch.tokens.len() <= most || packing.keep_units, "budget");
        let rendered: usize = micro.sequences.iter().map(|&index| rows[index].len()).sum();
        assert!(micro.batch.tokens.len() <= rendered);
        let targets = micro.batch.targets.len();
        let wanted: usize = micro.sequences.iter().map(|&index| rows[index].supervised()).sum();
        assert_eq!(targets, wanted, "every weight is accounted for");
    }
    assert_eq!(micros, pack(), "the same again");
    micros.iter().map(|micro| micro.batch.tokens.len()).sum()
}

/// Families over a small alphabet, so that all kinds of prefixes occur.
fn random_rows(seed: u64) -> Vec<Sequence> {
    let draw = |what: u64, index: u64, below: u64| key(&[seed, what, index]) % below;
    let mut rows: Vec<Sequence> = Vec::new();
    for i in 0..draw(0, 0, 24) {
        let mut tokens: Vec<u32> = Vec::new();
        if i > 0 && draw(1, i, 4) > 0 {
            let parent = &rows[draw(2, i, i) as usize].tokens;
            tokens.extend(&parent[..draw(3, i, parent.len() as u64 + 1) as usize]);
        }
        let more = draw(4, i, 12).max(u64::from(tokens.is_empty()));
        tokens.extend((0..more).map(|j| draw(5, i * 1000 + j, 3) as u32));
        let prompt = draw(6, i, tokens.len() as u64 + 1) as usize;
        rows.push(sequence(i as usize, &tokens, prompt));
    }
    rows
}

#[test]
fn any_rows_make_a_faithful_forest() {
    for seed in 0..400 {
        let rows = random_rows(seed);
        for min_shared in [0, 1, 3] {
            for budget_tokens in [1, 12, 40, 1000] {
                let computed = check_all(&rows, &packing(budget_tokens, min_shared));
                let groups = Packing { keep_units: true, ..packing(budget_tokens, min_shared) };
                check_all(&rows, &groups);
                check_units(&rows, &groups);
                if min_shared == 0 {
                    assert_eq!(computed, rows.iter().map(Sequence::len).sum::<usize>());
                }
            }
        }
    }
}

#[test]
fn long_sequences_share_with_long_ones_only() {
    let prompt = range(0, 20);
    let tails = [2, 9, 3, 12];
    let rows: Vec<Sequence> = tails
        .iter()
        .enumerate()
        .map(|(row, &tail)| {
            sequence(row, &[&prompt[..], &range(50 + row as u32, tail)].concat(), 20)
        })
        .collect();
    let apart = Packing { apart_beyond: Some(25), ..packing(1000, 16) };
    let micros = pack(&rows, &apart);
    let expected = [(0, 20, None), (20, 9, Some(0)), (29, 12, Some(0)), (41, 20, None)];
    assert_eq!(segments(&micros[0])[..4], expected);
    assert_eq!(check_all(&rows, &apart), 20 + 2 + 3 + 20 + 9 + 12);
    assert_eq!(check_all(&rows, &packing(1000, 16)), 20 + 2 + 3 + 9 + 12);
    for seed in 0..100 {
        let rows = random_rows(seed);
        for apart_beyond in [Some(0), Some(9), Some(1000)] {
            check_all(&rows, &Packing { apart_beyond, ..packing(40, 1) });
        }
    }
}

#[test]
fn with_a_prefix_tree_of_ones_nothing_is_computed_twice() {
    for seed in 0..100 {
        let rows = random_rows(seed);
        let mut prefixes: Vec<&[u32]> =
            rows.iter().flat_map(|row| (1..=row.len()).map(|len| &row.tokens[..len])).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(check_all(&rows, &packing(10_000, 1)), prefixes.len());
    }
}

/// Tokens, and start, parent and row of every segment.
type Tree = (Vec<u32>, Vec<(usize, Option<usize>, u64)>);

/// The trees of all micro-batches, in order.
fn trees(micros: &[Micro]) -> Vec<Tree> {
    let mut all = Vec::new();
    for Micro { batch, .. } in micros {
        for tree in batch.trees().windows(2) {
            let segments = &batch.segments[tree[0]..tree[1]];
            let start = segments[0].start;
            let last = &segments[segments.len() - 1];
            let place = |s: &text::Segment| (s.start - start, s.parent.map(|p| p - tree[0]), s.row);
            let tokens = batch.tokens[start..last.start + last.len].to_vec();
            all.push((tokens, segments.iter().map(place).collect()));
        }
    }
    all
}

#[test]
fn trees_have_one_order_whatever_the_budget() {
    for seed in 0..400 {
        let rows = random_rows(seed);
        for min_shared in [0, 1, 3] {
            let whole = pack(&rows, &packing(usize::MAX, min_shared));
            let expected = trees(&whole);
            let largest = expected.iter().map(|(tokens, _)| tokens.len()).max().unwrap_or(1);
            for budget_tokens in [1, 12, 40, 100, 1000] {
                let least = if min_shared == 0 { budget_tokens } else { largest };
                let micros = pack(&rows, &packing(budget_tokens.max(least), min_shared));
                assert_eq!(trees(&micros), expected, "seed {seed}, budget {budget_tokens}");
                // No two neighbours would have had room together.
                let sizes = micros.iter().map(|micro| micro.batch.tokens.len());
                let sizes: Vec<usize> = sizes.collect();
                let first = |index: usize| trees(&micros[index..=index])[0].0.len();
                for index in 1..sizes.len() {
                    assert!(sizes[index - 1] + first(index) > budget_tokens.max(least));
                }
            }
        }
    }
}

#[test]
fn the_usual_budget_takes_no_more_micro_batches_than_first_fit() {
    for seed in 0..50 {
        let len = |row: u64| 1 + key(&[seed, row]) as u32 % 700;
        let rows: Vec<Sequence> =
            (0..40).map(|row| sequence(row, &range(row as u32, len(row as u64)), 2)).collect();
        let mut lengths: Vec<usize> = rows.iter().map(Sequence::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let mut bins: Vec<usize> = Vec::new();
        for len in lengths {
            match bins.iter_mut().find(|used| **used + len <= Packing::TREE_TOKENS) {
                Some(used) => *used += len,
                None => bins.push(len),
            }
        }
        let micros = pack(&rows, &packing(Packing::TREE_TOKENS, 0));
        assert!(micros.len() <= bins.len(), "{} of {}", micros.len(), bins.len());
    }
}

#[test]
fn what_is_cut_keeps_the_row_of_its_beginning() {
    let prompt = range(0, 20);
    let row = |i: u32| sequence(i as usize, &[&prompt[..], &range(100 * (i + 1), 10)].concat(), 20);
    let rows: Vec<Sequence> = (0..5).map(row).collect();
    for micro in pack(&rows, &packing(40, 16)) {
        assert_eq!(micro.batch.segments[0].row, 100, "dropout's mask is a function of it");
        assert!(micro.sequences.contains(&(micro.batch.segments[1].row as usize - 100)));
    }
}

/// Larger trees would save less than a tenth.
#[test]
fn trees_grow_with_their_beginnings_and_not_with_the_budget() {
    let check = |shared: u32, tokens: &[usize]| {
        let prompt = range(0, shared);
        let row = |i: u32| {
            sequence(i as usize, &[&prompt[..], &range(10_000 + 200 * i, 100)].concat(), 20)
        };
        let rows: Vec<Sequence> = (0..30).map(row).collect();
        let sizes = |budget| -> Vec<usize> {
            let micros = pack(&rows, &packing(budget, 16));
            trees(&micros).iter().map(|(tokens, _)| tokens.len()).collect()
        };
        assert_eq!(sizes(usize::MAX), tokens);
        assert_eq!(sizes(4096), tokens);
    };
    check(30, &[930, 930, 930, 330]);
    check(200, &[2000, 1400]);
    check(400, &[3400]);
}

#[test]
fn last_tokens_are_read_where_a_value_is_wanted() {
    // One sequence ends within another.
    let rows = [
        sequence(0, &range(0, 30), 10),
        sequence(1, &range(0, 20), 10),
        sequence(2, &range(500, 5), 2),
    ];
    for (reads, targets, count) in
        [(Reads::Last, 0, 3), (Reads::TargetsAndLast, 33, 3), (Reads::Targets, 33, 0)]
    {
        for budget in [1, 22, 1000] {
            let packing = Packing { reads, drop_unread: true, ..packing(budget, 4) };
            let micros = pack(&rows, &packing);
            let (mut found, mut read) = (0, Vec::new());
            for batch in micros.iter().map(|micro| &micro.batch) {
                batch.assert_valid();
                found += batch.targets.len();
                let last = |last: &LastRead| {
                    let token = batch.tokens[batch.reads[last.read as usize] as usize];
                    (last.sequence, token)
                };
                read.extend(batch.last_reads.iter().map(last));
            }
            read.sort_unstable();
            let expected = [(0, 29), (1, 19), (2, 504)];
            assert_eq!((found, &read[..]), (targets, &expected[..count]), "{reads:?} {budget}");
        }
    }
}

#[test]
fn targets_know_their_place_in_their_sequence() {
    let mut rows = random_rows(11);
    rows.retain(|row| row.supervised() > 2);
    for micro in pack(&rows, &packing(40, 1)) {
        for &index in &micro.sequences {
            let targets = micro.batch.targets.iter().filter(|t| t.sequence as usize == index);
            let mut found: Vec<(u32, u32)> = targets.map(|t| (t.place, t.token)).collect();
            found.sort_unstable();
            let row = &rows[index];
            let learned = row.tokens.iter().zip(&row.weights).filter(|(_, weight)| **weight != 0.0);
            let expected: Vec<(u32, u32)> =
                learned.enumerate().map(|(place, (token, _))| (place as u32, *token)).collect();
            assert_eq!(found, expected);
        }
    }
}
