//! From tokens to the syntax tree: statements. Expressions are in [`expression`].

mod expression;

use std::sync::Arc;

use super::ast::{Applied, Expr, For, Macro, Name, Node, Parameter, Statement, Target};
use super::lexer::{Kind, Token, tokens};
use super::{Failure, Result, Template};

/// How deep statements and expressions may be nested: Python's own limit lies near it.
const MAX_DEPTH: usize = 120;

pub(super) fn parse(source: &str) -> Result<Template> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        names: super::names::ALL.map(Arc::from).to_vec(),
        special: Vec::new(),
        loops: 0,
        depth: 0,
        unknown: Vec::new(),
    };
    let (body, _) = parser.statements(&[])?;
    if let Some(failure) = parser.unknown.into_iter().next() {
        return Err(failure);
    }
    Ok(Template { body, names: parser.names })
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    names: Vec<Arc<str>>,
    /// For every macro that is open: whether it reads `caller`, `kwargs`, `varargs`.
    special: Vec<[bool; 3]>,
    /// How many loops are open in the innermost function.
    loops: usize,
    depth: usize,
    /// Filters and tests that do not exist. Within a condition they fail only once they are reached.
    unknown: Vec<Failure>,
}

const SPECIAL: [&str; 3] = ["caller", "kwargs", "varargs"];

impl Parser {
    fn current(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn following(&self) -> &Kind {
        let next = (self.at + 1).min(self.tokens.len() - 1);
        &self.tokens[next].kind
    }

    fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    fn advance(&mut self) {
        // The last token says that the source ends, and stays.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.current(), Kind::Operator(found) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Kind::Name(found) if found == name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{operator}`")))
        }
    }

    fn expect_name(&mut self) -> Result<String> {
        let Kind::Name(name) = self.current() else { return Err(self.unexpected("a name")) };
        let name = name.clone();
        self.advance();
        Ok(name)
    }

    fn expect_block_end(&mut self) -> Result<()> {
        if *self.current() != Kind::BlockEnd {
            return Err(self.unexpected("`%}`"));
        }
        self.advance();
        Ok(())
    }

    fn wrong(&self, message: impl Into<String>) -> Failure {
        Failure::at(self.line(), message)
    }

    fn unexpected(&self, expected: &str) -> Failure {
        let found = match self.current() {
            Kind::Data(_) => "text".into(),
            Kind::VariableBegin => "`{{`".into(),
            Kind::VariableEnd => "`}}`".into(),
            Kind::BlockBegin => "`{%`".into(),
            Kind::BlockEnd => "`%}`".into(),
            Kind::Name(name) => format!("`{name}`"),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Number(_) => "a number".into(),
            Kind::Operator(operator) => format!("`{operator}`"),
            Kind::End => "the end of the template".into(),
        };
        self.wrong(format!("expected {expected}, found {found}"))
    }

    fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.iter().position(|name| &**name == text) {
            return name;
        }
        self.names.push(text.into());
        self.names.len() - 1
    }

    /// Runs a part of the parser one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("the template is nested too deeply"));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to one of the tags that end them, which is given back; up to the end of the source where
    /// none is named.
    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        self.nested(|parser| parser.statements_until(ends))
    }

    fn statements_until(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        let mut body = Vec::new();
        loop {
            match self.current() {
                Kind::Data(text) => {
                    body.push(Statement::Text(text.as_str().into()));
                    self.advance();
                }
                Kind::VariableBegin => {
                    self.advance();
                    let expression = self.tuple(true, &[])?;
                    if *self.current() != Kind::VariableEnd {
                        return Err(self.unexpected("`}}`"));
                    }
                    self.advance();
                    body.push(Statement::Output(expression));
                }
                Kind::BlockBegin => {
                    self.advance();
                    let Kind::Name(tag) = self.current() else {
                        return Err(self.unexpected("a tag"));
                    };
                    let tag = tag.clone();
                    if ends.contains(&tag.as_str()) {
                        self.advance();
                        return Ok((body, tag));
                    }
                    self.statement(&tag, ends, &mut body)?;
                    self.expect_block_end()?;
                }
                Kind::End if ends.is_empty() => return Ok((body, String::new())),
                _ => {
                    return Err(
                        self.unexpected(&format!("`{{% {} %}}`", ends.join(" %}` or `{% ")))
                    );
                }
            }
        }
    }

    /// The body of a statement: from the end of its tag to the tag that ends it.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        self.skip_operator(":");
        self.expect_block_end()?;
        self.statements(ends)
    }

    fn statement(&mut self, tag: &str, ends: &[&str], body: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        self.advance();
        let statement = match tag {
            "if" => self.if_statement()?,
            "for" => self.for_statement(line)?,
            "set" => self.set_statement()?,
            "with" => self.with_statement()?,
            "macro" => self.macro_statement()?,
            "call" => self.call_block(line)?,
            "filter" => {
                let filters = self.filter_chain(true)?;
                Statement::FilterBlock(filters, self.function(&["endfilter"])?)
            }
            "block" => self.block_statement()?,
            "generation" => Statement::Scope(self.function(&["endgeneration"])?),
            "autoescape" => {
                if !(self.skip_name("false") || self.skip_name("False")) {
                    return Err(self.wrong("only `{% autoescape false %}` is supported"));
                }
                Statement::Scope(self.body(&["endautoescape"])?.0)
            }
            "print" => {
                let mut is_first = true;
                while *self.current() != Kind::BlockEnd {
                    if !is_first {
                        self.expect_operator(",")?;
                    }
                    is_first = false;
                    let expression = self.expression()?;
                    body.push(Statement::Output(expression));
                }
                return Ok(());
            }
            "break" | "continue" if self.loops == 0 => {
                return Err(Failure::at(line, format!("`{tag}` outside of a loop")));
            }
            "break" => Statement::Break,
            "continue" => Statement::Continue,
            "include" | "import" | "from" | "extends" => {
                let message = format!("`{{% {tag} %}}` needs other templates, and there are none");
                return Err(Failure::at(line, message));
            }
            _ => {
                let mut message = format!("unknown tag `{tag}`");
                if !ends.is_empty() {
                    message += &format!(", expected `{}`", ends.join("` or `"));
                }
                return Err(Failure::at(line, message));
            }
        };
        body.push(statement);
        Ok(())
    }

    fn if_statement(&mut self) -> Result<Statement> {
        let known = self.unknown.len();
        let statement = self.branches();
        self.unknown.truncate(known);
        statement
    }

    fn branches(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end.as_str() {
                "elif" => {}
                "else" => return Ok(Statement::If(branches, self.body(&["endif"])?.0)),
                _ => return Ok(Statement::If(branches, Vec::new())),
            }
        }
    }

    fn for_statement(&mut self, line: usize) -> Result<Statement> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let iterable = self.tuple(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let (body, end) = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = if end == "else" { self.body(&["endfor"])?.0 } else { Vec::new() };
        let statement = For { line, target, iterable, test, recursive, body, otherwise };
        Ok(Statement::For(Arc::new(statement)))
    }

    fn set_statement(&mut self) -> Result<Statement> {
        let target = self.target(&[], true)?;
        if self.skip_operator("=") {
            return Ok(Statement::Set(target, self.tuple(true, &[])?));
        }
        let filters = self.filter_chain(false)?;
        Ok(Statement::SetBlock(target, filters, self.body(&["endset"])?.0))
    }

    fn with_statement(&mut self) -> Result<Statement> {
        let mut values = Vec::new();
        while !matches!(self.current(), Kind::BlockEnd) && !self.is_operator(":") {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Statement::With(values, self.body(&["endwith"])?.0))
    }

    fn macro_statement(&mut self) -> Result<Statement> {
        let text = self.expect_name()?;
        let name = self.name(&text);
        let definition = self.definition(Some(text.as_str().into()), true, "endmacro")?;
        Ok(Statement::Macro(name, Arc::new(definition)))
    }

    fn call_block(&mut self, line: usize) -> Result<Statement> {
        let has_signature = self.is_operator("(");
        let parameters = if has_signature { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call.node, Node::Call(..)) {
            return Err(Failure::at(line, "expected a call"));
        }
        let definition = self.function_of(None, parameters, "endcall")?;
        Ok(Statement::CallBlock(Arc::new(definition), call))
    }

    fn block_statement(&mut self) -> Result<Statement> {
        let name = self.expect_name()?;
        let scoped = self.skip_name("scoped");
        self.skip_name("required");
        let body = self.function(&["endblock"])?;
        self.skip_name(&name);
        Ok(Statement::Block(scoped, body))
    }

    fn definition(&mut self, name: Option<Arc<str>>, signed: bool, end: &str) -> Result<Macro> {
        let parameters = if signed { self.signature()? } else { Vec::new() };
        self.function_of(name, parameters, end)
    }

    fn function_of(
        &mut self,
        name: Option<Arc<str>>,
        parameters: Vec<Parameter>,
        end: &str,
    ) -> Result<Macro> {
        self.special.push([false; 3]);
        let body = self.function(&[end]);
        let mut special = self.special.pop().unwrap_or_default();
        for (is_read, name) in special.iter_mut().zip(SPECIAL) {
            *is_read &= !parameters.iter().any(|parameter| &*parameter.text == name);
        }
        let [caller, kwargs, varargs] = special;
        Ok(Macro { name, parameters, body: body?, caller, kwargs, varargs })
    }

    /// The body of a statement that is a function of its own: a loop around it cannot be left from within.
    fn function(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        let loops = std::mem::take(&mut self.loops);
        let body = self.body(ends);
        self.loops = loops;
        Ok(body?.0)
    }

    fn signature(&mut self) -> Result<Vec<Parameter>> {
        self.expect_operator("(")?;
        let mut parameters: Vec<Parameter> = Vec::new();
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let text = self.expect_name()?;
            let name = self.name(&text);
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.iter().any(|parameter| parameter.default.is_some()) {
                return Err(self.wrong("a parameter without default follows one with a default"));
            }
            parameters.push(Parameter { name, text: text.into(), default });
        }
        Ok(parameters)
    }

    /// What is assigned to: a name, names, or an attribute of a namespace.
    fn target(&mut self, ends: &[&str], with_attribute: bool) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = match self.current() {
                Kind::VariableEnd | Kind::BlockEnd | Kind::Operator(")") => true,
                Kind::Name(name) => ends.contains(&name.as_str()),
                _ => false,
            };
            if at_end && is_tuple {
                break;
            }
            targets.push(self.single_target(with_attribute)?);
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.pop() {
            Some(target) if !is_tuple => Ok(target),
            last => {
                targets.extend(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn single_target(&mut self, with_attribute: bool) -> Result<Target> {
        if self.skip_operator("(") {
            let target = self.nested(|parser| parser.target(&[], with_attribute))?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let line = self.line();
        let text = self.expect_name()?;
        if matches!(text.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(Failure::at(line, format!("cannot assign to `{text}`")));
        }
        let name = self.name(&text);
        if with_attribute && self.skip_operator(".") {
            let attribute = self.expect_name()?;
            return Ok(Target::Attribute(name, attribute.into(), line));
        }
        Ok(Target::Name(name))
    }

    /// `filter | filter`, where the first is not behind a `|` if it begins the chain.
    fn filter_chain(&mut self, begins: bool) -> Result<Vec<Applied>> {
        let mut filters = Vec::new();
        let mut begins = begins;
        while begins || self.skip_operator("|") {
            filters.push(self.filter()?);
            begins = false;
        }
        Ok(filters)
    }

    fn read_name(&mut self, text: &str) -> Node {
        if let Some(index) = SPECIAL.iter().position(|special| *special == text) {
            self.special.iter_mut().for_each(|special| special[index] = true);
        }
        Node::Name(self.name(text))
    }

    fn expression(&mut self) -> Result<Expr> {
        self.nested(Self::conditional)
    }
}
