//! A rule: parsed and checked when the pipeline is loaded, evaluated for each host.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelUInt};
use cel::common::value::Val;
use cel::{Context, Env, Value};
use scheduler::Row;
use scheduler::pipeline::Cx;
use scheduler::pipeline::step::Reads;

use super::facts::{Facts, HOST, REQUEST};

/// Bytes of an expression.
const LONGEST: usize = 2048;
/// Nodes of an expression, after its macros are written out.
const MOST_NODES: usize = 256;
/// Nesting of an expression.
const DEEPEST: u16 = 32;

/// Fields of `host` that change with each claim.
const USE: [&str; 3] = ["used", "free", "instances"];

/// Collections of `host` and `request` whose size has no small bound.
const LISTS: [(&str, &str); 4] =
    [("host", "traits"), ("host", "aggregates"), ("host", "metadata"), ("request", "hints")];

/// Functions of the language that a rule may call, besides the operators.
const FUNCTIONS: [&str; 8] = ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string"];
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// A checked expression.
#[derive(Debug)]
pub struct Rule {
    expression: IdedExpr,
    /// It has a loop, so that lists must be made for it.
    iterates: bool,
    /// It asks for something of the host.
    looks: bool,
    /// What it asks for changes with each claim.
    reads_use: bool,
}

/// What a rule says of a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// True or false.
    Truth(bool),
    /// A number.
    Number(f64),
    /// It failed, for this reason.
    Failed(String),
}

impl Rule {
    /// Parses and checks an expression; the error says where and what.
    pub fn new(expression: &str) -> Result<Self, String> {
        if expression.trim().is_empty() {
            return Err("expression: an empty one given, a rule in CEL expected".to_owned());
        }
        if expression.len() > LONGEST {
            return Err(format!("expression: {} bytes given, at most {LONGEST} expected", expression.len()));
        }
        // The parser is given whatever an author writes: should it panic, the pipeline is refused.
        let parse = || LANGUAGE.parser().max_recursion_depth(DEEPEST).parse(expression);
        let parsed = match catch_unwind(AssertUnwindSafe(parse)) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(errors)) => return Err(format!("expression: {}", errors.to_string().trim().replace('\n', " "))),
            Err(_) => return Err("expression: it cannot be read as CEL".to_owned()),
        };
        let mut check = Check { nodes: 0, bound: Vec::new(), iterates: false, looks: false, reads_use: false };
        check.look(&parsed, false).map_err(|why| format!("expression: {why}"))?;
        let Check { iterates, looks, reads_use, .. } = check;
        Ok(Self { expression: parsed, iterates, looks, reads_use })
    }

    /// What a step with this rule looks at. A rule about use counts as one about everything: the note on
    /// hosts that it fails for changes with their use.
    pub fn reads(&self) -> Reads {
        if self.reads_use { Reads::Everything } else { Reads::Facts }
    }

    /// Whether it says the same of every host.
    pub fn is_constant(&self) -> bool {
        !self.looks
    }

    /// Tells of each host what the rule says. `Err`: the rule is not asked, for this reason.
    pub fn ask(
        &self,
        cx: &Cx<'_>,
        hosts: impl Iterator<Item = Row>,
        mut said: impl FnMut(Row, Said),
    ) -> Result<(), &'static str> {
        let row = AtomicU32::new(0);
        let facts = Facts::of(cx, &row, self.iterates)?;
        let mut context = Context::with_env(Arc::clone(&LANGUAGE));
        context.set_variable_resolver(&facts);
        // The interpreter is not ours: should it panic, the hosts that are left have no answer.
        let all = AssertUnwindSafe(|| {
            for host in hosts {
                row.store(host.0, Ordering::Relaxed);
                let value = Value::resolve_val(&self.expression, &context);
                said(host, value.map_or_else(|error| Said::Failed(error.to_string()), |value| read(value.as_ref())));
            }
        });
        catch_unwind(all).map_err(|_| "the rule cannot be evaluated")
    }
}

fn read(value: &dyn Val) -> Said {
    if let Some(truth) = value.downcast_ref::<CelBool>() {
        return Said::Truth(*truth.inner());
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Said::Number(*number.inner());
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Said::Number(*number.inner() as f64);
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Said::Number(*number.inner() as f64);
    }
    Said::Failed(format!("it gives a {}", value.get_type().name()))
}

/// Walks an expression and refuses what a rule must not have.
struct Check<'a> {
    nodes: usize,
    /// Variables of the loops around.
    bound: Vec<&'a str>,
    iterates: bool,
    looks: bool,
    reads_use: bool,
}

impl<'a> Check<'a> {
    fn look(&mut self, node: &'a IdedExpr, in_loop: bool) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("more than {MOST_NODES} nodes: make two steps of it"));
        }
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                // The host as a whole, or by a key that is not written out.
                self.reads_use |= name == "host";
                if in_loop && matches!(name.as_str(), "host" | "request") && !self.bound.contains(&name.as_str()) {
                    return Err(format!("{name} as a whole stands in a loop: {name}.FIELD expected"));
                }
                self.variable(name)
            }
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !self.bound.contains(&name.as_str())
                {
                    field(name, &select.field)?;
                    // To compare lists, or to look into one, is a loop too.
                    if in_loop && LISTS.contains(&(name.as_str(), select.field.as_str())) {
                        let field = &select.field;
                        return Err(format!("{name}.{field} stands in a loop: its cost would have no small bound"));
                    }
                    self.reads_use |= name == "host" && USE.contains(&select.field.as_str());
                    self.nodes += 1;
                    return self.variable(name);
                }
                self.look(&select.operand, in_loop)
            }
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                let helper = name == operators::NOT_STRICTLY_FALSE;
                if !helper && !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
                    return Err(format!("function '{name}' is not known: {} expected", FUNCTIONS.join(", ")));
                }
                if name == operators::INDEX
                    && let [of, key] = call.args.as_slice()
                    && let (Expr::Ident(name), Expr::Literal(cel::common::ast::LiteralValue::String(key))) =
                        (&of.expr, &key.expr)
                    && !self.bound.contains(&name.as_str())
                {
                    field(name, key.inner())?;
                }
                call.target.iter().map(|target| &**target).chain(&call.args).try_for_each(|arg| self.look(arg, in_loop))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.look(element, in_loop)),
            Expr::Comprehension(each) => {
                if in_loop {
                    return Err("a loop stands in a loop: its cost would have no small bound".to_owned());
                }
                self.iterates = true;
                self.look(&each.iter_range, in_loop)?;
                self.look(&each.accu_init, in_loop)?;
                let before = self.bound.len();
                self.bound.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
                self.bound.extend(each.iter_var2.as_deref());
                let parts = [&each.loop_cond, &each.loop_step, &each.result];
                let looked = parts.into_iter().try_for_each(|part| self.look(part, true));
                self.bound.truncate(before);
                looked
            }
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err("a rule makes no maps and no messages: lists, numbers, strings and booleans expected".to_owned())
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        self.looks |= matches!(name, "host" | "features");
        if self.bound.contains(&name) || matches!(name, "request" | "host" | "features") {
            return Ok(());
        }
        Err(format!("variable '{name}' is not known: request, host or features expected"))
    }
}

fn field(variable: &str, field: &str) -> Result<(), String> {
    let known: &[&str] = match variable {
        "host" => &HOST,
        "request" => &REQUEST,
        _ => return Ok(()),
    };
    if known.contains(&field) {
        return Ok(());
    }
    Err(format!("{variable}.{} is not known: one of {} expected", field.escape_debug(), known.join(", ")))
}
