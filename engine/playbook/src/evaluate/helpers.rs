//! The helpers of templates, the registry that holds them, and the limits on rendering.

use std::cell::Cell;
use std::sync::LazyLock;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError, RenderErrorReason,
    ScopedJson,
};
use serde_json::Value;

use super::path::{as_text, missing};
use super::{EvaluationError, type_name};

/// What a plain tag becomes, so that it is strict about null, lists and maps too.
pub(super) const TEXT: &str = "__text";
/// How many items all `each` of one rendering may go over.
const FUEL: u32 = 50_000;

/// Helpers that can stand in a tag.
pub(super) const INLINE: [&str; 18] = [
    "json", "count", "join", "default", "upper", "lower", "trim", "lookup", "len", "eq", "ne", "gt", "gte", "lt",
    "lte", "and", "or", "not",
];
/// Helpers that open a block.
pub(super) const BLOCKS: [&str; 5] = ["if", "unless", "each", "with", "raw"];

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Stands at the head of every `each`: counts its rounds.
pub(super) static TICK: LazyLock<handlebars::Template> =
    LazyLock::new(|| handlebars::Template::compile("{{__tick 1}}").expect("a literal of this file"));

pub(super) static REGISTRY: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.unregister_helper("log");
    registry.register_helper(TEXT, Box::new(Text));
    registry.register_helper("__tick", Box::new(Tick));
    for (name, function) in FUNCTIONS {
        registry.register_helper(name, Box::new(Function { name, function }));
    }
    registry
});

pub(super) fn refuel() {
    LEFT.set(FUEL);
}

pub(super) fn too_long() -> EvaluationError {
    EvaluationError::new(format!("the rendered text is longer than {} KiB", super::template::OUTPUT_BYTES / 1024))
}

/// A text that stops growing at its limit.
pub(super) struct Capped {
    pub text: String,
    pub overflowed: bool,
    limit: usize,
}

impl Capped {
    pub fn new(limit: usize) -> Self {
        Self { text: String::new(), overflowed: false, limit }
    }
}

impl Output for Capped {
    fn write(&mut self, segment: &str) -> Result<(), std::io::Error> {
        if self.text.len() + segment.len() > self.limit {
            self.overflowed = true;
            return Err(std::io::Error::other("too long"));
        }
        self.text.push_str(segment);
        Ok(())
    }
}

fn failed(error: impl ToString) -> RenderError {
    RenderErrorReason::Other(error.to_string()).into()
}

struct Text;

impl HelperDef for Text {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let param = helper.param(0).ok_or_else(|| failed("nothing to print"))?;
        let path = || param.relative_path().map_or_else(|| "the value".to_owned(), |path| path.to_string());
        if param.is_value_missing() {
            return Err(failed(missing(&path())));
        }
        out.write(&as_text(param.value(), path).map_err(failed)?)?;
        Ok(())
    }
}

struct Tick;

impl HelperDef for Tick {
    fn call<'reg: 'rc, 'rc>(
        &self,
        _: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        let left = LEFT.get();
        if left == 0 {
            return Err(failed(format!("the template goes over more than {FUEL} items")));
        }
        LEFT.set(left - 1);
        Ok(())
    }
}

type Call = fn(&[Argument<'_>]) -> Result<Value, String>;

/// One argument: its path for messages, and its value where it has one.
struct Argument<'a> {
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Argument<'a> {
    fn present(&self) -> Result<&'a Value, String> {
        self.value.ok_or_else(|| missing(&self.path).0)
    }

    fn text(&self) -> Result<String, String> {
        as_text(self.present()?, || self.path.clone()).map(Into::into).map_err(|error| error.0)
    }
}

struct Function {
    name: &'static str,
    function: Call,
}

impl HelperDef for Function {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let arguments: Vec<Argument<'_>> = helper
            .params()
            .iter()
            .map(|param| Argument {
                path: param.relative_path().map_or_else(|| "the argument".to_owned(), |path| path.to_string()),
                value: (!param.is_value_missing()).then(|| param.value()),
            })
            .collect();
        if arguments.is_empty() {
            return Err(failed(format!("{} needs an argument", self.name)));
        }
        let value = (self.function)(&arguments).map_err(|error| failed(format!("{}: {error}", self.name)))?;
        // Checked at each helper: `json` of `json` of a text doubles its length.
        match value.as_str() {
            Some(text) if text.len() > super::template::OUTPUT_BYTES => Err(failed(too_long())),
            _ => Ok(ScopedJson::Derived(value)),
        }
    }
}

const FUNCTIONS: [(&str, Call); 7] = [
    ("json", |arguments| Ok(Value::String(arguments[0].present()?.to_string()))),
    ("count", |arguments| match arguments[0].present()? {
        Value::Array(list) => Ok(list.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        other => Err(format!("{} is {}, not a list or map", arguments[0].path, type_name(other))),
    }),
    ("join", |arguments| {
        let Value::Array(list) = arguments[0].present()? else {
            return Err(format!("{} is {}, not a list", arguments[0].path, type_name(arguments[0].present()?)));
        };
        let separator = arguments.get(1).map_or_else(|| Ok(",".to_owned()), Argument::text)?;
        let texts = list.iter().map(|item| as_text(item, || format!("an item of {}", arguments[0].path)));
        let texts: Vec<_> = texts.collect::<Result<_, _>>().map_err(|error| error.0)?;
        Ok(texts.join(&separator).into())
    }),
    ("default", |arguments| match (arguments[0].value, arguments.get(1)) {
        (None | Some(Value::Null), Some(other)) => other.present().cloned(),
        (Some(value), _) => Ok(value.clone()),
        (None, None) => Err("needs a second argument".to_owned()),
    }),
    ("upper", |arguments| Ok(arguments[0].text()?.to_uppercase().into())),
    ("lower", |arguments| Ok(arguments[0].text()?.to_lowercase().into())),
    ("trim", |arguments| Ok(arguments[0].text()?.trim().into())),
];
