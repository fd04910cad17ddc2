//! Objectives and schedules against PyTorch, gradients of whole steps, and whole runs on a small
//! model: finished, stopped, killed, resumed, refused.

mod accumulated;
mod advantages;
mod breadth;
mod checkpoint;
mod classify;
mod damage;
mod distill;
mod engine;
mod environments;
mod findings;
mod fused;
mod kl_estimators;
mod mistakes;
mod objectives;
mod online_methods;
mod optimizer;
mod plan;
mod policy_gradient;
mod preference_curves;
mod preference_losses;
mod preferences;
mod recipe;
mod reference;
mod resume;
mod rewards;
mod rollout_curves;
mod rollouts;
mod run;
mod start;
mod support;
mod tied;
mod trial;
mod update_curves;
mod whole;
