//! Recipes as users write them, against a small set of keys like the real ones.

mod fixture;

mod document;
mod emit;
mod mistakes;
mod overrides;
mod resume;
mod shown;
