//! A line that a program printed.

use serde_json::Value;

use crate::program;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// Nothing.
    Empty,
    /// The reward of a completion, by its id; none where it has none.
    Reward(u64, Option<f64>),
    /// The completion could not be scored, and why.
    Failed(u64, String),
    /// What stands where the reward should is no reward.
    Wrong(u64, String),
    /// The line is of no completion.
    Rubbish(String),
}

impl Line {
    /// Reads `{"id": 3, "reward": 0.5}`, with `null` for no reward and an optional `error`. Other fields are left alone.
    pub(super) fn read(line: &str) -> Line {
        let line = line.trim();
        if line.is_empty() {
            return Line::Empty;
        }
        let rubbish = || Line::Rubbish(line.to_owned());
        let Some(value) = program::value(line) else {
            return rubbish();
        };
        let Some(id) = value.get("id").and_then(Value::as_u64) else { return rubbish() };
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let message = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Line::Failed(id, message);
        }
        match value.get("reward") {
            Some(Value::Null) => Line::Reward(id, None),
            Some(reward) => match program::number(reward, "reward") {
                Ok(reward) => Line::Reward(id, Some(reward)),
                Err(message) => Line::Wrong(id, message),
            },
            None => Line::Wrong(id, "the answer has no `reward`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Line) {
        assert_eq!(Line::read(line), expected, "{line}");
    }

    #[test]
    fn rewards_are_read() {
        check(r#"{"id": 3, "reward": 0.5}"#, Line::Reward(3, Some(0.5)));
        check(" {\"reward\": -2, \"id\": 0, \"note\": \"x\"}\r", Line::Reward(0, Some(-2.0)));
        check(r#"{"id": 3, "reward": null}"#, Line::Reward(3, None));
        check(r#"{"id": 3, "reward": 1, "error": null}"#, Line::Reward(3, Some(1.0)));
        check("  ", Line::Empty);
    }

    #[test]
    fn what_is_no_reward_is_named() {
        let wrong = |message: &str| Line::Wrong(3, message.to_owned());
        for word in ["NaN", "Infinity", "-Infinity"] {
            let message = format!("the reward is {word}, not a finite number");
            check(&format!(r#"{{"id": 3, "reward": {word}}}"#), wrong(&message));
        }
        check(r#"{"id": 3, "reward": "0.5"}"#, wrong("the reward is `\"0.5\"`, not a number"));
        check(r#"{"id": 3, "reward": true}"#, wrong("the reward is `true`, not a number"));
        check(r#"{"id": 3, "score": 1}"#, wrong("the answer has no `reward`"));
        check(r#"{"id": 3, "reward": null, "error": "no key"}"#, Line::Failed(3, "no key".into()));
        check(r#"{"id": 3, "error": {"code": 5}}"#, Line::Failed(3, r#"{"code":5}"#.into()));
    }

    #[test]
    fn other_lines_are_rubbish() {
        for line in [
            "loading model",
            "0.5",
            "[]",
            "{",
            r#"{"reward": 1}"#,
            r#"{"id": -1, "reward": 1}"#,
            "{NaN",
        ] {
            check(line, Line::Rubbish(line.to_owned()));
        }
    }
}
