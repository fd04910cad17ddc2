//! Models of preferences that know something, and models that only seem to.

use eval::preference::bag_of_words::BagOfWords;
use eval::preference::{
    Answer, FEWEST_PAIRS, LengthFinding, Pair, Report, TrainingPair, Verdict, report, wins,
};
use serde_json::Value;

/// A number of a row from 0 to below `below`, the same every time.
fn made_up(what: u64, row: usize, below: u64) -> u64 {
    compute::random::key(&[what, row as u64]) % below
}

/// Pairs of made-up lengths whose texts say nothing; `margin` is the model.
fn pairs(
    count: usize,
    lengths: impl Fn(usize) -> (usize, usize),
    margin: impl Fn(usize, (usize, usize)) -> f64,
) -> Vec<Pair<'static>> {
    let answer = |row: usize, side: u64, tokens: usize| {
        let base_logprob = Some(-2.0 * tokens as f64 - made_up(3 + side, row, 100) as f64 / 10.0);
        Answer { text: "the same words", tokens, base_logprob }
    };
    let pair = |row: usize| {
        let (chosen, rejected) = lengths(row);
        let margin = margin(row, (chosen, rejected));
        let (chosen, rejected) = (answer(row, 0, chosen), answer(row, 1, rejected));
        Pair { margin, margin_begun: None, chosen, rejected }
    };
    (0..count).map(pair).collect()
}

/// Either side may be the longer one.
fn any_lengths(row: usize) -> (usize, usize) {
    (20 + made_up(1, row, 40) as usize, 20 + made_up(2, row, 40) as usize)
}

fn measured(pairs: &[Pair<'_>]) -> Report {
    let training = [TrainingPair { chosen: "yes indeed", rejected: "no" }];
    report(pairs, &training, 1).expect("numbers").expect("pairs")
}

fn length_model(_: usize, (chosen, rejected): (usize, usize)) -> f64 {
    (chosen as f64 - rejected as f64) / 10.0
}

/// Right nine times of ten, whatever the lengths.
fn good_model(row: usize, _: (usize, usize)) -> f64 {
    if made_up(7, row, 10) == 0 { -0.5 } else { 1.5 }
}

#[test]
fn a_good_model_is_clear_of_every_rule() {
    let report = measured(&pairs(200, any_lengths, good_model));
    assert!(report.verdict.is_clear(), "{report}");
    assert_eq!(report.length, None, "{report}");
    assert!(report.accuracy.mean > 0.85, "{report}");
    let names: Vec<&str> = report.rules.iter().map(|rule| rule.name).collect();
    let all = ["longer wins", "shorter wins", "base's log-prob", "base's log-prob per token"];
    assert_eq!(names[..4], all);
    assert_eq!(names[4..], ["bag of words"]);
    let sum = report.rules[0].accuracy.mean + report.rules[1].accuracy.mean;
    assert!((sum - 1.0).abs() < 1e-12, "one of both is not under one half");
    let in_groups: usize = report.by_length.iter().map(|group| group.pairs).sum();
    assert_eq!(in_groups, 200);
}

#[test]
fn a_length_meter_is_named() {
    // The longer answer is better in two thirds of the pairs.
    let lengths = |row| {
        let (a, b) = (20 + made_up(1, row, 20) as usize, 45 + made_up(2, row, 20) as usize);
        if row % 3 == 0 { (a, b) } else { (b, a) }
    };
    let report = measured(&pairs(120, lengths, length_model));
    let Verdict::NotClear { rule, difference } = report.verdict else { panic!("{report}") };
    assert_eq!((rule, difference.mean), ("longer wins", 0.0));
    let Some(LengthFinding::Meter { prefers, pairs, other_pairs, other_accuracy, .. }) =
        report.length
    else {
        panic!("{report}")
    };
    assert_eq!((prefers, pairs, other_pairs, other_accuracy.mean), ("longer", 80, 40, 0.0));
}

#[test]
fn a_meter_of_shortness_is_named_too() {
    let shortness = |row, lengths| -length_model(row, lengths);
    let report = measured(&pairs(120, any_lengths, shortness));
    assert!(
        matches!(report.length, Some(LengthFinding::Meter { prefers: "shorter", .. })),
        "{report}"
    );
}

/// Without a reference margins hold what the model preferred anyway: a length meter is one that training made.
#[test]
fn what_was_preferred_before_training_is_no_finding() {
    let begun = |pair: &Pair<'_>| -length_model(0, (pair.chosen.tokens, pair.rejected.tokens));
    let trained = |weight: f64, model: fn(usize, (usize, usize)) -> f64| {
        let mut pairs = pairs(120, any_lengths, |row, lengths| weight * model(row, lengths));
        for pair in &mut pairs {
            let margin_begun = begun(pair);
            pair.margin += margin_begun;
            pair.margin_begun = Some(margin_begun);
        }
        measured(&pairs)
    };
    let good = trained(0.01, good_model);
    assert_eq!(good.length, None, "{good}");
    // The table is of the margins themselves, which go by length.
    let [shorter, _, longer] = [0, 1, 2].map(|group| good.by_length[group].accuracy.unwrap().mean);
    assert_eq!((shorter, longer), (1.0, 0.0));
    // Moved towards longer answers, it still prefers shorter ones.
    let moved = trained(0.01, length_model);
    assert_eq!(moved.length, None, "{moved}");
    for (weight, prefers) in [(3.0, "longer"), (-0.5, "shorter")] {
        let meter = trained(weight, length_model);
        let told = format!(
            "length meter: the model prefers the {prefers} answer, more than before training;"
        );
        assert!(meter.to_string().contains(&told), "{meter}");
    }
}

#[test]
fn where_the_chosen_side_is_always_longer_nobody_can_tell() {
    let longer = |row| (60 + row % 7, 30 + row % 5);
    for model in [length_model, good_model] {
        let report = measured(&pairs(60, longer, model));
        let Verdict::NotClear { rule, .. } = report.verdict else { panic!("{report}") };
        assert_eq!(rule, "longer wins");
        let told = LengthFinding::CannotTell { chosen: "longer", pairs: 60, other_pairs: 0 };
        assert_eq!(report.length, Some(told));
    }
}

#[test]
fn a_coin_is_not_clear_of_anything() {
    let coin = |row, _| made_up(9, row, 2) as f64 - 0.5;
    let report = measured(&pairs(100, any_lengths, coin));
    assert!(matches!(report.verdict, Verdict::NotClear { .. }), "{report}");
    let always_tied = measured(&pairs(100, any_lengths, |_, _| 0.0));
    assert_eq!((always_tied.ties, always_tied.accuracy.mean), (100, 0.5));
    assert!(matches!(always_tied.verdict, Verdict::NotClear { .. }), "{always_tied}");
}

#[test]
fn healthy_models_raise_no_finding_of_length() {
    let raised = (0..40).filter(|&seed| {
        let lengths = |row| any_lengths(row + 1000 * seed);
        let model = |row, _| if made_up(70 + seed as u64, row, 10) < 3 { -0.5 } else { 1.5 };
        measured(&pairs(100, lengths, model)).length.is_some()
    });
    assert_eq!(raised.count(), 0);
}

#[test]
fn few_pairs_have_no_verdict() {
    let report = measured(&pairs(FEWEST_PAIRS - 1, any_lengths, good_model));
    assert_eq!(report.verdict, Verdict::TooFewPairs { pairs: 19, needed: 20 });
    assert_eq!(report.length, None);
    assert!(!report.verdict.is_clear());
}

#[test]
fn no_pairs_have_no_report() {
    assert_eq!(report(&[], &[], 1), Ok(None));
}

#[test]
fn numbers_that_are_none_are_errors() {
    let mut broken = pairs(30, any_lengths, good_model);
    broken[4].margin = f64::NAN;
    let error = report(&broken, &[], 1).expect_err("NaN");
    assert_eq!(error.to_string(), "held-out pair 5: the margin is NaN");
    assert!(error.hint().is_some());
    broken[4].margin = 0.0;
    broken[5].margin_begun = Some(f64::INFINITY);
    let error = report(&broken, &[], 1).expect_err("infinite");
    assert_eq!(error.to_string(), "held-out pair 6: the margin before training is inf");
    broken[5].margin_begun = None;
    broken[7].rejected.base_logprob = Some(f64::NEG_INFINITY);
    let error = report(&broken, &[], 1).expect_err("infinite");
    let expected = "held-out pair 8: the base's log-prob of the rejected answer is -inf";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn rules_without_their_numbers_are_left_out_and_said() {
    let mut pairs = pairs(30, any_lengths, good_model);
    for pair in &mut pairs {
        pair.chosen.base_logprob = None;
        pair.rejected.base_logprob = None;
    }
    let report = report(&pairs, &[], 1).expect("numbers").expect("pairs");
    assert_eq!(report.rules.len(), 2);
    let text = report.to_string();
    assert!(text.contains("the base's log-probs were not computed"), "{text}");
    assert!(text.contains("no bag of words"), "{text}");
}

#[test]
fn a_report_is_read_by_people_and_programs() {
    let report = measured(&pairs(60, |row| (60 + row % 7, 30 + row % 5), length_model));
    let expected = "\
held-out pairs  60, 0 of them tied
accuracy        1.00, interval 1.00 to 1.00
margin          mean 3.090, quartiles 2.900, 3.100, 3.300
calibration     expected error 0.045, Brier score 0.002 (one half for every pair: 0.250)

length                      pairs  accuracy
chosen shorter                  0  -
within 10 %                     0  -
chosen longer                  60  1.00, interval 1.00 to 1.00

rule                       accuracy  model less rule
longer wins                    1.00  0.00, interval 0.00 to 0.00
shorter wins                   0.00  1.00, interval 1.00 to 1.00
base's log-prob                0.00  1.00, interval 1.00 to 1.00
base's log-prob per token      0.68  0.32, interval 0.20 to 0.43
bag of words                   0.50  0.50, interval 0.50 to 0.50

not clear of `longer wins`: difference 0.00, interval 0.00 to 0.00
cannot tell the model from a length meter: the longer answer is chosen in 60 held-out pairs, and the other 0 are too few";
    assert_eq!(report.to_string(), expected);

    let json = serde_json::to_value(&report).expect("serialises");
    assert_eq!(json["verdict"]["result"], "not_clear");
    assert_eq!(json["verdict"]["rule"], "longer wins");
    assert_eq!(json["length"]["kind"], "cannot_tell");
    assert_eq!(json["by_length"][2]["group"], "chosen_longer");
    assert_eq!(json["by_length"][0]["accuracy"], Value::Null);
    assert_eq!(json["rules"][0]["accuracy"]["mean"], 1.0);
    assert_eq!(json["training_pairs"]["used"], 1);
}

#[test]
fn the_bag_of_words_is_that_of_scikit_learn() {
    let golden: Value =
        serde_json::from_str(include_str!("../golden/bag_of_words.json")).expect("JSON");
    let texts = |key: &str| -> Vec<[String; 2]> {
        serde_json::from_value(golden[key].clone()).expect("pairs of texts")
    };
    let training = texts("training");
    let pairs: Vec<TrainingPair<'_>> =
        training.iter().map(|[chosen, rejected]| TrainingPair { chosen, rejected }).collect();
    let words = BagOfWords::fit(&pairs).expect("words");
    let near = |got: f64, expected: &Value, what: &str| {
        let expected = expected.as_f64().expect("a number");
        assert!((got - expected).abs() < 1e-8, "{what}: got {got}, expected {expected}");
    };
    for (word, weight) in golden["words"]
        .as_array()
        .expect("words")
        .iter()
        .zip(golden["weights"].as_array().expect("weights"))
    {
        let word = word.as_str().expect("a word");
        near(words.weight(word).expect("known"), weight, word);
    }
    for ([chosen, rejected], margin) in
        texts("held_out").iter().zip(golden["margins"].as_array().expect("margins"))
    {
        near(words.margin(chosen, rejected), margin, chosen);
    }
}

#[test]
fn a_tie_is_half() {
    assert_eq!([1e-300, 0.0, -0.0, -1e-300].map(wins), [1.0, 0.5, 0.5, 0.0]);
}
