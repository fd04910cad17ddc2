//! Who chose what: persons by the journal's choices, judges by their verdicts in both orders.

use std::collections::{BTreeMap, HashMap};

use eval::agreement::{Agreement, cohen_kappa, fleiss_kappa};
use serde_json::{Value, json};

use super::journal::{Choice, Chosen, Journal, Mark, Verdict};
use super::judge::TRIES;
use super::pair::Pair;

/// What one rater chose, by pair, with the time.
pub(super) struct Rater {
    pub(super) name: String,
    pub(super) choices: HashMap<String, (Choice, String)>,
}

/// What a judge said of one pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// With the first answer shown as A, and with the second.
    pub(super) marks: [Option<Mark>; 2],
    /// Replies, also those that named no answer.
    pub(super) tries: [usize; 2],
    at: String,
}

impl Judged {
    /// Whether a judge has been asked as often as it is asked, and named no answer.
    pub(super) fn is_in_vain(&self) -> bool {
        (0..2).any(|order| self.marks[order].is_none() && self.tries[order] >= TRIES)
    }

    /// The choice of both orders together: what changes with the order is a tie. None while one is open.
    pub(super) fn choice(&self) -> Option<Choice> {
        Some(match (self.marks[0]?, self.marks[1]?) {
            (Mark::A, Mark::B) => Choice::First,
            (Mark::B, Mark::A) => Choice::Second,
            _ => Choice::Tie,
        })
    }
}

/// What a judge said, by pair.
pub(super) fn judged(verdicts: &[Verdict], rater: &str) -> HashMap<String, Judged> {
    let mut all: HashMap<String, Judged> = HashMap::new();
    for verdict in verdicts.iter().filter(|verdict| verdict.rater == rater) {
        let judged = all.entry(verdict.pair.clone()).or_default();
        let order = usize::from(verdict.shown_as_a == Choice::Second);
        judged.tries[order] += 1;
        judged.marks[order] = judged.marks[order].or(verdict.mark);
        judged.at.clone_from(&verdict.at);
    }
    all
}

/// All raters of a journal, in the order of their names.
pub(super) fn raters(journal: &Journal) -> Vec<Rater> {
    let mut raters: BTreeMap<String, Rater> = BTreeMap::new();
    for (name, choices) in journal.choices() {
        let choice = |chosen: &Chosen| (chosen.pair.clone(), (chosen.choice, chosen.at.clone()));
        let choices = choices.iter().map(choice).collect();
        raters.insert(name.clone(), Rater { name: name.clone(), choices });
    }
    for name in journal.verdicts().iter().map(|verdict| &verdict.rater) {
        if !raters.contains_key(name) {
            let choice =
                |(pair, judged): (String, Judged)| Some((pair, (judged.choice()?, judged.at)));
            let choices = judged(journal.verdicts(), name).into_iter().filter_map(choice).collect();
            raters.insert(name.clone(), Rater { name: name.clone(), choices });
        }
    }
    raters.into_values().collect()
}

/// What the raters who decide chose together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) choice: Choice,
    pub(super) raters: Vec<String>,
    /// The time of the last choice.
    pub(super) at: String,
}

/// The choice of the majority; without one it is a tie. None where nobody has chosen yet.
pub(super) fn decide<'r>(pair: &str, raters: impl Iterator<Item = &'r Rater>) -> Option<Decision> {
    let (mut votes, mut names, mut at) = ([0_usize; 3], Vec::new(), String::new());
    let mut seen = false;
    for rater in raters {
        let Some((choice, time)) = rater.choices.get(pair) else { continue };
        seen = true;
        if *choice != Choice::Skip {
            votes[category(*choice)] += 1;
            names.push(rater.name.clone());
            at = at.max(time.clone());
        }
    }
    let choice = match votes {
        _ if !seen => return None,
        [0, 0, 0] => Choice::Skip,
        [first, second, tie] if first > second.max(tie) => Choice::First,
        [first, second, tie] if second > first.max(tie) => Choice::Second,
        _ => Choice::Tie,
    };
    Some(Decision { choice, raters: names, at })
}

fn category(choice: Choice) -> usize {
    match choice {
        Choice::First => 0,
        Choice::Second => 1,
        Choice::Tie | Choice::Skip => 2,
    }
}

/// How far some raters agree over the pairs that they have judged.
pub(super) struct Agreed {
    pub(super) raters: Vec<String>,
    pub(super) statistic: &'static str,
    pub(super) agreement: Agreement,
}

impl Agreed {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "raters": self.raters, "statistic": self.statistic, "n": self.agreement.compared,
            "observed": self.agreement.observed, "expected": self.agreement.expected,
            "kappa": self.agreement.kappa,
        })
    }

    /// As a line.
    pub(super) fn line(&self) -> String {
        let Agreement { compared, observed, kappa, .. } = &self.agreement;
        let kappa = match kappa {
            Some(kappa) => {
                format!("{:.2} (95 % interval {:.2} to {:.2})", kappa.mean, kappa.low, kappa.high)
            }
            None => "undefined, for all choices are the same".to_owned(),
        };
        let (raters, alike) = (self.raters.join(", "), 100.0 * observed);
        format!("{raters}: {} kappa {kappa}, {alike:.0} % alike, n = {compared}", self.statistic)
    }
}

/// Cohen's kappa of every two raters, and Fleiss' kappa of all of them where there are more. Skipped pairs
/// do not count.
pub(super) fn agreement(pairs: &[Pair<'_>], raters: &[Rater]) -> Vec<Agreed> {
    let chosen = |rater: &Rater, pair: &Pair<'_>| {
        let choice = rater.choices.get(&pair.id)?.0;
        (choice != Choice::Skip).then(|| category(choice))
    };
    let raters: Vec<&Rater> =
        raters.iter().filter(|r| pairs.iter().any(|p| chosen(r, p).is_some())).collect();
    let mut agreed = Vec::new();
    for (at, one) in raters.iter().enumerate() {
        for other in &raters[at + 1..] {
            let both = |pair: &Pair<'_>| chosen(one, pair).zip(chosen(other, pair));
            let ratings: Vec<(usize, usize)> = pairs.iter().filter_map(both).collect();
            if let Some(agreement) = cohen_kappa(&ratings) {
                let raters = vec![one.name.clone(), other.name.clone()];
                agreed.push(Agreed { raters, statistic: "Cohen's", agreement });
            }
        }
    }
    if raters.len() > 2 {
        let counts = |pair: &Pair<'_>| {
            let mut counts = vec![0; 3];
            raters.iter().filter_map(|r| chosen(r, pair)).for_each(|chosen| counts[chosen] += 1);
            counts
        };
        let counts: Vec<Vec<usize>> = pairs.iter().map(counts).collect();
        if let Some(agreement) = fleiss_kappa(&counts) {
            let raters = raters.iter().map(|rater| rater.name.clone()).collect();
            agreed.push(Agreed { raters, statistic: "Fleiss'", agreement });
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rater(name: &str, choice: Choice) -> Rater {
        let choices = HashMap::from([("p".to_owned(), (choice, "2026".to_owned()))]);
        Rater { name: name.into(), choices }
    }

    #[test]
    fn the_majority_decides() {
        use Choice::{First, Second, Skip, Tie};
        let check = |choices: &[Choice], expected: Option<Choice>| {
            let raters: Vec<Rater> = choices.iter().map(|&choice| rater("x", choice)).collect();
            let decided = decide("p", raters.iter());
            assert_eq!(decided.map(|decision| decision.choice), expected, "{choices:?}");
        };
        check(&[], None);
        check(&[First], Some(First));
        check(&[First, Second], Some(Tie));
        check(&[First, Tie], Some(Tie));
        check(&[First, Skip], Some(First));
        check(&[Skip, Skip], Some(Skip));
        check(&[Second, Second, First], Some(Second));
        check(&[Second, Tie, First], Some(Tie));
    }

    #[test]
    fn a_verdict_that_follows_the_position_is_a_tie() {
        use Mark::{A, B, Tie};
        let check = |first, second, expected| {
            let judged = Judged { marks: [first, second], ..Judged::default() };
            assert_eq!(judged.choice(), expected);
        };
        check(Some(A), Some(B), Some(Choice::First));
        check(Some(B), Some(A), Some(Choice::Second));
        check(Some(A), Some(A), Some(Choice::Tie));
        check(Some(A), Some(Tie), Some(Choice::Tie));
        check(Some(A), None, None);
    }
}
