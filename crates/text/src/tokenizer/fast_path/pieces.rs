//! The pieces of a text that are merged each by itself.

use regex_automata::hybrid::dfa::Cache;
use regex_automata::util::pool::Pool;
use tokenizers::SplitDelimiterBehavior as Behavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;

use super::GaveUp;
use super::pattern::Pattern;

/// What the library's byte-level pre-tokenizer splits by.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// How text is cut, stage after stage. A stage sees one piece of the stage
/// before it at a time, so what a pattern matches ends where that piece ends.
pub(super) struct Pieces {
    stages: Vec<Stage>,
    /// What the patterns write, one set for each thread at work; empty until then.
    caches: Pool<Caches, fn() -> Caches>,
}

/// One for each stage.
type Caches = Vec<Option<Cache>>;

enum Stage {
    /// Numeric characters apart from others, one by one or in runs.
    Digits { individual: bool },
    /// What a pattern matches, apart from what lies between.
    Split { pattern: Box<Pattern>, keeps_matches: bool, keeps_gaps: bool },
}

impl Pieces {
    /// Nothing where the pre-tokenizer does not end in a byte-level one, or has
    /// a stage that is not known here.
    pub(super) fn new(pre_tokenizer: &PreTokenizerWrapper) -> Option<Self> {
        let mut steps = Vec::new();
        flatten(pre_tokenizer, &mut steps);
        let (PreTokenizerWrapper::ByteLevel(last), steps) = steps.split_last()? else {
            return None;
        };
        if last.add_prefix_space {
            return None;
        }
        let mut stages: Vec<Stage> =
            steps.iter().map(|step| Stage::new(step)).collect::<Option<_>>()?;
        if last.use_regex {
            stages.push(Stage::isolated(GPT2)?);
        }
        Some(Pieces { stages, caches: Pool::new(Vec::new) })
    }

    /// Hands on the pieces of a text in order.
    pub(super) fn split<P>(&self, text: &str, piece: &mut P) -> Result<(), GaveUp>
    where
        P: FnMut(&str) -> Result<(), GaveUp>,
    {
        let mut caches = self.caches.get();
        if caches.len() < self.stages.len() {
            *caches = self.stages.iter().map(Stage::cache).collect();
        }
        split(&self.stages, &mut caches, text, piece)
    }
}

fn flatten<'a>(step: &'a PreTokenizerWrapper, steps: &mut Vec<&'a PreTokenizerWrapper>) {
    match step {
        PreTokenizerWrapper::Sequence(sequence) => {
            sequence.as_ref().iter().for_each(|step| flatten(step, steps));
        }
        step => steps.push(step),
    }
}

impl Stage {
    fn new(step: &PreTokenizerWrapper) -> Option<Self> {
        match step {
            PreTokenizerWrapper::Digits(digits) => {
                Some(Stage::Digits { individual: digits.individual_digits })
            }
            PreTokenizerWrapper::Split(split) => {
                let pattern = match &split.pattern {
                    SplitPattern::String(text) => Pattern::new(&regex_syntax::escape(text))?,
                    SplitPattern::Regex(regex) => Pattern::new(regex)?,
                };
                let removes = match split.behavior {
                    Behavior::Isolated => false,
                    Behavior::Removed => true,
                    _ => return None,
                };
                Some(Stage::Split {
                    pattern: Box::new(pattern),
                    keeps_matches: !removes || split.invert,
                    keeps_gaps: !removes || !split.invert,
                })
            }
            _ => None,
        }
    }

    fn isolated(pattern: &str) -> Option<Self> {
        let pattern = Box::new(Pattern::new(pattern)?);
        Some(Stage::Split { pattern, keeps_matches: true, keeps_gaps: true })
    }

    fn cache(&self) -> Option<Cache> {
        match self {
            Stage::Digits { .. } => None,
            Stage::Split { pattern, .. } => Some(pattern.cache()),
        }
    }
}

fn split<P>(
    stages: &[Stage],
    caches: &mut [Option<Cache>],
    text: &str,
    piece: &mut P,
) -> Result<(), GaveUp>
where
    P: FnMut(&str) -> Result<(), GaveUp>,
{
    let (Some((stage, stages)), Some((cache, caches))) =
        (stages.split_first(), caches.split_first_mut())
    else {
        return piece(text);
    };
    let mut next = |range: std::ops::Range<usize>| match range.is_empty() {
        true => Ok(()),
        false => split(stages, caches, &text[range], piece),
    };
    match (stage, cache) {
        (Stage::Digits { individual }, _) => {
            // What was handed on, and whether the characters after it are numeric.
            let (mut done, mut in_number) = (0, false);
            for (at, char) in text.char_indices() {
                let is_numeric = char.is_numeric();
                if is_numeric != in_number || (is_numeric && *individual) {
                    next(done..at)?;
                    (done, in_number) = (at, is_numeric);
                }
            }
            next(done..text.len())
        }
        (Stage::Split { pattern, keeps_matches, keeps_gaps }, Some(cache)) => {
            let mut done = 0;
            while let Some(found) = pattern.find(cache, text, done)? {
                let end = found.end;
                if *keeps_gaps {
                    next(done..found.start)?;
                }
                if *keeps_matches {
                    next(found)?;
                }
                done = end;
            }
            if *keeps_gaps { next(done..text.len()) } else { Ok(()) }
        }
        (Stage::Split { .. }, None) => unreachable!("a pattern has its cache"),
    }
}
