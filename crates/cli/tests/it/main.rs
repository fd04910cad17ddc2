//! The binary as a person and a program meet it: what it prints, and how it ends.

mod house;
#[path = "../../../hub/src/test_server.rs"]
mod server;
#[path = "../../../session/tests/it/tiny.rs"]
mod tiny;

mod bench;
mod chat;
mod check;
mod distill;
mod examples;
mod generate;
mod help;
mod hub;
mod init;
mod limits;
mod merge;
mod moved;
mod pairs;
mod plan;
mod quickstart;
mod recipe;
mod score;
mod show;
mod together;
mod train;
mod written;
