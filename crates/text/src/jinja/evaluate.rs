//! Evaluates expressions.

use std::rc::Rc;

use super::arithmetic::{binary, negative, positive};
use super::ast::{Arguments, Comparison, Constant, Expr, Node};
use super::call::Args;
use super::compare;
use super::interpreter::{Interpreter, Scope};
use super::repr::write_str;
use super::value::{Dict, Value};
use super::{Failure, Result, attribute};

impl Interpreter<'_> {
    pub(super) fn evaluate(&mut self, expression: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match &expression.node {
            Node::Constant(constant) => Ok(value(constant)),
            Node::Name(name) => Ok(self.variable(*name, scope)),
            node => self
                .nested(|interpreter| interpreter.node(node, scope))
                .map_err(|failure| failure.within(expression.line)),
        }
    }

    fn node(&mut self, node: &Node, scope: &Rc<Scope>) -> Result<Value> {
        match node {
            Node::Constant(constant) => Ok(value(constant)),
            Node::Name(name) => Ok(self.variable(*name, scope)),
            Node::List(items) => Ok(Value::list(self.all(items, scope)?)),
            Node::Tuple(items) => Ok(Value::tuple(self.all(items, scope)?)),
            Node::Dict(entries) => self.dict(entries, scope),
            Node::Not(inner) => Ok(Value::Bool(!self.evaluate(inner, scope)?.is_true())),
            Node::Negative(inner) => negative(&self.evaluate(inner, scope)?),
            Node::Positive(inner) => positive(&self.evaluate(inner, scope)?),
            Node::And(both) => {
                let left = self.evaluate(&both.0, scope)?;
                if left.is_true() { self.evaluate(&both.1, scope) } else { Ok(left) }
            }
            Node::Or(both) => {
                let left = self.evaluate(&both.0, scope)?;
                if left.is_true() { Ok(left) } else { self.evaluate(&both.1, scope) }
            }
            Node::Binary(operator, both) => {
                let left = self.evaluate(&both.0, scope)?;
                binary(*operator, &left, &self.evaluate(&both.1, scope)?)
            }
            Node::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    write_str(&mut text, &self.evaluate(part, scope)?);
                }
                Ok(Value::text(text))
            }
            Node::Compare(first, rest) => self.compare(first, rest, scope),
            Node::Conditional(parts) => {
                if self.evaluate(&parts.test, scope)?.is_true() {
                    return self.evaluate(&parts.then, scope);
                }
                match &parts.otherwise {
                    Some(otherwise) => self.evaluate(otherwise, scope),
                    None => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined.",
                    )),
                }
            }
            Node::Attribute(object, name) => {
                let object = self.evaluate(object, scope)?;
                self.attribute(&object, name)
            }
            Node::Item(both) => {
                let object = self.evaluate(&both.0, scope)?;
                let key = self.evaluate(&both.1, scope)?;
                self.item(&object, &key)
            }
            Node::Slice(object, bounds) => {
                let object = self.evaluate(object, scope)?;
                let mut values = [None, None, None];
                for (value, bound) in values.iter_mut().zip(bounds.iter()) {
                    *value = bound.as_ref().map(|bound| self.evaluate(bound, scope)).transpose()?;
                }
                attribute::slice(&object, &values)
            }
            Node::Call(callee, arguments) => {
                let callee = self.evaluate(callee, scope)?;
                let args = self.args(arguments, scope)?;
                self.call(&callee, args)
            }
            Node::Filter(value, filter) => {
                let value = self.evaluate(value, scope)?;
                let args = self.args(&filter.arguments, scope)?;
                self.filter(&filter.name, value, args)
            }
            Node::Test(value, test) => {
                let value = self.evaluate(value, scope)?;
                let args = self.args(&test.arguments, scope)?;
                Ok(Value::Bool(self.test(&test.name, &value, args)?))
            }
        }
    }

    fn all(&mut self, expressions: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        expressions.iter().map(|expression| self.evaluate(expression, scope)).collect()
    }

    fn dict(&mut self, entries: &[(Expr, Expr)], scope: &Rc<Scope>) -> Result<Value> {
        let mut dict = Dict::default();
        for (key, value) in entries {
            let key = self.evaluate(key, scope)?;
            let value = self.evaluate(value, scope)?;
            key.check_hashable()?;
            dict.insert(key, value);
        }
        Ok(Value::dict(dict))
    }

    /// A chain of comparisons, up to the first that does not hold.
    fn compare(
        &mut self,
        first: &Expr,
        rest: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.evaluate(first, scope)?;
        for (comparison, expression) in rest {
            let right = self.evaluate(expression, scope)?;
            if !holds(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    pub(super) fn args(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Args> {
        let mut args =
            Args { positional: self.all(&arguments.positional, scope)?, named: Vec::new() };
        if let Some(more) = &arguments.more_positional {
            args.positional.extend(self.evaluate(more, scope)?.iterate()?);
        }
        for (name, expression) in &arguments.named {
            args.named.push((name.clone(), self.evaluate(expression, scope)?));
        }
        if let Some(more) = &arguments.more_named {
            match self.evaluate(more, scope)? {
                Value::Dict(dict) => {
                    for (name, value) in dict.entries() {
                        let Some(name) = name.as_str() else {
                            return Err(Failure::new("keywords must be strings"));
                        };
                        args.named.push((name.into(), value.clone()));
                    }
                }
                other => {
                    let found = other.type_name();
                    let message = format!("argument after ** must be a mapping, not {found}");
                    return Err(Failure::new(message));
                }
            }
        }
        for (index, (name, _)) in args.named.iter().enumerate() {
            if args.named[..index].iter().any(|(other, _)| other == name) {
                return Err(Failure::new(format!("keyword argument repeated: {name}")));
            }
        }
        Ok(args)
    }

    /// A call, and the caller that a call block gives it.
    pub(super) fn call_with(
        &mut self,
        call: &Expr,
        scope: &Rc<Scope>,
        caller: Option<Value>,
    ) -> Result<Value> {
        let Node::Call(callee, arguments) = &call.node else {
            return Err(Failure::at(call.line, "expected a call"));
        };
        let callee = self.evaluate(callee, scope)?;
        let mut args = self.args(arguments, scope)?;
        args.named.extend(caller.map(|caller| ("caller".into(), caller)));
        self.nested(|interpreter| interpreter.call(&callee, args))
            .map_err(|failure| failure.within(call.line))
    }
}

fn value(constant: &Constant) -> Value {
    match constant {
        Constant::None => Value::None,
        Constant::Bool(value) => Value::Bool(*value),
        Constant::Int(value) => Value::Int(*value),
        Constant::Big(digits) => Value::Big(digits.clone()),
        Constant::Float(value) => Value::Float(*value),
        Constant::Text(text) => Value::Text(text.clone()),
    }
}

fn holds(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    use std::cmp::Ordering::{Greater, Less};
    let order = |operator: &str| compare::order(left, right, operator);
    Ok(match comparison {
        Comparison::Equal => compare::equal(left, right),
        Comparison::NotEqual => !compare::equal(left, right),
        Comparison::Less => order("<")? == Some(Less),
        Comparison::LessOrEqual => order("<=")?.is_some_and(|order| order != Greater),
        Comparison::Greater => order(">")? == Some(Greater),
        Comparison::GreaterOrEqual => order(">=")?.is_some_and(|order| order != Less),
        Comparison::In => compare::contains(right, left)?,
        Comparison::NotIn => !compare::contains(right, left)?,
    })
}
