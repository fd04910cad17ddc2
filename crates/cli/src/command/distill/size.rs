//! How much shorter the prompts became.

use data::{Supervisor, record};
use keys::{Document, Settings as _};
use model::Base;
use text::Message;
use train::recipe::template_kwargs;
use train::trainer::use_template;

use super::config::DistillConfig;
use super::{for_student, for_teacher};
use crate::asking::Answerer;
use crate::asking::prompts::Prompt;
use crate::context::Context;
use crate::error::Result;
use hub::Resolved;

/// Tokens of all prompts as the teacher sees them and as the student will, both counted as the
/// student does; none where its tokenizer and template are not on this machine.
pub(super) fn of_prompts(
    prompts: &[Prompt],
    config: &DistillConfig,
    document: &Document,
    context: &Context,
) -> Result<Option<(u64, u64)>> {
    let Some(student) = student(config, document, context) else { return Ok(None) };
    let base = Base::open(&student.path)?;
    let mut metadata = base.metadata_with(student.adapter.as_deref(), context.today())?;
    use_template(document, &mut metadata, context.today())?;
    if metadata.chat_template.is_none() {
        return Ok(None);
    }
    let supervisor = Supervisor::for_prompts(&metadata, template_kwargs(document));
    let count = |messages: Vec<Message>, prompt: &Prompt| -> Result<u64> {
        let tokens = supervisor.prompt_tokens(&record::Prompt {
            place: prompt.place.clone(),
            ..record::Prompt::of_messages(messages, prompt.tools.clone())
        });
        let tokens = tokens.map_err(|error| data::Error::Rows { rows: vec![error], hint: None })?;
        Ok(tokens.len() as u64)
    };
    let (mut teacher, mut own) = (0, 0);
    for prompt in prompts {
        teacher += count(for_teacher(config, prompt), prompt)?;
        own += count(for_student(config, prompt), prompt)?;
    }
    Ok(Some((teacher, own)))
}

/// The recipe's model, if it can be had without the network.
fn student(config: &DistillConfig, document: &Document, context: &Context) -> Option<Resolved> {
    if let (Answerer::Local(model), false) = (&config.teacher, document.is_given("distill.teacher"))
    {
        return Some(model.clone());
    }
    let mut models = context.models();
    models.offline = true;
    models.locate(document.get_locator("model.id"), document.opt_str("model.revision")).ok()
}
