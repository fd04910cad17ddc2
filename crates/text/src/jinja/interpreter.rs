//! Runs a template: statements. Expressions are in [`evaluate`](super::evaluate).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Applied, For, Macro, Name, Statement, Target};
use super::call::{Args, check_namespace_name};
use super::repr::{str, write_str};
use super::value::{Closure, Loop, Missing, Value};
use super::{Failure, Result, Template, names};
use crate::Date;

/// How deep calls, statements and expressions may be nested at run time. A stack of two megabytes holds twice as much.
const MAX_DEPTH: usize = 400;

/// The variables of a block, a loop's turn or a macro's call.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    variables: RefCell<Vec<(Name, Value)>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    fn within(parent: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub(super) fn set(&self, name: Name, value: Value) {
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name, value)),
        }
    }

    fn get(&self, name: Name) -> Option<Value> {
        let mut scope = self;
        loop {
            let variables = scope.variables.borrow();
            if let Some((_, value)) = variables.iter().find(|(other, _)| *other == name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }
}

/// What a list of statements ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Interpreter<'t> {
    template: &'t Template,
    /// The variables that the template is given, by their names' places.
    context: Vec<Option<Value>>,
    pub(super) date: Date,
    depth: usize,
    /// Scopes that a macro of their own points back to.
    captured: Vec<Rc<Scope>>,
}

impl Drop for Interpreter<'_> {
    fn drop(&mut self) {
        // A scope and its macro hold each other: neither would ever be freed.
        for scope in &self.captured {
            scope.variables.borrow_mut().clear();
        }
    }
}

impl<'t> Interpreter<'t> {
    pub(super) fn new(template: &'t Template, context: Vec<Option<Value>>, date: Date) -> Self {
        Interpreter { template, context, date, depth: 0, captured: Vec::new() }
    }

    pub(super) fn render(&mut self) -> Result<String> {
        let mut out = String::new();
        let scope = Rc::new(Scope::default());
        self.captured.push(scope.clone());
        self.run(&self.template.body, &scope, &mut out)?;
        Ok(out)
    }

    /// Runs a part one level deeper.
    pub(super) fn nested<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Failure::new("the template calls itself too deeply"));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    pub(super) fn variable(&self, name: Name, scope: &Scope) -> Value {
        if let Some(value) = scope.get(name).or_else(|| self.context[name].clone()) {
            return value;
        }
        Value::Undefined(Rc::new(Missing::Name(self.template.names[name].clone())))
    }

    fn run(&mut self, body: &[Statement], scope: &Rc<Scope>, out: &mut String) -> Result<Flow> {
        self.nested(|interpreter| {
            for statement in body {
                let flow = interpreter.statement(statement, scope, out)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    /// What statements print, in a scope of their own.
    fn captured(&mut self, body: &[Statement], scope: &Rc<Scope>) -> Result<String> {
        let mut out = String::new();
        self.run(body, &Scope::within(scope), &mut out)?;
        Ok(out)
    }

    fn statement(
        &mut self,
        statement: &Statement,
        scope: &Rc<Scope>,
        out: &mut String,
    ) -> Result<Flow> {
        match statement {
            Statement::Text(text) => out.push_str(text),
            Statement::Output(expression) => write_str(out, &self.evaluate(expression, scope)?),
            Statement::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.evaluate(test, scope)?.is_true() {
                        return self.run(body, scope, out);
                    }
                }
                return self.run(otherwise, scope, out);
            }
            Statement::For(statement) => {
                let iterable = self.evaluate(&statement.iterable, scope)?;
                return self.run_for(statement, &iterable, scope, out, 0);
            }
            Statement::Set(target, expression) => {
                let value = self.evaluate(expression, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::SetBlock(target, filters, body) => {
                let text = self.captured(body, scope)?;
                let value = self.filtered(Value::text(text), filters, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::With(values, body) => {
                let inner = Scope::within(scope);
                for (target, expression) in values {
                    let value = self.evaluate(expression, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.run(body, &inner, out);
            }
            Statement::Macro(name, definition) => {
                let value = self.closure(definition, scope);
                scope.set(*name, value);
            }
            Statement::CallBlock(definition, call) => {
                let caller = self.closure(definition, scope);
                let value = self.call_with(call, scope, Some(caller))?;
                out.push_str(printed(&value).map_err(|failure| failure.within(call.line))?);
            }
            Statement::FilterBlock(filters, body) => {
                let text = self.captured(body, scope)?;
                let value = self.filtered(Value::text(text), filters, scope)?;
                let line = filters.first().map_or(1, |filter| filter.line);
                out.push_str(printed(&value).map_err(|failure| failure.within(line))?);
            }
            Statement::Block(scoped, body) => {
                let mut outer = scope.clone();
                while let (false, Some(parent)) = (scoped, &outer.parent) {
                    outer = parent.clone();
                }
                self.run(body, &Scope::within(&outer), out)?;
            }
            Statement::Scope(body) => return self.run(body, &Scope::within(scope), out),
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn filtered(&mut self, value: Value, filters: &[Applied], scope: &Rc<Scope>) -> Result<Value> {
        filters.iter().try_fold(value, |value, filter| {
            let args = self.args(&filter.arguments, scope)?;
            self.filter(&filter.name, value, args).map_err(|failure| failure.within(filter.line))
        })
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attribute(name, attribute, line) => {
                let Value::Namespace(namespace) = self.variable(*name, scope) else {
                    let message = "cannot assign attribute on non-namespace object";
                    return Err(Failure::at(*line, message));
                };
                check_namespace_name(attribute).map_err(|failure| failure.within(*line))?;
                namespace.borrow_mut().insert(Value::text(attribute.clone()), value);
            }
            Target::Tuple(targets) => {
                let values = value.iterate()?;
                if values.len() != targets.len() {
                    let (wanted, found) = (targets.len(), values.len());
                    let message = format!("cannot unpack {found} values into {wanted} names");
                    return Err(Failure::new(message));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn closure(&mut self, definition: &Arc<Macro>, scope: &Rc<Scope>) -> Value {
        if !self.captured.last().is_some_and(|last| Rc::ptr_eq(last, scope)) {
            self.captured.push(scope.clone());
        }
        Value::Macro(Rc::new(Closure { definition: definition.clone(), scope: scope.clone() }))
    }

    pub(super) fn run_for(
        &mut self,
        statement: &Arc<For>,
        iterable: &Value,
        scope: &Rc<Scope>,
        out: &mut String,
        depth0: usize,
    ) -> Result<Flow> {
        let line = statement.iterable.line;
        let items = iterable.iterate().map_err(|failure| failure.within(line))?;
        let state = Rc::new(Loop {
            statement: statement.clone(),
            scope: scope.clone(),
            length: Cell::new(statement.test.is_none().then_some(items.len())),
            items: RefCell::new(items.into_iter()),
            index0: Cell::new(0),
            previous: RefCell::default(),
            current: RefCell::default(),
            next: RefCell::default(),
            changed: RefCell::default(),
            depth0,
        });
        // Jinja2 runs `else` where no turn came to its end: also after a `break` or `continue` in every turn.
        let (mut is_first, mut is_empty) = (true, true);
        while let Some(item) = self.next_item(&state)? {
            state.index0.set(if is_first { 0 } else { state.index0.get() + 1 });
            is_first = false;
            *state.previous.borrow_mut() = state.current.borrow_mut().replace(item.clone());
            let inner = Scope::within(scope);
            inner.set(names::LOOP, Value::Loop(state.clone()));
            self.assign(&statement.target, item, &inner)
                .map_err(|failure| failure.within(statement.line))?;
            match self.run(&statement.body, &inner, out)? {
                Flow::Next => is_empty = false,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if is_empty {
            return self.run(&statement.otherwise, &Scope::within(scope), out);
        }
        Ok(Flow::Next)
    }

    /// The next item of a loop that passes its test.
    fn next_item(&mut self, state: &Loop) -> Result<Option<Value>> {
        if let Some(item) = state.next.borrow_mut().take() {
            return Ok(Some(item));
        }
        loop {
            let Some(item) = state.items.borrow_mut().next() else { return Ok(None) };
            // Once the length is known all items are, and the test has been asked.
            let Some(test) = state.statement.test.as_ref().filter(|_| state.length.get().is_none())
            else {
                return Ok(Some(item));
            };
            let inner = Scope::within(&state.scope);
            self.assign(&state.statement.target, item.clone(), &inner)?;
            if self.evaluate(test, &inner)?.is_true() {
                return Ok(Some(item));
            }
        }
    }

    /// The item after this one, which stays the next.
    fn peek(&mut self, state: &Loop) -> Result<Option<Value>> {
        let next = self.next_item(state)?;
        state.next.borrow_mut().clone_from(&next);
        Ok(next)
    }

    fn loop_length(&mut self, state: &Loop) -> Result<usize> {
        if let Some(length) = state.length.get() {
            return Ok(length);
        }
        let mut rest = Vec::new();
        while let Some(item) = self.next_item(state)? {
            rest.push(item);
        }
        let length = state.index0.get() + 1 + rest.len();
        *state.items.borrow_mut() = rest.into_iter();
        state.length.set(Some(length));
        Ok(length)
    }

    /// An attribute of `loop`.
    pub(super) fn loop_attribute(&mut self, state: &Rc<Loop>, name: &str) -> Result<Option<Value>> {
        let index0 = state.index0.get();
        Ok(Some(match name {
            "index" => Value::size(index0 + 1),
            "index0" => Value::size(index0),
            "revindex" => Value::size(self.loop_length(state)? - index0),
            "revindex0" => Value::size(self.loop_length(state)? - index0 - 1),
            "first" => Value::Bool(index0 == 0),
            "last" => Value::Bool(self.peek(state)?.is_none()),
            "length" => Value::size(self.loop_length(state)?),
            "depth" => Value::size(state.depth0 + 1),
            "depth0" => Value::size(state.depth0),
            "previtem" => match &*state.previous.borrow() {
                Some(item) => item.clone(),
                None => Value::undefined("there is no previous item"),
            },
            "nextitem" => match self.peek(state)? {
                Some(item) => item,
                None => Value::undefined("there is no next item"),
            },
            "cycle" => Value::Method(Rc::new((Value::Loop(state.clone()), "cycle"))),
            "changed" => Value::Method(Rc::new((Value::Loop(state.clone()), "changed"))),
            _ => return Ok(None),
        }))
    }

    pub(super) fn call_macro(&mut self, closure: &Closure, args: Args) -> Result<Value> {
        let definition = &*closure.definition;
        let scope = Scope::within(&closure.scope);
        let Args { positional, mut named } = args;
        let mut positional = positional.into_iter();
        let mut take = |name: &str| {
            let at = named.iter().position(|(other, _)| &**other == name)?;
            Some(named.remove(at).1)
        };
        // In order, for a default may name a parameter before it.
        let given: Vec<Option<Value>> = definition
            .parameters
            .iter()
            .map(|parameter| positional.next().or_else(|| take(&parameter.text)))
            .collect();
        if definition.caller {
            let caller = take("caller").unwrap_or_else(|| Value::undefined("No caller defined"));
            scope.set(names::CALLER, caller);
        }
        let name = definition.name.as_deref().unwrap_or("caller");
        if definition.kwargs {
            scope.set(names::KWARGS, Args::dict(named));
        } else if let Some((other, _)) = named.first() {
            let message = format!("macro '{name}' takes no keyword argument '{other}'");
            return Err(Failure::new(message));
        }
        let rest: Vec<Value> = positional.collect();
        if definition.varargs {
            scope.set(names::VARARGS, Value::tuple(rest));
        } else if !rest.is_empty() {
            let count = definition.parameters.len();
            let message = format!("macro '{name}' takes not more than {count} argument(s)");
            return Err(Failure::new(message));
        }
        for (parameter, given) in definition.parameters.iter().zip(given) {
            let value = match (given, &parameter.default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.evaluate(default, &scope)?,
                (None, None) => {
                    Value::undefined(format!("parameter '{}' was not provided", parameter.text))
                }
            };
            scope.set(parameter.name, value);
        }
        let mut out = String::new();
        self.run(&definition.body, &scope, &mut out)?;
        Ok(Value::text(out))
    }

    /// `loop(items)`: the same loop over other items.
    pub(super) fn recurse(&mut self, state: &Loop, items: &Value) -> Result<Value> {
        if !state.statement.recursive {
            let message = "The loop must have the 'recursive' marker to be called recursively.";
            return Err(Failure::new(message));
        }
        let mut out = String::new();
        self.run_for(&state.statement, items, &state.scope, &mut out, state.depth0 + 1)?;
        Ok(Value::text(out))
    }
}

/// What a block prints, which has to be a text.
fn printed(value: &Value) -> Result<&str> {
    let found = value.type_name();
    value.as_str().ok_or_else(|| Failure::new(format!("expected str instance, {found} found")))
}

/// The text of a message that a template raises.
pub(super) fn raised(message: &Value) -> Failure {
    Failure::raised(str(message))
}
