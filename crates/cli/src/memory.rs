//! Refuses work that does not fit into memory, before anything is loaded.

use crate::environment::memory_limit;
use crate::error::{Failure, Result};

/// Used where the system does not say how much memory there is.
pub(crate) const MEMORY_UNKNOWN: usize = 4 << 30;

/// Bytes that the process may still take.
pub(crate) fn free_memory() -> usize {
    memory_limit().unwrap_or(MEMORY_UNKNOWN)
}

/// Bytes by kind that some work takes beside what the process holds already.
#[derive(Clone, Debug)]
pub(crate) struct Needed<'a> {
    /// The work, such as `answering 4 prompts at a time`.
    pub(crate) what: String,
    /// Names and bytes.
    pub(crate) kinds: &'a [(&'static str, usize)],
}

impl Needed<'_> {
    /// All kinds together.
    pub(crate) fn total(&self) -> usize {
        self.kinds.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The error where `limit` is less than what is needed; `cures` says what to change.
    pub(crate) fn require(&self, limit: usize, cures: impl FnOnce() -> String) -> Result<()> {
        match self.total() <= limit {
            true => Ok(()),
            false => Err(self.refusal(limit).hint(cures())),
        }
    }

    /// The error of work that takes more than `limit`.
    pub(crate) fn refusal(&self, limit: usize) -> Failure {
        let named =
            |(name, bytes): &(&str, usize)| format!("{name} {} MB", bytes.div_ceil(1 << 20));
        let kinds: Vec<String> =
            self.kinds.iter().filter(|(_, bytes)| *bytes > 0).map(named).collect();
        let message = format!(
            "{} does not fit into memory: it takes {} MB ({}), and {} MB are free",
            self.what,
            self.total().div_ceil(1 << 20),
            kinds.join(", "),
            limit >> 20
        );
        Failure::wrong("refused", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_by_kind() {
        let kinds = [("weights", 3 << 20), ("cache", 0), ("activations", (1 << 20) + 1)];
        let needed = Needed { what: "answering".into(), kinds: &kinds };
        assert!(needed.require((4 << 20) + 1, || unreachable!()).is_ok());
        let failure = needed.require(4 << 20, || "`--batch 1` fits".into()).unwrap_err();
        assert_eq!(
            failure.message,
            "answering does not fit into memory: it takes 5 MB (weights 3 MB, activations 2 MB), \
             and 4 MB are free"
        );
        assert_eq!((failure.hint.as_deref(), failure.exit), (Some("`--batch 1` fits"), 2));
    }
}
