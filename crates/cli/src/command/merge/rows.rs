//! Rows of tokens at which models are compared: the run's own, else a few fixed texts.

use data::Sequences;
use serde_json::{Map, Value};
use text::{Message, Metadata, RenderOptions};

use super::origin::Origin;
use crate::context::Context;
use crate::error::{Failure, Result};

/// Tokens that are compared at, unless there are fewer.
const READS: usize = 2048;

/// Only the beginning of a longer row is taken.
const ROW_TOKENS: usize = 512;

/// Rows of tokens, and what they are of.
pub(super) struct Rows {
    pub(super) tokens: Vec<Vec<u32>>,
    pub(super) what: &'static str,
}

impl Rows {
    /// Validation rows of the run, else its training rows, else fixed texts.
    pub(super) fn choose(context: &Context, origin: &Origin) -> Result<Self> {
        let date = origin.date(context);
        let metadata = origin.base.metadata_with(Some(&origin.adapter), date)?;
        let kwargs = origin.own.template_kwargs.clone();
        let rows = match of_run(context, origin, &metadata) {
            Some(Ok(rows)) => rows,
            Some(Err(failure)) => {
                let message = failure.message;
                context.terminal.note(&format!("cannot read the rows of the run: {message}"));
                fixed(&metadata, &kwargs)?
            }
            None => fixed(&metadata, &kwargs)?,
        };
        let vocab = origin.base.config.vocab_size.max(metadata.tokenizer.vocab_size());
        match rows.tokens.iter().flatten().find(|&&token| token as usize >= vocab) {
            None => Ok(rows),
            Some(token) => {
                let message = format!("token {token} is beyond the model's {vocab}");
                Err(Failure::new("tokenizer", message)
                    .hint("the tokenizer does not belong to this model"))
            }
        }
    }
}

/// Rows that the run was validated or trained on; none where the adapter lies in no run.
fn of_run(context: &Context, origin: &Origin, metadata: &Metadata) -> Option<Result<Rows>> {
    let document = origin.recipe.as_ref()?;
    let prepare = || -> Result<Rows> {
        let (threads, access) = (context.threads(), context.data_access());
        let prepared = train::trainer::rows(document, metadata, threads, &access)?;
        let (rows, what) = match prepared.validation.is_empty() {
            false => (prepared.validation, "the run's validation rows"),
            true => (prepared.train, "the run's training rows"),
        };
        Ok(Rows { tokens: spread(&rows)?, what })
    };
    Some(prepare())
}

/// Evenly spread rows with about as many tokens as are wanted.
fn spread(rows: &Sequences) -> Result<Vec<Vec<u32>>> {
    let mut total = 0;
    rows.each(|outline| total += outline.tokens.min(ROW_TOKENS))?;
    let step = (total / READS).max(1);
    let first = |row: usize| -> Result<Vec<u32>> {
        let mut tokens = rows.get(row)?.tokens;
        tokens.truncate(ROW_TOKENS);
        Ok(tokens)
    };
    (0..rows.len()).step_by(step).map(first).collect()
}

/// The fixed texts as the model reads them: a dialogue each where it has a chat template.
fn fixed(metadata: &Metadata, kwargs: &Map<String, Value>) -> Result<Rows> {
    let mut tokens = Vec::new();
    for (question, answer) in TEXTS {
        let row = match &metadata.chat_template {
            Some(template) => {
                let messages =
                    [Message::new("user", *question), Message::new("assistant", *answer)];
                let options = RenderOptions { kwargs: Some(kwargs), ..RenderOptions::default() };
                metadata.tokenizer.encode(&template.render(&messages, &options)?)?
            }
            None => metadata.tokenizer.encode_with_special(&format!("{question}\n{answer}"))?,
        };
        tokens.push(row[..row.len().min(ROW_TOKENS)].to_vec());
    }
    Ok(Rows { tokens, what: "fixed texts" })
}

/// Questions and answers of many kinds.
const TEXTS: &[(&str, &str)] = &[
    (
        "Why is the sky blue?",
        "Sunlight holds all colours. The molecules of the air scatter short waves far more than \
         long ones, so blue light reaches the eye from every part of the sky while red light \
         mostly goes straight on. Near the horizon in the evening the path through the air is \
         long, most of the blue is lost on the way, and what is left looks orange.",
    ),
    (
        "Write a function in Python that says whether a word is a palindrome.",
        "```python\ndef is_palindrome(word: str) -> bool:\n    letters = [c.lower() for c in word if \
         c.isalpha()]\n    return letters == letters[::-1]\n```\nIt ignores case and everything \
         that is not a letter, so `is_palindrome(\"Never odd or even\")` is `True`.",
    ),
    (
        "A train leaves at 14:35 and needs 2 hours and 50 minutes. When does it arrive?",
        "Two hours after 14:35 it is 16:35. Fifty minutes more: 16:35 + 0:25 = 17:00, and 25 \
         minutes remain, so it arrives at 17:25.",
    ),
    (
        "Translate into German and French: The library is closed on Mondays.",
        "German: Die Bibliothek ist montags geschlossen.\nFrench: La bibliothèque est fermée le \
         lundi.",
    ),
    (
        "Give me the order as JSON: two kilos of apples and a loaf of rye bread, delivered to 12 \
         Mill Lane on Friday.",
        "{\"items\": [{\"name\": \"apples\", \"quantity\": 2, \"unit\": \"kg\"}, {\"name\": \"rye \
         bread\", \"quantity\": 1, \"unit\": \"loaf\"}], \"address\": \"12 Mill Lane\", \"day\": \
         \"Friday\"}",
    ),
    (
        "Summarise in one sentence: The council met on Tuesday. After three hours it voted nine \
         to four for a new bridge, which will cost eleven million and open in two years.",
        "After three hours of debate on Tuesday the council approved, by nine votes to four, an \
         eleven-million bridge that is to open in two years.",
    ),
    (
        "Is the tone of this review good or bad? \"The room was clean, but nobody answered the \
         phone and breakfast was cold.\"",
        "Mostly bad: one point of praise, the clean room, stands against two complaints, the \
         unanswered phone and the cold breakfast.",
    ),
    (
        "Who was Ada Lovelace?",
        "Ada Lovelace (1815-1852) was an English mathematician. In 1843 she translated a paper on \
         Charles Babbage's Analytical Engine and added notes longer than the paper itself; one of \
         them describes how the machine could compute Bernoulli numbers, and is often called the \
         first published program.",
    ),
    (
        "How do I get a red wine stain out of a cotton shirt?",
        "1. Blot it with a cloth; do not rub.\n2. Rinse it from the back with cold water.\n3. \
         Cover it with salt or soda and wait ten minutes.\n4. Wash it as warm as the label allows, \
         and check before drying: heat sets what is left.",
    ),
    (
        "Write four lines about the sea in winter.",
        "Grey over grey, the water meets the air,\nthe gulls hang still, the boats are drawn \
         ashore;\na single lamp is burning on the stair\nof one shut house, and nothing moves but \
         the roar.",
    ),
    (
        "What is the difference between a virus and a bacterium?",
        "A bacterium is a living cell that feeds, grows and divides by itself; many are harmless \
         or useful. A virus is far smaller, genes in a shell of protein, and can multiply only \
         inside the cells of a host. Antibiotics act on bacteria and do nothing against viruses.",
    ),
    (
        "Solve for x: 3x + 7 = 2x - 5",
        "Subtract 2x from both sides: x + 7 = -5. Subtract 7: x = -12. Check: 3(-12) + 7 = -29 \
         and 2(-12) - 5 = -29.",
    ),
    (
        "Draft a short e-mail that moves a meeting from Wednesday to Thursday.",
        "Subject: Meeting moved to Thursday\n\nHello everyone,\n\na clash in the calendar means \
         that we cannot meet on Wednesday. Could we take Thursday at the same time, 10:30, in the \
         same room? Please tell me by noon tomorrow if that does not suit you.\n\nBest \
         regards,\nMara",
    ),
    (
        "SELECT the three customers with the highest total from a table orders(customer, amount).",
        "```sql\nSELECT customer, SUM(amount) AS total\nFROM orders\nGROUP BY customer\nORDER BY \
         total DESC\nLIMIT 3;\n```",
    ),
    (
        "¿Cuál es la capital de Australia?",
        "La capital de Australia es Canberra. Mucha gente piensa en Sídney, que es la ciudad más \
         grande, pero Canberra se construyó a principios del siglo XX precisamente para ser la \
         capital.",
    ),
    (
        "Explain compound interest to a child.",
        "Imagine that you put ten coins into a box, and every year the box adds one coin for each \
         ten that are in it. After the first year there are eleven. The year after, the box also \
         counts the coin that it gave you before. The longer you wait, the faster it grows, \
         because the coins you were given earn coins too.",
    ),
];
