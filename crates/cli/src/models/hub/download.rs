//! Files from the hub: resumed where they broke off, checked, and then put in place.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};

use super::refusal::explain;
use crate::error::{Failure, Result};
use crate::models::digest;
use crate::models::hub::HubId;
use crate::terminal::Terminal;
use crate::terminal::progress::Download;

const CONNECT: Duration = Duration::from_secs(5);
/// A transfer that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a transfer that broke off is taken up again.
const ATTEMPTS: usize = 4;

/// An HTTP client for the hub.
pub(super) struct Client {
    agent: Agent,
    token: Option<String>,
}

/// A file on the hub.
pub(super) struct Remote<'a> {
    pub(super) url: &'a str,
    pub(super) name: &'a str,
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<&'a str>,
    pub(super) id: &'a HubId,
}

impl Client {
    pub(super) fn new(token: Option<String>) -> Self {
        // The system's certificates, so that a company's own are known.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            // Files live on other hosts, which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Client { agent: config.into(), token }
    }

    /// A JSON document.
    pub(super) fn json<T: DeserializeOwned>(&self, url: &str, id: &HubId) -> Result<T> {
        let response = self.get(url, id, 0)?;
        let reader = response.into_body().into_reader();
        serde_json::from_reader(reader).map_err(|error| {
            Failure::new("hub", format!("{}: the hub's answer is not understood: {error}", id.name))
                .hint("check `HF_ENDPOINT`")
        })
    }

    /// Brings a file to `target`, unless it is there.
    pub(super) fn fetch(
        &self,
        remote: &Remote<'_>,
        target: &Path,
        terminal: &Terminal,
    ) -> Result<()> {
        let io = |error: std::io::Error| Failure::io(target, &error);
        let folder = target.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(io)?;
        let mut part = target.as_os_str().to_owned();
        part.push(".incomplete");
        let part = Path::new(&part);
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(part).map_err(io)?;
        // A second process waits here, and then finds the file in place.
        file.lock().map_err(io)?;
        if target.exists() {
            let _ = fs::remove_file(part);
            return Ok(());
        }
        let mut broke_off = None;
        for _ in 0..ATTEMPTS {
            match self.attempt(remote, &mut file, part, terminal)? {
                Transfer::Whole => {
                    file.sync_all().map_err(io)?;
                    return fs::rename(part, target).map_err(io);
                }
                Transfer::BrokeOff(why) => broke_off = Some(why),
            }
        }
        let why = broke_off.unwrap_or_default();
        let message = format!("{}: `{}` broke off: {why}", remote.id.name, remote.name);
        Err(Failure::new("hub", message).hint("run the command again: it goes on where it stopped"))
    }

    fn attempt(
        &self,
        remote: &Remote<'_>,
        file: &mut File,
        part: &Path,
        terminal: &Terminal,
    ) -> Result<Transfer> {
        let io = |error: std::io::Error| Failure::io(part, &error);
        let mut digest = Sha256::new();
        let mut done = file.metadata().map_err(io)?.len();
        if remote.size.is_none_or(|size| done != size) {
            let response = self.get(remote.url, remote.id, done)?;
            if response.status().as_u16() != 206 {
                file.set_len(0).map_err(io)?;
                done = 0;
            }
            digest::feed(&mut digest, part)?;
            let bar = Download::new(terminal, remote.name, done, remote.size);
            let mut reader = response.into_body().into_reader();
            let mut chunk = vec![0; 1 << 16];
            loop {
                let count = match reader.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => return Ok(Transfer::BrokeOff(error.to_string())),
                };
                file.write_all(&chunk[..count]).map_err(io)?;
                digest.update(&chunk[..count]);
                done += count as u64;
                bar.advance(count as u64);
            }
        } else {
            digest::feed(&mut digest, part)?;
        }
        if let Some(size) = remote.size.filter(|&size| done < size) {
            return Ok(Transfer::BrokeOff(format!("{done} of {size} bytes came")));
        }
        let sum = digest::hex(digest);
        match remote.sha256 {
            Some(expected) if sum != expected => {
                // Not a byte of it can be trusted.
                file.set_len(0).map_err(io)?;
                Ok(Transfer::BrokeOff(format!("its SHA-256 is {sum}, not {expected}")))
            }
            _ => Ok(Transfer::Whole),
        }
    }

    /// Asks for an address, from byte `from` on.
    fn get(&self, url: &str, id: &HubId, from: u64) -> Result<Response<ureq::Body>> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| {
            let message = format!("{}: the hub cannot be reached: {error}", id.name);
            Failure::new("hub_unreachable", message).hint(
                "check the network, `HF_ENDPOINT` and proxies, or name a folder or a `.gguf` file",
            )
        })?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            // What there is of it is all of it, or of another file: from the start again.
            416 if from > 0 => self.get(url, id, 0),
            status => {
                let code =
                    response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
                Err(explain(id, status, code, self.token.is_some()))
            }
        }
    }
}

/// How a transfer ended.
enum Transfer {
    Whole,
    BrokeOff(String),
}
