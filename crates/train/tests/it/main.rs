//! Objectives and schedules against PyTorch, gradients of whole steps, and whole runs on a small
//! model: finished, stopped, killed, resumed, refused.

mod engine;
mod mistakes;
mod objectives;
mod recipe;
mod resume;
mod run;
mod start;
mod support;
