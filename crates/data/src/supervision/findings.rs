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
    level: Level::Error,
    message: "the row begins with two beginning-of-sequence tokens",
    hint: "remove the one in the data",
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

pub(super) const MISSING_BOS: Kind = Kind {
    id: "missing-bos",
    level: Level::Warning,
    message: "the row does not begin with the beginning-of-sequence token that the model's tokenizer puts first",
    hint: "use the chat template that belongs to the model",
};
pub(super) const UNKNOWN_TOKENS: Kind = Kind {
    id: "unknown-tokens",
    level: Level::Warning,
    message: "the tokenizer does not know some of the row's characters",
    hint: "train a model whose tokenizer covers this language, or clean the text",
};
pub(super) const SERVED_DIFFERENTLY: Kind = Kind {
    id: "served-differently",
    level: Level::Warning,
    message: "serving feeds other tokens before the last answer than the row has",
    hint: "an earlier answer begins or ends with white space that joins its neighbour: trim it",
};
pub(super) const EMPTY_GENERATION_PROMPT: Kind = Kind {
    id: "empty-generation-prompt",
    level: Level::Warning,
    message: "the template has no generation prompt, so that the model must open its turn by itself",
    hint: "use a template that writes the opening of the turn under `add_generation_prompt`",
};
pub(super) const REASONING_LEFT_OUT: Kind = Kind {
    id: "reasoning-left-out",
    level: Level::Warning,
    message: "the chat template does not show the reasoning of the turn, so that it is not learned",
    hint: "use a reasoning model's template, or say `reasoning: strip`",
};
pub(super) const REASONING_AFTER_CLOSED: Kind = Kind {
    id: "reasoning-after-closed",
    level: Level::Error,
    message: "the generation prompt closes the reasoning, and the turn has reasoning behind it",
    hint: "take it out with `data.reasoning: strip`, or leave thinking on (`enable_thinking: true`)",
};
pub(super) const ANSWER_NOT_LEARNED: Kind = Kind {
    id: "answer-not-learned",
    level: Level::Error,
    message: "the chat template does not write the answer as the row has it, so that it is not learned",
    hint: "look at the rendered row, and use the chat template that belongs to the model",
};
pub(super) const CALL_NOT_LEARNED: Kind = Kind {
    id: "call-not-learned",
    level: Level::Error,
    message: "the chat template does not write a call as the row has it, so that it is not learned",
    hint: "look at the rendered row, and use a model whose template knows `tool_calls`",
};
pub(super) const TEXT_LEFT_OUT: Kind = Kind {
    id: "text-left-out",
    level: Level::Warning,
    message: "the chat template leaves out the text beside a call, so that it is not learned",
    hint: "the model will call without a word; put the text into a turn of its own, or remove it",
};
pub(super) const LEARNED_TWICE: Kind = Kind {
    id: "learned-twice",
    level: Level::Warning,
    message: "the chat template writes a part of the turn twice",
    hint: "look at the rendered row, and use the chat template that belongs to the model",
};
pub(super) const REASONING_LEFT_OPEN: Kind = Kind {
    id: "reasoning-left-open",
    level: Level::Warning,
    message: "the generation prompt opens the reasoning, which the answer does not close",
    hint: "give the answers their reasoning, or turn it off in the template (`enable_thinking: false`)",
};
pub(super) const NO_END_OF_TEXT: Kind = Kind {
    id: "no-end-of-text",
    level: Level::Warning,
    message: "the model has no end-of-sequence token to end a document with",
    hint: "name it as `eos_token` in tokenizer_config.json",
};
pub(super) const TURN_WITHOUT_END: Kind = Kind {
    id: "turn-without-end",
    level: Level::Warning,
    message: "some turn of the conversation has no end-of-turn token",
    hint: "look at the rendered row: the template treats the turn in another way than the others",
};
pub(crate) const NO_END_OF_TURN: Kind = Kind {
    id: "no-end-of-turn",
    level: Level::Error,
    message: "an answer has no end-of-turn token: the model does not learn when to stop",
    hint: "use a chat template that ends assistant turns with a special token",
};
