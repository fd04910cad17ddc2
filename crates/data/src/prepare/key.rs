//! Under which name the cache keeps a file's rows: a hash of all that they depend on.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Config;
use crate::context::Context;
use crate::record::Reading;
use crate::{Error, Result, Stop};

/// Raised whenever the same input gives other rows or counts.
const LAYOUT: u32 = 9;

/// What a file is prepared with, as one name. `limit` counts only where it takes rows.
pub(super) fn key(
    config: &Config,
    supervisor: &str,
    context: Option<&Context>,
    reading: &Reading,
    file_hash: &str,
    (limit, shuffle): (Option<usize>, bool),
) -> String {
    let Reading { format, columns, system, tags, .. } = reading;
    let shuffle = (shuffle && limit.is_some()).then_some(config.seed);
    let parts: Value = json!({
        "layout": LAYOUT,
        "version": env!("CARGO_PKG_VERSION"),
        "file": file_hash,
        "supervisor": supervisor,
        "wanted": format!("{:?}", config.wanted),
        "reading": [format!("{format:?}"), format!("{columns:?}"), format!("{system:?}"), format!("{tags:?}")],
        "take": [limit.map(|limit| limit as u64), shuffle],
        "overlong": [format!("{:?}", config.overlong), format!("{:?}", config.max_seq_len)],
        "context": context.map(Context::hash),
        "columns": super::file::columns(config),
    });
    name(&parts)
}

/// The SHA-256 of a file, in hex, read a piece at a time.
pub(super) fn file_hash(path: &Path, stop: &Stop) -> Result<String> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        stop.check()?;
        match file.read(&mut piece).map_err(io)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

/// A name for a value that something depends on.
pub(super) fn name(of: &Value) -> String {
    hex(&Sha256::digest(of.to_string()))[..32].to_owned()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
