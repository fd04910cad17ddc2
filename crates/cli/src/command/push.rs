//! `tunesmith push`: an adapter or a model goes to the hub.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::Result;
use crate::terminal::style::bytes;
use hub::{PushRequest, Pushed};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith push runs/tickets-001 me/tickets
  tunesmith push merged me/tickets-merged --public --message 'First release'

Only the files of the adapter or model are uploaded; other files in the folder are listed and stay. The
token is `HF_TOKEN` or that of the login. `HF_ENDPOINT` names another hub.";

/// What `push` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// An adapter folder, a run folder or a model folder
    #[arg(value_name = "FOLDER")]
    folder: String,

    /// Repository to push to; created if it is missing
    #[arg(value_name = "OWNER/NAME")]
    repo: String,

    /// Make the repository public
    #[arg(long)]
    public: bool,

    /// Branch; created if it is missing
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    revision: String,

    /// Commit message
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let folder = context.environment.path(&arguments.folder);
    let pushed = context.models().push(&PushRequest {
        folder: &folder,
        repo: &arguments.repo,
        revision: &arguments.revision,
        public: arguments.public,
        message: arguments.message.as_deref(),
    })?;
    tell(&pushed, context);
    let Pushed { repo, revision, commit, url, files, bytes, files_new, left_out, private } = pushed;
    context.terminal.result(json!({
        "repo": repo, "revision": revision, "commit": commit, "url": url, "files": files,
        "bytes": bytes, "files_new": files_new, "left_out": left_out, "private": private,
    }));
    Ok(0)
}

fn tell(pushed: &Pushed, context: &Context) {
    let terminal = &context.terminal;
    if !pushed.left_out.is_empty() {
        terminal.note(&format!("not sent: {}", pushed.left_out.join(", ")));
    }
    let seen_by = if pushed.private { "private" } else { "public" };
    let what = format!("{} files, {}, {seen_by}", pushed.files, bytes(pushed.bytes));
    let how = match pushed.files_new {
        0 => "all there already".to_owned(),
        new => format!("{new} new or changed"),
    };
    terminal.say(&format!("{what}; {how}"));
    terminal.say(&pushed.url);
}
