//! Programs that a chore runs.

use std::process::Command;

/// Runs a program in the folder of the workspace; shows what is run. Fails where it does.
pub(crate) fn run(
    program: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<(), String> {
    let line = [&[program], arguments].concat().join(" ");
    println!("$ {line}");
    let mut command = Command::new(program);
    command.current_dir(crate::root()).args(arguments).envs(variables.iter().copied());
    let status = command.status().map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}
