//! What crosses files: goldens of transformers, vocabularies of llama.cpp, whole folders.

mod chat_templates;
mod fast_path;
mod folder;
mod jinja;
mod shared;
mod tokenizer;
mod tokenizer_files;
