//! `tunesmith schema`: the keys of a recipe as a JSON schema, for editors.

use crate::context::Context;
use crate::error::Result;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith schema > recipe.schema.json

An editor that speaks to a YAML language server completes and checks a recipe that begins with
  # yaml-language-server: $schema=recipe.schema.json";

/// Prints it: with `--json` on one line, without for a file that people look into.
pub(super) fn run(context: &Context) -> Result<u8> {
    let mut schema = train::recipe::schema().json_schema();
    schema["title"] = "Tunesmith recipe".into();
    let terminal = &context.terminal;
    match terminal.is_json() {
        true => terminal.event(&schema),
        false => terminal.stream(&format!("{schema:#}\n")),
    }
    Ok(0)
}
