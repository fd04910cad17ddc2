//! How preparing rows is ended before it is done.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// Asks whether to stop, between two rows. By default nothing ever does.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Stops once `asked` says so, on whichever thread asks.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Stop(Some(Arc::new(asked)))
    }

    /// Whether to stop now.
    pub fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }

    /// [`Error::Interrupted`] where it is time to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_asked() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stop")
    }
}

/// Any two are equal: what is prepared does not depend on them.
impl PartialEq for Stop {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
