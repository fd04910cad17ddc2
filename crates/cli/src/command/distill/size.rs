//! How much shorter the prompts became.

use keys::{Document, Settings as _};
use model::Base;
use text::{Message, RenderOptions};

use super::order::{Order, Teacher};
use super::prompts::Prompt;
use super::{for_student, for_teacher};
use crate::context::Context;
use crate::error::Result;
use crate::models::Resolved;

/// Tokens of all prompts as the teacher sees them and as the student will, both counted as the
/// student does; none where its tokenizer and template are not on this machine.
pub(super) fn of_prompts(
    prompts: &[Prompt],
    order: &Order,
    document: &Document,
    context: &Context,
) -> Result<Option<(u64, u64)>> {
    let Some(student) = student(order, document, context) else { return Ok(None) };
    let base = Base::open(&student.path)?;
    let metadata = base.metadata_with(student.adapter.as_deref(), context.today())?;
    let Some(template) = &metadata.chat_template else { return Ok(None) };
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let count = |messages: Vec<Message>| -> Result<u64> {
        let text = template.render(&messages, &options)?;
        Ok(metadata.tokenizer.encode(&text)?.len() as u64)
    };
    let (mut teacher, mut own) = (0, 0);
    for prompt in prompts {
        teacher += count(for_teacher(order, prompt))?;
        own += count(for_student(order, prompt))?;
    }
    Ok(Some((teacher, own)))
}

/// The recipe's model, if it can be had without the network.
fn student(order: &Order, document: &Document, context: &Context) -> Option<Resolved> {
    if let (Teacher::Local(model), false) = (&order.teacher, document.is_given("distill.teacher")) {
        return Some(model.clone());
    }
    let mut models = context.models();
    models.offline = true;
    models.locate(document.get_locator("model.id"), document.opt_str("model.revision")).ok()
}
