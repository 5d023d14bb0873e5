//! What is wrong with a playbook, and where.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity};

/// No file needs more of them to be repaired; a generated one could have thousands.
const MOST: usize = 100;

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The playbook cannot be used.
    Error,
    /// The playbook can be used; someone should look.
    Warning,
}

/// One problem of a playbook, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the playbook can be used all the same.
    pub level: Level,
    /// Stable, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The file's name, as given.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Byte offset and length in the source.
    pub span: (usize, usize),
}

/// All problems of one playbook, in the order of their places, with its text. At most 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The problems.
    pub list: Vec<Diagnostic>,
    /// The text that they point into.
    pub source: Arc<str>,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub offset: usize,
    pub length: usize,
    pub line: usize,
    pub column: usize,
}

impl Default for Span {
    fn default() -> Self {
        Self { offset: 0, length: 0, line: 1, column: 1 }
    }
}

impl Span {
    /// From this place's start to another's end.
    pub fn until(self, end: Self) -> Self {
        Self { length: (end.offset + end.length).saturating_sub(self.offset), ..self }
    }
}

/// The place of a byte of a scalar's text in a document, where the document writes it out as it is; else the scalar's.
pub(crate) fn within(document: &str, scalar: Span, text: &str, offset: usize, length: usize) -> Span {
    let written = document.get(scalar.offset..scalar.offset + scalar.length).unwrap_or("");
    let Some(start) = written.find(text) else { return scalar };
    let offset = scalar.offset + start + offset.min(text.len());
    // From the scalar's place on: a document of many problems is not read from its start for each.
    let before = document.get(scalar.offset..offset).unwrap_or("");
    let line = scalar.line + before.bytes().filter(|byte| *byte == b'\n').count();
    let column = match before.rsplit_once('\n') {
        Some((_, line)) => line.chars().count() + 1,
        None => scalar.column + before.chars().count(),
    };
    let end = (offset + length).min(scalar.offset + scalar.length).max(offset);
    // A place that a parser gave as one byte may stand on a longer letter.
    let length = (end..=document.len()).find(|at| document.is_char_boundary(*at)).unwrap_or(end) - offset;
    Span { offset, length, line, column }
}

/// Where problems are gathered.
#[derive(Debug)]
pub(crate) struct Report {
    file: Arc<str>,
    list: Vec<Diagnostic>,
    errors: usize,
}

/// A problem that was just reported; takes a remedy.
pub(crate) struct Entry<'a>(&'a mut Diagnostic);

impl Entry<'_> {
    pub fn help(self, help: impl Into<String>) {
        self.0.help = Some(help.into());
    }

    /// A remedy where there is one.
    pub fn maybe_help(self, help: Option<String>) {
        self.0.help = help;
    }
}

impl Report {
    pub fn new(file: &str) -> Self {
        Self { file: file.into(), list: Vec::new(), errors: 0 }
    }

    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Entry<'_> {
        self.add(Level::Error, code, span, message.into())
    }

    pub fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Entry<'_> {
        self.add(Level::Warning, code, span, message.into())
    }

    fn add(&mut self, level: Level, code: &'static str, span: Span, message: String) -> Entry<'_> {
        self.errors += usize::from(level == Level::Error);
        self.list.push(Diagnostic {
            level,
            code,
            message,
            help: None,
            file: Arc::clone(&self.file),
            line: span.line,
            column: span.column,
            span: (span.offset, span.length),
        });
        Entry(self.list.last_mut().expect("one was just added"))
    }

    /// Adds the problems of another report.
    pub fn append(&mut self, other: Self) {
        self.errors += other.errors;
        self.list.extend(other.list);
    }

    /// Takes back the warnings of a code at places inside another; says whether there were any.
    pub fn retract(&mut self, inside: Span, code: &str) -> bool {
        let before = self.list.len();
        let within = |at: usize| (inside.offset..=inside.offset + inside.length).contains(&at);
        self.list.retain(|one| one.level == Level::Error || one.code != code || !within(one.span.0));
        self.list.len() < before
    }

    /// Whether there are more errors than are ever shown: further ones change nothing.
    pub fn is_full(&self) -> bool {
        self.errors > MOST
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The problems in the order of their places.
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        if self.list.len() > MOST {
            self.list.sort_by_key(|diagnostic| (diagnostic.level, diagnostic.span.0));
            self.list.truncate(MOST);
        }
        self.list.sort_by_key(|diagnostic| (diagnostic.span.0, diagnostic.level));
        self.list.dedup();
        self.list
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {level}[{}]: {}", self.file, self.line, self.column, self.code, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostics {
    /// All problems with the lines they stand in and a caret under each, for people.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render(&self.list, &self.source, color)
    }
}

/// Problems with the lines they stand in and a caret under each, for people; for warnings beside a usable plan.
#[must_use]
pub fn render(list: &[Diagnostic], source: &Arc<str>, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
    let mut out = String::new();
    for diagnostic in list {
        let shown = Shown { diagnostic, source: NamedSource::new(&*diagnostic.file, Arc::clone(source)) };
        if handler.render_report(&mut out, &shown).is_err() {
            out.push_str(&format!("{diagnostic}\n"));
        }
    }
    out
}

#[derive(Debug)]
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    source: NamedSource<Arc<str>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(match self.diagnostic.level {
            Level::Error => Severity::Error,
            Level::Warning => Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (offset, length) = self.diagnostic.span;
        Some(Box::new(std::iter::once(LabeledSpan::new(Some("here".to_owned()), offset, length))))
    }
}
