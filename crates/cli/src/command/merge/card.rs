//! The model card of a merged model.

use super::compare::{Comparison, words};
use super::origin::{Origin, shown};

/// `README.md`.
pub(super) fn card(origin: &Origin, dtype: &str, comparison: Option<&Comparison>) -> String {
    let base = shown(&origin.base_name);
    // Only a name that others can look up belongs in the head.
    let named = match base == origin.base_name {
        true => format!("base_model: {base}\n"),
        false => String::new(),
    };
    let mut text = format!(
        "---\n{named}library_name: transformers\npipeline_tag: text-generation\n\
         tags: [merged, tunesmith]\n---\n\n\
         # {base} with an adapter merged into it\n\n\
         Made by Tunesmith {}; weights in {dtype}.\n\n\
         * Base weights ({}): SHA-256 `{}`.\n\
         * Adapter matrices: SHA-256 `{}`.\n",
        env!("CARGO_PKG_VERSION"),
        origin.storage,
        origin.base_hash,
        origin.adapter_hash,
    );
    for note in &origin.notes {
        let (first, rest) = note.split_at(note.chars().next().map_or(0, char::len_utf8));
        text.push_str(&format!("* {}{rest}.\n", first.to_uppercase()));
    }
    let Some(comparison) = comparison else {
        text.push_str("* It was not compared with base and adapter.\n");
        return text;
    };
    text.push_str(&format!("\nCompared at {}:\n\n", comparison.what()));
    for (name, divergence) in comparison.named() {
        text.push_str(&format!("* with {name}: {}\n", words(&divergence)));
    }
    text
}
