//! What is found by looking at many rows at once.

use super::{Config, Made, Validation};
use crate::audit::quality::Tally;
use crate::audit::{self, Leaks, Texts, preferences, size_guide};
use crate::finding::Kind;
use crate::split::By;
use crate::store::{Part, Rows};
use crate::{Findings, Level, Place, Result};

/// Most rows that are compared with each other: comparing takes about a kilobyte a row.
const AUDITED_ROWS: usize = 250_000;

/// The training rows, and which of them belong together.
pub(super) struct Clusters<'a> {
    pub(super) rows: Rows<'a>,
    /// For every row the hash of what it is nearly the same as; its own where it stands alone.
    pub(super) ids: Vec<u64>,
}

/// Adds what was counted over whole files.
pub(super) fn tallies(made: &Made, findings: &mut Findings) {
    let (mut all, mut pairs) = (Tally::default(), preferences::Tally::default());
    for (_, set) in made.sets_of("train") {
        for tail in &set.tails {
            all.merge(tail.tally.clone());
            pairs.merge(tail.preferences.clone());
        }
    }
    all.findings(findings);
    pairs.findings(findings);
}

/// Says so where there are few rows.
pub(super) fn size(rows: &Rows<'_>, findings: &mut Findings) -> Result<()> {
    if let (guide, Some(level)) = size_guide(rows.len())
        && rows.len() > 0
    {
        let message = format!("{} rows: {guide}", rows.len());
        let kind = Kind { level, ..FEW };
        findings.add_many(&kind, rows.len(), [rows.place(0)?], message);
    }
    Ok(())
}

/// Finds rows of the training files that are equal, nearly so, or at odds.
pub(super) fn duplicates<'a>(
    made: &'a Made,
    config: &Config,
    findings: &mut Findings,
) -> Result<Clusters<'a>> {
    let rows = Rows::of(made.sets_of("train"), AUDITED_ROWS)?;
    let found = audit::duplicates(&rows.sketches, &rows, config.threads)?;
    let mut ids = rows.ids.clone();
    for (row, &first) in found.clusters.iter().enumerate() {
        ids[row] = rows.ids[first as usize];
    }
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
        |&(row, &first): &(usize, &u32)| first as usize != row && rows.ids[row] != ids[row];
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
    let by_cluster = matches!(&config.validation, Validation::Fraction { by: By::Cluster, .. });
    if let (true, Some(giant)) = (by_cluster, &found.giant) {
        note(&GIANT, giant.rows, vec![giant.first], GIANT.message.into())?;
    }
    if rows.len() > AUDITED_ROWS {
        let message = format!("only the first {AUDITED_ROWS} of {} rows are compared", rows.len());
        note(&PARTIAL, rows.len() - AUDITED_ROWS, vec![0], message)?;
    }
    Ok(Clusters { rows, ids })
}

/// Finds rows of validation and tests that stand in training.
pub(super) fn leaks(
    made: &Made,
    config: &Config,
    clusters: &Clusters<'_>,
    kept_back: &[bool],
    findings: &mut Findings,
) -> Result<()> {
    let train = Part::of(&clusters.rows, |row| !kept_back[row]);
    if kept_back.contains(&true) {
        let held = Part::of(&clusters.rows, |row| kept_back[row]);
        compare(
            &train,
            (&held.sketches, &held),
            &|row| held.place(row),
            &VALIDATION,
            config,
            findings,
        )?;
    }
    for (purpose, kinds) in [("validation", &VALIDATION), ("test", &TEST)] {
        let rows = Rows::of(made.sets_of(purpose), AUDITED_ROWS)?;
        if rows.len() > 0 {
            compare(
                &train,
                (&rows.sketches, &rows),
                &|row| rows.place(row),
                kinds,
                config,
                findings,
            )?;
        }
    }
    Ok(())
}

/// The findings about one kind of held-out rows.
struct LeakKinds {
    exact: Kind,
    prompt: Kind,
    near: Kind,
    ngram: Kind,
}

fn compare(
    train: &Part<'_>,
    held: (&[audit::Sketch], &dyn Texts),
    held_place: &dyn Fn(u32) -> Result<Place>,
    kinds: &LeakKinds,
    config: &Config,
    findings: &mut Findings,
) -> Result<()> {
    let Leaks { exact, near, prompt, ngrams } =
        audit::leakage((&train.sketches, train), held, config.threads)?;
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
            fresh.iter().take(5).map(|&(_, held)| held_place(held)).collect::<Result<_>>()?;
        let message = format!("{}, the first at {}", kind.message, train.place(first)?);
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
    message: "rows that stand in the data more than once",
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

const VALIDATION: LeakKinds = LeakKinds {
    exact: Kind {
        id: "validation-row-in-training",
        level: Level::Error,
        message: "validation rows that stand in the training rows",
        hint: "remove them from one side: the validation loss would be that of rows learned by heart",
    },
    prompt: Kind {
        id: "validation-prompt-in-training",
        level: Level::Warning,
        message: "validation rows whose prompt stands in a training row, with another answer",
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
        message: "validation rows with a run of 13 words that stands in a training row",
        hint: "a shared instruction is harmless; a shared document is not",
    },
};
const TEST: LeakKinds = LeakKinds {
    exact: Kind {
        id: "test-row-in-training",
        level: Level::Error,
        message: "test rows that stand in the training rows",
        hint: "remove them from the training rows: the test would measure memory",
    },
    prompt: Kind {
        id: "test-prompt-in-training",
        level: Level::Warning,
        message: "test rows whose prompt stands in a training row, with another answer",
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
        message: "test rows with a run of 13 words that stands in a training row",
        hint: "a shared instruction is harmless; a shared document or question is not",
    },
};
