//! A reference that follows the policy.

use std::sync::Arc;

use compute::Backend;
use model::Adapter;
use model::adapter::LoadedAdapter;

use super::{Models, PartName, TrainingSetup};
use crate::Result;

impl Models {
    /// Fills in values of the reference that follow from the base, magnitudes say. Before the first step they are
    /// those of the policy.
    pub fn complete_reference(
        &self,
        backend: &mut dyn Backend,
        setup: &mut TrainingSetup,
    ) -> Result<()> {
        let own = own_adapter(setup);
        if own.values.iter().all(|values| !values.is_empty()) {
            return Ok(());
        }
        let policy = self.policy().values(backend, &self.decoder)?.adapter;
        for (own, policy) in own.values.iter_mut().zip(policy) {
            if own.is_empty() {
                *own = policy;
            }
        }
        Ok(())
    }

    /// Moves the reference to the policy as it is now: each value becomes `mix` of the policy's and `1 - mix` of its
    /// own. `setup` keeps the values too; checkpoints take them from there. The policy is active afterwards.
    pub fn refresh_reference(
        &mut self,
        backend: &mut dyn Backend,
        setup: &mut TrainingSetup,
        mix: f32,
    ) -> Result<()> {
        let policy = self.policy().values(backend, &self.decoder)?.adapter;
        let own = own_adapter(setup);
        for (own, policy) in own.values.iter_mut().zip(policy) {
            if mix == 1.0 {
                *own = policy;
                continue;
            }
            for (own, policy) in own.iter_mut().zip(policy) {
                *own = mix * policy + (1.0 - mix) * *own;
            }
        }

        // Rows of tokens are read from the base where an adapter is made.
        for adapter in self.parts.iter().filter_map(|part| part.adapter.as_ref()) {
            adapter.deactivate(backend, &self.decoder)?;
        }
        let part = self.parts.iter_mut().find(|part| part.name == PartName::Reference);
        let part = part.expect("the method compares with a reference");
        let old = part.adapter.take().expect("a reference that is refreshed has an adapter");
        let below = old.below();
        Arc::into_inner(old).expect("no other part stands on it").unload(backend);
        let adapter = Adapter::new(backend, &self.decoder, own.config.clone(), &own.values, None)?;
        part.adapter = Some(Arc::new(match below {
            Some(below) => adapter.over(below),
            None => adapter,
        }));
        self.activate(backend, PartName::Policy)
    }
}

/// The adapter on top of the reference, which no other part has.
fn own_adapter(setup: &mut TrainingSetup) -> &mut LoadedAdapter {
    let reference = setup.parts.iter_mut().find(|part| part.name == PartName::Reference);
    let adapters = &mut reference.expect("the method compares with a reference").adapters;
    Arc::make_mut(adapters.last_mut().expect("a reference that is refreshed has an adapter"))
}
