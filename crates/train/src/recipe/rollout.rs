//! The keys of `rollout`: how a policy samples the answers that it learns from.

use keys::{Document, Key, Kind, Resume, Settings as _};
use model::generate::Sampling;

use crate::method::{ONLINE, REWARDED};

/// Any finite number.
const SHARE: Kind =
    Kind::Float { min: f64::NEG_INFINITY, max: f64::INFINITY, open_min: false, open_max: false };

/// How answers are sampled.
pub(crate) const ROLLOUT_KEYS: &[Key] = &[
    Key::section("rollout").doc("How the policy samples the answers that it learns from."),
    Key::int("rollout.group_size", 1, 4096)
        .when("method", ONLINE)
        .default_by("method")
        .unit("answers")
        .doc("Answers to each prompt. `train.batch_size` is the number of prompts."),
    Key::int("rollout.max_new_tokens", 1, 1 << 20)
        .when("method", ONLINE)
        .default("256")
        .unit("tokens")
        .doc("Maximum length of an answer. A longer one is cut, and has no end-of-turn token."),
    Key::float("rollout.temperature", 0.0, 100.0)
        .above_min()
        .when("method", ONLINE)
        .default("1.0")
        .doc("Sampling temperature. Training computes log-probabilities at the same temperature."),
    Key::float("rollout.top_p", 0.0, 1.0)
        .above_min()
        .when("method", ONLINE)
        .default("1.0")
        .doc("Nucleus sampling: draw only from the most likely tokens that together have this probability. Below 1 the answers are not the policy's own: a finding says so."),
    Key::int("rollout.top_k", 0, 1 << 30)
        .when("method", ONLINE)
        .default("0")
        .doc("Draw only from so many of the most likely tokens; 0 means all. Otherwise as `rollout.top_p`."),
    Key::float("rollout.min_p", 0.0, 1.0)
        .when("method", ONLINE)
        .default("0.0")
        .doc("Draw only tokens with at least this share of the most likely token's probability. Otherwise as `rollout.top_p`."),
    Key::int("rollout.updates", 1, 1000)
        .when("method", ONLINE)
        .default_by("method")
        .doc("How often the answers of a rollout are learned from before new ones are sampled."),
    Key::int("rollout.minibatches", 1, 1 << 20)
        .when("method", ONLINE)
        .default("1")
        .doc("Optimizer steps that the answers of a rollout are divided into, each time they are learned from. The answers to a prompt stay together."),
    Key::bool("rollout.mask_truncated")
        .when("method", ONLINE)
        .default("false")
        .doc("Leave answers that were cut at `rollout.max_new_tokens` out of the loss. Their rewards still count in the baseline of their group."),
    Key::choice("rollout.zero_variance", &["keep", "resample"])
        .when("method", &["grpo", "rloo", "online_dpo"])
        .default("keep")
        .doc("Groups whose answers all have the same reward teach nothing. keep: they stay in the step, and are counted. resample: further prompts take their place, at most three times as many as a step has (dynamic sampling of DAPO)."),
    Key::list("rollout.pass_rate", &SHARE)
        .when("method", &["grpo", "rloo", "online_dpo"])
        .items(2, 2)
        .doc("Lowest and highest mean reward of a group that is learned from, such as [0.1, 0.9] for rewards of 0 and 1. Further prompts take the place of others, as with `rollout.zero_variance: resample`. By default there are no bounds."),
    Key::int("rollout.concurrency", 1, 4096)
        .when("method", ONLINE)
        .default("32")
        .on_resume(Resume::Free)
        .unit("answers")
        .doc("Answers sampled at the same time. Changes time and memory, and no bit of the result."),
    Key::int("rollout.show", 0, 1000)
        .when("method", ONLINE)
        .default("1")
        .on_resume(Resume::Free)
        .doc("Answers of each rollout that are shown as events, with their rewards. `rollouts` in the run folder has all of them."),
    Key::bool("rollout.probe")
        .when("method", REWARDED)
        .default("true")
        .on_resume(Resume::Free)
        .doc("Before the first step, give graders and programs answers that they should not reward (none, the prompt, a refusal, a list of numbers, another row's reference) and the reference in other words, and tell what they make of them."),
    Key::section("rollout.validation").doc("How the held-out prompts are answered."),
    Key::float("rollout.validation.temperature", 0.0, 100.0)
        .when("method", ONLINE)
        .default("0.0")
        .doc("Sampling temperature of validation. 0 always takes the most likely token."),
    Key::int("rollout.validation.samples", 1, 1000)
        .when("method", ONLINE)
        .default("1")
        .unit("answers")
        .doc("Answers to each held-out prompt. With several, the share of prompts with at least one answer of full reward is told too (pass@k)."),
];

/// What a resolved recipe says about sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutConfig {
    /// Answers to a prompt.
    pub group_size: usize,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Over 0.
    pub temperature: f32,
    /// See [`Sampling::top_p`].
    pub top_p: f32,
    /// See [`Sampling::top_k`].
    pub top_k: usize,
    /// See [`Sampling::min_p`].
    pub min_p: f32,
    /// How often answers are learned from.
    pub updates: u64,
    /// Optimizer steps of each time.
    pub minibatches: u64,
    /// Whether answers that were cut are left out of the loss.
    pub mask_truncated: bool,
    /// Whether groups of equal rewards are replaced.
    pub resamples: bool,
    /// Lowest and highest mean reward of groups that are not replaced.
    pub pass_rate: Option<[f64; 2]>,
    /// Answers sampled at the same time.
    pub concurrency: usize,
    /// Answers of a rollout that are shown.
    pub show: usize,
    /// Whether reward functions are tried on bad answers first.
    pub probes: bool,
    /// Temperature of validation.
    pub validation_temperature: f32,
    /// Answers to a held-out prompt.
    pub validation_samples: usize,
    /// Bounds of an answer of several turns; none where answers have one.
    pub episode: Option<EpisodeBounds>,
}

/// How long an episode may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpisodeBounds {
    /// Most answers of the policy.
    pub turns: usize,
    /// Most tokens behind the row's prompt, observations included.
    pub tokens: usize,
}

impl RolloutConfig {
    /// What a resolved recipe says; none of a method that learns from rows as they are.
    pub fn read(document: &Document) -> Option<Self> {
        let number = |key: &str| document.get_f64(&format!("rollout.{key}")) as f32;
        let count = |key: &str| document.get_usize(&format!("rollout.{key}"));
        document.opt_usize("rollout.max_new_tokens")?;
        Some(RolloutConfig {
            group_size: count("group_size"),
            max_new_tokens: count("max_new_tokens"),
            temperature: number("temperature"),
            top_p: number("top_p"),
            top_k: count("top_k"),
            min_p: number("min_p"),
            updates: count("updates") as u64,
            minibatches: count("minibatches") as u64,
            mask_truncated: document.get_bool("rollout.mask_truncated"),
            resamples: document.opt_str("rollout.zero_variance") == Some("resample"),
            pass_rate: match document.opt_f64s("rollout.pass_rate").as_deref() {
                Some(&[low, high]) => Some([low, high]),
                _ => None,
            },
            concurrency: count("concurrency"),
            show: count("show"),
            probes: document.opt_bool("rollout.probe").unwrap_or(false),
            validation_temperature: number("validation.temperature"),
            validation_samples: count("validation.samples"),
            episode: EpisodeBounds::read(document),
        })
    }

    /// Most tokens behind a prompt: of an answer, or of all turns of an episode.
    pub fn longest_answer(&self) -> usize {
        self.episode.map_or(self.max_new_tokens, |episode| episode.tokens)
    }

    /// Optimizer steps of a rollout.
    pub fn steps(&self) -> u64 {
        self.updates * self.minibatches
    }

    /// How the answers to learn from are drawn; each has a key of its own.
    pub fn sampling(&self, key: u64) -> Sampling {
        let RolloutConfig { temperature, top_k, top_p, min_p, .. } = *self;
        Sampling { temperature, top_k, top_p, min_p, key, ..Sampling::default() }
    }

    /// The same for held-out prompts.
    pub fn validation_sampling(&self, key: u64) -> Sampling {
        Sampling { temperature: self.validation_temperature, key, ..Sampling::default() }
    }

    /// Whether prompts whose groups teach nothing are replaced by others.
    pub fn replaces(&self) -> bool {
        self.resamples || self.pass_rate.is_some()
    }

    /// Whether answers are drawn from a part of the vocabulary only.
    pub fn is_truncated(&self) -> bool {
        self.top_p < 1.0 || self.top_k > 0 || self.min_p > 0.0
    }
}

impl EpisodeBounds {
    /// What a recipe says; none without an environment.
    pub fn read(document: &Document) -> Option<Self> {
        document.opt_strs("environment.command")?;
        Some(EpisodeBounds {
            turns: document.opt_usize("environment.max_turns")?,
            tokens: document.opt_usize("environment.max_tokens")?,
        })
    }
}
