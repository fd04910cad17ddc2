//! What is found by looking at many rows at once.
//!
//! Training rows are compared with each other up to the first [`AUDITED_ROWS`], and a finding says so. As many held-out
//! rows are looked for in all training rows, which pass block by block. Equal rows stay on one side of a split however
//! many there are.

use super::audited::Audited;
use super::{Config, Made, Validation};
use crate::audit::quality::Tally;
use crate::audit::{self, Block, LeakSearch, Leaks, preferences, size_guide};
use crate::finding::Kind;
use crate::split::By;
use crate::store::Rows;
use crate::{Findings, Level, Place, Result};

/// Most rows that are compared with each other, to bound memory: comparing takes some 400 bytes a row.
const AUDITED_ROWS: usize = 250_000;
/// Training rows that are held against held-out ones at a time.
const BLOCK_ROWS: usize = 50_000;

/// Which of the training rows belong together.
pub(super) struct Clusters {
    /// For every row that was compared the hash of what it is nearly the same as; its own where it stands
    /// alone.
    pub(super) ids: Vec<u64>,
}

/// Adds what was counted over whole files, and gives the counts of preferences.
pub(super) fn tallies(made: &Made, findings: &mut Findings) -> preferences::Tally {
    let (mut all, mut pairs) = (Tally::default(), preferences::Tally::default());
    for (_, set) in made.sets_of("train") {
        all.merge(set.tally.clone());
        pairs.merge(set.preferences.clone());
    }
    all.findings(findings);
    pairs.findings(findings);
    pairs
}

/// Says so where there are few rows.
pub(super) fn size(made: &Made, findings: &mut Findings) -> Result<()> {
    let walk = made.walk("train");
    let rows = walk.len();
    if let (guide, Some(level)) = size_guide(rows)
        && rows > 0
    {
        let message = format!("{rows} rows: {guide}");
        let kind = Kind { level, ..FEW };
        findings.add_many(&kind, rows, [walk.place(0)?], message);
    }
    Ok(())
}

/// Finds rows of the training files that are equal, nearly so, or at odds.
pub(super) fn duplicates(
    made: &Made,
    config: &Config,
    findings: &mut Findings,
) -> Result<Clusters> {
    let by_cluster = matches!(&config.validation, Validation::Fraction { by: By::Cluster, .. });
    let name = match by_cluster {
        true if config.wanted.compares_answers() => "duplicates by cluster and prompt",
        true => "duplicates by cluster",
        false => "duplicates",
    };
    let find = || find_duplicates(made, config, by_cluster);
    let Audited { findings: found, ids } = made.audited(config, name, &["train"], &[], find)?;
    findings.merge(found);
    Ok(Clusters { ids })
}

fn find_duplicates(made: &Made, config: &Config, by_cluster: bool) -> Result<Audited> {
    let mut findings = Findings::default();
    let mut walk = made.walk("train");
    let rows = walk.next(AUDITED_ROWS, |_| true)?;
    let found = audit::duplicates(&rows.sketches, &rows, config.threads)?;
    let id = |row: u32| rows.sketches[row as usize].row;
    // The other answers to a prompt say which are better, so they must not stand on the other side of a split.
    let joined = match by_cluster && config.wanted.compares_answers() {
        true => audit::with_same_prompt(&found.clusters, &rows.sketches),
        false => found.clusters.clone(),
    };
    let ids: Vec<u64> = joined.iter().map(|&first| id(first)).collect();
    let mut note = |kind: &Kind, count: usize, named: Vec<u32>, message: String| -> Result<()> {
        let places: Vec<Place> =
            named.iter().take(5).map(|&row| rows.place(row)).collect::<Result<_>>()?;
        if count > 0 {
            findings.add_many(kind, count, places, message);
        }
        Ok(())
    };
    let repeated = || found.exact.iter().flat_map(|group| &group[1..]).copied();
    note(&EXACT, repeated().count(), repeated().collect(), EXACT.message.into())?;
    let is_near =
        |&(row, &first): &(usize, &u32)| first as usize != row && id(row as u32) != id(first);
    let near: Vec<u32> =
        found.clusters.iter().enumerate().filter(is_near).map(|(row, _)| row as u32).collect();
    note(&NEAR, near.len(), near, NEAR.message.into())?;
    let templated = || found.templated.iter().flatten().copied();
    let message = format!("{} in {} clusters", TEMPLATED.message, found.templated.len());
    note(&TEMPLATED, templated().count(), templated().collect(), message)?;
    let at_odds = found.contradictions.iter().map(|pair| pair.1).collect::<Vec<_>>();
    let message = match found.contradictions.first() {
        Some(&(first, _)) => format!("{}, as at {}", CONTRADICTION.message, rows.place(first)?),
        None => String::new(),
    };
    note(&CONTRADICTION, at_odds.len(), at_odds, message)?;
    if let (true, Some(giant)) = (by_cluster, &found.giant) {
        note(&GIANT, giant.rows, vec![giant.first], GIANT.message.into())?;
    }
    let (compared, all) = (rows.numbers.len(), walk.len());
    if all > compared {
        let message = format!("only the first {compared} of {all} rows are compared");
        note(&PARTIAL, all - compared, vec![0], message)?;
    }
    Ok(Audited { findings, ids })
}

/// Finds rows of validation and tests that stand in training.
pub(super) fn leaks(
    made: &Made,
    config: &Config,
    kept_back: &[bool],
    findings: &mut Findings,
) -> Result<()> {
    let all = ["train", "validation", "test"];
    let find = || find_leaks(made, config, kept_back);
    findings.merge(made.audited(config, "leaks", &all, kept_back, find)?.findings);
    Ok(())
}

fn find_leaks(made: &Made, config: &Config, kept_back: &[bool]) -> Result<Audited> {
    let mut findings = Findings::default();
    let mut compare = |held: Rows<'_>, all: usize, kinds: &LeakKinds| {
        let compared = held.numbers.len();
        if all > compared {
            let message = format!("only {compared} of {all} held-out rows are looked for");
            findings.add_many(&PARTIAL_HELD, all - compared, [held.place(0)?], message);
        }
        compare(made, config, kept_back, &held, kinds, &mut findings)
    };
    if kept_back.contains(&true) {
        let held = made.walk("train").next(AUDITED_ROWS, |row| kept_back[row])?;
        compare(held, kept_back.iter().filter(|&&kept| kept).count(), &VALIDATION)?;
    }
    for (purpose, kinds) in [("validation", &VALIDATION), ("test", &TEST)] {
        let mut walk = made.walk(purpose);
        if walk.len() > 0 {
            compare(walk.next(AUDITED_ROWS, |_| true)?, walk.len(), kinds)?;
        }
    }
    Ok(Audited { findings, ids: Vec::new() })
}

/// The findings about one kind of held-out rows.
struct LeakKinds {
    exact: Kind,
    prompt: Kind,
    near: Kind,
    ngram: Kind,
}

fn compare(
    made: &Made,
    config: &Config,
    kept_back: &[bool],
    held: &Rows<'_>,
    kinds: &LeakKinds,
    findings: &mut Findings,
) -> Result<()> {
    let mut search = LeakSearch::of((&held.sketches, held), config.threads)?;
    let mut walk = made.walk("train");
    loop {
        let rows = walk.next(BLOCK_ROWS, |row| !kept_back[row])?;
        if rows.numbers.is_empty() {
            break;
        }
        let (numbers, sketches) = (&rows.numbers, &rows.sketches);
        search.look(&Block { numbers, sketches, texts: &rows })?;
    }
    let Leaks { exact, near, prompt, ngrams } = search.leaks();
    let mut told: Vec<u32> = Vec::new();
    let near: Vec<(u32, u32)> = near.into_iter().map(|(train, held, _)| (train, held)).collect();
    for (kind, pairs) in [
        (&kinds.exact, exact),
        (&kinds.prompt, prompt),
        (&kinds.near, near),
        (&kinds.ngram, ngrams),
    ] {
        // Every held-out row is told once, under the worst that is true of it.
        let mut fresh: Vec<(u32, u32)> = pairs;
        fresh.sort_unstable_by_key(|&(train, held)| (held, train));
        fresh.dedup_by_key(|pair| pair.1);
        fresh.retain(|pair| told.binary_search(&pair.1).is_err());
        let Some(&(first, _)) = fresh.first() else { continue };
        let places: Vec<Place> =
            fresh.iter().take(5).map(|&(_, row)| held.place(row)).collect::<Result<_>>()?;
        let message = format!("{}, the first at {}", kind.message, walk.place(first)?);
        findings.add_many(kind, fresh.len(), places, message);
        told.extend(fresh.iter().map(|pair| pair.1));
        told.sort_unstable();
    }
    Ok(())
}

const FEW: Kind = Kind {
    id: "few-rows",
    level: Level::Note,
    message: "the set is small",
    hint: "more rows help more than any setting",
};
const EXACT: Kind = Kind {
    id: "duplicate-rows",
    level: Level::Warning,
    message: "rows that appear more than once",
    hint: "remove them, unless they should weigh more; `repeat` says so openly",
};
const NEAR: Kind = Kind {
    id: "near-duplicate-rows",
    level: Level::Warning,
    message: "rows that are nearly the same as an earlier one",
    hint: "keep one of each; with `data.validation.by: cluster` they stay on one side of the split",
};
const TEMPLATED: Kind = Kind {
    id: "templated-rows",
    level: Level::Note,
    message: "rows made from a template, which differ in numbers, names or slots only,",
    hint: "they are not taken for duplicates; more variety in wording would teach more",
};
const CONTRADICTION: Kind = Kind {
    id: "contradictory-answers",
    level: Level::Warning,
    message: "rows that answer a prompt otherwise than an earlier row with the same one",
    hint: "keep the answer that is meant, unless several are right",
};
const GIANT: Kind = Kind {
    id: "giant-cluster",
    level: Level::Warning,
    message: "more than a tenth of the rows are nearly the same: they are split by row",
    hint: "look at them: validation will hold rows that are much like those trained on",
};
const PARTIAL: Kind = Kind {
    id: "audit-partial",
    level: Level::Note,
    message: "not all rows are compared with each other",
    hint: "equal rows are kept on one side of the split all the same",
};
const PARTIAL_HELD: Kind = Kind {
    id: "held-out-partial",
    level: Level::Note,
    message: "not all held-out rows are looked for in the training rows",
    hint: "a smaller validation tells as much: a few thousand rows are plenty",
};

const VALIDATION: LeakKinds = LeakKinds {
    exact: Kind {
        id: "validation-row-in-training",
        level: Level::Error,
        message: "validation rows that are also training rows",
        hint: "remove them from one side: the validation loss would be that of rows learned by heart",
    },
    prompt: Kind {
        id: "validation-prompt-in-training",
        level: Level::Warning,
        message: "validation rows whose prompt is in a training row with another answer",
        hint: "`data.validation.by: cluster` or `group:<column>` keeps them on one side",
    },
    near: Kind {
        id: "validation-row-nearly-in-training",
        level: Level::Warning,
        message: "validation rows that are nearly the same as a training row",
        hint: "`data.validation.by: cluster` keeps copies on one side; rows of one template stay apart",
    },
    ngram: Kind {
        id: "validation-text-in-training",
        level: Level::Note,
        message: "validation rows that share a run of 13 words with a training row",
        hint: "a shared instruction is harmless; a shared document is not",
    },
};
const TEST: LeakKinds = LeakKinds {
    exact: Kind {
        id: "test-row-in-training",
        level: Level::Error,
        message: "test rows that are also training rows",
        hint: "remove them from the training rows: the test would measure memory",
    },
    prompt: Kind {
        id: "test-prompt-in-training",
        level: Level::Warning,
        message: "test rows whose prompt is in a training row with another answer",
        hint: "remove the training rows, unless the prompt is a fixed instruction",
    },
    near: Kind {
        id: "test-row-nearly-in-training",
        level: Level::Warning,
        message: "test rows that are nearly the same as a training row",
        hint: "look at them, and remove the training rows",
    },
    ngram: Kind {
        id: "test-text-in-training",
        level: Level::Warning,
        message: "test rows that share a run of 13 words with a training row",
        hint: "a shared instruction is harmless; a shared document or question is not",
    },
};
