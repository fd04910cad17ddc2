//! Expressions, with Jinja's precedence: `or`, `and`, `not`, comparisons, `+ -`, `~`, `* / // %`, `**`, signs,
//! then what follows a value (`.x`, `[x]`, calls) and filters and tests.

use super::super::ast::{
    Applied, Arguments, Comparison, Conditional, Constant, Expr, Node, Operator,
};
use super::super::lexer::Kind;
use super::super::{Failure, Result, filters, predicates};
use super::Parser;

fn boxed(left: Expr, right: Expr) -> Box<(Expr, Expr)> {
    Box::new((left, right))
}

impl Parser {
    /// Expressions with commas between them are a tuple.
    pub(super) fn tuple(&mut self, with_conditional: bool, ends: &[&str]) -> Result<Expr> {
        self.tuple_of(with_conditional, ends, false)
    }

    fn tuple_of(
        &mut self,
        with_conditional: bool,
        ends: &[&str],
        in_parentheses: bool,
    ) -> Result<Expr> {
        let line = self.line();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = match self.current() {
                Kind::VariableEnd | Kind::BlockEnd | Kind::Operator(")") => true,
                Kind::Name(name) => ends.contains(&name.as_str()),
                _ => false,
            };
            if at_end {
                break;
            }
            items.push(if with_conditional { self.expression()? } else { self.nested(Self::or)? });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            None if !in_parentheses => Err(self.unexpected("an expression")),
            last => {
                items.extend(last);
                Ok(Expr { line, node: Node::Tuple(items) })
            }
        }
    }

    pub(super) fn conditional(&mut self) -> Result<Expr> {
        let known = self.unknown.len();
        let mut then = self.or()?;
        let mut parts = 0;
        while self.is_name("if") {
            self.long_chain(&mut parts)?;
            let line = self.line();
            self.advance();
            let test = self.or()?;
            let otherwise =
                if self.skip_name("else") { Some(self.nested(Self::conditional)?) } else { None };
            self.unknown.truncate(known);
            let node = Node::Conditional(Box::new(Conditional { test, then, otherwise }));
            then = Expr { line, node };
        }
        Ok(then)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        let mut parts = 0;
        while self.skip_name("or") {
            self.long_chain(&mut parts)?;
            let right = self.and()?;
            left = Expr { line: left.line, node: Node::Or(boxed(left, right)) };
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        let mut parts = 0;
        while self.skip_name("and") {
            self.long_chain(&mut parts)?;
            let right = self.not()?;
            left = Expr { line: left.line, node: Node::And(boxed(left, right)) };
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.skip_name("not") {
            let value = self.nested(Self::not)?;
            return Ok(Expr { line, node: Node::Not(Box::new(value)) });
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.current() {
                Kind::Operator("==") => Comparison::Equal,
                Kind::Operator("!=") => Comparison::NotEqual,
                Kind::Operator("<") => Comparison::Less,
                Kind::Operator("<=") => Comparison::LessOrEqual,
                Kind::Operator(">") => Comparison::Greater,
                Kind::Operator(">=") => Comparison::GreaterOrEqual,
                Kind::Name(name) if name == "in" => Comparison::In,
                Kind::Name(name)
                    if name == "not"
                        && matches!(self.following(), Kind::Name(next) if next == "in") =>
                {
                    self.advance();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.advance();
            rest.push((comparison, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expr { line: first.line, node: Node::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.concat()?;
        let mut terms = 0;
        loop {
            let operator = match self.current() {
                Kind::Operator("+") => Operator::Add,
                Kind::Operator("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.long_chain(&mut terms)?;
            self.advance();
            let right = self.concat()?;
            left = Expr { line: left.line, node: Node::Binary(operator, boxed(left, right)) };
        }
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let line = first.line;
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expr { line, node: Node::Concat(parts) })
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.power()?;
        let mut factors = 0;
        loop {
            let operator = match self.current() {
                Kind::Operator("*") => Operator::Multiply,
                Kind::Operator("/") => Operator::Divide,
                Kind::Operator("//") => Operator::FloorDivide,
                Kind::Operator("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.long_chain(&mut factors)?;
            self.advance();
            let right = self.power()?;
            left = Expr { line: left.line, node: Node::Binary(operator, boxed(left, right)) };
        }
    }

    fn power(&mut self) -> Result<Expr> {
        let mut left = self.unary(true)?;
        let mut factors = 0;
        while self.is_operator("**") {
            self.long_chain(&mut factors)?;
            self.advance();
            let right = self.unary(true)?;
            left =
                Expr { line: left.line, node: Node::Binary(Operator::Power, boxed(left, right)) };
        }
        Ok(left)
    }

    /// A chain of operators is a tree as deep as it is long, so that its length has a limit.
    fn long_chain(&self, length: &mut usize) -> Result<()> {
        *length += 1;
        if *length > 200 { Err(self.wrong("the expression is too long")) } else { Ok(()) }
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let mut value = if self.skip_operator("-") {
            let value = self.nested(|parser| parser.unary(false))?;
            Expr { line, node: Node::Negative(Box::new(value)) }
        } else if self.skip_operator("+") {
            let value = self.nested(|parser| parser.unary(false))?;
            Expr { line, node: Node::Positive(Box::new(value)) }
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if with_filters {
            value = self.filters_and_tests(value)?;
        }
        Ok(value)
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let node = match self.current() {
            Kind::Name(name) => {
                let name = name.clone();
                self.advance();
                match name.as_str() {
                    "true" | "True" => Node::Constant(Constant::Bool(true)),
                    "false" | "False" => Node::Constant(Constant::Bool(false)),
                    "none" | "None" => Node::Constant(Constant::None),
                    name => self.read_name(name),
                }
            }
            Kind::Text(_) => {
                let mut text = String::new();
                while let Kind::Text(part) = self.current() {
                    text.push_str(part);
                    self.advance();
                }
                Node::Constant(Constant::Text(text.into()))
            }
            Kind::Number(number) => {
                let constant = number.constant();
                self.advance();
                Node::Constant(constant)
            }
            Kind::Operator("(") => {
                self.advance();
                let value = self.tuple_of(true, &[], true)?;
                self.expect_operator(")")?;
                return Ok(value);
            }
            Kind::Operator("[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_operator("]") {
                    items.push(self.expression()?);
                    if !self.skip_operator(",") {
                        break;
                    }
                }
                self.expect_operator("]")?;
                Node::List(items)
            }
            Kind::Operator("{") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_operator("}") {
                    let key = self.expression()?;
                    self.expect_operator(":")?;
                    items.push((key, self.expression()?));
                    if !self.skip_operator(",") {
                        break;
                    }
                }
                self.expect_operator("}")?;
                Node::Dict(items)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expr { line, node })
    }

    fn postfix(&mut self, value: Expr) -> Result<Expr> {
        let mut value = value;
        let mut parts = 0;
        loop {
            let line = self.line();
            let node = if self.skip_operator(".") {
                self.attribute(value)?
            } else if self.skip_operator("[") {
                let node = self.subscript(value)?;
                self.expect_operator("]")?;
                node
            } else if self.is_operator("(") {
                Node::Call(Box::new(value), self.arguments()?)
            } else {
                return Ok(value);
            };
            self.long_chain(&mut parts)?;
            value = Expr { line, node };
        }
    }

    fn attribute(&mut self, value: Expr) -> Result<Node> {
        let line = self.line();
        let node = match self.current() {
            Kind::Name(name) => Node::Attribute(Box::new(value), name.as_str().into()),
            Kind::Number(number) if matches!(number.constant(), Constant::Int(_)) => {
                let index = Expr { line, node: Node::Constant(number.constant()) };
                Node::Item(boxed(value, index))
            }
            _ => return Err(self.unexpected("a name or a number")),
        };
        self.advance();
        Ok(node)
    }

    fn subscript(&mut self, value: Expr) -> Result<Node> {
        let line = self.line();
        let first = if self.is_operator(":") { None } else { Some(self.expression()?) };
        if self.skip_operator(":") {
            let has_end = |parser: &Self| !parser.is_operator(":") && !parser.is_operator("]");
            let second = if has_end(self) { Some(self.expression()?) } else { None };
            let third = if self.skip_operator(":") && !self.is_operator("]") {
                Some(self.expression()?)
            } else {
                None
            };
            return Ok(Node::Slice(Box::new(value), Box::new([first, second, third])));
        }
        let Some(first) = first else { return Err(self.unexpected("an expression")) };
        if !self.is_operator(",") {
            return Ok(Node::Item(boxed(value, first)));
        }
        let mut items = vec![first];
        while self.skip_operator(",") && !self.is_operator("]") {
            items.push(self.expression()?);
        }
        let index = Expr { line, node: Node::Tuple(items) };
        Ok(Node::Item(boxed(value, index)))
    }

    fn filters_and_tests(&mut self, value: Expr) -> Result<Expr> {
        let mut value = value;
        let mut parts = 0;
        loop {
            let line = self.line();
            let node = if self.skip_operator("|") {
                Node::Filter(Box::new(value), self.filter()?)
            } else if self.skip_name("is") {
                let negated = self.skip_name("not");
                let node = Node::Test(Box::new(value), self.test(line)?);
                if negated { Node::Not(Box::new(Expr { line, node })) } else { node }
            } else if self.is_operator("(") {
                Node::Call(Box::new(value), self.arguments()?)
            } else {
                return Ok(value);
            };
            self.long_chain(&mut parts)?;
            value = Expr { line, node };
        }
    }

    pub(super) fn filter(&mut self) -> Result<Applied> {
        let line = self.line();
        let name = self.dotted_name()?;
        if !filters::NAMES.contains(&name.as_str()) {
            self.unknown.push(Failure::at(line, format!("no filter named '{name}'")));
        }
        let arguments =
            if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(Applied { line, name: name.into(), arguments })
    }

    fn test(&mut self, line: usize) -> Result<Applied> {
        let name = self.dotted_name()?;
        if !predicates::NAMES.contains(&name.as_str()) {
            self.unknown.push(Failure::at(line, format!("no test named '{name}'")));
        }
        let has_argument = match self.current() {
            Kind::Name(name) if name == "is" => {
                return Err(self.wrong("tests cannot be chained with `is`"));
            }
            Kind::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Kind::Text(_) | Kind::Number(_) => true,
            Kind::Operator(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        };
        let mut arguments = Arguments::default();
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if has_argument {
            let argument = self.nested(|parser| {
                let value = parser.primary()?;
                parser.postfix(value)
            })?;
            arguments.positional.push(argument);
        }
        Ok(Applied { line, name: name.into(), arguments })
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    fn arguments(&mut self) -> Result<Arguments> {
        let line = self.line();
        let wrong = || Failure::at(line, "invalid arguments of a call");
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        while !self.is_operator(")") {
            let plain = arguments.more_positional.is_none() && arguments.more_named.is_none();
            if self.skip_operator("*") {
                if !plain {
                    return Err(wrong());
                }
                arguments.more_positional = Some(Box::new(self.expression()?));
            } else if self.skip_operator("**") {
                if arguments.more_named.is_some() {
                    return Err(wrong());
                }
                arguments.more_named = Some(Box::new(self.expression()?));
            } else if let Kind::Name(name) = self.current()
                && *self.following() == Kind::Operator("=")
            {
                let name = name.as_str().into();
                if arguments.more_named.is_some() {
                    return Err(wrong());
                }
                self.advance();
                self.advance();
                arguments.named.push((name, self.expression()?));
            } else {
                if !plain || !arguments.named.is_empty() {
                    return Err(wrong());
                }
                arguments.positional.push(self.expression()?);
            }
            if !self.skip_operator(",") {
                break;
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }
}
