//! Text with names in it: Handlebars, strict, without escaping and without partials.

use std::sync::Arc;

use handlebars::template::{HelperTemplate, Parameter, Subexpression, TemplateElement};
use handlebars::{Context, RenderContext, Renderable};
use serde_json::{Map, Value};

use super::path::{Path, Reference, missing};
use super::{CompileError, EvaluationError, Names, helpers, scan};

/// The longest text that a template may become.
pub const OUTPUT_BYTES: usize = 256 * 1024;

/// A compiled template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: String,
    body: Body,
    references: Vec<Reference>,
    roots: Vec<String>,
}

#[derive(Debug)]
enum Body {
    Literal,
    /// Literals and plain paths alone: the common case, resolved without Handlebars and with the same result.
    Parts(Vec<Part>),
    Full(Box<handlebars::Template>),
}

#[derive(Debug)]
enum Part {
    Text(String),
    Path(Path),
}

impl Template {
    /// Compiles a text; without `{{` it is itself.
    ///
    /// # Errors
    /// [`CompileError`] where it is over 8 KiB, nested over 32 levels, no Handlebars, or uses a partial or an unknown helper.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        scan::template(text)?;
        let (body, references) = if !text.contains("{{") {
            (Body::Literal, Vec::new())
        } else if let Some((parts, references)) = plain_parts(text) {
            (Body::Parts(parts), references)
        } else {
            full(text)?
        };
        let mut roots: Vec<String> = references.iter().map(|reference| reference.root.clone()).collect();
        roots.sort();
        roots.dedup();
        Ok(Self(Arc::new(Inner { text: text.to_owned(), body, references, roots })))
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.text
    }

    /// The names that it refers to.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// The roots that it names, sorted.
    #[must_use]
    pub fn roots(&self) -> &[String] {
        &self.0.roots
    }

    /// Whether it is a text without names.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        matches!(self.0.body, Body::Literal)
    }

    /// The path, where the template is one lone path and nothing else.
    pub(crate) fn lone_path(&self) -> Option<&Path> {
        match &self.0.body {
            Body::Parts(parts) => match parts.as_slice() {
                [Part::Path(path)] => Some(path),
                _ => None,
            },
            Body::Literal | Body::Full(_) => None,
        }
    }

    /// Its literal parts and its paths in turn, where it has nothing else.
    pub(super) fn parts(&self) -> Option<impl Iterator<Item = Result<&str, &Path>>> {
        match &self.0.body {
            Body::Parts(parts) => Some(parts.iter().map(|part| match part {
                Part::Text(text) => Ok(text.as_str()),
                Part::Path(path) => Err(path),
            })),
            Body::Literal | Body::Full(_) => None,
        }
    }

    /// The text, with the names' values in it.
    ///
    /// # Errors
    /// [`EvaluationError`] where a name has no value or one that is no text, or the text grows over 256 KiB.
    pub fn render(&self, names: &dyn Names) -> Result<String, EvaluationError> {
        match &self.0.body {
            Body::Literal => Ok(self.0.text.clone()),
            Body::Parts(parts) => {
                let mut out = String::with_capacity(self.0.text.len() + 32);
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Path(path) => path.write(names, &mut out)?,
                    }
                    if out.len() > OUTPUT_BYTES {
                        return Err(helpers::too_long());
                    }
                }
                Ok(out)
            }
            Body::Full(template) => {
                let roots = self.0.roots.iter().filter_map(|root| Some((root.clone(), names.get(root)?.into_owned())));
                let context = Context::from(Value::Object(roots.collect::<Map<_, _>>()));
                let mut out = helpers::Capped::new(OUTPUT_BYTES);
                helpers::refuel();
                match template.render(&helpers::REGISTRY, &context, &mut RenderContext::new(None), &mut out) {
                    _ if out.overflowed => Err(helpers::too_long()),
                    Ok(()) => Ok(out.text),
                    Err(error) => Err(render_error(&error)),
                }
            }
        }
    }
}

fn render_error(error: &handlebars::RenderError) -> EvaluationError {
    use handlebars::RenderErrorReason as Reason;
    match error.reason() {
        Reason::MissingVariable(Some(path)) => missing(path),
        Reason::Other(message) => EvaluationError::new(message.clone()),
        reason => EvaluationError::new(lower(&reason.to_string())),
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The parts of a text whose tags are plain paths alone.
fn plain_parts(text: &str) -> Option<(Vec<Part>, Vec<Reference>)> {
    let mut parts = Vec::new();
    let mut references = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, tag) = rest.split_at(open);
        if before.ends_with('\\') {
            return None;
        }
        let close = tag.find("}}")?;
        let inner = &tag[2..close];
        // A third brace is Handlebars' raw form; it prints the same, but let its own parser judge it.
        if tag[close + 2..].starts_with('}') {
            return None;
        }
        let path = Path::parse(inner.trim())?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let at = text.len() - rest.len() + open + 2 + (inner.len() - inner.trim_start().len());
        references.push(Reference { root: path.root.clone(), rest: path.rest.clone(), offset: at });
        parts.push(Part::Path(path));
        rest = &tag[close + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Some((parts, references))
}

fn full(text: &str) -> Result<(Body, Vec<Reference>), CompileError> {
    let mut template = handlebars::Template::compile(text).map_err(|error| {
        let line = error.pos().map_or(1, |(line, _)| line);
        let column = error.pos().map_or(1, |(_, column)| column);
        let message = match error.reason() {
            handlebars::TemplateErrorReason::InvalidSyntax(_) => "template does not parse".to_owned(),
            reason => lower(&reason.to_string()),
        };
        CompileError::new(offset_of(text, line, column), message)
            .help("write names as {{ inputs.host }}, helpers as {{json inputs.hosts}}, and a literal {{ as \\{{")
    })?;
    let mut walk = Walk { text, references: Vec::new() };
    walk.template(&mut template, false)?;
    Ok((Body::Full(Box::new(template)), walk.references))
}

/// The byte at a line and column, both from 1, as the template parser counts them.
pub(super) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let line = text[start..].lines().next().unwrap_or("");
    let within = line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    start + within
}

/// Walks a parsed template: refuses what is not of the language, notes what is named, and makes plain tags strict.
struct Walk<'a> {
    text: &'a str,
    references: Vec<Reference>,
}

impl Walk<'_> {
    /// `shifted`: whether plain paths begin at a block's own value instead of the roots.
    fn template(&mut self, template: &mut handlebars::Template, shifted: bool) -> Result<(), CompileError> {
        for (element, mapping) in template.elements.iter_mut().zip(&template.mapping) {
            let offset = offset_of(self.text, mapping.0, mapping.1);
            match element {
                TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
                TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => {
                    self.tag(tag, offset, shifted)?;
                }
                TemplateElement::HelperBlock(block) => self.block(block, offset, shifted)?,
                _ => {
                    return Err(CompileError::new(offset, "partials and inline partials are not part of the language")
                        .help("write the text out, or compute it in an output of an earlier step"));
                }
            }
        }
        Ok(())
    }

    fn tag(&mut self, tag: &mut HelperTemplate, offset: usize, shifted: bool) -> Result<(), CompileError> {
        let plain = tag.params.is_empty() && tag.hash.is_empty();
        if plain {
            self.parameter(&tag.name, offset, shifted)?;
            let path = match std::mem::replace(&mut tag.name, Parameter::Name(helpers::TEXT.to_owned())) {
                Parameter::Name(name) => handlebars::Path::parse(&name)
                    .map(Parameter::Path)
                    .map_err(|_| CompileError::new(offset, format!("not a name: {name}")))?,
                other => other,
            };
            tag.params = vec![path];
            return Ok(());
        }
        self.call(tag, offset, shifted)?;
        // What these give can be of any type: print it as a plain tag would.
        if matches!(tag.name.as_name(), Some("default" | "lookup")) {
            let name = std::mem::replace(&mut tag.name, Parameter::Name(helpers::TEXT.to_owned()));
            let inner = Subexpression::new(name, std::mem::take(&mut tag.params), std::mem::take(&mut tag.hash));
            tag.params = vec![Parameter::Subexpression(inner)];
        }
        Ok(())
    }

    fn block(&mut self, block: &mut HelperTemplate, offset: usize, shifted: bool) -> Result<(), CompileError> {
        let name = block.name.as_name().unwrap_or_default().to_owned();
        if !helpers::BLOCKS.contains(&name.as_str()) {
            return Err(unknown_helper(&name, &helpers::BLOCKS, offset));
        }
        self.call(block, offset, shifted)?;
        let shifts = matches!(name.as_str(), "each" | "with");
        if let Some(body) = &mut block.template {
            self.template(body, shifted || shifts)?;
            if name == "each" {
                let tick = helpers::TICK.clone();
                body.elements.splice(0..0, tick.elements);
                body.mapping.splice(0..0, tick.mapping);
            }
        }
        if let Some(body) = &mut block.inverse {
            self.template(body, shifted)?;
        }
        Ok(())
    }

    fn call(&mut self, tag: &HelperTemplate, offset: usize, shifted: bool) -> Result<(), CompileError> {
        let name = tag.name.as_name().unwrap_or_default();
        if !tag.block && !helpers::INLINE.contains(&name) {
            return Err(unknown_helper(name, &helpers::INLINE, offset));
        }
        tag.params.iter().chain(tag.hash.values()).try_for_each(|param| self.parameter(param, offset, shifted))
    }

    fn parameter(&mut self, parameter: &Parameter, offset: usize, shifted: bool) -> Result<(), CompileError> {
        match parameter {
            Parameter::Literal(_) => {}
            Parameter::Name(name) => self.path(name, offset, shifted),
            Parameter::Path(handlebars::Path::Relative((_, raw))) => self.path(raw, offset, shifted),
            Parameter::Path(handlebars::Path::Local(_)) => {}
            Parameter::Subexpression(sub) => {
                if let TemplateElement::Expression(tag) = sub.element.as_ref() {
                    if tag.params.is_empty() && tag.hash.is_empty() {
                        self.parameter(&tag.name, offset, shifted)?;
                    } else {
                        self.call(tag, offset, shifted)?;
                    }
                }
            }
            _ => return Err(CompileError::new(offset, "not of the language's templates")),
        }
        Ok(())
    }

    fn path(&mut self, raw: &str, from: usize, shifted: bool) {
        let mut path = raw;
        let rooted = path.strip_prefix("@root.").or_else(|| path.strip_prefix("@root/"));
        if let Some(rooted) = rooted {
            path = rooted;
        }
        if !shifted && let Some(rest) = path.strip_prefix("this.").or_else(|| path.strip_prefix("this/")) {
            path = rest;
        }
        let up = path.contains("../");
        while let Some(rest) = path.strip_prefix("../").or_else(|| path.strip_prefix("./")) {
            path = rest;
        }
        let mut parts = path.split(['.', '/']).map(|part| part.trim_matches(['[', ']']).to_owned());
        let root = parts.next().unwrap_or_default();
        // Inside `each` and `with` a plain path begins at the block's value, which is not known here.
        if shifted && rooted.is_none() && (!up || !super::ROOTS.contains(&root.as_str())) || root == "this" {
            return;
        }
        let offset = self.text[from..].find(raw).map_or(from, |at| from + at);
        self.references.push(Reference { root, rest: parts.collect(), offset });
    }
}

fn unknown_helper(name: &str, known: &[&'static str], offset: usize) -> CompileError {
    let error = CompileError::new(offset, format!("unknown template helper {name:?}"));
    match crate::nearest::nearest(name, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near}?")),
        None => error.help(format!("known helpers: {}", known.join(", "))),
    }
}
