//! Stopped, killed, resumed: the same numbers and the same adapter as a run that never was.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use compute::cpu::Precision;
use train::events::Event;
use train::run::Occupied;
use train::trainer::Control;

use crate::support::{Fixture, How, all_events};

const DROPOUT: &[&str] = &["adapter.dropout=0.2"];

/// Resumes `run` and compares it with `whole`, which was carried out without a stop.
#[track_caller]
fn check_resumed(fixture: &Fixture, run: &str, whole: &str, overrides: &[&str], threads: usize) {
    let how = How { overrides, threads, ..How::resumed() };
    let summary = fixture.train(run, &how).unwrap();
    assert_eq!(summary.status, "finished", "{run}");
    check_same(fixture, run, whole);
}

#[track_caller]
fn check_same(fixture: &Fixture, run: &str, whole: &str) {
    assert_eq!(fixture.steps(run), fixture.steps(whole), "{run}");
    let validations = |run: &str| {
        let events = fixture.events(run);
        let evaluated = events.into_iter().filter(|event| event["event"] == "evaluated");
        evaluated.collect::<Vec<_>>()
    };
    assert_eq!(validations(run), validations(whole), "{run}");
    assert!(fixture.adapter_bytes(run) == fixture.adapter_bytes(whole), "{run}: another adapter");
    for name in ["README.md", "tunesmith.json", "adapter_config.json"] {
        let read = |run: &str| fs::read(fixture.path(run).join("adapter").join(name)).unwrap();
        assert!(read(run) == read(whole), "{run}: another {name}");
    }
    let checkpoint = |run: &str| {
        let last = fixture.checkpoints(run).pop().unwrap();
        fs::read(fixture.path(run).join("checkpoints").join(last).join("optimizer.safetensors"))
    };
    assert!(checkpoint(run).unwrap() == checkpoint(whole).unwrap(), "{run}: other moments");
}

/// Stops after each of several steps, every part with another number of threads.
fn check_stopped(overrides: &[&str]) {
    let fixture = Fixture::with_validation();
    let how = How { overrides, threads: 2, ..How::default() };
    fixture.train("whole", &how).unwrap();
    for stop in [1, 4, 9] {
        let run = format!("stopped-{stop}");
        let how = How { overrides, threads: 1 + stop as usize % 3, ..How::default() };
        let summary = fixture.train_until(&run, &how, stop).unwrap();
        assert_eq!((summary.status, summary.steps), ("interrupted", stop));
        check_resumed(&fixture, &run, "whole", overrides, 1 + stop as usize % 2);
    }
}

#[test]
fn a_run_stopped_after_any_step_goes_on_as_if_it_never_was() {
    check_stopped(&[]);
}

#[test]
fn a_stopped_run_draws_the_same_dropout() {
    check_stopped(DROPOUT);
}

#[test]
fn a_stopped_run_takes_the_same_steps_by_tokens() {
    check_stopped(&["train.tokens_per_step=90"]);
}

#[test]
fn a_stopped_run_in_small_micro_batches() {
    check_stopped(&["micro_batch_tokens=64", "activation_checkpointing=block"]);
}

#[test]
fn in_bf16_too_threads_and_stops_change_nothing() {
    let fixture = Fixture::with_validation();
    let with = |occupied, threads| {
        let precision = Precision::Bf16;
        How { occupied, threads, precision, overrides: DROPOUT, ..How::default() }
    };
    fixture.train("whole", &with(Occupied::Refuse, 1)).unwrap();
    fixture.train("threads", &with(Occupied::Refuse, 3)).unwrap();
    check_same(&fixture, "threads", "whole");
    fixture.train_until("run", &with(Occupied::Refuse, 2), 5).unwrap();
    let error = fixture.train("run", &How { overrides: DROPOUT, ..How::resumed() }).unwrap_err();
    assert!(error.to_string().contains("another `machine`"), "{error}");
    fixture.train("run", &with(Occupied::Resume, 1)).unwrap();
    check_same(&fixture, "run", "whole");
}

#[test]
fn a_run_stopped_again_and_again_ends_the_same() {
    let fixture = Fixture::new();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("run", &How::default(), 1).unwrap();
    for stop in 2..10 {
        fixture.train_until("run", &How::resumed(), stop).unwrap();
    }
    check_resumed(&fixture, "run", "whole", &[], 2);
}

#[test]
fn epochs_that_steps_do_not_divide_go_on_in_the_middle() {
    let mut fixture = Fixture::new();
    fixture.recipe = fixture.recipe.replace("max_steps: 10", "epochs: 3");
    fixture.train("whole", &How::default()).unwrap();
    assert_eq!(fixture.steps("whole").len(), 8);
    for stop in [2, 3, 7] {
        let run = format!("run-{stop}");
        fixture.train_until(&run, &How::default(), stop).unwrap();
        check_resumed(&fixture, &run, "whole", &[], 1);
    }
}

/// A run copied after every event is the run as a kill at that moment leaves it.
fn killed_at_every_event(fixture: &Fixture, overrides: &[&str]) -> usize {
    let mut count = 0;
    let how = How { overrides, ..How::default() };
    let mut copy = |_: &Event| {
        fixture.copy_run("whole", &format!("killed-{count}"));
        count += 1;
    };
    fixture.watch("whole", &how, &mut copy, &mut |_| Control::Continue).unwrap();
    count
}

#[test]
fn a_run_killed_at_any_moment_goes_on_as_if_it_never_was() {
    let fixture = Fixture::with_validation();
    let count = killed_at_every_event(&fixture, &[]);
    assert!(count > 18, "{count}");
    let mut superseded = 0;
    for moment in 0..count {
        let run = format!("killed-{moment}");
        check_resumed(&fixture, &run, "whole", &[], 1 + moment % 3);
        let events = all_events(&fixture.path(&run));
        superseded += events.iter().filter(|event| event["superseded"] == true).count();
    }
    assert!(superseded > 10, "{superseded}");
}

/// What a kill leaves in the middle of a write.
#[test]
fn half_written_things_are_no_hindrance() {
    let fixture = Fixture::with_validation();
    let count = killed_at_every_event(&fixture, DROPOUT);
    let middle = format!("killed-{}", count / 2);
    let check = |name: &str, damage: &dyn Fn(&Path)| {
        fixture.copy_run(&middle, name);
        damage(&fixture.path(name));
        check_resumed(&fixture, name, "whole", DROPOUT, 2);
        let names = fixture.checkpoints(name);
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    };
    check("half-checkpoint", &|run| {
        for step in ["000006", "000008"] {
            let beside = run.join(format!("checkpoints/.step-{step}.partial"));
            fs::create_dir_all(&beside).unwrap();
            fs::write(beside.join("adapter_model.safetensors"), "half").unwrap();
            fs::write(beside.join("state.json"), "{").unwrap();
        }
    });
    check("half-line", &|run| {
        let mut file = fs::OpenOptions::new().append(true).open(run.join("events.jsonl")).unwrap();
        // Cut within a character.
        file.write_all(b"{\"event\":\"sampled\",\"answer\":\"\xc3").unwrap();
    });
    check("half-adapter", &|run| {
        fs::write(run.join("adapter/adapter_model.safetensors"), "half").unwrap();
        fs::create_dir_all(run.join(".adapter.partial")).unwrap();
        fs::write(run.join(".adapter.partial/adapter_config.json"), "{").unwrap();
        fs::write(run.join("adapter/.README.md.partial"), "half").unwrap();
        fs::remove_file(run.join("adapter/README.md")).unwrap();
    });
    check("no-adapter", &|run| fs::remove_dir_all(run.join("adapter")).unwrap());
    check("half-removed-checkpoint", &|run| {
        // An old checkpoint of which a kill left only the state.
        let old = run.join("checkpoints/step-000001");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("state.json"), "{}").unwrap();
    });
    check("no-recipe", &|run| {
        // Killed before the recipe was written: nothing else is there either.
        for name in ["recipe.yaml", "events.jsonl"] {
            fs::remove_file(run.join(name)).unwrap();
        }
        for name in ["checkpoints", "adapter"] {
            fs::remove_dir_all(run.join(name)).unwrap();
        }
    });
}

#[test]
fn a_better_adapter_after_the_checkpoint_is_superseded_too() {
    let fixture = Fixture::with_validation();
    let overrides = ["train.schedule=constant", "train.save.steps=4"];
    let how = How { overrides: &overrides, ..How::default() };
    // Killed after step 8: the checkpoint is of step 4, the best adapter of a later one.
    let mut copy = |event: &Event| {
        if matches!(event, Event::Evaluated { step: 8, .. }) {
            fixture.copy_run("whole", "killed");
        }
    };
    fixture.watch("whole", &how, &mut copy, &mut |_| Control::Continue).unwrap();
    let step = |run: &str| {
        crate::support::read_json(&fixture.path(run).join("adapter/tunesmith.json"))["step"]
            .as_u64()
    };
    assert!(step("killed") > Some(4), "{:?}", step("killed"));
    fixture.train_until("short", &how, 4).unwrap();
    // At a rate of next to nothing the run does not find that adapter again.
    let overrides = ["train.schedule=constant", "train.save.steps=4", "train.learning_rate=1e-12"];
    let how = How { overrides: &overrides, ..How::resumed() };
    let summary = fixture.train_until("killed", &how, 6).unwrap();
    assert_eq!((summary.best_step, step("killed")), (4, Some(4)));
    assert!(fixture.adapter_bytes("killed") == fixture.adapter_bytes("short"));
}

#[test]
fn a_finished_run_returns_at_once_and_more_epochs_go_on() {
    let mut fixture = Fixture::new();
    fixture.recipe = fixture.recipe.replace("max_steps: 10", "epochs: 1");
    let summary = fixture.train("run", &How::default()).unwrap();
    assert_eq!(summary.steps, 3);
    let adapter = fixture.adapter_bytes("run");
    let again = fixture.train("run", &How::resumed()).unwrap();
    assert_eq!((again.status, again.steps, again.loss_last), ("finished", 3, summary.loss_last));
    assert_eq!(fixture.adapter_bytes("run"), adapter);
    assert_eq!(fixture.steps("run").len(), 3);

    // The last step of one epoch had two rows; ten more rows make three more steps.
    let how = How { overrides: &["train.epochs=2"], ..How::resumed() };
    let more = fixture.train("run", &how).unwrap();
    assert_eq!((more.status, more.steps), ("finished", 6));
    let rows: u64 = fixture.events("run").iter().filter_map(|event| event["rows"].as_u64()).sum();
    assert_eq!(rows, 20);
    assert_ne!(fixture.adapter_bytes("run"), adapter);
    // Without saying it again, the run keeps its two epochs.
    let how = How { overrides: &["train.max_steps=7"], ..How::resumed() };
    assert_eq!(fixture.train("run", &how).unwrap().steps, 7);
}

#[test]
fn a_changed_rate_is_noted_and_what_was_left_open_is_kept() {
    let fixture = Fixture::new();
    // The schedule was named on the command line of the first part only.
    let begun = ["train.schedule.warmup_steps=4", "train.schedule.type=linear"];
    let how = How { overrides: &begun, ..How::default() };
    fixture.train("whole", &how).unwrap();
    fixture.train_until("run", &how, 2).unwrap();
    check_resumed(&fixture, "run", "whole", &[], 1);

    fixture.train_until("changed", &how, 2).unwrap();
    let how = How { overrides: &["train.learning_rate=0.004"], ..How::resumed() };
    fixture.train("changed", &how).unwrap();
    let events = fixture.events("changed");
    let note = events.iter().find(|event| event["id"] == "changed-on-resume").unwrap();
    assert_eq!(note["hint"], "`train.learning_rate` was 0.01, now 0.004");
    let rate = |step: usize| fixture.steps("changed")[step][3];
    assert!((rate(1) - 0.01 / 4.0).abs() < 1e-9 && (rate(2) - 0.004 / 2.0).abs() < 1e-9);
}

#[test]
fn words_that_leave_a_choice_open_are_no_change() {
    let mut fixture = Fixture::new();
    fixture.recipe += "micro_batch_tokens: auto\nactivation_checkpointing: auto\n";
    fixture.train_until("run", &How::default(), 2).unwrap();
    fixture.train("run", &How::resumed()).unwrap();
    // A size below the longest row is kept as it was written.
    let how = How { overrides: &["micro_batch_tokens=16"], ..How::default() };
    fixture.train_until("small", &how, 2).unwrap();
    fixture.train("small", &How { overrides: how.overrides, ..How::resumed() }).unwrap();
}

#[test]
fn files_of_the_same_content_are_the_same_files() {
    let fixture = Fixture::new();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("run", &How::default(), 4).unwrap();
    fs::rename(fixture.path("rows.jsonl"), fixture.path("other.jsonl")).unwrap();
    fs::rename(fixture.path("model"), fixture.path("base")).unwrap();
    // What reads the model outside of the recipe finds it there, too.
    std::os::unix::fs::symlink(fixture.path("base"), fixture.path("model")).unwrap();
    check_resumed(&fixture, "run", "whole", &["data.train=other.jsonl", "model=./base"], 1);
}

#[test]
fn how_a_run_is_computed_may_change_and_is_noted() {
    let fixture = Fixture::new();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let overrides =
        ["micro_batch_tokens=64", "share_prefixes=false", "activation_checkpointing=block"];
    fixture.train("run", &How { overrides: &overrides, ..How::resumed() }).unwrap();
    for (step, (now, before)) in fixture.steps("run").iter().zip(fixture.steps("whole")).enumerate()
    {
        assert!((now[1] - before[1]).abs() < 1e-4, "step {step}: {now:?}, {before:?}");
    }
    let notes = |run: &str| -> Vec<String> {
        let events = fixture.events(run);
        let notes = events.iter().filter(|event| event["id"] == "changed-on-resume");
        notes.map(|note| note["hint"].as_str().unwrap().to_owned()).collect()
    };
    let expected = [
        "`activation_checkpointing` was \"none\", now \"block\"; no result differs",
        "`micro_batch_tokens` was 1024, now 64; results differ by rounding at most",
        "`share_prefixes` was true, now false; results differ by rounding at most",
    ];
    assert_eq!(notes("run"), expected);
    // A longer run bends the curve of the rate, unless that is level.
    for (schedule, bends) in [("cosine", true), ("constant", false)] {
        let (run, schedule) = (format!("run-{schedule}"), format!("train.schedule={schedule}"));
        let begun = [schedule.as_str()];
        fixture.train_until(&run, &How { overrides: &begun, ..How::default() }, 4).unwrap();
        let longer = [schedule.as_str(), "train.max_steps=12"];
        fixture.train(&run, &How { overrides: &longer, ..How::resumed() }).unwrap();
        let follows = "; from here on the learning rate follows the curve of the new length";
        let follows = if bends { follows } else { "" };
        assert_eq!(notes(&run), [format!("`train.max_steps` was 10, now 12{follows}")]);
    }
}

#[test]
fn a_recipe_that_was_edited_in_the_run_is_compared_too() {
    let fixture = Fixture::new();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let path = fixture.path("run/recipe.yaml");
    let edited = fs::read_to_string(&path).unwrap().replace("seed: 7", "seed: 8");
    fs::write(&path, edited).unwrap();
    let how = How { overrides: &["seed=8"], ..How::resumed() };
    let error = fixture.train("run", &how).unwrap_err();
    assert!(error.to_string().contains("`seed` was 7, now 8"), "{error}");
}

#[test]
fn what_a_run_is_made_of_cannot_change() {
    let fixture = Fixture::new();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let before = all_events(&fixture.path("run"));
    let check = |overrides: &[&str], message: &str| {
        let how = How { overrides, ..How::resumed() };
        let error = fixture.train("run", &how).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap().contains("new"), "{:?}", error.hint());
        assert_eq!(all_events(&fixture.path("run")), before, "something was written");
    };
    check(&["adapter.rank=8"], "`adapter.rank` was 4, now 8");
    check(&["seed=8"], "`seed` was 7, now 8");
    check(&["train.batch_size=5"], "`train.batch_size` was 4, now 5");
    check(&["model.chat_template=chatml"], "`model.chat_template` was nothing, now \"chatml\"");
    check(&["adapter.dropout=0.5"], "`adapter.dropout` was 0");
    fixture.write_rows("other.jsonl", &[("other", "rows"), ("of", "another file")]);
    check(&["data.train=other.jsonl"], "another `data`");

    // Files that changed under their names.
    let touch = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, message: &str| {
        let path = fixture.path(name);
        let original = fs::read(&path).unwrap();
        fs::write(&path, change(original.clone())).unwrap();
        check(&[], message);
        fs::write(&path, original).unwrap();
    };
    let more = |mut bytes: Vec<u8>| {
        bytes.extend(b"{\"prompt\": \"one more\", \"completion\": \"row\"}\n");
        bytes
    };
    touch("rows.jsonl", &more, "another `data`");
    touch(
        "model/chat_template.jinja",
        &|bytes| [&bytes[..], b" "].concat(),
        "another `template_hash`",
    );
    let bend = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    touch("model/model.safetensors", &bend, "another `model_hash`");
    fixture.train("run", &How::resumed()).unwrap();
}
