//! Rewards: what a recipe may say, and graders, programs and other sources at work, also where they fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data::{Stop, Supervisor, Wanted};
use serde_json::{Map, Value, json};
use text::{Date, Metadata};
use train::Error;
use train::reward::{
    Asked, Completion, OnRewardError, RewardKind, RewardSettings, RewardSource, Rewards, Scored,
    check, check_rows,
};

use crate::support::Fixture;

fn fixture(rewards: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.recipe =
        format!("model: ./model\nmethod: grpo\ndata: {{train: rows.jsonl}}\n{rewards}\n");
    fixture
}

fn read(fixture: &Fixture) -> train::Result<Vec<RewardSettings>> {
    RewardSettings::read(&fixture.try_document(&[])?)
}

#[test]
fn a_recipe_names_its_rewards() {
    let mut fixture = fixture(
        "rewards:\n  - json\n  - {grader: json, name: again, weight: -0.5, range: [0, 1]}\n  \
         - {model: runs/reward-001}\n  - {command: [sh, -c, exit], concurrency: 3, timeout: 1.5}\n  \
         - {http: \"http://localhost:1/score\", batch: 5}\n  \
         - {judge: {endpoint: \"http://localhost:1/v1/\", model: big, scale: [1, 5]}, retries: 1}\n\
         rollout: {on_reward_error: skip}",
    );
    let all = read(&fixture).unwrap();
    let names: Vec<&str> = all.iter().map(|settings| settings.name.as_str()).collect();
    assert_eq!(names, ["json", "again", "reward-001", "sh", "http", "judge"]);
    assert_eq!((all[0].weight, all[0].range), (1.0, None));
    assert_eq!((all[1].weight, all[1].range, &*all[1].key), (-0.5, Some([0.0, 1.0]), "rewards.1"));
    assert!(all[2].is_model());
    let RewardKind::Command { command, folder } = &all[3].kind else { panic!("{:?}", all[3]) };
    // A program runs where the recipe lies.
    assert_eq!(
        (&command[..], folder),
        (&["sh", "-c", "exit"].map(String::from)[..], &fixture.path(""))
    );
    assert_eq!((all[3].concurrency, all[3].batch, all[3].retries), (3, 64, 2));
    assert_eq!(all[3].timeout, Duration::from_millis(1500));
    assert_eq!((all[4].concurrency, all[4].batch, all[4].retries), (4, 5, 5));
    let RewardKind::Judge(judge) = &all[5].kind else { panic!("{:?}", all[5]) };
    assert_eq!((judge.endpoint.as_str(), judge.scale), ("http://localhost:1/v1", [1, 5]));
    assert_eq!((all[5].batch, all[5].retries), (1, 1));
    assert!(all.iter().all(|settings| settings.on_error == OnRewardError::Skip));
    check(&fixture.document(&[])).unwrap();
    // A resolved recipe says all of it again.
    let resolved = fixture.document(&[]).to_yaml();
    fixture.recipe = resolved.clone();
    assert_eq!(read(&fixture).unwrap(), all, "{resolved}");
}

#[track_caller]
fn check_refused(rewards: &str, message: &str, hint: &str) {
    let fixture = fixture(rewards);
    let document = fixture.try_document(&[]).map_err(Error::from);
    let error = document.and_then(|document| check(&document)).expect_err(rewards);
    assert!(error.to_string().contains(message), "{error}");
    let given = error.hint().unwrap_or_default();
    assert!(given.contains(hint), "hint: {given}");
}

#[test]
fn rewards_that_cannot_be_given_are_refused() {
    check_refused("", "`rewards` is missing: what does `grpo` learn from?", "grader: number");
    check_refused("rewards: []", "`rewards` is missing", "");
    check_refused("rewards: jsn", "recipe.yaml:4:10: `jsn` is not a grader", "`json`");
    check_refused(
        "rewards: [{grader: number, options: {tolerence: 1}}]",
        "unknown option `tolerence`",
        "tolerance",
    );
    check_refused("rewards: [{weight: 1}]", "names nothing that gives rewards", "`command`");
    check_refused("rewards: [{grader: json, model: a/b}]", "cannot stand beside", "keep one");
    let judge = "judge: {endpoint: \"http://h/v1\", model: m}";
    check_refused(
        &format!("rewards: [{{grader: json, {judge}}}]"),
        "`rewards.0.judge`",
        "two entries",
    );
    check_refused("rewards: [json, json]", "two rewards are called `json`", "`name`");
    check_refused("rewards: [{grader: json, name: a b}]", "`a b`", "letters");
    check_refused("rewards: [{grader: json, weight: 0}]", "weight 0", "not 0");
    check_refused("rewards: [{grader: json, range: [1, 0]}]", "ends before it begins", "[0, 1]");
    check_refused(
        "rewards: [{grader: json, timeout: 3}]",
        "`rewards.0.timeout` has no effect",
        "leave it out",
    );
    check_refused("rewards: [{judge: {model: m}}]", "`rewards.0.judge.endpoint` is missing", "/v1");
    check_refused(
        "rewards: [{judge: {endpoint: \"http://h/v1\"}}]",
        "`rewards.0.judge.model` is missing",
        "name",
    );
    check_refused(
        "rewards: [{judge: {endpoint: \"http://h\", model: m}}]",
        "ends in /v1",
        "localhost",
    );
    check_refused(&format!("rewards: [{{{judge}, batch: 3}}]"), "has no effect", "`concurrency`");
    check_refused(
        &format!("rewards: [{{{}}}]", judge.replace("model: m", "model: m, scale: [3, 3]")),
        "no room",
        "[0, 10]",
    );
    check_refused("rewards: [{http: localhost}]", "`localhost` is not an address", "http://");
    check_refused(
        "rewards: [{command: [python3, no/reward.py]}]",
        "no/reward.py: is not there",
        "folder of the recipe",
    );
    check_refused("rewards: [{command: ./none}]", "none: is not there", "folder");
    check_refused("rewards: [{command: x, folder: none}]", "none: is not a folder", "");
}

#[test]
fn rows_need_the_reference_that_a_grader_compares_with() {
    let mut fixture = fixture("rewards: [{command: [sh]}, {grader: number, weight: 0.5}]");
    let check = |fixture: &Fixture, rows: &str| {
        std::fs::write(fixture.path("rows.jsonl"), rows).unwrap();
        let document = fixture.document(&[]);
        let metadata =
            Metadata::from_folder(&fixture.path("model"), Date::new(2026, 3, 1).unwrap());
        let supervisor = Supervisor::from_metadata(&metadata.unwrap(), Map::new()).unwrap();
        let config = data::recipe::config(&document, Wanted::Prompts, 7, 1).unwrap();
        let prepared = data::prepare(&config, &supervisor).unwrap();
        check_rows(&document, &prepared.train, &prepared.validation)
    };
    let good = "{\"prompt\": \"1+1?\", \"answer\": 2}\n{\"prompt\": \"1+2?\", \"answer\": \"3\"}\n";
    check(&fixture, good).unwrap();
    let bad =
        format!("{good}{{\"prompt\": \"2+2?\"}}\n{{\"prompt\": \"2+3?\", \"answer\": null}}\n");
    let error = check(&fixture, &bad).unwrap_err();
    let message = error.to_string();
    let expected = "rows.jsonl:3: the grader `number` cannot grade answers to this row: there is no reference; so it is \
        in 2 of 4 rows";
    assert!(message.ends_with(expected), "{message}");
    assert!(error.hint().unwrap().contains("columns: {answer: NAME}"));
    fixture.recipe = fixture.recipe.replace("number", "length, options: {max: 5}");
    check(&fixture, &bad).unwrap();
}

/// A completion of the row `place`.
fn completion(place: usize, answer: &str, reference: Value) -> Completion {
    let reference = Some(reference).filter(|value| !value.is_null());
    let place = format!("rows.jsonl:{place}");
    let asked = Asked { prompt: "2+2?".into(), reference, place, ..Asked::default() };
    Completion { asked: Arc::new(asked), answer: answer.into(), tokens: 3, ended: true }
}

fn open(fixture: &Fixture) -> train::Result<Rewards> {
    Rewards::open(&read(fixture)?, &mut |settings| panic!("{settings:?} is made elsewhere"))
}

/// The rewards of answers, each of a row of its own.
fn score(rewards: &mut Rewards, answers: &[&str]) -> train::Result<Vec<Vec<Option<f64>>>> {
    for (id, answer) in answers.iter().enumerate() {
        rewards.submit(id as u64, completion(id + 1, answer, json!({"a": 1})))?;
    }
    let done = rewards.wait(&mut || true)?;
    assert!(done.iter().map(|(id, _)| *id).eq(0..answers.len() as u64));
    Ok(done.into_iter().map(|(_, rewards)| rewards).collect())
}

#[test]
fn graders_give_rewards_in_the_order_of_the_recipe() {
    let fixture =
        fixture("rewards: [{model: runs/reward}, json, {grader: json, name: b, weight: 0}]");
    let mut rewards = open(&fixture).unwrap();
    let scored = score(&mut rewards, &["{\"a\": 1}", "no", "{\"a\": 2}"]).unwrap();
    let (right, wrong) = (vec![None, Some(1.0), Some(1.0)], vec![None, Some(0.0), Some(0.0)]);
    assert_eq!(scored, [right, wrong.clone(), wrong]);
    assert_eq!(rewards.settings().position(RewardSettings::is_model), Some(0));
    // Each comes out once, and an id may be used again.
    assert_eq!((rewards.finished().unwrap(), rewards.pending()), (vec![], 0));
    assert_eq!(score(&mut rewards, &["{\"a\": 1}"]).unwrap().len(), 1);
}

#[test]
fn a_reward_model_alone_leaves_nothing_to_wait_for() {
    let mut rewards = open(&fixture("rewards: [{model: runs/reward}]")).unwrap();
    rewards.submit(7, completion(1, "x", Value::Null)).unwrap();
    assert_eq!(rewards.finished().unwrap(), [(7, vec![None])]);
}

/// Counts the letters of answers, slowly.
struct Letters;

impl RewardSource for Letters {
    fn score(&mut self, completions: &[Arc<Completion>], stop: &Stop) -> Vec<Scored> {
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end && !stop.is_asked() {
            std::thread::sleep(Duration::from_millis(5));
        }
        completions.iter().map(|completion| Ok(Some(completion.answer.len() as f64))).collect()
    }
}

#[test]
fn other_sources_are_the_callers_and_waiting_can_be_ended() {
    let fixture = fixture("rewards: [{http: \"http://localhost:1\", concurrency: 2, batch: 1}]");
    let mut made = 0;
    let mut external = |settings: &RewardSettings| {
        assert_eq!(settings.name, "http");
        made += 1;
        Ok(Box::new(Letters) as Box<dyn RewardSource>)
    };
    let mut rewards = Rewards::open(&read(&fixture).unwrap(), &mut external).unwrap();
    assert_eq!(made, 2);
    rewards.submit(3, completion(1, "abc", Value::Null)).unwrap();
    rewards.submit(1, completion(1, "a", Value::Null)).unwrap();
    assert_eq!(rewards.finished().unwrap(), []);
    let begun = Instant::now();
    assert_eq!(rewards.wait(&mut || false).unwrap(), []);
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!(rewards.pending(), 2);
    let done = rewards.wait(&mut || true).unwrap();
    assert_eq!(done, [(1, vec![Some(1.0)]), (3, vec![Some(3.0)])]);
}

/// A shell program that reads a line at a time into `$line`, with its id in `$id`.
#[cfg(unix)]
mod program {
    use super::*;

    /// A recipe with a program of these words of a shell for each line, and other settings.
    fn each_line(words: &str, settings: &str) -> Fixture {
        program(
            &format!(
                "while read -r line; do\nid=${{line#*\\\"id\\\":}}; id=${{id%%,*}}\n\
                 answer=${{line#*\\\"answer\\\":\\\"}}; answer=${{answer%%\\\"*}}\n{words}\ndone\n"
            ),
            settings,
        )
    }

    fn program(text: &str, settings: &str) -> Fixture {
        let fixture = fixture(&format!("rewards: [{{command: [sh, reward.sh]{settings}}}]"));
        std::fs::write(fixture.path("reward.sh"), text).unwrap();
        fixture
    }

    const SAY: &str = "say() { printf '{\"id\":%s,\"reward\":%s}\\n' \"$id\" \"$1\"; }\n";

    fn saying(words: &str, settings: &str) -> Fixture {
        let fixture = each_line(words, settings);
        let text = std::fs::read_to_string(fixture.path("reward.sh")).unwrap();
        std::fs::write(fixture.path("reward.sh"), format!("{SAY}{text}")).unwrap();
        fixture
    }

    /// As a recipe that goes on without rewards that failed.
    fn skipping(mut fixture: Fixture) -> Fixture {
        fixture.recipe.push_str("rollout: {on_reward_error: skip}\n");
        fixture
    }

    fn of(values: &[Option<f64>]) -> Vec<Vec<Option<f64>>> {
        values.iter().map(|value| vec![*value]).collect()
    }

    #[test]
    fn a_program_scores_answers() {
        let fixture = saying("case $answer in none) say null;; *) say ${#answer}.5;; esac", "");
        let mut rewards = open(&fixture).unwrap();
        assert_eq!(rewards.settings().next().unwrap().name, "reward");
        let answers = ["a", "none", "abc"];
        let expected = of(&[Some(1.5), None, Some(3.5)]);
        assert_eq!(score(&mut rewards, &answers).unwrap(), expected);
        assert_eq!(score(&mut rewards, &answers).unwrap(), expected);
        assert_eq!(rewards.failures(), [0]);
    }

    #[test]
    fn a_program_sees_the_whole_row() {
        let fixture = program(
            "read -r line; printf '%s' \"$line\" > seen; cat > /dev/null",
            ", timeout: 0.5, retries: 0",
        );
        let mut rewards = open(&fixture).unwrap();
        score(&mut rewards, &["say \"hi\"\n"]).unwrap_err();
        let seen = std::fs::read_to_string(fixture.path("seen")).unwrap();
        let expected = json!({
            "id": 0, "prompt": "2+2?", "messages": [], "answer": "say \"hi\"\n", "reference": {"a": 1},
            "columns": {}, "ended": true, "tokens": 3,
        });
        assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), expected);
    }

    #[test]
    fn answers_may_come_in_any_order() {
        // The first line is answered only when the third is there.
        let words = "case $answer in slow) touch busy; sleep 0.3; say 0;; first) first=$id;; \
            third) say 3; id=$first; say 1;; *) say 2;; esac";
        let fixture = saying(words, ", timeout: 20, batch: 3");
        let mut rewards = open(&fixture).unwrap();
        let submit = |rewards: &mut Rewards, id, answer: &str| {
            rewards.submit(id, completion(1, answer, Value::Null)).unwrap();
        };
        submit(&mut rewards, 0, "slow");
        while !fixture.path("busy").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // These wait together while the program is busy.
        for (id, answer) in [(1, "first"), (2, "second"), (3, "third")] {
            submit(&mut rewards, id, answer);
        }
        let done = rewards.wait(&mut || true).unwrap();
        let values: Vec<Option<f64>> = done.iter().map(|(_, rewards)| rewards[0]).collect();
        assert_eq!(values, [Some(0.0), Some(1.0), Some(2.0), Some(3.0)]);
    }

    #[test]
    fn several_programs_give_what_one_gives() {
        let words = "case $answer in *3*) sleep 0.05;; esac; say $answer";
        let answers: Vec<String> = (0..60).map(|i| i.to_string()).collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let one = score(&mut open(&saying(words, "")).unwrap(), &answers).unwrap();
        let three = saying(words, ", concurrency: 3, batch: 4");
        assert_eq!(score(&mut open(&three).unwrap(), &answers).unwrap(), one);
    }

    /// A program that fails at the answer `bad`, which is that of the third row: the run ends with `message`, or
    /// goes on without that reward alone.
    #[track_caller]
    fn check_failure(words: &str, settings: &str, message: &str) {
        let words = format!("case $answer in bad) {words};; *) say 1;; esac");
        let answers = ["a", "b", "bad", "c"];
        let fixture = saying(&words, settings);
        let mut rewards = open(&fixture).unwrap();
        let error = score(&mut rewards, &answers).expect_err(message);
        let shown = error.to_string();
        assert!(shown.starts_with("rows.jsonl:3: reward `reward`: "), "{shown}");
        assert!(shown.contains(message), "{shown}");
        drop(rewards);
        let fixture = skipping(fixture);
        let mut rewards = open(&fixture).unwrap();
        let scored = score(&mut rewards, &answers).unwrap();
        assert_eq!(scored, of(&[Some(1.0), Some(1.0), None, Some(1.0)]), "{message}");
        assert_eq!(rewards.failures(), [1], "{message}");
        let skipped = rewards.take_skipped();
        assert_eq!((skipped.len(), &*skipped[0].place), (1, "rows.jsonl:3"));
        assert!(skipped[0].error.message.contains(message), "{:?}", skipped[0]);
        assert_eq!(rewards.take_skipped(), []);
    }

    #[test]
    fn a_failure_names_its_row_and_leaves_the_others_alone() {
        check_failure("exit 3", "", "the program ended (exit status: 3) before it gave a reward");
        check_failure(
            "echo no such key >&2; exit 1",
            ", retries: 0",
            "; its standard error ends with\n  no such key",
        );
        check_failure("kill -9 $$", ", retries: 1", "SIGKILL");
        check_failure(
            "echo loading",
            ", retries: 0",
            "the program printed what is no reward: `loading`",
        );
        check_failure("say NaN", "", "the reward is NaN, not a finite number");
        check_failure("say 1e999", "", "no reward: ");
        check_failure("say 2", ", range: [0, 1]", "the reward is 2, out of its range 0 to 1");
        check_failure("say '\"1\"'", "", "is `\"1\"`, not a number");
        check_failure(
            "id=99; say 1",
            ", retries: 0",
            "the program answered id 99 although there is none",
        );
        check_failure(
            "echo \"{\\\"id\\\": $id, \\\"error\\\": \\\"no key\\\"}\"",
            "",
            "could not score the answer: no key",
        );
        check_failure("head -c 2000000 /dev/zero | tr '\\0' x; sleep 9", ", retries: 0", "`xxx");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let words = "case $answer in bad) sleep 60 & echo $! > child; wait;; *) say 1;; esac";
        let fixture = skipping(saying(words, ", timeout: 0.4, retries: 0"));
        let mut rewards = open(&fixture).unwrap();
        let begun = Instant::now();
        let scored = score(&mut rewards, &["a", "bad", "c"]).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(scored, of(&[Some(1.0), None, Some(1.0)]));
        let message = &rewards.take_skipped()[0].error.message;
        assert!(message.contains("the program gave no reward within 0.4 s"), "{message}");
        // What the program has started is gone with it, or a zombie of which only its parent has not heard.
        let child = std::fs::read_to_string(fixture.path("child")).unwrap();
        let state =
            std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "{state}");
    }

    #[test]
    fn an_answer_given_twice_is_an_error() {
        let fixture = saying("say 1; say 1", ", retries: 0");
        let mut rewards = open(&fixture).unwrap();
        let error = score(&mut rewards, &["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("a second time"), "{error}");
    }

    #[test]
    fn a_failure_that_passes_is_not_one() {
        let words = "if [ -e here ]; then say 1; else touch here; echo one >&2; exit 1; fi";
        let fixture = saying(words, ", retries: 1");
        let mut rewards = open(&fixture).unwrap();
        assert_eq!(score(&mut rewards, &["a", "b"]).unwrap(), of(&[Some(1.0), Some(1.0)]));
        assert_eq!(rewards.failures(), [0]);
        // The program itself may ask for another try.
        let words = "if [ -e \"$answer\" ]; then say 1; else touch \"$answer\"; echo \"{\\\"id\\\": $id, \\\"error\\\": \\\"busy\\\"}\"; fi";
        let fixture = saying(words, ", retries: 1");
        let mut rewards = open(&fixture).unwrap();
        assert_eq!(score(&mut rewards, &["a", "b"]).unwrap(), of(&[Some(1.0), Some(1.0)]));
    }

    #[test]
    fn rewards_that_never_come_end_a_run_that_skips() {
        let fixture = skipping(saying("say '\"x\"'", ""));
        let mut rewards = open(&fixture).unwrap();
        let answers = vec!["a"; 99];
        assert_eq!(score(&mut rewards, &answers).unwrap(), vec![vec![None]; 99]);
        let error = score(&mut rewards, &["a"]).unwrap_err().to_string();
        assert!(error.contains("so did 100 answers one after the other"), "{error}");
    }

    #[test]
    fn a_program_ends_with_the_run() {
        let fixture = program("cat > /dev/null; echo done > ended", "");
        drop(open(&fixture).unwrap());
        assert_eq!(std::fs::read_to_string(fixture.path("ended")).unwrap(), "done\n");
        // One that goes on all the same is ended, also in the middle of its work.
        let fixture = program("echo $$ > running; trap '' TERM; while :; do sleep 0.1; done", "");
        let mut rewards = open(&fixture).unwrap();
        rewards.submit(0, completion(1, "a", Value::Null)).unwrap();
        while std::fs::read_to_string(fixture.path("running")).unwrap_or_default().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let process = std::fs::read_to_string(fixture.path("running")).unwrap();
        let begun = Instant::now();
        drop(rewards);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(!std::path::Path::new("/proc").join(process.trim()).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_told_at_once() {
        let error = open(&fixture("rewards: [{command: [no-such-program, x]}]")).err().unwrap();
        let message = "rewards.0.command: `no-such-program` cannot be started";
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap().contains("[python3, reward.py]"));
    }
}
