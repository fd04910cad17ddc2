//! What goes wrong in a run that learns from answers of its own, found from the figures of its steps.

use super::{History, Kind};

/// No group says which of its answers is better.
static NO_VARIANCE: Kind = Kind {
    id: "groups-without-variance",
    hint: "take prompts that are answered well sometimes, raise `rollout.group_size` or `rollout.temperature`, or set `rollout.zero_variance: resample`",
};
/// All answers have the best reward there is.
static REWARD_SATURATED: Kind = Kind {
    id: "reward-saturated",
    hint: "stop here, or take harder prompts: further steps teach nothing",
};
/// Answers get longer, and not better.
static LENGTH_GROWS: Kind = Kind {
    id: "length-grows-reward-flat",
    hint: "use `objective.loss: dr_grpo`, add a `length` reward, or lower `rollout.max_new_tokens`; look at the answers",
};
/// The policy left the reference.
static KL_RUNS_AWAY: Kind =
    Kind { id: "kl-runs-away", hint: "raise `objective.beta` or lower `train.learning_rate`" };
/// All answers to a prompt become the same.
static ENTROPY_COLLAPSES: Kind = Kind {
    id: "entropy-collapses",
    hint: "raise `objective.clip_high` or `rollout.temperature`, lower `train.learning_rate`, or add an entropy bonus",
};
/// Answers become noise.
static ENTROPY_EXPLODES: Kind = Kind {
    id: "entropy-explodes",
    hint: "lower `train.learning_rate` or `objective.clip_high`; look at the answers",
};
/// Most of an update is cut away.
static CLIPPED: Kind = Kind {
    id: "most-ratios-clipped",
    hint: "lower `rollout.updates` or `train.learning_rate`: the policy moves further than a rollout can be used for",
};
/// The value head is worse than a constant.
static VALUE_USELESS: Kind = Kind {
    id: "value-explains-nothing",
    hint: "raise `objective.vf_coef` or the number of steps, or use a method without a value head: `rloo`, `grpo`",
};
/// Answers do not end.
static CUT: Kind = Kind {
    id: "answers-do-not-end",
    hint: "raise `rollout.max_new_tokens` (with an environment also `environment.max_turns` and `environment.max_tokens`), add a `length` reward, or begin with a model that ends its turns (`method: sft`)",
};
/// One of several rewards grows at the cost of the others.
static ONE_REWARD: Kind = Kind {
    id: "one-reward-does-all",
    hint: "lower its `weight`, or raise those of the others; look at the answers",
};
/// Answers repeat themselves.
static REPEATS: Kind = Kind {
    id: "answers-repeat",
    hint: "lower `train.learning_rate`, raise `objective.beta`, or add a `repetition` reward; look at the answers",
};
/// What was sampled is not what is trained.
static MISMATCH: Kind = Kind {
    id: "sampling-mismatch",
    hint: "on one device this is an error of the program: please report it",
};

/// All kinds.
pub(super) static KINDS: [&Kind; 12] = [
    &NO_VARIANCE,
    &REWARD_SATURATED,
    &LENGTH_GROWS,
    &KL_RUNS_AWAY,
    &ENTROPY_COLLAPSES,
    &ENTROPY_EXPLODES,
    &CLIPPED,
    &VALUE_USELESS,
    &CUT,
    &ONE_REWARD,
    &REPEATS,
    &MISMATCH,
];

/// Share of groups whose answers all have the same reward.
const WITHOUT_VARIANCE: f64 = 0.9;
/// Of the largest mean reward seen, in units of its distance from the first one.
const NEAR_BEST: f64 = 0.95;
/// Answers so many times as long as at first.
const LONGER: f64 = 1.5;
/// A reward is flat if it rose by less than this share of its standard deviation at first.
const FLAT: f64 = 0.1;
/// Nats a token.
const KL: f64 = 1.0;
/// Entropy in nats a token, and as a share of that at first. A run that learned sums well, from 0.44, ended at 0.04
/// (docs/results.md).
const LITTLE_ENTROPY: (f64, f64) = (0.02, 0.1);
/// The same upwards: so much more, and so many times as much.
const MUCH_ENTROPY: (f64, f64) = (1.0, 2.0);
/// Share of tokens whose ratio is clipped.
const MOST_CLIPPED: f64 = 0.5;
/// A value head has so many steps to learn.
const VALUE_STEPS: u64 = 20;
/// Share of answers that are cut.
const MOST_CUT: f64 = 0.9;
/// Rewards change if the weighted sum moves by so much, and the one does so large a share of it.
const REWARD_CHANGE: (f64, f64) = (0.1, 0.9);
/// Share of an answer's four-word runs that it has said before, and by how much more than at first.
const REPEATED: (f64, f64) = (0.3, 0.2);

type Finding = Option<(&'static Kind, String)>;

/// What the figures of the steps so far show.
pub(super) fn found(history: &History) -> Vec<(&'static Kind, String)> {
    if !history.recent.contains_key("completions/mean_length") {
        return Vec::new();
    }
    let all = [
        without_variance(history),
        length_grows(history),
        kl(history),
        entropy(history),
        clipped(history),
        value(history),
        cut(history),
        one_reward(history),
        repeats(history),
        mismatch(history),
    ];
    all.into_iter().flatten().collect()
}

/// The smoothed figure now and after the first steps.
fn now_and_early(history: &History, name: &str) -> Option<(f64, f64)> {
    Some((*history.recent.get(name)?, *history.early.get(name)?))
}

fn without_variance(history: &History) -> Finding {
    let share = *history.recent.get("frac_reward_zero_std")?;
    let (reward, early) = now_and_early(history, "reward")?;
    if share <= WITHOUT_VARIANCE {
        return None;
    }
    let groups =
        format!("in {:.0} % of the groups all answers have the same reward", 100.0 * share);
    let is_best = reward > early && reward - early >= NEAR_BEST * (history.best_reward? - early);
    Some(match is_best {
        true => (
            &REWARD_SATURATED,
            format!("{groups}, and the mean is {reward:.3}, up from {early:.3}"),
        ),
        false => {
            (&NO_VARIANCE, format!("{groups}; the bound is {:.0} %", 100.0 * WITHOUT_VARIANCE))
        }
    })
}

fn length_grows(history: &History) -> Finding {
    let (length, first) = now_and_early(history, "completions/mean_length")?;
    let (reward, early) = now_and_early(history, "reward")?;
    let spread = *history.early.get("reward_std")?;
    (length > LONGER * first && reward - early <= FLAT * spread).then(|| {
        let message = format!("answers have {length:.0} tokens, at first {first:.0}, and the reward went from {early:.3} to {reward:.3}");
        (&LENGTH_GROWS, message)
    })
}

fn kl(history: &History) -> Finding {
    let kl = *history.recent.get("kl").filter(|kl| **kl > KL)?;
    let message =
        format!("the policy is {kl:.2} nats a token from the reference; the bound is {KL}");
    Some((&KL_RUNS_AWAY, message))
}

fn entropy(history: &History) -> Finding {
    let (now, early) = now_and_early(history, "entropy")?;
    let said = format!("the entropy of a token is {now:.3} nats, at first {early:.3}");
    if now < LITTLE_ENTROPY.0 && now < LITTLE_ENTROPY.1 * early {
        return Some((&ENTROPY_COLLAPSES, said));
    }
    (now > early + MUCH_ENTROPY.0 && now > MUCH_ENTROPY.1 * early)
        .then_some((&ENTROPY_EXPLODES, said))
}

fn clipped(history: &History) -> Finding {
    let share = *history.recent.get("clip_ratio/region_mean").filter(|x| **x > MOST_CLIPPED)?;
    let message = format!("the ratios of {:.0} % of the tokens are clipped", 100.0 * share);
    Some((&CLIPPED, message))
}

fn value(history: &History) -> Finding {
    let explained = *history.recent.get("val/explained_variance")?;
    (explained < 0.0 && history.steps >= VALUE_STEPS).then(|| {
        let message = format!("the value head explains {explained:.2} of the variance of the returns: less than their mean would");
        (&VALUE_USELESS, message)
    })
}

fn cut(history: &History) -> Finding {
    let share = *history.recent.get("completions/clipped_ratio").filter(|x| **x > MOST_CUT)?;
    let message = format!("{:.0} % of the answers are cut at the most tokens", 100.0 * share);
    Some((&CUT, message))
}

fn one_reward(history: &History) -> Finding {
    let names = history
        .recent
        .keys()
        .filter(|name| name.starts_with("rewards/") && name.ends_with("/weighted"));
    let changes = names.filter_map(|name| {
        let (now, early) = now_and_early(history, name)?;
        let name = name.strip_prefix("rewards/")?.strip_suffix("/weighted")?;
        Some((name, now - early))
    });
    let changes: Vec<(&str, f64)> = changes.collect();
    if changes.len() < 2 {
        return None;
    }
    let (most, gain) = *changes.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let others = changes.iter().filter(|(name, _)| *name != most);
    let (worst, loss) = *others.clone().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let risen: f64 = changes.iter().map(|(_, change)| change.max(0.0)).sum();
    // Something was given up for it: rewards that are merely slower are no finding.
    let is_bought = loss < -FLAT * gain;
    (gain > REWARD_CHANGE.0 && gain > REWARD_CHANGE.1 * risen && is_bought).then(|| {
        let message = format!(
            "`{most}` rose by {gain:.3}, times its weight, and `{worst}` fell by {:.3}",
            -loss
        );
        (&ONE_REWARD, message)
    })
}

fn repeats(history: &History) -> Finding {
    let (now, early) = now_and_early(history, "completions/repetition")?;
    (now > REPEATED.0 && now > early + REPEATED.1).then(|| {
        let message = format!(
            "{:.0} % of the four-word runs of an answer stand in it before; at first {:.0} %",
            100.0 * now,
            100.0 * early
        );
        (&REPEATS, message)
    })
}

fn mismatch(history: &History) -> Finding {
    let off = *history.recent.get("sampling/mismatch").filter(|off| **off > 0.0)?;
    let message = format!(
        "log-probabilities of the same policy differ by up to {off:.1e} between sampling and training"
    );
    Some((&MISMATCH, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each figure with what it was at first and what it is now.
    fn history(figures: &[(&str, f64, f64)]) -> History {
        let mut history = History::default();
        for &(name, early, now) in figures {
            history.early.insert(name.to_owned(), early);
            history.recent.insert(name.to_owned(), now);
        }
        history
    }

    #[test]
    fn answers_that_grow_without_a_reward_are_named_where_no_answer_ever_had_one() {
        let longer = ("completions/mean_length", 20.0, 40.0);
        for (early, now, spread, is_found) in [
            (0.0, 0.0, 0.0, true),
            (0.5, 0.51, 0.4, true),
            (0.5, 0.8, 0.4, false),
            (0.0, 0.1, 0.0, false),
        ] {
            let history =
                history(&[longer, ("reward", early, now), ("reward_std", spread, spread)]);
            let found = found(&history);
            assert_eq!(found.iter().any(|(kind, _)| kind.id == LENGTH_GROWS.id), is_found, "{now}");
        }
    }
}
