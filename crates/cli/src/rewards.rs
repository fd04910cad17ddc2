//! Rewards that need a network: an address, and a judge behind an OpenAI-compatible endpoint.

mod http;
mod judge;

use train::reward::{RewardKind, RewardSettings, RewardSource};

use crate::context::Context;
use crate::error::Failure;
use http::Http;
use judge::Judge;

/// Makes the sources of rewards that training itself cannot reach, as [`train::reward::Rewards::open`] asks for them.
/// A judge that nothing is known of at its address is told at once.
pub(crate) fn external(
    context: &Context,
) -> impl FnMut(&RewardSettings) -> train::Result<Box<dyn RewardSource>> + '_ {
    let mut reached: Vec<String> = Vec::new();
    move |settings| {
        if context.global.offline {
            let message = format!("{}: the network is forbidden", settings.key);
            let hint =
                "leave out `--offline`, or let a grader or program give the reward".to_owned();
            return Err(train::Error::Refused { message, hint: Some(hint) });
        }
        match &settings.kind {
            RewardKind::Http(address) => Ok(Box::new(Http::new(address, settings, context))),
            RewardKind::Judge(judge) => {
                let source = Judge::new(judge, settings, context);
                if !reached.contains(&judge.endpoint) {
                    source.reach().map_err(refused)?;
                    reached.push(judge.endpoint.clone());
                }
                Ok(Box::new(source))
            }
            kind => unreachable!("training makes {kind:?} itself"),
        }
    }
}

fn refused(failure: Failure) -> train::Error {
    train::Error::Refused { message: failure.message, hint: failure.hint }
}

#[cfg(test)]
mod tests;
