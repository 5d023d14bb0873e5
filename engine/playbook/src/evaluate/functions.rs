//! The functions that a condition can call, and what is said of one that does not exist.
//!
//! CEL itself finds an unknown function only when it comes to it, which is in the run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cel::common::ast::{CallExpr, Expr};

use super::{CompileError, expression};
use crate::nearest::nearest;

/// A function as an example calls it, which a test evaluates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    /// Its name, with that of its group.
    pub name: &'static str,
    /// One call of it.
    pub example: &'static str,
}

const fn function(name: &'static str, example: &'static str) -> Function {
    Function { name, example }
}

/// The functions that are called with their arguments alone.
pub(crate) const GLOBAL: &[Function] = &[
    function("has", "has(event.data)"),
    function("size", "size('abc')"),
    function("int", "int('1')"),
    function("uint", "int(uint('1'))"),
    function("double", "double('1.5')"),
    function("string", "string(1)"),
    function("bool", "bool('true')"),
    function("bytes", "size(bytes('abc'))"),
    function("type", "type(1) == int"),
    function("dyn", "dyn(1)"),
    function("duration", "duration('1h')"),
    function("timestamp", "timestamp('2026-11-21T12:00:00Z')"),
    function("matches", "matches('abc', '^a')"),
    function(PARSE_JSON, "parse_json('{\"a\": 1}').a"),
    function("math.greatest", "math.greatest(1, 2)"),
    function("math.least", "math.least([1, 2])"),
    function("math.abs", "math.abs(-1)"),
    function("math.sign", "math.sign(-1)"),
    function("math.ceil", "math.ceil(1.5)"),
    function("math.floor", "math.floor(1.5)"),
    function("math.round", "math.round(1.5)"),
    function("math.trunc", "math.trunc(1.5)"),
    function("math.sqrt", "math.sqrt(4)"),
    function("math.isNaN", "math.isNaN(1.5)"),
    function("math.isInf", "math.isInf(1.5)"),
    function("math.isFinite", "math.isFinite(1.5)"),
    function("math.bitAnd", "math.bitAnd(1, 3)"),
    function("math.bitOr", "math.bitOr(1, 2)"),
    function("math.bitXor", "math.bitXor(1, 3)"),
    function("math.bitNot", "math.bitNot(1)"),
    function("math.bitShiftLeft", "math.bitShiftLeft(1, 2)"),
    function("math.bitShiftRight", "math.bitShiftRight(4, 1)"),
    function("strings.quote", "strings.quote('a')"),
    function("optional.of", "optional.of(1).value()"),
    function("optional.none", "optional.none().orValue(1)"),
    function("optional.ofNonZeroValue", "optional.ofNonZeroValue(1).value()"),
];

/// The functions that are called of a value.
pub(crate) const OF_VALUES: &[Function] = &[
    function("all", "[1].all(n, n > 0)"),
    function("exists", "[1].exists(n, n > 0)"),
    function("exists_one", "[1].exists_one(n, n > 0)"),
    function("existsOne", "[1].existsOne(n, n > 0)"),
    function("filter", "[1].filter(n, n > 0)"),
    function("map", "[1].map(n, n + 1)"),
    function("size", "'abc'.size()"),
    function("contains", "'abc'.contains('b')"),
    function("startsWith", "'abc'.startsWith('a')"),
    function("endsWith", "'abc'.endsWith('c')"),
    function("matches", "'abc'.matches('^a')"),
    function("charAt", "'abc'.charAt(0)"),
    function("indexOf", "'abc'.indexOf('b')"),
    function("lastIndexOf", "'abc'.lastIndexOf('b')"),
    function("join", "['a', 'b'].join(', ')"),
    function("split", "'a,b'.split(',')"),
    function("substring", "'abc'.substring(1)"),
    function("replace", "'abc'.replace('a', 'b')"),
    function("trim", "' a '.trim()"),
    function("lowerAscii", "'A'.lowerAscii()"),
    function("upperAscii", "'a'.upperAscii()"),
    function("reverse", "'abc'.reverse()"),
    function("format", "'%d of %s'.format([1, 'a'])"),
    function("getFullYear", "timestamp('2026-11-21T12:00:00Z').getFullYear()"),
    function("getMonth", "timestamp('2026-11-21T12:00:00Z').getMonth()"),
    function("getDate", "timestamp('2026-11-21T12:00:00Z').getDate()"),
    function("getDayOfMonth", "timestamp('2026-11-21T12:00:00Z').getDayOfMonth()"),
    function("getDayOfWeek", "timestamp('2026-11-21T12:00:00Z').getDayOfWeek('Europe/London')"),
    function("getDayOfYear", "timestamp('2026-11-21T12:00:00Z').getDayOfYear()"),
    function("getHours", "duration('90m').getHours()"),
    function("getMinutes", "duration('90m').getMinutes()"),
    function("getSeconds", "duration('90m').getSeconds()"),
    function("getMilliseconds", "duration('90m').getMilliseconds()"),
    function("hasValue", "optional.of(1).hasValue()"),
    function("value", "optional.of(1).value()"),
    function("or", "optional.none().or(optional.of(1)).value()"),
    function("orValue", "optional.none().orValue(1)"),
    function("optMap", "optional.of(1).optMap(n, n + 1).value()"),
    function("optFlatMap", "optional.of(1).optFlatMap(n, optional.of(n)).value()"),
];

/// What people of other languages write for it.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("min", "math.least"),
    ("max", "math.greatest"),
    ("abs", "math.abs"),
    ("round", "math.round"),
    ("floor", "math.floor"),
    ("ceil", "math.ceil"),
    ("len", "size"),
    ("length", "size"),
    ("count", "size"),
    ("str", "string"),
    ("float", "double"),
    ("any", "exists"),
    ("includes", "contains"),
    ("lower", "lowerAscii"),
    ("upper", "upperAscii"),
    ("toLower", "lowerAscii"),
    ("toUpper", "upperAscii"),
    ("json", PARSE_JSON),
    ("fromJson", PARSE_JSON),
];

/// The value of a JSON text.
pub(super) const PARSE_JSON: &str = "parse_json";
/// All that one evaluation may parse.
const PARSED_BYTES: usize = 2 * 1024 * 1024;

/// What is wrong with a call, where the function does not exist; `offset` is where it stands.
pub(super) fn unknown(call: &CallExpr, offset: usize) -> Option<CompileError> {
    let name = call.func_name.as_str();
    // Operators, and what macros become.
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || name.contains('@') {
        return None;
    }
    let group = match call.target.as_ref().map(|target| &target.expr) {
        Some(Expr::Ident(root))
            if GLOBAL.iter().any(|of| of.name.split_once('.').is_some_and(|(group, _)| group == root)) =>
        {
            Some(root)
        }
        _ => None,
    };
    let (full, known) = match (group, &call.target) {
        (Some(group), _) => (format!("{group}.{name}"), GLOBAL),
        (None, Some(_)) => (name.to_owned(), OF_VALUES),
        (None, None) => (name.to_owned(), GLOBAL),
    };
    match known.iter().find(|function| function.name == full) {
        Some(function) if is_macro(function.name) => {
            let message = format!("{} is not called with {} arguments", function.name, call.args.len());
            Some(CompileError::new(offset, message).help(format!("write it as in {}", function.example)))
        }
        Some(_) => None,
        None => Some(missing(&full, known, offset)),
    }
}

/// Whether the parser replaces each good call of it.
fn is_macro(name: &str) -> bool {
    [
        "has",
        "all",
        "exists",
        "exists_one",
        "existsOne",
        "filter",
        "map",
        "optMap",
        "optFlatMap",
        "math.greatest",
        "math.least",
    ]
    .contains(&name)
}

fn missing(name: &str, known: &[Function], offset: usize) -> CompileError {
    let all = || GLOBAL.iter().chain(OF_VALUES);
    let find = |wanted: &str| all().find(|function| function.name == wanted);
    let of = |wanted: &str| OTHER_WORDS.iter().find(|(word, _)| *word == wanted).and_then(|(_, name)| find(name));
    // The same name, called the other way, is nearer than a like one.
    let meant = find(name).or_else(|| of(name)).or_else(|| {
        let near = nearest(name, known.iter().map(|function| function.name))
            .or_else(|| nearest(name, all().map(|function| function.name)));
        near.and_then(|near| known.iter().chain(all()).find(|function| function.name == near))
    });
    let help = match meant {
        Some(function) => format!("did you mean {}, as in {}?", function.name, function.example),
        None => {
            let names: BTreeSet<&str> = known.iter().map(|function| function.name).collect();
            format!("there is {}", names.into_iter().collect::<Vec<_>>().join(", "))
        }
    };
    CompileError::new(offset, format!("no function is named {name}")).help(help)
}

/// Lets a condition call `parse_json`, which sees lists and maps of at most `items`.
pub(super) fn add_parse_json(context: &mut cel::Context<'_, '_>, items: usize) {
    let left = AtomicUsize::new(PARSED_BYTES);
    let parse = move |text: Arc<String>| {
        parse_json(&text, items, &left).map_err(|message| cel::ExecutionError::function_error(PARSE_JSON, message))
    };
    context.add_function(PARSE_JSON, parse).expect("the standard library has no function of this name");
}

fn parse_json(text: &str, items: usize, left: &AtomicUsize) -> Result<cel::Value, String> {
    let take = |left: usize| left.checked_sub(text.len());
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .map_err(|_| format!("more than {PARSED_BYTES} bytes in one expression"))?;
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        if text.trim().is_empty() {
            return "the text is empty".to_owned();
        }
        let begin: String = text.chars().take(40).collect();
        format!("the text is no JSON: {error}; it begins with {begin:?}")
    })?;
    expression::whole(&value, items).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Expression, Scope};

    fn scope() -> Scope {
        Scope([("event".to_owned(), serde_json::json!({"data": 1}))].into())
    }

    #[test]
    fn every_function_of_the_list_evaluates_as_its_example_calls_it() {
        for function in GLOBAL.iter().chain(OF_VALUES) {
            assert!(function.example.contains(&format!("{}(", function.name)), "{}", function.name);
            let value = Expression::compile(function.example).map_err(|error| error.to_string());
            let value = value.and_then(|expression| expression.evaluate(&scope()).map_err(|error| error.to_string()));
            assert!(value.is_ok(), "{}: {value:?}", function.example);
        }
    }

    #[test]
    fn nothing_that_the_evaluator_knows_is_missing_in_the_list() {
        // Names of CEL's standard library and its extensions, and of other languages.
        let names = "abs all any base64.decode base64.encode bool bytes ceil charAt contains count distinct double duration dyn \
                     endsWith exists exists_one existsOne filter first flatten floor format getDate getDayOfMonth getDayOfWeek \
                     getDayOfYear getFullYear getHours getMilliseconds getMinutes getMonth getSeconds greatest has hasValue \
                     indexOf int isEmpty join keys last lastIndexOf least len lists.range lowerAscii map matches math.abs math.bitAnd \
                     math.bitNot math.bitOr math.bitShiftLeft math.bitShiftRight math.bitXor math.ceil math.floor math.isFinite \
                     math.isInf math.isNaN math.round math.sign math.sqrt math.trunc max min now optFlatMap optMap \
                     optional.none optional.of optional.ofNonZeroValue or orValue parse_json quote range replace reverse round sets.contains \
                     size slice sort sortBy split startsWith string strings.quote substring sum timestamp transformList \
                     transformMap trim type uint unwrap unwrapOpt upperAscii value values";
        let evaluates = |text: &str| {
            let program = expression::ENV.compile(text).ok()?;
            let mut context = cel::Context::with_env(Arc::clone(&expression::ENV));
            add_parse_json(&mut context, 1);
            match program.execute(&context) {
                Err(cel::ExecutionError::UndeclaredReference(_)) => Some(false),
                _ => Some(true),
            }
        };
        for name in names.split_whitespace() {
            for (text, known) in [(format!("{name}()"), GLOBAL), (format!("1.0.{name}()"), OF_VALUES)] {
                if name.contains('.') && text.starts_with("1.0") || is_macro(name) {
                    continue;
                }
                let is_there = known.iter().any(|function| function.name == name);
                assert_eq!(evaluates(&text), Some(is_there || name == PARSE_JSON), "{text}");
            }
        }
    }
}
