//! The syntax tree of a template.

use std::sync::Arc;

/// A variable, as its place in [`Template::names`](super::Template).
pub(super) type Name = usize;

/// An expression and the line that it stands in.
#[derive(Debug)]
pub(super) struct Expr {
    pub(super) line: usize,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Binary(Operator, Box<(Expr, Expr)>),
    /// `a ~ b ~ c`.
    Concat(Vec<Expr>),
    /// `a < b < c`, which is `a < b and b < c`.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// `then if test else otherwise`.
    Conditional(Box<Conditional>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<(Expr, Expr)>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Arguments),
    Filter(Box<Expr>, Applied),
    Test(Box<Expr>, Applied),
}

#[derive(Clone, Debug)]
pub(super) enum Constant {
    None,
    Bool(bool),
    Int(i128),
    /// The digits of a whole number of more than 128 bits.
    Big(Arc<str>),
    Float(f64),
    Text(Arc<str>),
}

#[derive(Debug)]
pub(super) struct Conditional {
    pub(super) test: Expr,
    pub(super) then: Expr,
    pub(super) otherwise: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// What stands between the parentheses of a call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Arc<str>, Expr)>,
    /// `*expression`.
    pub(super) more_positional: Option<Box<Expr>>,
    /// `**expression`.
    pub(super) more_named: Option<Box<Expr>>,
}

/// A filter or a test with its arguments.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) line: usize,
    pub(super) name: Box<str>,
    pub(super) arguments: Arguments,
}

#[derive(Debug)]
pub(super) enum Statement {
    Text(Box<str>),
    Output(Expr),
    If(Vec<(Expr, Vec<Statement>)>, Vec<Statement>),
    For(Arc<For>),
    Set(Target, Expr),
    /// `{% set x | filter %}...{% endset %}`.
    SetBlock(Target, Vec<Applied>, Vec<Statement>),
    With(Vec<(Target, Expr)>, Vec<Statement>),
    Macro(Name, Arc<Macro>),
    /// `{% call(arguments) function(...) %}...{% endcall %}`.
    CallBlock(Arc<Macro>, Expr),
    FilterBlock(Vec<Applied>, Vec<Statement>),
    /// `{% block name scoped %}...{% endblock %}`.
    Block(bool, Vec<Statement>),
    /// A scope of its own: `{% generation %}` and `{% autoescape false %}`.
    Scope(Vec<Statement>),
    Break,
    Continue,
}

/// What a value is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    Tuple(Vec<Target>),
    /// An attribute of a namespace, and the line.
    Attribute(Name, Arc<str>, usize),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) line: usize,
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Option<Arc<str>>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Vec<Statement>,
    /// Whether the body reads `caller`, `kwargs`, `varargs`.
    pub(super) caller: bool,
    pub(super) kwargs: bool,
    pub(super) varargs: bool,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: Name,
    pub(super) text: Arc<str>,
    pub(super) default: Option<Expr>,
}
