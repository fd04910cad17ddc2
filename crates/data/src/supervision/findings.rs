//! What supervision has to say about rows that it can use.

use crate::Level;
use crate::finding::Kind;

pub(super) const TURN_OF_ITS_OWN: Kind = Kind {
    id: "turn-of-its-own",
    level: Level::Note,
    message: "the template renders earlier turns differently once the dialogue goes on; \
              each turn is a row of its own",
    hint: "this is exact, and costs the tokens of the repeated context unless they are shared",
};
pub(super) const SPLIT_TOKENS: Kind = Kind {
    id: "split-tokens",
    level: Level::Note,
    message: "the text in one piece has other tokens than prompt and answer",
    hint: "the row is tokenised as serving does: first the prompt, then what the model emits",
};
pub(super) const DOUBLE_BOS: Kind = Kind {
    id: "double-bos",
    level: Level::Warning,
    message: "the row begins with two beginning-of-sequence tokens",
    hint: "remove the one that the data bring",
};
pub(super) const END_IS_NOT_EOS: Kind = Kind {
    id: "end-is-not-eos",
    level: Level::Warning,
    message: "turns end with a token at which the model does not stop",
    hint: "add the token to `eos_token_id` in generation_config.json",
};
pub(super) const SPECIAL_TOKEN_IN_TEXT: Kind = Kind {
    id: "special-token-in-text",
    level: Level::Warning,
    message: "a message contains a special token of the model as text",
    hint: "remove it, unless it is meant: the model reads it as control",
};
pub(super) const TOOLS_IGNORED: Kind = Kind {
    id: "tools-ignored",
    level: Level::Warning,
    message: "the row offers tools, which the chat template does not show to the model",
    hint: "use a model whose template knows `tools`",
};
pub(super) const MESSAGE_REWRITTEN: Kind = Kind {
    id: "message-rewritten",
    level: Level::Warning,
    message: "the chat template leaves out or rewrites a message",
    hint: "look at the rendered row, and write the message as the template takes it",
};

/// Raised to an error where it is true of every row.
pub(crate) const NO_END_OF_TURN: Kind = Kind {
    id: "no-end-of-turn",
    level: Level::Warning,
    message: "an answer has no end-of-turn token: the model does not learn when to stop",
    hint: "use a chat template that ends assistant turns with a special token",
};
