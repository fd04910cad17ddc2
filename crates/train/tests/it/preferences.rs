//! DPO and reward models from recipes: what they learn, count, keep and refuse.

use std::fs;

use keys::Settings as _;
use model::adapter::LoadedAdapter;
use serde_json::{Value, json};
use train::run::Occupied;

use crate::support::{Fixture, How, read_json};

/// Nine pairs: the better answer is polite.
fn pairs() -> Vec<Value> {
    let questions = ["2+2?", "sky?", "a or b?", "bye", "10-3?", "red?", "3*3?", "hi", "day?"];
    let answers = ["4", "blue", "b", "see you", "7", "yes", "9", "hello", "Monday"];
    let pair = |(question, answer): (&&str, &&str)| json!({"prompt": question, "chosen": format!("{answer}, please"), "rejected": answer});
    questions.iter().zip(&answers).map(pair).collect()
}

/// The same answers, judged one by one, in another order.
fn judged_answers() -> Vec<Value> {
    let judged = |(row, side, label): (Value, &str, bool)| json!({"prompt": row["prompt"], "completion": row[side], "label": label});
    let chosen = pairs().into_iter().map(|row| (row, "chosen", true));
    let rejected = pairs().into_iter().map(|row| (row, "rejected", false));
    let mut rows: Vec<Value> = chosen.chain(rejected).map(judged).collect();
    rows.sort_by_key(|row| row["completion"].as_str().unwrap().len());
    rows
}

/// A method and the rows that it is tried on.
fn cases() -> Vec<(&'static str, Vec<Value>)> {
    let methods = ["dpo", "reward", "orpo", "simpo", "cpo"];
    let of_pairs = methods.map(|method| (method, pairs()));
    let judged = ["kto", "bco"].map(|method| (method, judged_answers()));
    of_pairs.into_iter().chain(judged).chain([("kto", pairs())]).collect()
}

/// The small model with pairs, of which two in nine are kept back.
fn fixture(method: &str, rows: &[Value]) -> Fixture {
    let mut fixture = Fixture::with_validation();
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(fixture.path("rows.jsonl"), lines).unwrap();
    fixture.recipe = fixture.recipe.replace("method: sft", &format!("method: {method}"));
    fixture
}

fn events<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == kind)
}

#[test]
fn dpo_of_a_continued_adapter_begins_at_ln_2() {
    let sft = Fixture::new();
    sft.train("sft", &How::default()).unwrap();
    let start = Some(sft.path("sft/adapter"));
    for overrides in [&["adapter.from=continue"][..], &["adapter.from=stack", "adapter.rank=2"]] {
        let fixture = fixture("dpo", &pairs());
        // The shape is that of the adapter that is continued.
        let how = How { overrides, start: start.clone(), ..How::default() };
        fixture.train("dpo", &how).unwrap();
        let steps = fixture.steps("dpo");
        let first = steps[0][1];
        assert!((first - std::f64::consts::LN_2).abs() < 1e-12, "{overrides:?}: {first}");
        assert!(steps[9][1] < first - 0.01, "it learns: {}", steps[9][1]);
        let events_of_run = fixture.events("dpo");
        let step = events(&events_of_run, "step").last().unwrap();
        assert!(step["metrics"]["rewards/margins"].as_f64().unwrap() > 0.0, "{step}");
        let card = fs::read_to_string(fixture.path("dpo/adapter/README.md")).unwrap();
        assert!(card.contains("Direct preference optimization of a LoRA adapter"), "{card}");
    }
}

#[test]
fn a_step_counts_pairs() {
    let fixture = fixture("dpo", &pairs());
    let how = How { overrides: &["train.batch_size=3", "train.max_steps=5"], ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let all = fixture.events("run");
    let started = events(&all, "started").next().unwrap();
    let rows =
        started["rows_train"].as_u64().unwrap() + started["rows_validation"].as_u64().unwrap();
    assert_eq!(rows, 9);
    assert!(events(&all, "step").all(|step| step["rows"] == 3));
    assert_eq!(summary.steps, 5);
    // Fifteen pairs of seven or eight: every pair was taken about twice.
    let epoch = events(&all, "step").last().unwrap()["epoch"].as_f64().unwrap();
    let train = started["rows_train"].as_u64().unwrap() as f64;
    assert!((epoch - 15.0 / train).abs() < 1e-9, "{epoch}");
}

#[test]
fn a_reward_model_learns_what_is_better_and_is_written_for_peft() {
    let fixture = fixture("reward", &pairs());
    let overrides = &["train.max_steps=30", "train.learning_rate=3e-2"];
    let summary = fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let all = fixture.events("run");
    let last = events(&all, "step").last().unwrap();
    assert_eq!(last["metrics"]["accuracy"], 1.0, "{last}");
    assert!(last["loss"].as_f64().unwrap() < 0.5, "{last}");
    // Steps are compared by accuracy, of which more is better.
    let evaluated: Vec<f64> = events(&all, "evaluated")
        .map(|event| event["metrics"]["accuracy"].as_f64().unwrap())
        .collect();
    let best = evaluated.iter().copied().fold(0.0, f64::max);
    assert_eq!(summary.validation_best, Some(best), "{evaluated:?}");

    let config = read_json(&fixture.path("run/adapter/adapter_config.json"));
    assert_eq!(config["task_type"], "SEQ_CLS");
    let shape = &fixture.base().config;
    let (_, head) = LoadedAdapter::read_scored(&fixture.path("run/adapter"), shape).unwrap();
    assert_eq!(head.unwrap().len(), shape.hidden_size);
    let card = fs::read_to_string(fixture.path("run/adapter/README.md")).unwrap();
    assert!(card.contains("Reward model of a LoRA adapter"), "{card}");
    assert!(card.contains("pipeline_tag: text-classification"), "{card}");

    // It goes on from there.
    let start = Some(fixture.path("run/adapter"));
    let how = How { overrides: &["train.max_steps=2"], start, ..How::default() };
    fixture.train("more", &how).unwrap();
    let more = fixture.events("more");
    let first = events(&more, "step").next().unwrap();
    assert!(first["loss"].as_f64().unwrap() < 0.6, "{first}");
}

#[test]
fn ranked_answers_are_all_compared() {
    let ranked = |question: &str, best: &str, middle: &str, worst: &str| json!({"prompt": question, "responses": [middle, worst, best], "scores": [2, 1, 3]});
    let rows = [ranked("2+2?", "4!", "4", "5"), ranked("sky?", "blue!", "blue", "red")];
    let mut fixture = fixture("reward", &rows);
    fixture.recipe = fixture.recipe.replace(", validation: {fraction: 0.2}", "");
    let how = How { overrides: &["train.batch_size=2", "train.max_steps=3"], ..How::default() };
    fixture.train("run", &how).unwrap();
    let all = fixture.events("run");
    let step = events(&all, "step").next().unwrap();
    // Three answers each, read at their last tokens.
    assert_eq!((step["rows"].as_u64(), step["tokens_supervised"].as_u64()), (Some(2), Some(6)));
    let loss = step["loss"].as_f64().unwrap();
    assert!((0.2..2.0).contains(&loss), "{loss}");
}

#[test]
fn equally_good_answers_are_no_pair() {
    let first = |rows: &[Value]| {
        let mut fixture = fixture("reward", rows);
        fixture.recipe = fixture.recipe.replace(", validation: {fraction: 0.2}", "");
        let overrides = &["train.batch_size=1", "train.max_steps=1"];
        let run = fixture.train("run", &How { overrides, ..How::default() });
        run.map(|summary| summary.loss_first.unwrap())
    };
    let ranked = |answers: [&str; 3], scores: [u32; 3]| json!({"prompt": "2+2?", "responses": answers, "scores": scores});
    // Of two equal answers it does not matter which one the row names first.
    let one = first(&[ranked(["4", "four", "5"], [3, 3, 1])]).unwrap();
    let other = first(&[ranked(["four", "4", "5"], [3, 3, 1])]).unwrap();
    assert!((one - other).abs() < 1e-6, "{one} {other}");
    // Ranks may be shared too.
    let mut row = ranked(["4", "four", "5"], [1, 1, 2]);
    let ranks = row.as_object_mut().unwrap().remove("scores").unwrap();
    row["ranks"] = ranks;
    assert!((first(&[row]).unwrap() - one).abs() < 1e-6);
    let error = first(&[ranked(["4", "four", "5"], [2, 2, 2])]).unwrap_err();
    assert!(error.to_string().contains("all answers are equally good"), "{error}");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let mut cases = cases();
    cases.truncate(7);
    for (method, rows) in cases {
        let overrides = match method {
            "dpo" => &["train.best_by=accuracy", "objective.losses={sigmoid: 1, aot: 0.5}"][..],
            "reward" => &["train.best_by=loss", "adapter.dropout=0.2"],
            _ => &[],
        };
        let sft = Fixture::new();
        sft.train("sft", &How::default()).unwrap();
        let start = Some(sft.path("sft/adapter"));
        let fixture = fixture(method, &rows);
        let how = |occupied, threads| How {
            occupied,
            overrides,
            threads,
            start: start.clone(),
            ..How::default()
        };
        fixture.train("whole", &how(Occupied::Refuse, 2)).unwrap();
        fixture.train_until("run", &how(Occupied::Refuse, 1), 4).unwrap();
        fixture.train("run", &how(Occupied::Resume, 3)).unwrap();
        assert_eq!(fixture.steps("run"), fixture.steps("whole"), "{method}");
        assert!(fixture.adapter_bytes("run") == fixture.adapter_bytes("whole"), "{method}");
    }
}

#[test]
fn micro_batches_change_no_bit() {
    let plain = cases().into_iter().map(|(method, rows)| (method, rows, ""));
    let sorting = [("dpo", pairs(), "objective.loss=aot")];
    for (method, rows, setting) in plain.chain(sorting) {
        let fixture = fixture(method, &rows);
        let runs = ["micro_batch_tokens=4096", "micro_batch_tokens=80"].map(|tokens| {
            let run = tokens.replace('=', "-");
            let overrides = &[tokens, setting][..if setting.is_empty() { 1 } else { 2 }];
            fixture.train(&run, &How { overrides, ..How::default() }).unwrap();
            run
        });
        assert_eq!(fixture.steps(&runs[0]), fixture.steps(&runs[1]), "{method}");
        let [one, other] = runs.map(|run| fixture.adapter_bytes(&run));
        assert!(one == other, "{method}");
    }
}

#[test]
fn every_method_learns_to_tell_the_answers_apart() {
    for (method, rows) in cases() {
        let fixture = fixture(method, &rows);
        let rate = ["train.learning_rate=2e-2", "train.max_steps=20"];
        fixture.train("run", &How { overrides: &rate, ..How::default() }).unwrap();
        let all = fixture.events("run");
        let metrics = |event: &Value| event["metrics"].clone();
        let steps: Vec<Value> = events(&all, "step").map(metrics).collect();
        let [first, last] = [&steps[0], &steps[steps.len() - 1]];
        let gap = |metrics: &Value| match metrics.get("rewards/margins") {
            Some(margin) => margin.as_f64().unwrap(),
            None => {
                let reward =
                    |name: &str| metrics[format!("rewards/{name}")].as_f64().unwrap_or(0.0);
                reward("chosen") - reward("rejected")
            }
        };
        assert!(gap(last) > gap(first) + 0.01, "{method}: {first} {last}");
        assert!(fixture.path("run/adapter/README.md").is_file());
    }
}

#[test]
fn a_cached_reference_gives_the_bits_of_a_live_one() {
    let sft = Fixture::new();
    sft.train("sft", &How::default()).unwrap();
    for (method, rows) in [("dpo", pairs()), ("kto", judged_answers()), ("bco", judged_answers())] {
        for start in [None, Some(sft.path("sft/adapter"))] {
            let fixture = fixture(method, &rows);
            for logprobs in ["live", "cached"] {
                let logprobs_key = format!("reference.logprobs={logprobs}");
                let overrides = &[logprobs_key.as_str(), "train.epochs=2"];
                let how = How { overrides, start: start.clone(), ..How::default() };
                fixture.train(logprobs, &how).unwrap();
            }
            assert_eq!(fixture.steps("cached"), fixture.steps("live"), "{method}");
            assert!(fixture.adapter_bytes("cached") == fixture.adapter_bytes("live"), "{method}");
            let computed = |run: &str| {
                let all = fixture.events(run);
                events(&all, "reference_cached")
                    .map(|event| event["computed"].as_u64().unwrap())
                    .sum::<u64>()
            };
            assert_eq!((computed("live"), computed("cached")), (0, 18), "{method}");
        }
    }
}

#[test]
fn the_reference_can_be_the_base_or_another_adapter() {
    let sft = Fixture::new();
    sft.train("sft", &How::default()).unwrap();
    let adapter = sft.path("sft/adapter");
    let fixture = fixture("dpo", &pairs());
    let named = format!("reference={}", sft.path("sft").display());
    let first = |run: &str, start: Option<std::path::PathBuf>, overrides: &[&str]| {
        fixture.train(run, &How { overrides, start, ..How::default() }).unwrap();
        fixture.steps(run)[0][1]
    };
    let ln_2 = std::f64::consts::LN_2;
    let start = first("start", Some(adapter.clone()), &[]);
    let base = first("base", Some(adapter.clone()), &["reference=base"]);
    let other = first("other", Some(adapter), &[&named]);
    let from_base = first("from-base", None, &[&named]);
    assert!((start - ln_2).abs() < 1e-12 && (other - ln_2).abs() < 1e-12, "{start} {other}");
    assert!((base - ln_2).abs() > 1e-6 && (from_base - ln_2).abs() > 1e-6, "{base} {from_base}");

    // The path is of no use to a run that goes on: its checkpoint holds the reference.
    let overrides = &[named.as_str()];
    let how = |occupied| How { occupied, overrides, ..How::default() };
    fixture.train("whole", &how(Occupied::Refuse)).unwrap();
    fixture.train_until("run", &how(Occupied::Refuse), 4).unwrap();
    fs::remove_dir_all(sft.path("sft")).unwrap();
    fixture.train("run", &how(Occupied::Resume)).unwrap();
    assert_eq!(fixture.steps("run"), fixture.steps("whole"));
}

#[test]
fn a_refreshed_reference_is_the_policy() {
    let sft = Fixture::new();
    sft.train("sft", &How::default()).unwrap();
    let refreshes = "reference.refresh_steps=3";
    for start in [None, Some(sft.path("sft/adapter"))] {
        let fixture = fixture("dpo", &pairs());
        let train = |run: &str, overrides: &[&str]| {
            fixture.train(run, &How { overrides, start: start.clone(), ..How::default() }).unwrap();
            fixture.steps(run).iter().map(|step| step[1]).collect::<Vec<f64>>()
        };
        let stays = train("stays", &[]);
        let hard = train("hard", &[refreshes]);
        let soft = train("soft", &[refreshes, "reference.refresh_mix=0.5"]);
        assert!(hard.len() >= 7, "{hard:?}");
        assert_eq!(hard[..3], stays[..3]);
        assert_eq!(soft[..3], stays[..3]);
        let ln_2 = std::f64::consts::LN_2;
        // The first step has a rate of 0.
        for (step, loss) in hard.iter().enumerate().skip(2) {
            assert_eq!((loss - ln_2).abs() < 1e-6, step % 3 == 0, "step {step}: {hard:?}");
        }
        // The policy is as in the other run, and the reference half as far from it.
        assert!((soft[3] - ln_2).abs() > 1e-6 && soft[3] != stays[3], "{soft:?} {stays:?}");
    }
}

/// What a model without a reference preferred before its first step is kept, also over a stop: what it learned is the rest.
#[test]
fn margins_without_a_reference_know_where_they_began() {
    for (method, keeps) in [("orpo", true), ("simpo", true), ("cpo", true), ("dpo", false)] {
        let sft = Fixture::new();
        sft.train("sft", &How::default()).unwrap();
        let fixture = fixture(method, &pairs());
        let how = |occupied| How {
            occupied,
            overrides: &["train.evaluate_every=1"],
            start: Some(sft.path("sft/adapter")),
            ..How::default()
        };
        fixture.train_until("run", &how(Occupied::Refuse), 1).unwrap();
        let state = || {
            let steps = fixture.checkpoints("run");
            read_json(
                &fixture.path("run/checkpoints").join(steps.last().unwrap()).join("state.json"),
            )
        };
        let first = state();
        // The first step has a rate of 0.
        let begun = first["margins_begun"].clone();
        assert_eq!(begun == first["best"]["margins"], keeps, "{method}: {first}");
        fixture.train("run", &how(Occupied::Resume)).unwrap();
        let last = state();
        assert_eq!(last["margins_begun"], begun, "{method}");
        assert!(last["best"]["margins"] != begun, "{method}");
    }
}

/// The best step is the best against the last reference: losses against another one are no measure for it.
#[test]
fn steps_are_compared_against_one_reference() {
    for extra in ["train.best_by=loss", "train.best_by=accuracy"] {
        let fixture = fixture("dpo", &pairs());
        let overrides = ["reference.refresh_steps=4", "train.max_steps=10", extra];
        let summary =
            fixture.train("run", &How { overrides: &overrides, ..How::default() }).unwrap();
        let all = fixture.events("run");
        let column = |name: &str| {
            events(&all, "evaluated").map(|event| event[name].clone()).collect::<Vec<_>>()
        };
        let none = Value::Null;
        assert_eq!(column("reference_step"), [none.clone(), none, json!(4), json!(4), json!(8)]);
        let best = column("best");
        assert_eq!([&best[0], &best[2], &best[4]], [true, true, true], "{best:?}");
        assert_eq!(summary.best_step, 10);
        let card = fs::read_to_string(fixture.path("run/adapter/README.md")).unwrap();
        assert!(card.contains("at step 10, against the reference of step 8."), "{card}");
    }
}

#[test]
fn a_cached_reference_that_is_refreshed_gives_the_bits_of_a_live_one() {
    for (method, rows) in [("dpo", pairs()), ("kto", judged_answers()), ("bco", judged_answers())] {
        let fixture = fixture(method, &rows);
        for logprobs in ["live", "cached"] {
            let key = format!("reference.logprobs={logprobs}");
            let overrides = &[key.as_str(), "reference.refresh_steps=4"];
            fixture.train(logprobs, &How { overrides, ..How::default() }).unwrap();
        }
        assert_eq!(fixture.steps("cached"), fixture.steps("live"), "{method}");
        assert!(fixture.adapter_bytes("cached") == fixture.adapter_bytes("live"), "{method}");
        let all = fixture.events("cached");
        let refreshes = (fixture.steps("cached").len() - 1) / 4;
        let computed = events(&all, "reference_cached").map(|event| event["computed"].as_u64());
        assert_eq!(computed.collect::<Vec<_>>(), vec![Some(18); 1 + refreshes], "{method}");
    }
}

#[test]
fn a_run_with_a_refreshed_reference_goes_on_to_the_bit() {
    let adapters: [&[&str]; 3] =
        [&[], &["adapter.type=pissa"], &["adapter.type=dora", "adapter.trainable_tokens=[e]"]];
    for (adapter, logprobs) in adapters.into_iter().zip(["live", "cached", "live"]) {
        let fixture = fixture("dpo", &pairs());
        let logprobs = format!("reference.logprobs={logprobs}");
        let refresh = ["reference.refresh_steps=2", "reference.refresh_mix=0.7", &logprobs];
        let overrides = &[adapter, &refresh].concat();
        let how = |occupied| How { occupied, overrides, ..How::default() };
        fixture.train("whole", &how(Occupied::Refuse)).unwrap();
        // Where it is due, after it, and before the first.
        for last in [4, 5, 1] {
            let run = format!("until-{last}");
            fixture.train_until(&run, &how(Occupied::Refuse), last).unwrap();
            fixture.train(&run, &how(Occupied::Resume)).unwrap();
            assert_eq!(fixture.steps(&run), fixture.steps("whole"), "{adapter:?} {last}");
            assert!(fixture.adapter_bytes(&run) == fixture.adapter_bytes("whole"), "{adapter:?}");
        }
    }
}

#[test]
fn a_reference_that_cannot_follow_is_refused() {
    let sft = Fixture::new();
    sft.train("sft", &How::default()).unwrap();
    let dpo = fixture("dpo", &pairs());
    let steps = "reference.refresh_steps=2";
    check_refused(&dpo, &[steps, "reference.from=base"], "does not stay the base");
    check_refused(&dpo, &["reference.refresh_mix=0.5"], "has no effect");
    let nothing = dpo.try_document(&[steps, "reference.refresh_mix=0"]).unwrap_err().to_string();
    assert!(nothing.contains("must be over 0"), "{nothing}");
    let named = format!("reference.from={}", sft.path("sft").display());
    check_refused(&dpo, &[steps, &named, "adapter.rank=3"], "cannot become it");
    check_refused(&fixture("orpo", &pairs()), &[steps], "has no effect");
    // Of the same form it can.
    let overrides = &[steps, &named];
    dpo.train("other", &How { overrides, ..How::default() }).unwrap();
    let losses: Vec<f64> = dpo.steps("other").iter().map(|step| step[1]).collect();
    let ln_2 = std::f64::consts::LN_2;
    assert!((losses[0] - ln_2).abs() > 1e-6 && (losses[2] - ln_2).abs() < 1e-6, "{losses:?}");
}

#[track_caller]
fn check_refused(fixture: &Fixture, overrides: &[&str], message: &str) {
    let error = match fixture.try_document(overrides) {
        Ok(_) => fixture.train("refused", &How { overrides, ..How::default() }).unwrap_err(),
        Err(error) => train::Error::Recipe(error),
    };
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    assert!(!fixture.path("refused").exists(), "nothing is left behind");
}

#[test]
fn what_a_method_cannot_take_is_refused() {
    let dpo = fixture("dpo", &pairs());
    check_refused(&dpo, &["adapter={type: none}"], "does not");
    let error = dpo.try_document(&["objective.beta=0"]).unwrap_err().to_string();
    assert!(error.contains("`objective.beta` is `0`, but must be over 0"), "{error}");
    let half = ["objective.loss=robust", "objective.label_smoothing=0.5"];
    let error = dpo.try_document(&half).unwrap_err().to_string();
    assert!(error.contains("must be 0 to under 0.5"), "{error}");
    check_refused(&dpo, &["train.best=late", "train.best_by=accuracy"], "`late` compares losses");
    let reward = fixture("reward", &pairs());
    check_refused(&reward, &["adapter={type: none}"], "writes its model as an adapter");
    check_refused(&reward, &["objective.beta=0.1"], "`objective.beta` has no effect");
    check_refused(&reward, &["train.sample.prompts=[hi]"], "gives scores");
    let judged = json!({"prompt": "2+2?", "completions": ["4", "5"], "labels": [true, false]});
    let steps = fixture("reward", &[judged.clone(), judged.clone()]);
    let whole = "data.validation.fraction=0";
    check_refused(&steps, &[whole, "objective.loss=pairwise"], "the row has judged steps of one");
    fs::write(steps.path("pairs.jsonl"), pairs()[0].to_string()).unwrap();
    check_refused(
        &steps,
        &[whole, "data.train=[rows.jsonl, pairs.jsonl]"],
        "has answers to compare",
    );
    check_refused(&steps, &[whole, "objective.center=0.1"], "steps are no pairs");
    check_refused(&reward, &["objective.loss=steps"], "the rows have none");

    for (overrides, message) in [
        (&["objective.loss=exo_pair"][..], "label smoothing is 0"),
        (&["objective.loss=hinge", "objective.label_smoothing=0.1"], "no effect on the loss hinge"),
        (&["objective.loss=nca_pair", "objective.divergence=js"], "no effect on the loss nca_pair"),
        (&["objective.loss=aot", "objective.wpo=true"], "aot sorts the pairs of a step"),
        (&["objective.losses={sigmoid: 1, nothing: 2}"], "`nothing` is not a loss"),
        (&["objective.losses={sigmoid: -1}"], "is not a weight over 0"),
        (&["objective.losses={}"], "names no loss"),
        (&["objective.discopop_tau=0.1"], "no effect on the loss sigmoid"),
        (&["objective.divergence_alpha=0.1"], "no effect without the alpha divergence"),
        (&["reference=nowhere"], "`nowhere` is not the folder of an adapter"),
        (&["adapter={type: none}", "reference=base"], "does not"),
    ] {
        check_refused(&dpo, overrides, message);
    }
    let kto = fixture("kto", &judged_answers());
    check_refused(&kto, &["train.batch_size=1"], "a step has 1");
    let liked: Vec<Value> =
        judged_answers().into_iter().filter(|row| row["label"] == true).collect();
    check_refused(&fixture("kto", &liked), &[], "are marked desirable");
    check_refused(
        &fixture("cpo", &pairs()),
        &["objective.loss=ipo", "objective.label_smoothing=0.1"],
        "no effect",
    );
}

#[test]
fn a_rate_that_is_far_too_high_is_found_and_can_end_the_run() {
    let fixture = fixture("dpo", &pairs());
    let rate = ["train.learning_rate=1.0", "train.max_steps=40", "objective.beta=0.001"];
    let calm = ["train.learning_rate=1e-4", "train.max_steps=40"];
    let of_run = |run: &str| {
        let all = fixture.events(run);
        let of_a_step = events(&all, "finding").filter(|event| event.get("step").is_some());
        of_a_step.map(|event| event["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    fixture.train("calm", &How { overrides: &calm, ..How::default() }).unwrap();
    assert_eq!(of_run("calm"), [""; 0]);
    fixture.train("wild", &How { overrides: &rate, ..How::default() }).unwrap();
    let found = of_run("wild");
    assert!(found.contains(&"far-from-reference".to_owned()), "{found:?}");
    let report = fs::read_to_string(fixture.path("wild/report.md")).unwrap();
    assert!(report.contains("`far-from-reference` (step "), "{report}");

    let stop = [&rate[..], &["stop_on=[far-from-reference]"]].concat();
    let summary = fixture.train("stopped", &How { overrides: &stop, ..How::default() }).unwrap();
    assert_eq!(summary.status, "stopped");
    assert!(summary.steps < 40 && !fixture.checkpoints("stopped").is_empty());
    let error = fixture.try_document(&["stop_on=[nothing]"]).map(|d| train::recipe::check(&d));
    let error = error.unwrap().unwrap_err();
    assert!(error.to_string().contains("`nothing` is not a finding about a run"), "{error}");
}

#[test]
fn methods_that_ask_for_a_reference_have_its_keys() {
    for method in train::method::METHODS.into_iter().filter(|method| method.online.is_none()) {
        let document = fixture(method.name, &pairs()).document(&[]);
        let objective = (method.objective)(&document);
        let passes = objective.extra_passes();
        let asks = passes.iter().any(|pass| pass.part == train::models::PartName::Reference);
        assert_eq!(train::models::has_reference(method), asks, "{}", method.name);
        assert_eq!(document.opt_str("reference.logprobs").is_some(), asks, "{}", method.name);
    }
}
