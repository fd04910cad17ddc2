//! The model as a recipe names it: tokenizer, added tokens, chat template, and what is odd about its files.

use data::{Finding, Level};
use keys::{Document, Settings as _};
use model::Base;
use text::{ChatTemplate, Date, Metadata};

use crate::recipe::{quantization, trains_base};
use crate::{Error, Result};

/// Metadata with the template and the tokens that the recipe names, and the ids of the tokens that it
/// adds.
pub(super) fn with_tokens_and_template(
    document: &Document,
    mut metadata: Metadata,
    date: Date,
) -> Result<(Metadata, Vec<u32>)> {
    let mut added = Vec::new();
    for (key, special) in [("tokenizer.add_tokens", false), ("tokenizer.add_special_tokens", true)]
    {
        let tokens = document.opt_strs(key).unwrap_or_default();
        let problem = |message: String, hint: &str| {
            Error::Recipe(document.problem(key, message, Some(hint.to_owned())).into())
        };
        for (index, &token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(problem("an empty text is not a token".into(), "leave it out"));
            }
            if metadata.tokenizer.id(token).is_some() || tokens[..index].contains(&token) {
                let message = format!("`{token}` is a token already");
                let hint = "leave it out; `adapter.trainable_tokens` trains a token that there is";
                return Err(problem(message, hint));
            }
        }
        if tokens.is_empty() {
            continue;
        }
        let tokens: Vec<String> = tokens.into_iter().map(str::to_owned).collect();
        let (tokenizer, ids) =
            metadata.tokenizer.with_tokens(&tokens, special).map_err(model::Error::from)?;
        metadata.tokenizer = tokenizer;
        added.extend(ids);
    }
    use_template(document, &mut metadata, date)?;
    Ok((metadata, added))
}

/// Puts the template that a recipe names in place of the model's own.
pub fn use_template(document: &Document, metadata: &mut Metadata, date: Date) -> Result<()> {
    if let Some(name) = document.opt_str("model.chat_template") {
        metadata.chat_template = Some(named_template(document, metadata, name, date)?);
    }
    Ok(())
}

/// What is odd about the files of the base.
pub(super) fn remarks(base: &Base) -> Vec<Finding> {
    let finding = |remark: &model::checkpoint::Remark| Finding {
        id: remark.id.into(),
        level: Level::Warning,
        count: 1,
        places: Vec::new(),
        message: format!("{}: {}", base.path.display(), remark.message),
        hint: remark.hint.into(),
    };
    base.remarks.iter().map(finding).collect()
}

/// A base that is quantised in its file, and shall be quantised again or be trained itself.
pub(super) fn quantised_base(document: &Document, base: &Base) -> Result<Option<Finding>> {
    let storage = base.storage_name()?;
    if matches!(storage.as_str(), "f32" | "f16" | "bf16") {
        return Ok(None);
    }
    let to = document.get_str("quantization");
    let (id, message, hint) = if quantization(document).is_some() && base.format == "folder" {
        let message = format!("the base is stored as {storage} and stays so, whatever {to} says");
        ("quantised-already", message, "leave `quantization` out")
    } else if quantization(document).is_some() {
        let message = format!("the base is stored as {storage} and is quantised again to {to}");
        ("quantised-twice", message, "leave `quantization` out: the base keeps its own blocks")
    } else if trains_base(document) {
        let message = format!("the base is stored as {storage}: what is lost there stays lost");
        ("quantised-start", message, "train its 16-bit original where there is one")
    } else {
        return Ok(None);
    };
    let (places, hint) = (Vec::new(), hint.into());
    Ok(Some(Finding { id: id.into(), level: Level::Warning, count: 1, places, message, hint }))
}

/// ChatML: the simplest of the common forms, for base models whose tokenizer has its tokens.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn named_template(
    document: &Document,
    metadata: &Metadata,
    name: &str,
    date: Date,
) -> Result<ChatTemplate> {
    if let Some(template) = metadata.template(name) {
        return Ok(template);
    }
    let problem = |message: String, hint: String| {
        Error::Recipe(document.problem("model.chat_template", message, Some(hint)).into())
    };
    let source = match name {
        "chatml" => CHATML.to_owned(),
        path => std::fs::read_to_string(path).map_err(|error| {
            let mut names: Vec<&str> =
                metadata.named_templates.iter().map(|(name, _)| name.as_str()).collect();
            names.push("chatml");
            let hint = format!("give a jinja file or one of: {}", names.join(", "));
            problem(format!("no template `{path}`: {error}"), hint)
        })?,
    };
    ChatTemplate::new(&source, &metadata.special, date)
        .map_err(|error| problem(format!("`{name}`: {error}"), "mend the template".into()))
}
