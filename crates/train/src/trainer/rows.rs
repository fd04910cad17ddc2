//! The rows of a recipe, prepared, and what makes them unfit for a run.

use data::supervision::Supervisor;
use data::{Finding, Level, Location, OnError, Sequences, Wanted};
use keys::{Document, Settings as _};
use model::Config;
use text::Metadata;

use super::DataAccess;
use crate::method;
use crate::recipe::template_kwargs;
use crate::{Error, Result};

/// Prepares the rows of a recipe, whatever its method.
pub fn rows(
    document: &Document,
    metadata: &Metadata,
    threads: usize,
    at: &DataAccess<'_>,
) -> Result<data::Prepared> {
    let seed = document.get_i64("seed") as u64;
    let wanted = method::of(document).records;
    let config = data::recipe::config(document, wanted, seed, threads);
    let mut config = config.map_err(|problem| Error::Recipe(problem.into()))?;
    config.cache = at.cache.clone();
    config.stop = at.stop.clone();
    if at.list_errors && config.on_error == OnError::Stop {
        config.on_error = OnError::List;
    }
    let validation = match &mut config.validation {
        data::Validation::Sources(sources) => &mut sources[..],
        _ => &mut [],
    };
    for source in config.train.iter_mut().chain(validation) {
        if let Location::Hub(set) = &source.location {
            source.location = Location::Files((at.fetch)(set)?);
        }
    }
    let supervisor = match (wanted, &metadata.chat_template) {
        (Wanted::Texts | Wanted::Labelled, None) => Supervisor::for_text(metadata),
        _ => Supervisor::from_metadata(metadata, template_kwargs(document))?,
    };
    let supervisor = supervisor.with(data::recipe::supervision(document));
    let mut prepared = data::prepare(&config, &supervisor)?;
    prepared.findings.merge(metadata.tokenizer.notes().iter().map(tokenizer_note).collect());
    Ok(prepared)
}

/// What is odd about the tokenizer's files, told with the findings of the data that it makes.
fn tokenizer_note(note: &text::Note) -> Finding {
    let (message, hint) = (note.message.clone(), note.hint.into());
    Finding { id: note.id.into(), level: Level::Note, count: 1, places: Vec::new(), message, hint }
}

/// Errors of the data stop a run, all of them named.
pub(super) fn refuse_errors(findings: &[Finding]) -> Result<()> {
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.level == Level::Error).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let line = |finding: &&Finding| {
        let place = finding.places.first().map_or(String::new(), |place| format!("{place}: "));
        format!("{place}{} (`{}`, {} rows)", finding.message, finding.id, finding.count)
    };
    let ids: Vec<&str> = errors.iter().map(|finding| finding.id.as_ref()).collect();
    let hint = format!(
        "{}; `tunesmith check` shows the rows; to train all the same: `data.accept: [{}]`",
        errors[0].hint,
        ids.join(", ")
    );
    Err(Error::refused(errors.iter().map(line).collect::<Vec<_>>().join("\n"), hint))
}

/// Rows that the model cannot take: of tokens that it does not have, or longer than it was made for.
pub(super) fn beyond_the_model(config: &Config, sequences: &Sequences) -> Result<Option<Finding>> {
    let finding = |place: data::Place, count: usize, message: String, hint: &str| Finding {
        id: "beyond-the-model".into(),
        level: Level::Error,
        count,
        places: vec![place],
        message,
        hint: hint.into(),
    };
    let vocab = config.vocab_size;
    if let Some((place, token)) = sequences.beyond_vocabulary(vocab)? {
        let message = format!("token {token} is beyond the model's {vocab}");
        let hint = "the tokenizer does not belong to this model";
        return Ok(Some(finding(place, 1, message, hint)));
    }
    let most = config.max_position_embeddings;
    let Some((index, _)) = sequences.longest().filter(|&(_, tokens)| tokens > most) else {
        return Ok(None);
    };
    let mut longer = 0;
    sequences.each(|outline| longer += usize::from(outline.tokens > most))?;
    let longest = sequences.get(index)?;
    let message = format!("the row has {} tokens, the model was made for {most}", longest.len());
    let hint =
        "set `data.max_seq_len` and `data.overlong: split`, `truncate`, `cut_prompt` or `skip`";
    Ok(Some(finding(longest.place, longer, message, hint)))
}
