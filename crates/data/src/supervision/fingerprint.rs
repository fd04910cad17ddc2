//! What a supervisor makes of a row depends on this and on the row alone.

use serde_json::json;
use text::ChatTemplate;

use super::Supervisor;

impl Supervisor {
    /// A text that is the same for two supervisors only if they make the same of every row.
    pub(crate) fn fingerprint(&self) -> String {
        // Where the template does not ask for the date, tomorrow's rows are today's.
        let dated = |template: &&ChatTemplate| template.mentions("strftime_now");
        let date = self.template.as_ref().filter(dated).map(|template| template.date().to_string());
        let special: Vec<_> = self.template.iter().flat_map(|t| t.special().iter()).collect();
        let parts = json!({
            "tokenizer": self.tokenizer.hash(),
            "template": self.template.as_ref().map(ChatTemplate::hash),
            "special": special,
            "date": date,
            "kwargs": self.kwargs,
            "eos": self.eos_token_ids,
            "options": format!("{:?}", self.options),
        });
        parts.to_string()
    }
}
