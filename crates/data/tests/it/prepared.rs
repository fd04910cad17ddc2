//! The cache, splits, mixtures and audits of prepared rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data::prepare::OnError;
use data::split::By;
use data::{Config, Level, Mixture, Prepared, Sequences, Source, Stop, Validation, prepare};

use crate::support::{CHATML, config, source, supervisor};

/// Rows whose texts have nothing in common.
fn unlike(folder: &Path, name: &str, rows: usize, more: impl Fn(usize) -> String) -> PathBuf {
    let word = |seed: usize| -> String {
        let letter =
            |i: u32| (b'a' + (seed.wrapping_mul(7919).rotate_right(i * 5) % 26) as u8) as char;
        (0..12).map(letter).collect()
    };
    let row = |i: usize| {
        let (question, answer) = (word(3 * i + 1), word(5 * i + 2));
        format!("{{\"prompt\": \"{i} {question}\", \"completion\": \"{answer} {i}\"{}}}\n", more(i))
    };
    let path = folder.join(name);
    std::fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
    path
}

fn plain(folder: &Path, name: &str, rows: usize) -> PathBuf {
    unlike(folder, name, rows, |_| String::new())
}

fn prepared(config: &Config) -> Prepared {
    prepare(config, &supervisor(CHATML)).unwrap()
}

fn all(sequences: &Sequences) -> Vec<data::Sequence> {
    sequences.get_all(0..sequences.len()).unwrap()
}

fn rows(sequences: &Sequences) -> Vec<u64> {
    let mut rows = Vec::new();
    sequences.each(|outline| rows.push(outline.row)).unwrap();
    rows
}

fn ids(prepared: &Prepared) -> Vec<&str> {
    prepared.findings.iter().map(|finding| finding.id.as_ref()).collect()
}

#[test]
fn a_cache_gives_the_same_rows_and_makes_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 3000);
    let cache = folder.path().join("cache");
    let without = prepared(&config(&path));
    let with = Config { cache: Some(cache.clone()), ..config(&path) };
    let first = prepared(&with);
    let set = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let made = || -> Vec<(PathBuf, std::time::SystemTime)> {
        let entries = std::fs::read_dir(&set).unwrap().map(|entry| entry.unwrap());
        let named = entries.map(|entry| (entry.path(), entry.metadata().unwrap()));
        let mut files: Vec<_> =
            named.map(|(path, data)| (path, data.modified().unwrap())).collect();
        files.retain(|(path, _)| !path.ends_with("lock"));
        files.sort();
        files
    };
    let before = made();
    let second = prepared(&with);
    assert!(!first.was_cached && second.was_cached);
    assert_eq!(made(), before, "neither rows nor audits are written again");
    for other in [&first, &second] {
        assert_eq!(all(&without.train), all(&other.train));
        assert_eq!(without.findings, other.findings);
        assert_eq!(without.stats, other.stats);
    }
    // What was found is kept, and made again where it is damaged.
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let json: Vec<PathBuf> = before.into_iter().map(|(path, _)| path).filter(is_json).collect();
    assert_eq!(json.len(), 3, "set.json and two audits");
    json.iter().for_each(|path| std::fs::write(path, "{").unwrap());
    assert!(ids(&prepared(&with)).contains(&"damaged-cache"));
    assert_eq!(first.findings, prepared(&with).findings);
    // Another option, another set.
    let longer = Config { max_seq_len: Some(4096), ..with.clone() };
    assert!(!prepared(&longer).was_cached);
    // Another file of the same bytes is the same set, named as it is called now.
    let copy = folder.path().join("b.jsonl");
    std::fs::copy(&path, &copy).unwrap();
    let renamed = prepared(&Config { train: vec![source(&copy)], ..with });
    assert!(renamed.was_cached);
    assert!(renamed.train.get(0).unwrap().place.file.ends_with("b.jsonl"));
}

#[test]
fn what_a_killed_process_left_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 3000);
    let cache = folder.path().join("cache");
    let with = Config { cache: Some(cache.clone()), ..config(&path) };
    let whole = all(&prepared(&with).train);
    let set = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::metadata(set.join("000000.rows")).unwrap().modified().unwrap();
    std::fs::remove_file(set.join("set.json")).unwrap();
    std::fs::remove_file(set.join("000001.rows")).unwrap();
    // Cut off while it was written in place, as a full disk would leave it.
    let last = std::fs::read(set.join("000002.rows")).unwrap();
    std::fs::write(set.join("000002.rows"), &last[..last.len() / 2]).unwrap();
    let again = prepared(&with);
    assert!(!again.was_cached);
    assert_eq!(whole, all(&again.train));
    assert_eq!(std::fs::metadata(set.join("000000.rows")).unwrap().modified().unwrap(), kept);
}

/// A bit that flips in the cache never trains anything else: what it stands in is made anew, with a word.
#[test]
fn a_flipped_bit_in_the_cache_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    // Twice the same row, and one that is left out: every part of a shard has something in it.
    let same = |i: usize| format!(", \"group\": \"g{}\"", i / 2);
    let path = unlike(folder.path(), "a.jsonl", 6, same);
    let text = std::fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    std::fs::write(&path, format!("{text}{first}\n{{\"prompt\": \"no answer\"}}\n")).unwrap();
    let cache = folder.path().join("cache");
    let kept_back =
        Validation::Fraction { fraction: 0.3, by: By::Group("group".into()), stratify: None };
    let with = Config {
        cache: Some(cache.clone()),
        on_error: OnError::Skip,
        validation: kept_back,
        ..config(&path)
    };
    let look = |prepared: &Prepared| (all(&prepared.train), all(&prepared.validation));
    let expected = prepared(&with);
    let set = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    for (name, apart) in [("000000.rows", 13), ("set.json", 9)] {
        let file = set.join(name);
        let whole = std::fs::read(&file).unwrap();
        for byte in (0..whole.len()).step_by(apart) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte * 5 % 8);
            std::fs::write(&file, &flipped).unwrap();
            let again = prepared(&with);
            assert_eq!(look(&again), look(&expected), "{name}, byte {byte}");
            assert!(ids(&again).contains(&"damaged-cache"), "{name}, byte {byte}");
            assert_eq!(std::fs::read(&file).unwrap(), whole, "{name}, byte {byte}");
        }
    }
    assert_eq!(prepared(&with).findings, expected.findings);
}

/// What is damaged after a run has begun is an error when it is read.
#[test]
fn a_flipped_bit_below_a_run_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 4);
    let cache = folder.path().join("cache");
    let run = prepared(&Config { cache: Some(cache.clone()), ..config(&path) });
    let set = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let file = set.join("000000.rows");
    let (whole, expected) = (std::fs::read(&file).unwrap(), all(&run.train));
    let mut errors = 0;
    for byte in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << (byte % 8);
        std::fs::write(&file, &flipped).unwrap();
        match run.train.get_all(0..run.train.len()) {
            Ok(sequences) => assert_eq!(sequences, expected, "byte {byte}"),
            Err(error) => {
                assert!(error.to_string().contains("are damaged"), "byte {byte}: {error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 4 * 4 * 5, "{errors}");
}

/// Every worker fails while rows are still being read: that is an error, and nobody waits for anybody.
#[test]
fn a_cache_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 9000);
    let cache = folder.path().join("cache");
    let with = Config { cache: Some(cache.clone()), ..config(&path) };
    prepared(&with);
    let set = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(set.join("set.json")).unwrap();
    for number in 0..9 {
        std::fs::remove_file(set.join(format!("{number:06}.rows"))).unwrap();
        std::fs::create_dir(set.join(format!("{number:06}.rows.part"))).unwrap();
    }
    let error = prepare(&with, &supervisor(CHATML)).unwrap_err().to_string();
    assert!(error.contains(".rows: "), "{error}");
}

#[test]
fn a_file_that_is_missing_shows_before_rows_are_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 10);
    let cache = folder.path().join("cache");
    let missing = Validation::Sources(vec![source(&folder.path().join("b.jsonl"))]);
    let with = Config { cache: Some(cache.clone()), validation: missing, ..config(&path) };
    let error = prepare(&with, &supervisor(CHATML)).unwrap_err().to_string();
    assert!(error.contains("b.jsonl") && !cache.exists(), "{error}");
}

#[test]
fn runs_that_start_at_once_share_a_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 2500);
    let with = Config { cache: Some(folder.path().join("cache")), ..config(&path) };
    let rows = std::thread::scope(|scope| {
        let start = || scope.spawn(|| prepared(&with));
        let running = [start(), start(), start()];
        running.map(|run| {
            let run = run.join().unwrap();
            (run.was_cached, all(&run.train))
        })
    });
    assert_eq!(
        rows.iter().filter(|(cached, _)| !cached).count(),
        1,
        "one makes it, the others wait"
    );
    assert!(rows.iter().all(|(_, of)| *of == rows[0].1));
}

#[test]
fn rows_in_are_rows_used_and_rows_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let good =
        |i: usize| format!("{{\"prompt\": \"question {i}\", \"completion\": \"answer {i}\"}}\n");
    let mut text: String = (0..30).map(good).collect();
    text.push_str("{\"prompt\": \"p\"}\nno json\n{\"prompt\": \"p\", \"completion\": \"  \"}\n");
    text.push_str(&format!("{{\"prompt\": \"{}\", \"completion\": \"long\"}}\n", "x ".repeat(300)));
    std::fs::write(&path, text).unwrap();
    let skip = Config {
        on_error: OnError::Skip,
        max_seq_len: Some(200),
        overlong: data::Overlong::Skip,
        validation: Validation::Fraction { fraction: 0.2, by: By::Row, stratify: None },
        ..config(&path)
    };
    let found = prepared(&skip);
    let stats = found.stats;
    assert_eq!(stats.rows_in, 34);
    assert_eq!(stats.rows + stats.rows_validation + found.left_out.len(), stats.rows_in);
    let mut lines: Vec<usize> = found.left_out.iter().map(|row| row.place.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [31, 32, 33, 34]);
    assert_eq!(found.findings.get("unusable-rows-skipped").unwrap().count, 3);
    let list = Config { on_error: OnError::List, ..skip.clone() };
    let listed = prepared(&list);
    assert_eq!(listed.findings.iter().next().unwrap().id, "unusable-rows");
    let accepted = Config { accept: vec!["unusable-rows".into()], ..list };
    assert_eq!(prepared(&accepted).findings.get("unusable-rows").unwrap().level, Level::Warning);
    let error =
        prepare(&Config { on_error: OnError::Stop, ..skip }, &supervisor(CHATML)).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 3, "{error}");
}

#[test]
fn clusters_and_groups_stay_on_one_side() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        unlike(folder.path(), "a.jsonl", 300, |i| format!(", \"customer\": \"c{}\"", i % 40));
    let by = |by: By| Config {
        validation: Validation::Fraction { fraction: 0.2, by, stratify: None },
        ..config(&path)
    };
    let groups = prepared(&by(By::Group("customer".into())));
    let group = |sequences: &Sequences| -> Vec<u64> {
        let mut groups: Vec<u64> = rows(sequences).iter().map(|row| row % 40).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    let (train, held) = (group(&groups.train), group(&groups.validation));
    assert!(!held.is_empty() && held.iter().all(|group| !train.contains(group)));
    let split = groups.split.as_ref().unwrap();
    assert_eq!(
        (split.by.as_str(), split.parts, split.rows),
        ("group:customer", held.len(), groups.validation.len())
    );
    assert_eq!(split.ids.len(), split.rows);
    let missing = by(By::Group("client".into()));
    let error = prepare(&missing, &supervisor(CHATML)).unwrap_err().to_string();
    assert!(error.ends_with("row has no column `client`"), "{error}");
}

#[test]
fn a_row_of_any_kind_brings_its_own_passage() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        unlike(folder.path(), "a.jsonl", 3, |i| format!(", \"context\": \"Fact number {i}.\""));
    let documents = folder.path().join("docs.txt");
    std::fs::write(&documents, "A wren weighs nine grams.\n\nTin melts early.\n").unwrap();
    let context = data::context::ContextOptions {
        retrieve: documents,
        k: 1,
        distractors: 1,
        words: 20,
        without: 0.0,
    };
    let found = prepared(&Config { context: Some(context), ..config(&path) });
    for (index, sequence) in all(&found.train).iter().enumerate() {
        let text = crate::support::show(sequence);
        assert!(text.contains(&format!("Fact number {index}.")), "{text}");
    }
}

#[test]
fn time_splits_train_on_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let day = |i: usize| format!(", \"day\": \"2025-01-{:02}\"", 1 + (i * 7) % 28);
    let path = unlike(folder.path(), "a.jsonl", 84, day);
    let validation =
        Validation::Fraction { fraction: 0.2, by: By::Time("day".into()), stratify: None };
    let found = prepared(&Config { validation, ..config(&path) });
    let days = |sequences: &Sequences| -> Vec<u64> {
        rows(sequences).iter().map(|row| 1 + (row * 7) % 28).collect()
    };
    let latest = *days(&found.train).iter().max().unwrap();
    assert!(days(&found.validation).iter().all(|&day| day > latest));
    assert!(found.validation.len() >= 17);
}

#[test]
fn held_out_rows_that_are_trained_on_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let train = plain(folder.path(), "train.jsonl", 60);
    let test = plain(folder.path(), "test.jsonl", 3);
    let found = prepared(&Config { test: vec![source(&test)], ..config(&train) });
    let leak = found.findings.get("test-row-in-training").unwrap();
    assert_eq!((leak.level, leak.count), (Level::Error, 3));
    assert!(leak.places[0].file.ends_with("test.jsonl"), "the held-out row is named");
    let validation = Validation::Sources(vec![source(&test)]);
    let found = prepared(&Config { validation, ..config(&train) });
    assert_eq!(found.findings.get("validation-row-in-training").unwrap().count, 3);
}

#[test]
fn repeated_rows_are_told_and_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 50);
    let once = std::fs::read_to_string(&path).unwrap();
    let twice = folder.path().join("twice.jsonl");
    std::fs::write(&twice, format!("{once}{once}")).unwrap();
    for by in [By::Row, By::Cluster] {
        let validation = Validation::Fraction { fraction: 0.3, by, stratify: None };
        let found = prepared(&Config { validation, ..config(&twice) });
        assert_eq!(found.findings.get("duplicate-rows").unwrap().count, 50);
        assert!(!ids(&found).contains(&"validation-row-in-training"), "{:?}", ids(&found));
        let held = |sequences: &Sequences| -> Vec<u64> {
            rows(sequences).iter().map(|row| row % 50).collect()
        };
        let train = held(&found.train);
        assert!(held(&found.validation).iter().all(|row| !train.contains(row)));
    }
}

#[test]
fn sources_are_mixed_by_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (plain(folder.path(), "a.jsonl", 40), plain(folder.path(), "b.csv", 0));
    let rows: String =
        (0..10).map(|i| format!("question {i} {},answer {}\n", i * i, i * 31)).collect();
    std::fs::write(&b, format!("prompt,completion\n{rows}")).unwrap();
    let weighted = |weight: f64, path: &Path| Source { weight: Some(weight), ..source(path) };
    let mixed = |mixture| {
        let train = vec![weighted(1.0, &a), weighted(1.0, &b)];
        let found = prepared(&Config { train, mixture, ..config(&a) });
        let of_a = (0..found.train.len())
            .filter(|&index| found.train.get(index).unwrap().place.file.ends_with("a.jsonl"));
        let of_a = of_a.count();
        let stats = found.stats;
        assert_eq!(stats.rows + stats.rows_mixed_out, stats.rows_in);
        (of_a, found.train.len() - of_a, found.findings.get("mixed-out").map_or(0, |f| f.count))
    };
    assert_eq!(mixed(Mixture::First), (10, 10, 30));
    assert_eq!(mixed(Mixture::All), (40, 40, 0));
}

#[test]
fn a_limit_takes_the_first_rows_or_those_of_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 2000);
    let lines = |shuffle, seed| {
        let limited = Source { limit: Some(5), shuffle, ..source(&path) };
        let found = prepared(&Config { train: vec![limited], seed, ..config(&path) });
        all(&found.train).iter().map(|sequence| sequence.place.line).collect::<Vec<_>>()
    };
    assert_eq!(lines(false, 1), [1, 2, 3, 4, 5]);
    assert_eq!(lines(true, 1), lines(true, 1));
    assert_ne!(lines(true, 1), lines(true, 2));
    assert!(lines(true, 1).iter().any(|&line| line > 100));
}

/// Asked to stop, preparation ends between two rows; the shards that were finished are taken by the next one,
/// which ends with what a single one would have given.
#[test]
fn a_preparation_that_is_stopped_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = plain(folder.path(), "a.jsonl", 5000);
    let cache = folder.path().join("cache");
    let expected = prepared(&config(&path));
    let mut shards = 0;
    // Rows are asked about when they are read, and again when they are prepared.
    for allowed in [0, 1, 1500, 9000] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let stop = Stop::when(move || counted.fetch_add(1, Ordering::SeqCst) >= allowed);
        let stopped = Config { cache: Some(cache.clone()), stop, ..config(&path) };
        let error = prepare(&stopped, &supervisor(CHATML)).unwrap_err();
        assert!(matches!(error, data::Error::Interrupted), "{error}");
        let after = asked.load(Ordering::SeqCst) - allowed;
        assert!(after <= 8, "{after} rows were looked at after the first that was not to be");
        let files = std::fs::read_dir(&cache).into_iter().flatten().flatten();
        let files = files.flat_map(|set| std::fs::read_dir(set.path()).unwrap().flatten());
        let names: Vec<String> =
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name == "set.json"), "{names:?}");
        let finished = names.iter().filter(|name| name.ends_with(".rows")).count();
        assert!(finished >= shards);
        shards = finished;
    }
    assert!(shards > 0, "some shards were finished before the last stop");
    let whole = prepared(&Config { cache: Some(cache), ..config(&path) });
    assert_eq!(all(&whole.train), all(&expected.train));
    assert_eq!(whole.findings, expected.findings);
}
