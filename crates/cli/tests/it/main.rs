//! The binary as a person and a program meet it: what it prints, and how it ends.

mod house;

mod chat;
mod generate;
mod help;
mod init;
mod quickstart;
mod recipe;
mod train;
