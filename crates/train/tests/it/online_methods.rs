//! Recipes of the methods that sample their answers: defaults, contradictions, warnings.

use data::Sequences;
use keys::{Document, Settings as _};
use train::method::{self, MakeEstimator, Method, Online};

use crate::support::Fixture;

fn document(method: &str, lines: &str) -> Document {
    let mut fixture = Fixture::new();
    let start = format!("model: org/tiny\nmethod: {method}\ndata: {{train: rows.jsonl}}\n");
    fixture.recipe = format!("{start}objective: {{{lines}}}\n");
    fixture.document(&[])
}

/// Methods that learn from advantages.
fn online() -> impl Iterator<Item = (&'static Method, MakeEstimator)> {
    method::METHODS.into_iter().filter_map(|method| match method.online {
        Some(Online::Advantages(estimator)) => Some((method, estimator)),
        _ => None,
    })
}

#[test]
fn each_has_a_loss_and_advantages() {
    let names: Vec<&str> = online().map(|(method, _)| method.name).collect();
    assert_eq!(names, ["ppo", "grpo", "rloo", "reinforce_pp"]);
    for (method, estimator) in online() {
        let document = document(method.name, "");
        (method.check)(&document).unwrap();
        let objective = (method.objective)(&document);
        estimator(&document);
        assert_eq!(objective.request().want.value, method.name == "ppo");
        assert!(objective.request().want.entropy);
        // The divergence is in the reward of the others, and grpo has none unless asked for.
        assert!(objective.extra_passes().is_empty(), "{}", method.name);
        assert_eq!(method::kl_warning(&document), None, "{}", method.name);
    }
    let pulled = document("grpo", "beta: 0.1");
    assert_eq!((method::of(&pulled).objective)(&pulled).extra_passes().len(), 1);
}

#[test]
fn every_loss_of_grpo_takes_its_own_settings() {
    for (loss, given) in [
        ("grpo", "clip_low: 0.1, delta: 4"),
        ("dr_grpo", "clip_high: 0.3"),
        ("dapo", "overlong_buffer: 16, overlong_penalty: 0.5"),
        ("bnpo", "scale_rewards: batch"),
        ("cispo", "ratio_max: 4"),
        ("cispo_minimax", "clip_low: 1, clip_high: 0.5"),
        ("gspo", "clip_low: 3.0e-4"),
        ("sapo", "sapo_temperature_neg: 1.1"),
        ("dppo_tv", "clip_low: 0.1, ratio_max: 10"),
        ("dppo_kl", "clip_high: 0.1"),
    ] {
        let document = document("grpo", &format!("loss: {loss}, {given}"));
        train::recipe::check(&document).unwrap_or_else(|error| panic!("{loss}: {error}"));
        (method::of(&document).objective)(&document);
    }
}

#[test]
fn defaults_follow_the_loss_and_are_written_down() {
    let filled = |method: &str, lines: &str| {
        let mut document = document(method, lines);
        (method::of(&document).fill)(&mut document, &Sequences::default()).unwrap();
        document
    };
    for (lines, clip, scale) in [
        ("", Some([0.2, 0.28]), "group"),
        ("loss: grpo", Some([0.2, 0.2]), "group"),
        ("loss: dr_grpo", Some([0.2, 0.2]), "none"),
        ("loss: gspo", Some([3e-4, 4e-4]), "group"),
        ("loss: cispo", None, "group"),
        ("loss: dppo_tv, clip_low: 0.3", Some([0.3, 0.15]), "group"),
    ] {
        let document = filled("grpo", lines);
        let bound = |name: &str| document.opt_f64(&format!("objective.clip_{name}"));
        assert_eq!(bound("low").zip(bound("high")), clip.map(|[low, high]| (low, high)), "{lines}");
        assert_eq!(document.get_str("objective.scale_rewards"), scale, "{lines}");
    }
    for (method, lines, estimator, with_ratio) in [
        ("grpo", "", "k2", true),
        ("grpo", "beta: 0.1, kl: {in: reward}", "k1", false),
        ("grpo", "beta: 0.1, kl: {estimator: k3}", "k3", false),
        ("rloo", "", "k1", false),
        ("ppo", "kl: {in: loss}", "k2", true),
        ("reinforce_pp", "", "k1", false),
    ] {
        let document = filled(method, lines);
        assert_eq!(document.get_str("objective.kl.estimator"), estimator, "{method}, {lines}");
        let ratio = document.opt_bool("objective.kl.ratio").unwrap_or(false);
        assert_eq!(ratio, with_ratio, "{method}, {lines}");
    }
}

#[track_caller]
fn check_refused(method: &str, lines: &str, message: &str, hint: &str) {
    let error = train::recipe::check(&document(method, lines)).expect_err(lines);
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
}

#[test]
fn contradictions_are_refused() {
    let nothing = "has no effect";
    check_refused("grpo", "loss: cispo, clip_low: 0.1", nothing, "leave it out");
    check_refused("grpo", "loss: sapo, delta: 4", nothing, "");
    check_refused("grpo", "ratio_max: 4", nothing, "");
    check_refused("grpo", "loss: gspo, sapo_temperature_pos: 2", nothing, "");
    check_refused("grpo", "overlong_penalty: 2", nothing, "objective.overlong_buffer");
    check_refused("grpo", "stale: {max: 2}", nothing, "");
    check_refused("ppo", "kl: {target: 3}", nothing, "");
    check_refused("grpo", "kl: {estimator: k3}", "`objective.beta` is 0", "");
    check_refused("rloo", "kl: {ratio: true}", nothing, "");
    check_refused("grpo", "clip_high: 0.5, delta: 1.2", "not over 1 + ", "4 is usual");
    let stale = "stale: {correction: token_mask, min: 2, max: 1.5}";
    check_refused("grpo", stale, "is over `objective.stale.max`", "lower it");
    check_refused("ppo", "beta: 0, kl: {controller: adaptive}", "0 stays 0", "over 0");
    let gdpo = "multi_objective_aggregation: normalize_then_sum";
    check_refused("grpo", &format!("{gdpo}, scale_rewards: none"), nothing, "");
    let in_reward = format!("{gdpo}, beta: 0.1, kl: {{in: reward}}");
    check_refused("grpo", &in_reward, "cannot be a part of rewards", "kl.in: loss");
}

#[test]
fn biased_estimators_of_the_divergence_are_refused_with_the_reason() {
    let in_loss = |rest: &str| format!("beta: 0.1, kl: {{in: loss, {rest}}}");
    let in_reward = |rest: &str| format!("beta: 0.1, kl: {{in: reward, {rest}}}");
    let cure = "objective.allow_biased";
    for method in ["grpo", "reinforce_pp", "ppo"] {
        check_refused(method, &in_loss("estimator: k1"), "its expected gradient is 0", cure);
    }
    for method in ["grpo", "rloo", "reinforce_pp", "ppo"] {
        check_refused(method, &in_reward("estimator: k2"), "k2 in the reward: ", cure);
        check_refused(method, &in_reward("estimator: k3"), "k3 in the reward: ", cure);
    }
    for lines in [
        in_loss("estimator: k2"),
        in_loss("estimator: k3"),
        // With a ratio that is not held fixed k1 has the right gradient.
        in_loss("estimator: k1, ratio: true"),
        in_reward("estimator: k1"),
        in_reward("estimator: k3") + ", allow_biased: true",
        in_loss("estimator: k1") + ", allow_biased: true",
    ] {
        train::recipe::check(&document("grpo", &lines)).unwrap();
    }
}

#[test]
fn a_biased_estimator_is_warned_of() {
    #[track_caller]
    fn check(lines: &str, expected: Option<&str>) {
        let warning = method::kl_warning(&document("grpo", lines));
        match expected {
            None => assert_eq!(warning, None),
            Some(part) => assert!(warning.as_ref().unwrap().contains(part), "{warning:?}"),
        }
    }
    check("beta: 0.1", None);
    check("beta: 0.1, kl: {estimator: k3}", Some("forward KL divergence"));
    check("beta: 0.1, kl: {estimator: k3}", Some("`objective.kl.ratio: true`"));
    check("beta: 0.1, kl: {estimator: k3, ratio: true}", None);
    check("beta: 0.1, kl: {estimator: k2, ratio: false}", Some("first update"));
    check("beta: 0.1, kl: {in: reward, estimator: k3}, allow_biased: true", Some("cancel"));
    let document = Fixture::new().document(&[]);
    assert_eq!(document.get_str("method"), "sft");
    assert_eq!(method::kl_warning(&document), None);
}
