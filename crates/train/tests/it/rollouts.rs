//! Methods that learn from answers of their own: what holds to the bit, stops and kills among it.

use std::cell::RefCell;
use std::fs;

use serde_json::json;
use train::Result;
use train::events::Event;
use train::trainer::{Control, Summary};

use crate::support::{Fixture, How, ROWS, check_same, figures};

const RECIPE: &str = "\
model: ./model
method: grpo
adapter: {rank: 4}
data: {train: rows.jsonl, validation: {fraction: 0.2}}
rollout: {group_size: 4, max_new_tokens: 8}
rewards: [{grader: contains, options: {texts: [a], whole_words: false}}, {grader: length, options: {min: 2, max: 6, margin: 4, unit: characters}, weight: 0.5}]
train:
  max_steps: 6
  batch_size: 3
  learning_rate: 1e-2
  evaluate_every: 2
  save: {steps: 3}
precision: f32
seed: 7
";

fn fixture(changes: &[(&str, &str)]) -> Fixture {
    Fixture::of(RECIPE, changes)
}

/// Stops a run when it has asked so often whether to go on.
fn stop_after_asking(fixture: &Fixture, run: &str, how: &How<'_>, times: usize) -> Result<Summary> {
    let mut asked = 0;
    let mut control = |_| {
        asked += 1;
        if asked == times { Control::Stop } else { Control::Continue }
    };
    fixture.watch(run, how, &mut |_| {}, &mut control)
}

#[test]
fn a_run_learns_what_is_rewarded() {
    let fixture = fixture(&[("max_steps: 6", "max_steps: 40")]);
    fixture.train("run", &How::default()).unwrap();
    let rewards: Vec<f64> = figures(&fixture, "run")
        .iter()
        .filter(|event| event["event"] == "step")
        .map(|event| event["metrics"]["reward"].as_f64().unwrap())
        .collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    let (first, last) = (mean(&rewards[..8]), mean(&rewards[32..]));
    assert!(last > first + 0.2, "{first} to {last}");
}

#[test]
fn the_ratio_is_one_at_the_first_update() {
    let fixture = fixture(&[("group_size: 4", "group_size: 4, updates: 2")]);
    let overrides = &["train.schedule.warmup_ratio=0"];
    fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    for (index, event) in
        figures(&fixture, "run").iter().filter(|event| event["event"] == "step").enumerate()
    {
        let metrics = &event["metrics"];
        let [least, most] = ["min", "max"].map(|fold| {
            metrics[format!("sampling/importance_sampling_ratio/{fold}")].as_f64().unwrap()
        });
        match index % 2 {
            0 => assert_eq!((least, most), (1.0, 1.0), "step {index}"),
            _ => assert!(least < 1.0 && most > 1.0, "step {index}"),
        }
    }
}

#[test]
fn threads_company_and_micro_batches_change_nothing() {
    let fixture = fixture(&[]);
    fixture.train("whole", &How::default()).unwrap();
    let runs: [(&str, &[&str], usize); 3] = [
        ("threads", &[], 3),
        ("alone", &["rollout.concurrency=1"], 1),
        ("two", &["rollout.concurrency=2"], 2),
    ];
    for (run, overrides, threads) in runs {
        fixture.train(run, &How { overrides, threads, ..How::default() }).unwrap();
        check_same(&fixture, run, "whole");
    }
}

#[test]
fn a_run_stopped_anywhere_goes_on_as_if_it_never_was() {
    let several = ("group_size: 4", "group_size: 4, updates: 2, minibatches: 2");
    let unprobed = ("max_new_tokens: 8", "max_new_tokens: 8, probe: false");
    for changes in [&[][..], &[unprobed], &[several, unprobed]] {
        let fixture = fixture(changes);
        fixture.train("whole", &How::default()).unwrap();
        // In the midst of sampling, of validation and behind steps.
        for times in [1, 3, 8, 10, 17, 24, 31, 40, 48] {
            let run = format!("stopped-{times}");
            let summary = stop_after_asking(&fixture, &run, &How::default(), times).unwrap();
            if summary.status == "finished" {
                continue;
            }
            fixture.train(&run, &How { threads: 2, ..How::resumed() }).unwrap();
            check_same(&fixture, &run, "whole");
        }
    }
}

/// A copy of the folder is what a kill at that moment leaves.
#[test]
fn a_run_killed_anywhere_goes_on_as_if_it_never_was() {
    let fixture = fixture(&[("group_size: 4", "group_size: 4, updates: 2")]);
    let copies = RefCell::new(Vec::new());
    let copy = || {
        let name = format!("killed-{}", copies.borrow().len());
        fixture.copy_run("whole", &name);
        copies.borrow_mut().push(name);
    };
    // Between tokens, and at every event: behind rollouts, steps, validations and checkpoints.
    let mut asked = 0;
    let mut control = |_| {
        asked += 1;
        if asked % 5 == 0 {
            copy();
        }
        Control::Continue
    };
    fixture.watch("whole", &How::default(), &mut |_| copy(), &mut control).unwrap();
    let copies = copies.into_inner();
    assert!(copies.len() > 20, "{}", copies.len());
    for run in &copies[..copies.len() - 1] {
        fixture.train(run, &How::resumed()).unwrap();
        check_same(&fixture, run, "whole");
    }
}

#[test]
fn a_reward_that_pays_for_nothing_is_named_before_the_first_step() {
    let fixture = fixture(&[("min: 2, max: 6", "max: 6")]);
    let mut found = Vec::new();
    let mut observe = |event: &Event| match event {
        Event::Finding { step: None, id, hint, .. } => found.push((id.clone(), hint.clone())),
        Event::Step(_) => assert!(!found.is_empty()),
        _ => {}
    };
    fixture.watch("run", &How::default(), &mut observe, &mut |_| Control::Continue).unwrap();
    let (_, hint) = found.iter().find(|(id, _)| id == "grader-rewards-empty").unwrap();
    assert!(hint.starts_with("`length`:"), "{hint}");
}

#[test]
fn what_was_answered_is_not_answered_again() {
    let fixture = fixture(&[("max_new_tokens: 8", "max_new_tokens: 8, probe: false")]);
    fixture.train("whole", &How::default()).unwrap();
    stop_after_asking(&fixture, "run", &How::default(), 10).unwrap();
    let journal = fixture.path("run/rollouts/000000.jsonl");
    let before = fs::read_to_string(&journal).unwrap();
    assert!(before.lines().count() > 1, "answers are written as they end: {before}");
    fixture.train("run", &How::resumed()).unwrap();
    let after = fs::read_to_string(&journal).unwrap();
    assert!(after.starts_with(&before));
    check_same(&fixture, "run", "whole");
}

#[test]
fn killed_in_the_midst_of_updates_a_run_needs_its_rollout() {
    let fixture = fixture(&[("group_size: 4", "group_size: 4, updates: 4")]);
    fixture.train_until("run", &How::default(), 2).unwrap();
    fs::remove_dir_all(fixture.path("run/rollouts")).unwrap();
    let error = fixture.train("run", &How::resumed()).unwrap_err();
    assert!(error.to_string().contains("rollout 0"), "{error}");
}

#[test]
fn groups_that_teach_nothing_are_replaced() {
    let changes = [("group_size: 4", "group_size: 2, zero_variance: resample")];
    let fixture = fixture(&changes);
    let (mut prompts, mut answers) = (0, 0);
    let mut observe = |event: &Event| {
        if let Event::Rollout { prompts: asked, answers: learned, .. } = event {
            prompts += asked;
            answers += learned;
        }
    };
    fixture.watch("run", &How::default(), &mut observe, &mut |_| Control::Continue).unwrap();
    assert!(2 * prompts > answers, "{prompts} prompts, {answers} answers");
}

/// A group whose mean reward is out of bounds is replaced, and counted.
#[test]
fn groups_of_another_pass_rate_are_replaced() {
    let fixture = fixture(&[]);
    let bounds = [("none", vec![]), ("some", vec!["rollout.pass_rate=[0.55, 0.75]"])];
    for (run, overrides) in &bounds {
        fixture.train(run, &How { overrides, ..How::default() }).unwrap();
    }
    let replaced = |run: &str| {
        let steps = figures(&fixture, run);
        let counts = steps.iter().filter_map(|step| step["metrics"]["rollout/resampled"].as_f64());
        counts.collect::<Vec<f64>>()
    };
    assert!(replaced("none").is_empty());
    assert!(replaced("some").iter().sum::<f64>() > 0.0, "{:?}", replaced("some"));
    // Of a group that is kept the mean is in bounds.
    let journals = fs::read_dir(fixture.path("some/rollouts")).unwrap();
    assert!(journals.count() > 0);
}

/// A value head of its own learns, and what it learns does not move the policy: there is nothing that the two share.
#[test]
fn own_values_do_not_move_the_policy() {
    let changes = [
        ("method: grpo", "method: ppo"),
        ("train:\n", "objective: {beta: 0}\ntrain:\n"),
        ("group_size: 4", "group_size: 4, updates: 2"),
    ];
    let fixture = fixture(&changes);
    let adapter = |kept: &str, weight: &str| {
        let run = format!("{kept}-{weight}");
        let [kept, weight] =
            [format!("objective.value_adapter={kept}"), format!("objective.vf_coef={weight}")];
        // Both updates of the first rollout at the full rate.
        let overrides = &[
            kept.as_str(),
            &weight,
            "objective.clip_value=none",
            "train.max_steps=2",
            "train.schedule={type: constant, warmup_ratio: 0}",
            "train.max_grad_norm=none",
        ];
        fixture.train(&run, &How { overrides, ..How::default() }).unwrap();
        fixture.adapter_bytes(&run)
    };
    assert!(adapter("own", "0.1") == adapter("own", "2"));
    assert!(adapter("shared", "0.1") != adapter("shared", "2"));

    let overrides = &[
        "objective.value_adapter=own",
        "objective.clip_value=none",
        "rewards=[{grader: length, options: {max: 1000}}]",
        "rollout.probe=false",
        "train.max_steps=20",
    ];
    fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let steps = figures(&fixture, "run");
    let losses = steps.iter().filter_map(|step| step["metrics"]["loss/value_avg"].as_f64());
    let losses: Vec<f64> = losses.collect();
    assert!(losses.len() == 20 && losses[19] < 0.5 * losses[0], "{losses:?}");
}

/// Every method goes on after a stop as if it never was, a value head and a reference among what it goes on with.
#[test]
fn every_method_that_samples_trains_and_resumes() {
    let pulled = ("train:\n", "objective: {beta: 0.05}\ntrain:\n");
    let own_values = ("train:\n", "objective: {beta: 0.05, value_adapter: own}\ntrain:\n");
    let several = ("group_size: 4", "group_size: 4, updates: 2");
    for (method, changes) in [
        ("grpo", vec![pulled]),
        ("rloo", vec![pulled]),
        ("reinforce_pp", vec![pulled, several]),
        ("ppo", vec![pulled, several]),
        ("ppo", vec![own_values, several]),
    ] {
        let named = format!("method: {method}");
        let changes: Vec<_> =
            [("method: grpo", named.as_str())].into_iter().chain(changes).collect();
        let fixture = fixture(&changes);
        let summary = fixture.train("whole", &How::default()).unwrap();
        assert!(summary.learns_from_rewards && !summary.gives_scores, "{method}");
        let steps = figures(&fixture, "whole");
        let steps = steps.iter().filter(|event| event["event"] == "step");
        let kl: Vec<f64> = steps.map(|step| step["metrics"]["kl"].as_f64().unwrap()).collect();
        assert_eq!(kl[0], 0.0, "{method}: the policy begins as the reference");
        assert!(kl.iter().any(|kl| *kl != 0.0), "{method}: {kl:?}");

        // In the midst of a rollout's updates.
        fixture.train_until("run", &How::default(), 3).unwrap();
        fixture.train("run", &How { threads: 2, ..How::resumed() }).unwrap();
        check_same(&fixture, "run", "whole");
        // A value head is of use in training alone.
        let config = fs::read_to_string(fixture.path("whole/adapter/adapter_config.json")).unwrap();
        assert!(config.contains("CAUSAL_LM"), "{method}: {config}");
    }
}

/// A step over fewer prompts at a time is another step, but answers are those of the whole rollout.
#[test]
fn minibatches_divide_a_rollout() {
    let fixture = fixture(&[("group_size: 4", "group_size: 4, minibatches: 3")]);
    let mut rollouts = 0;
    let mut observe = |event: &Event| rollouts += u64::from(matches!(event, Event::Rollout { .. }));
    fixture.watch("run", &How::default(), &mut observe, &mut |_| Control::Continue).unwrap();
    let steps = figures(&fixture, "run");
    let steps: Vec<_> = steps.iter().filter(|event| event["event"] == "step").collect();
    assert_eq!((steps.len(), rollouts), (6, 2));
    assert!(steps.iter().all(|step| step["rows"] == 1));
}

/// Answers are scored by a reward model over the same base, as `tunesmith score` scores them.
#[test]
fn a_reward_model_scores_answers() {
    let fixture = fixture(&[]);
    let pairs = ROWS.map(|(prompt, answer)| {
        json!({"prompt": prompt, "chosen": answer, "rejected": "no"}).to_string() + "\n"
    });
    fs::write(fixture.path("pairs.jsonl"), pairs.concat()).unwrap();
    let mut reward = Fixture::at(&fixture.path(""));
    reward.recipe =
        "model: ./model\nmethod: reward\nadapter: {rank: 4}\ndata: {train: pairs.jsonl}\n\
                     train: {max_steps: 8, batch_size: 4, learning_rate: 1e-2}\nprecision: f32\n"
            .to_owned();
    reward.train("reward", &How::default()).unwrap();
    let overrides = &["rewards=[{model: ./reward}]"];
    let how = How { overrides, ..How::default() };
    fixture.train("run", &how).unwrap();
    let steps = figures(&fixture, "run");
    let rewards = steps.iter().filter_map(|step| step["metrics"]["reward"].as_f64());
    assert!(rewards.clone().count() > 0 && rewards.clone().all(|reward| reward != 0.0));
    fixture.train_until("stopped", &how, 2).unwrap();
    fixture.train("stopped", &How { overrides, ..How::resumed() }).unwrap();
    check_same(&fixture, "stopped", "run");
    // An adapter without a score is none.
    let overrides = &["rewards=[{model: ./run}]"];
    let error = fixture.train("none", &How { overrides, ..How::default() }).unwrap_err();
    assert!(error.to_string().contains("gives no score"), "{error}");
}

/// Where all answers are cut and left out, a step teaches nothing, and the run goes on.
#[test]
fn a_step_may_have_no_answer_to_learn_from() {
    let fixture = fixture(&[("max_new_tokens: 8", "max_new_tokens: 1, mask_truncated: true")]);
    let summary = fixture.train("run", &How::default()).unwrap();
    assert_eq!(summary.status, "finished");
    let steps = fixture.steps("run");
    assert!(steps.iter().any(|[_, loss, norm, _]| (*loss, *norm) == (0.0, 0.0)), "{steps:?}");
}

/// A run that goes on at another rate is soon another policy: what the first one sampled behind the checkpoint is not its own.
#[test]
fn answers_of_another_policy_are_not_taken_from_the_journal() {
    for adapter in ["{rank: 4}", "{type: none}"] {
        let fixture = fixture(&[("{rank: 4}", adapter)]);
        fixture.train_until("run", &How::default(), 3).unwrap();
        fixture.copy_run("run", "clean");
        // The same run goes further, and is then put back to its checkpoint with the journals that it left.
        fixture.copy_run("run", "further");
        fixture.train("further", &How::resumed()).unwrap();
        fixture.copy_run("further/rollouts", "run/rollouts");
        let overrides = &["train.learning_rate=5e-2"];
        for run in ["run", "clean"] {
            fixture.train(run, &How { overrides, ..How::resumed() }).unwrap();
        }
        assert_eq!(figures(&fixture, "run"), figures(&fixture, "clean"), "{adapter}");
    }
}

#[track_caller]
fn check_refused(overrides: &[&str], place: &str) {
    let fixture = fixture(&[]);
    let error = fixture.train("run", &How { overrides, ..How::default() }).unwrap_err();
    assert!(error.to_string().contains(place), "{error}");
    assert!(error.hint().is_some(), "{error}");
    assert!(!fixture.path("run").join("events.jsonl").exists());
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    check_refused(&["rollout.max_new_tokens=120"], "rows.jsonl:");
    check_refused(&["adapter.dropout=0.1"], "adapter.dropout");
    check_refused(&["rollout.group_size=1"], "rollout.group_size");
    check_refused(&["rollout.pass_rate=[0.9, 0.1]"], "rollout.pass_rate");
    check_refused(&["rewards=[]"], "rewards");
}
