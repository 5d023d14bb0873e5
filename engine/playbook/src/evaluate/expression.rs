//! Conditions and computed values, in CEL.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};
use cel::objects::{Key, Map as CelMap};
use serde_json::{Number, Value};

use super::path::Reference;
use super::{CompileError, EvaluationError, INPUTS_OF_ACTION, Names, functions, scan, type_name};

/// The longest list that a condition may see: an evaluation costs about a microsecond an item.
const ITEMS: usize = 20_000;
/// The same where one comprehension stands inside another.
const NESTED_ITEMS: usize = 1_000;
const RESULT_NODES: usize = 100_000;
const COMPREHENSIONS: usize = 2;
/// How deep the parsed tree may be: evaluation takes up to 40 KiB of stack a level, and a thread has 2 MiB.
const LEVELS: usize = 32;
/// Twice what the parser was seen to need for the largest text; the pages are taken only when touched.
const PARSER_STACK: usize = 64 * 1024 * 1024;

/// Names that stand for types and function groups, not for values.
const RESERVED: [&str; 18] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
    "google",
    "base64",
    "math",
    "strings",
    "optional",
];

pub(super) static ENV: LazyLock<Arc<cel::Env>> = LazyLock::new(|| {
    let mut env = cel::Env::stdlib();
    env.add_extension(cel::extensions::strings).expect("the standard library declares none of these");
    env.add_extension(cel::extensions::math).expect("neither it nor that of strings declares any of these");
    Arc::new(env)
});

/// A compiled CEL expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Expression(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: String,
    program: cel::Program,
    used: BTreeMap<String, Used>,
    roots: Vec<String>,
    references: Vec<Reference>,
    items: usize,
    /// Whether it calls `parse_json`.
    parses: bool,
    /// Whether its `inputs` are those of an action of the catalogue.
    of_action: bool,
}

/// Which parts of a value an expression looks at.
#[derive(Debug, Default)]
struct Used {
    whole: bool,
    parts: BTreeMap<String, Used>,
}

impl Expression {
    /// Compiles a text.
    ///
    /// # Errors
    /// [`CompileError`] where it is over 2 KiB, over 200 operators, over 32 levels, no CEL, or calls what is no function.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        Self::compile_for(text, false)
    }

    /// The same for a condition of an action of the catalogue: `inputs` are those of that action.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile_of_action(text: &str) -> Result<Self, CompileError> {
        Self::compile_for(text, true)
    }

    fn compile_for(text: &str, of_action: bool) -> Result<Self, CompileError> {
        let shallow = scan::expression(text)?;
        if text.trim().is_empty() {
            return Err(CompileError::new(0, "the expression is empty"));
        }
        let program = if shallow { parse(text)? } else { parse_deep(text)? };
        let mut walk = Walk {
            text,
            program: &program,
            bound: Vec::new(),
            used: BTreeMap::new(),
            references: Vec::new(),
            deepest: 0,
            level: 0,
            levels: 0,
            parses: false,
            unknown: None,
        };
        walk.expression(program.expression(), 0);
        let Walk { used, references, deepest, levels, parses, unknown, .. } = walk;
        if let Some(error) = unknown {
            return Err(error);
        }
        if levels > LEVELS {
            return Err(CompileError::new(0, format!("expression of {levels} levels; the limit is {LEVELS}"))
                .help("split it over the outputs of several steps"));
        }
        if deepest > COMPREHENSIONS {
            let message =
                format!("more than {COMPREHENSIONS} comprehensions (map, filter, all, exists) inside each other");
            return Err(CompileError::new(0, message).help("compute the inner one in an output of an earlier step"));
        }
        let roots = used.keys().cloned().collect();
        let items = if deepest > 1 { NESTED_ITEMS } else { ITEMS };
        Ok(Self(Arc::new(Inner { text: text.to_owned(), program, used, roots, references, items, parses, of_action })))
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.text
    }

    /// The roots that it names, sorted.
    #[must_use]
    pub fn roots(&self) -> &[String] {
        &self.0.roots
    }

    /// The names that it refers to.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// Its value. JSON's integers are CEL's `int`, and come back as integers.
    ///
    /// # Errors
    /// [`EvaluationError`] where it has none, or looks at a list of more than 20,000 items (1,000 where a
    /// comprehension stands inside another).
    pub fn evaluate(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        let mut context = cel::Context::with_env(Arc::clone(&ENV));
        for (root, used) in &self.0.used {
            let asked = if self.0.of_action && root == "inputs" { INPUTS_OF_ACTION } else { root };
            if let Some(value) = names.get(asked) {
                context.add_variable_from_value(root.as_str(), to_cel(&value, used, self.0.items)?);
            }
        }
        if self.0.parses {
            functions::add_parse_json(&mut context, self.0.items);
        }
        let result = self.0.program.execute(&context).map_err(|error| execution_error(&error))?;
        let mut left = RESULT_NODES;
        from_cel(&result, &mut left)
    }

    /// Its value, which must be a boolean.
    ///
    /// # Errors
    /// [`EvaluationError`] where it has none, or one of another type.
    pub fn evaluate_bool(&self, names: &dyn Names) -> Result<bool, EvaluationError> {
        match self.evaluate(names)? {
            Value::Bool(bool) => Ok(bool),
            other => Err(EvaluationError::new(format!("gives {}, not a bool", type_name(&other)))),
        }
    }
}

fn parse(text: &str) -> Result<cel::Program, CompileError> {
    ENV.compile(text).map_err(|errors| syntax_error(text, &errors))
}

/// Parses on a stack of its own: what the parser needs is bounded, but more than the caller may have left.
fn parse_deep(text: &str) -> Result<cel::Program, CompileError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, || parse(text));
        let joined = thread.map(std::thread::ScopedJoinHandle::join);
        joined
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(CompileError::new(0, "the expression cannot be parsed here")))
    })
}

fn syntax_error(text: &str, errors: &cel::ParseErrors) -> CompileError {
    let Some(first) = errors.errors.first() else { return CompileError::new(0, "not a CEL expression") };
    let (line, column) = (usize::try_from(first.pos.0).unwrap_or(1), usize::try_from(first.pos.1).unwrap_or(1));
    let message: String = first.msg.lines().next().unwrap_or_default().chars().take(160).collect();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(&message);
    let message = message.split(" expecting ").next().unwrap_or(message);
    let error =
        CompileError::new(super::template::offset_of(text, line, column), format!("not a CEL expression: {message}"));
    if text.contains("{{") {
        return error.help("this key is CEL: write names without braces, such as inputs.host");
    }
    if message.starts_with("token recognition error") && text.contains('\n') {
        return error.help(
            "a line breaks inside of a text: YAML makes one of \\n in double quotes; write \\\\n there, or put the expression in \
             single quotes",
        );
    }
    match [(" and ", "&&"), (" or ", "||"), ("not ", "!")].into_iter().find(|(word, _)| text.contains(word)) {
        Some((word, operator)) => error.help(format!("CEL writes {} as {operator}", word.trim())),
        None => error,
    }
}

fn execution_error(error: &cel::ExecutionError) -> EvaluationError {
    let message = match error {
        cel::ExecutionError::FunctionError { function, message } if function == functions::PARSE_JSON => {
            format!("{function}: {message}")
        }
        cel::ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        cel::ExecutionError::UndeclaredReference(name) => format!("{name} has no value here"),
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
            format!("{first}{}", letters.take(240).collect::<String>())
        }
    };
    EvaluationError::new(message)
}

/// The parts of a value that are used, as CEL has them.
fn to_cel(value: &Value, used: &Used, items: usize) -> Result<cel::Value, EvaluationError> {
    match value {
        Value::Object(map) if !used.whole => {
            let mut entries = HashMap::with_capacity(used.parts.len());
            for (part, used) in &used.parts {
                if let Some(value) = map.get(part) {
                    entries.insert(Key::from(part.as_str()), to_cel(value, used, items)?);
                }
            }
            Ok(cel::Value::Map(CelMap { map: Arc::new(entries) }))
        }
        value => whole(value, items),
    }
}

pub(super) fn whole(value: &Value, items: usize) -> Result<cel::Value, EvaluationError> {
    let limit = |length: usize| match length > items {
        true => Err(EvaluationError::new(format!("a list or map of {length} items; the limit here is {items}"))),
        false => Ok(()),
    };
    Ok(match value {
        Value::Null => cel::Value::Null,
        Value::Bool(bool) => cel::Value::Bool(*bool),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => cel::Value::Int(int),
            (None, Some(uint), _) => cel::Value::UInt(uint),
            (None, None, float) => cel::Value::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(list) => {
            limit(list.len())?;
            cel::Value::List(Arc::new(list.iter().map(|item| whole(item, items)).collect::<Result<_, _>>()?))
        }
        Value::Object(map) => {
            limit(map.len())?;
            let entries = map.iter().map(|(key, value)| Ok((Key::from(key.as_str()), whole(value, items)?)));
            cel::Value::Map(CelMap { map: Arc::new(entries.collect::<Result<_, EvaluationError>>()?) })
        }
    })
}

fn from_cel(value: &cel::Value, left: &mut usize) -> Result<Value, EvaluationError> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| EvaluationError::new(format!("the result has more than {RESULT_NODES} parts")))?;
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(bool) => Value::Bool(*bool),
        cel::Value::Int(int) => (*int).into(),
        cel::Value::UInt(uint) => (*uint).into(),
        cel::Value::Float(float) => Value::Number(
            Number::from_f64(*float).ok_or_else(|| EvaluationError::new(format!("{float} is not a number of JSON")))?,
        ),
        cel::Value::String(text) => Value::String(text.as_str().to_owned()),
        cel::Value::List(list) => {
            list.iter().map(|item| from_cel(item, left)).collect::<Result<_, _>>().map(Value::Array)?
        }
        cel::Value::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| Ok((key.to_string(), from_cel(value, left)?)));
            Value::Object(entries.collect::<Result<_, EvaluationError>>()?)
        }
        cel::Value::Timestamp(at) => Value::String(at.to_rfc3339()),
        cel::Value::Duration(length) => match length.num_nanoseconds() {
            Some(nanos) if nanos % 1_000_000_000 == 0 => Value::String(format!("{}s", nanos / 1_000_000_000)),
            Some(nanos) => Value::String(format!("{}ms", nanos / 1_000_000)),
            None => return Err(EvaluationError::new("the duration is too long")),
        },
        other => return Err(EvaluationError::new(format!("{:?} has no form in JSON", other.type_of()).to_lowercase())),
    })
}

/// Walks a parsed expression for the names in it.
struct Walk<'a> {
    text: &'a str,
    program: &'a cel::Program,
    bound: Vec<&'a str>,
    used: BTreeMap<String, Used>,
    references: Vec<Reference>,
    deepest: usize,
    level: usize,
    levels: usize,
    parses: bool,
    /// What is wrong with the first call of a function that does not exist.
    unknown: Option<CompileError>,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr, depth: usize) {
        self.level += 1;
        self.levels = self.levels.max(self.level);
        self.inner(expression, depth);
        self.level -= 1;
    }

    fn inner(&mut self, expression: &'a IdedExpr, depth: usize) {
        if let Some((root, rest, id)) = chain(expression) {
            self.levels = self.levels.max(self.level + rest.len());
            self.name(root, &rest, id);
            return;
        }
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Call(call) => {
                self.parses |= call.func_name == functions::PARSE_JSON;
                if self.unknown.is_none() {
                    // The parser's place of a call is its bracket.
                    let end = self.offset(expression.id);
                    let named = self.text.get(..end).is_some_and(|before| before.ends_with(&call.func_name));
                    let at = if named { end - call.func_name.len() } else { end };
                    self.unknown = functions::unknown(call, at);
                }
                if let Some(target) = &call.target {
                    self.expression(target, depth);
                }
                call.args.iter().for_each(|arg| self.expression(arg, depth));
            }
            Expr::Comprehension(comprehension) => {
                self.deepest = self.deepest.max(depth + 1);
                self.expression(&comprehension.iter_range, depth);
                let before = self.bound.len();
                self.bound.push(&comprehension.iter_var);
                self.bound.extend(comprehension.iter_var2.as_deref());
                self.bound.push(&comprehension.accu_var);
                for part in [
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.expression(part, depth + 1);
                }
                self.bound.truncate(before);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.expression(element, depth)),
            Expr::Map(cel::common::ast::MapExpr { entries })
            | Expr::Struct(cel::common::ast::StructExpr { entries, .. }) => {
                for entry in entries {
                    match &entry.expr {
                        cel::common::ast::EntryExpr::StructField(field) => self.expression(&field.value, depth),
                        cel::common::ast::EntryExpr::MapEntry(entry) => {
                            self.expression(&entry.key, depth);
                            self.expression(&entry.value, depth);
                        }
                    }
                }
            }
            Expr::Select(select) => self.expression(&select.operand, depth),
        }
    }

    fn name(&mut self, root: &str, rest: &[&str], id: u64) {
        if root.starts_with('@') || self.bound.contains(&root) || RESERVED.contains(&root) {
            return;
        }
        let mut used = self.used.entry(root.to_owned()).or_default();
        for part in rest {
            used = used.parts.entry((*part).to_owned()).or_default();
        }
        used.whole = true;
        let offset = self.offset(id);
        let rest = rest.iter().map(|part| (*part).to_owned()).collect();
        self.references.push(Reference { root: root.to_owned(), rest, offset });
    }

    /// The byte at which a part of the expression begins.
    fn offset(&self, id: u64) -> usize {
        let characters = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start as usize);
        self.text.char_indices().nth(characters).map_or(0, |(at, _)| at)
    }
}

/// The root and literal parts of `a.b["c"]`, and the root's id.
fn chain(expression: &IdedExpr) -> Option<(&str, Vec<&str>, u64)> {
    match &expression.expr {
        Expr::Ident(name) => Some((name, Vec::new(), expression.id)),
        Expr::Select(select) => {
            let (root, mut rest, id) = chain(&select.operand)?;
            rest.push(&select.field);
            Some((root, rest, id))
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.target.is_none() => {
            let [operand, index] = call.args.as_slice() else { return None };
            let Expr::Literal(LiteralValue::String(part)) = &index.expr else { return None };
            let (root, mut rest, id) = chain(operand)?;
            rest.push(part.inner());
            Some((root, rest, id))
        }
        _ => None,
    }
}
