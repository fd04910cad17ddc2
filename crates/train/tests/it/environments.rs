//! Answers of several turns: what holds to the bit, and programs that fail.
#![cfg(unix)]

use std::cell::RefCell;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use train::events::Event;
use train::trainer::Control;

use crate::support::{Fixture, How, check_same, figures, write_json};

const RECIPE: &str = "\
model: ./model
method: grpo
adapter: {rank: 4}
data: {train: rows.jsonl, validation: {fraction: 0.2}}
rollout: {group_size: 4, max_new_tokens: 8}
environment: {command: [sh, environment.sh], max_turns: 3, max_tokens: 80, timeout: 20}
train:
  max_steps: 6
  batch_size: 3
  learning_rate: 1e-2
  evaluate_every: 2
  save: {steps: 3}
precision: f32
seed: 7
";

/// A shell program with these words for each step, which has `$answer` and `$turn`.
fn program(step: &str) -> String {
    format!(
        "on() {{ printf '{{\"id\":%s,\"observation\":\"%s\",\"reward\":%s}}\\n' \"$id\" \"$1\" \"$2\"; }}\n\
         over() {{ printf '{{\"id\":%s,\"reward\":%s,\"done\":true}}\\n' \"$id\" \"$1\"; }}\n\
         while read -r line; do\n\
         id=${{line#*\\\"id\\\":}}; id=${{id%%[,\\}}]*}}\n\
         case $line in\n\
         *'\"event\":\"start\"'*) printf '{{\"id\":%s,\"deterministic\":true}}\\n' \"$id\";;\n\
         *'\"event\":\"step\"'*)\n\
         turn=${{line#*\\\"turn\\\":}}; turn=${{turn%%,*}}\n\
         answer=${{line#*\\\"answer\\\":\\\"}}\n\
         {step};;\n\
         esac\ndone\n"
    )
}

/// What short answers are rewarded by: the episode goes on as long as they are long.
const STEP: &str = "case ${#answer} in 2|3) over 1;; 4) on no 0.5;; *) on longer -0.25;; esac";

fn fixture(step: &str, changes: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::of(RECIPE, changes);
    fs::write(fixture.path("environment.sh"), program(step)).unwrap();
    // A model that knows nothing ends its turns if many tokens end them.
    let ends: Vec<u32> = [4].into_iter().chain(20..60).collect();
    write_json(&fixture.path("model/generation_config.json"), &json!({"eos_token_id": ends}));
    fixture
}

/// Trains, and gives the findings that were told.
fn found(fixture: &Fixture, run: &str, overrides: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut observe = |event: &Event| {
        if let Event::Finding { id, .. } = event {
            found.push(id.clone());
        }
    };
    let how = How { overrides, ..How::default() };
    fixture.watch(run, &how, &mut observe, &mut |_| Control::Continue).unwrap();
    found
}

/// The answers of the first rollout.
fn answers(fixture: &Fixture, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixture.path(run).join("rollouts/000000.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["line"] == "answer").collect()
}

#[test]
fn episodes_have_turns_of_which_the_answers_are_learned() {
    let fixture = fixture(STEP, &[]);
    fixture.train("run", &How::default()).unwrap();
    let figures = figures(&fixture, "run");
    for step in figures.iter().filter(|event| event["event"] == "step") {
        let metrics = &step["metrics"];
        // What was drawn is drawn from the policy that learns, whatever stands between.
        for fold in ["min", "max"] {
            let ratio = &metrics[format!("sampling/importance_sampling_ratio/{fold}")];
            assert_eq!(ratio, 1.0, "{step}");
        }
        let turns = metrics["environment/turns"].as_f64().unwrap();
        assert!(turns > 1.0 && turns <= 3.0, "{turns}");
        assert!((0.0..=1.0).contains(&metrics["environment/done"].as_f64().unwrap()));
        assert_eq!(metrics["reward"], metrics["rewards/environment/mean"]);
    }
    let evaluated = figures.iter().find(|event| event["event"] == "evaluated").unwrap();
    assert!(evaluated["metrics"]["environment/turns"].as_f64().unwrap() >= 1.0);

    let (mut several, mut done) = (0, 0);
    // `\n<|im_start|>user\n` behind an answer, `<|im_end|>\n<|im_start|>assistant\n` before the next one.
    for answer in answers(&fixture, "run") {
        let tokens = answer["tokens"].as_array().unwrap();
        let drawn = answer["episode"]["drawn"].as_array().unwrap();
        let ends: Vec<[usize; 2]> =
            drawn.iter().map(|run| serde_json::from_value(run.clone()).unwrap()).collect();
        let count: usize = ends.iter().map(|[start, end]| end - start).sum();
        assert_eq!(count, answer["logprobs"].as_array().unwrap().len());
        assert_eq!((ends[0][0], ends.last().unwrap()[1]), (0, tokens.len()));
        for two in ends.windows(2) {
            let between = &tokens[two[0][1]..two[1][0]];
            assert_eq!(between[..2], [json!(5), json!(3)], "{between:?}");
            assert_eq!(between.iter().filter(|token| **token == 4).count(), 1, "{between:?}");
            several += 1;
        }
        done += usize::from(answer["episode"]["done"] == true);
    }
    assert!(several > 0 && done > 0, "{several} {done}");
}

#[test]
fn company_threads_and_a_slow_program_change_nothing() {
    let whole = fixture(STEP, &[]);
    whole.train("whole", &How::default()).unwrap();
    for overrides in [&["rollout.concurrency=1"][..], &["rollout.concurrency=3"]] {
        whole.train("run", &How { overrides, threads: 2, ..How::default() }).unwrap();
        check_same(&whole, "run", "whole");
        fs::remove_dir_all(whole.path("run")).unwrap();
    }
    let slow = format!("case $answer in *[a-c]*) sleep 0.02;; esac; {STEP}");
    fs::write(whole.path("environment.sh"), program(&slow)).unwrap();
    whole.train("slow", &How::default()).unwrap();
    check_same(&whole, "slow", "whole");
}

/// A copy of the folder is what a kill at that moment leaves.
#[test]
fn a_run_killed_in_mid_episode_goes_on_as_if_it_never_was() {
    for method in ["grpo", "ppo"] {
        let fixture = fixture(STEP, &[("method: grpo", &format!("method: {method}"))]);
        let copies = RefCell::new(Vec::new());
        let mut asked = 0;
        let mut control = |_| {
            asked += 1;
            if asked % 23 == 4 && copies.borrow().len() < 8 {
                let name = format!("killed-{}", copies.borrow().len());
                fixture.copy_run("whole", &name);
                copies.borrow_mut().push(name);
            }
            Control::Continue
        };
        fixture.watch("whole", &How::default(), &mut |_| {}, &mut control).unwrap();
        let mut replayed = 0;
        for run in copies.into_inner() {
            let begun = answers(&fixture, &run).len();
            replayed += usize::from(begun < 12);
            fixture.train(&run, &How { threads: 2, ..How::resumed() }).unwrap();
            check_same(&fixture, &run, "whole");
        }
        assert!(replayed > 0, "{method}: no copy was in mid-rollout");
    }
}

#[test]
fn a_run_that_is_stopped_goes_on_also_without_a_deterministic_program() {
    for word in ["true", "false"] {
        let fixture = fixture(STEP, &[]);
        let text =
            program(STEP).replace("\"deterministic\":true", &format!("\"deterministic\":{word}"));
        fs::write(fixture.path("environment.sh"), text).unwrap();
        fixture.train("whole", &How::default()).unwrap();
        for times in [3, 6, 9, 40] {
            let run = format!("stopped-{times}");
            let mut asked = 0;
            let mut control = |_| {
                asked += 1;
                if asked == times { Control::Stop } else { Control::Continue }
            };
            let how = How::default();
            let summary = fixture.watch(&run, &how, &mut |_| {}, &mut control).unwrap();
            if summary.status != "finished" {
                fixture.train(&run, &How::resumed()).unwrap();
            }
            // This program says the same again, whatever it says of itself.
            check_same(&fixture, &run, "whole");
        }
    }
}

#[test]
fn a_program_that_dies_is_started_again() {
    let whole = fixture(STEP, &[]);
    whole.train("whole", &How::default()).unwrap();
    for deterministic in ["true", "false"] {
        let dies = format!(
            "case $answer in *[a-e]*) [ -e died-{deterministic} ] || {{ touch died-{deterministic}; exit 3; }};; esac; {STEP}"
        );
        let text = program(&dies)
            .replace("\"deterministic\":true", &format!("\"deterministic\":{deterministic}"));
        fs::write(whole.path("environment.sh"), text).unwrap();
        let run = format!("run-{deterministic}");
        whole.train(&run, &How::default()).unwrap();
        assert!(whole.path(&format!("died-{deterministic}")).exists());
        check_same(&whole, &run, "whole");
    }
}

#[test]
fn a_program_that_is_not_as_deterministic_as_it_says_is_named() {
    // Before it dies it says another word than after that.
    let step = "case $answer in *[a-e]*) [ -e died ] || { touch died; exit 3; };; esac\n\
        if [ -e died ]; then on other 0; else on no 0; fi";
    let fixture = fixture(step, &[]);
    let overrides = &["train.max_steps=2", "train.evaluate_every=9"];
    let found = found(&fixture, "run", overrides);
    assert!(found.iter().any(|id| id == "environment-not-deterministic"), "{found:?}");
}

#[test]
fn a_stop_is_heard_while_the_program_is_waited_for() {
    let fixture = fixture("sleep 30", &[]);
    let begun = Instant::now();
    let mut control = |_| match begun.elapsed() > Duration::from_millis(1500) {
        true => Control::Stop,
        false => Control::Continue,
    };
    let summary = fixture.watch("run", &How::default(), &mut |_| {}, &mut control).unwrap();
    assert_eq!(summary.status, "interrupted");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[track_caller]
fn check_fails(step: &str, overrides: &[&str], message: &str) {
    let fixture = fixture(step, &[]);
    let overrides: Vec<&str> = [overrides, &["environment.retries=1"]].concat();
    let how = How { overrides: &overrides, ..How::default() };
    let error = fixture.train("run", &how).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&*fixture.path("rows.jsonl").to_string_lossy())
            || text.contains("rows.jsonl:"),
        "{text}"
    );
    assert!(text.contains("`environment`") && text.contains(message), "{text}");
}

#[test]
fn a_program_that_fails_is_an_error_with_its_row() {
    check_fails("echo oh >&2; exit 4", &[], "oh");
    check_fails("sleep 5", &["environment.timeout=0.2"], "no line within 0.2 s");
    check_fails("echo thinking", &[], "belongs to no episode: `thinking`");
    check_fails("over NaN", &[], "the reward is NaN");
    check_fails("printf '{\"id\":%s}\\n' \"$id\"", &[], "not done");
    check_fails("printf '{\"id\":%s,\"error\":\"no key\"}\\n' \"$id\"", &[], "no key");
}

#[test]
fn an_episode_that_fails_may_go_without_its_reward() {
    let step = format!("case $answer in *[a-e]*) exit 1;; esac; {STEP}");
    let fixture =
        fixture(&step, &[("max_new_tokens: 8", "max_new_tokens: 8, on_reward_error: skip")]);
    let overrides = &["environment.retries=0", "train.max_steps=2", "train.evaluate_every=9"];
    let found = found(&fixture, "run", overrides);
    assert!(found.iter().any(|id| id == "reward-failed"), "{found:?}");
    let steps = figures(&fixture, "run");
    assert!(steps.iter().any(|step| step["metrics"]["rewards/environment/missing"].is_number()));
}

#[test]
fn episodes_that_never_end_are_named() {
    let fixture = fixture("on more 0", &[]);
    let overrides = &["train.max_steps=1"];
    let mut all = found(&fixture, "run", overrides);
    // Some were cut before they had all their turns; a run with one turn has none of these.
    let one = &["train.max_steps=1", "environment.max_turns=1", "rollout.max_new_tokens=60"];
    all.extend(found(&fixture, "one", one));
    assert!(all.iter().any(|id| id == "environment-never-done"), "{all:?}");
}

#[test]
fn a_program_sees_the_row_and_rewards_see_the_turns() {
    let start = "on() {";
    let text = program(STEP).replacen(start, &format!("{start} "), 1).replace(
        "while read -r line; do\n",
        "while read -r line; do\nprintf '%s\\n' \"$line\" >> seen\n",
    );
    let fixture = fixture(
        STEP,
        &[("train:\n", "rewards: [{command: [sh, reward.sh], weight: 0}]\ntrain:\n")],
    );
    fs::write(fixture.path("environment.sh"), text).unwrap();
    let reward = "while read -r line; do printf '%s\\n' \"$line\" >> rewarded\n\
        id=${line#*\\\"id\\\":}; printf '{\"id\":%s,\"reward\":1}\\n' \"${id%%,*}\"; done\n";
    fs::write(fixture.path("reward.sh"), reward).unwrap();
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let row = |prompt: &str| {
        json!({"prompt": prompt, "answer": 4, "level": "x", "tools": tools}).to_string() + "\n"
    };
    let rows: String = (0..10).map(|index| row(&format!("{index}?"))).collect();
    fs::write(fixture.path("rows.jsonl"), rows).unwrap();
    let overrides = &["train.max_steps=1", "rollout.probe=false"];
    fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(fixture.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let seen = lines("seen");
    let starts: Vec<&Value> = seen.iter().filter(|line| line["event"] == "start").collect();
    let first = starts[0];
    assert_eq!((&first["reference"], &first["columns"]), (&json!(4), &json!({"level": "x"})));
    assert_eq!(first["tools"], tools);
    // Answers to the same prompt begin alike.
    assert_eq!((&first["seed"], &first["messages"]), (&starts[1]["seed"], &starts[1]["messages"]));
    assert_ne!(first["seed"], starts[4]["seed"]);
    let closed = seen.iter().filter(|line| line["event"] == "close").count();
    assert_eq!(closed, starts.len());
    let turns =
        lines("rewarded").iter().map(|line| line["messages"].as_array().unwrap().len()).max();
    assert_eq!(turns, Some(5));
}

#[track_caller]
fn check_refused(overrides: &[&str], message: &str) {
    let fixture = fixture(STEP, &[]);
    let document = fixture.try_document(overrides).map_err(train::Error::from);
    let how = How { overrides, ..How::default() };
    let error = match document {
        Err(error) => error,
        Ok(_) => fixture.train("run", &how).unwrap_err(),
    };
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().is_some(), "{error}");
    assert!(!fixture.path("run").join("events.jsonl").exists());
}

#[test]
fn environments_that_cannot_be_are_refused() {
    check_refused(&["environment.command=[sh, none.sh]"], "none.sh: is not there");
    check_refused(&["environment.command=[no-such-program]"], "cannot be started");
    check_refused(&["environment.max_tokens=120"], "`environment.max_tokens` = 120");
    check_refused(&["environment.weight=0"], "weight 0");
    check_refused(&["rewards=[{grader: json, name: environment}]"], "`environment`");
    let fixture = fixture(STEP, &[]);
    let error = fixture.try_document(&["method=distill"]).unwrap_err().to_string();
    assert!(error.contains("`environment.command` has no effect"), "{error}");
}

/// A template that writes the last user turn in another way cannot be gone on from.
#[test]
fn a_template_that_rewrites_earlier_turns_is_refused() {
    let fixture = fixture(STEP, &[]);
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role != 'assistant' and loop.last %}!{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(fixture.path("model/chat_template.jinja"), template).unwrap();
    let error = fixture.train("run", &How::default()).unwrap_err();
    assert!(error.to_string().contains("writes earlier turns in another way"), "{error}");
}
