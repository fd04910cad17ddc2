//! The files become a commit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::Push;
use super::folder::LocalFile;
use super::upload::State;
use crate::error::Result;
use crate::http::{Ask, Sent};
use crate::id::quote;

/// The hub's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl Push<'_> {
    /// Makes the commit: small files in it, large ones by their checksum. Returns its name.
    pub(super) fn commit(
        &self,
        files: &[LocalFile],
        state: &State,
        message: &str,
    ) -> Result<String> {
        // The first line is the title, as in git.
        let (summary, description) = message.split_once('\n').unwrap_or((message, ""));
        let header = json!({"summary": summary.trim(), "description": description.trim()});
        let mut lines = vec![json!({"key": "header", "value": header})];
        for new in &state.new {
            lines.push(line(&files[new.index], new.sha256.as_deref())?);
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let url = self.api(&format!("/commit/{}", quote(&self.id.revision)));
        let headers = vec![("content-type", "application/x-ndjson".to_owned())];
        let body = Sent::Bytes(body.as_bytes());
        let answer = self.client.ask(&Ask { method: Method::POST, url: &url, headers, body });
        let committed: Committed = self.json(answer)?;
        Ok(committed.commit_oid)
    }
}

fn line(file: &LocalFile, sha256: Option<&str>) -> Result<Value> {
    let path = &file.name;
    Ok(match sha256 {
        Some(oid) => {
            let value = json!({"path": path, "algo": "sha256", "oid": oid, "size": file.size});
            json!({"key": "lfsFile", "value": value})
        }
        None => {
            let content = STANDARD.encode(file.bytes()?);
            let value = json!({"path": path, "encoding": "base64", "content": content});
            json!({"key": "file", "value": value})
        }
    })
}
