//! What a terminal is given: text that cannot steer it, colour only where it is wanted, tables that align.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::LazyLock;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::failure::Failure;

/// The text with everything escaped that could steer a terminal or mislead its reader: control characters (line breaks
/// among them), escape sequences, bidirectional overrides, and what is invisible.
///
/// Labels, outputs and errors come from outside; nothing of them is printed in any other way.
pub fn inert(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            letter if letter.is_control() || misleads(letter) => {
                write!(shown, "\\u{{{:x}}}", u32::from(letter)).expect("a string takes all");
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// Format characters: bidirectional marks and overrides, zero-width ones, tags, line separators.
fn misleads(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// How many columns inert text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text cut to so many columns, with an ellipsis where something is gone.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut left = columns.saturating_sub(1);
    for letter in text.chars() {
        let needed = letter.width().unwrap_or(0);
        if needed > left {
            break;
        }
        left -= needed;
        shown.push(letter);
    }
    shown.push('…');
    shown
}

/// The text filled up to so many columns.
pub fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// How text is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// What matters less.
    Dim,
    /// What went well.
    Green,
    /// What went wrong.
    Red,
    /// What wants attention.
    Yellow,
    /// What is under way.
    Cyan,
}

/// Where people read: whether it is a terminal, takes colour, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether lines may be written over.
    pub live: bool,
    /// Whether colours may be used.
    pub color: bool,
    /// How wide it is; none where nothing needs to fit.
    pub columns: Option<usize>,
}

/// The standard output.
pub static OUT: LazyLock<Terminal> = LazyLock::new(|| Terminal::of(&io::stdout()));
/// The standard error.
pub static ERR: LazyLock<Terminal> = LazyLock::new(|| Terminal::of(&io::stderr()));

impl Terminal {
    fn of<S: io::IsTerminal + std::os::fd::AsFd>(stream: &S) -> Self {
        let live = stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = terminal_size::terminal_size_of(stream).map(|(columns, _)| usize::from(columns.0));
        Self { live, color: live && !plain, columns: columns.filter(|columns| live && *columns >= 40) }
    }

    /// The text in a style, where there is colour.
    pub fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            _ if !self.color || text.is_empty() => return text.to_owned(),
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Green => "32",
            Style::Red => "31",
            Style::Yellow => "33",
            Style::Cyan => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Writes to the standard output; that its reader goes away is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::because("the output cannot be written", &error),
    })
}

/// Writes a note for people to the standard error.
pub fn note(text: &str) {
    // Where even that is closed there is nobody to tell.
    writeln!(io::stderr(), "{text}").ok();
}

/// Columns that align; cells are made inert.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// A table with these columns.
    pub fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [(Style, String); N]) {
        self.rows.push(cells.map(|(style, text)| (style, inert(&text))).to_vec());
    }

    /// The text; the last column is cut to what fits.
    pub fn render(&self, terminal: Terminal) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (column, (_, text)) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(text));
            }
        }
        let last = self.header.len() - 1;
        let before: usize = widths[..last].iter().map(|width| width + 2).sum();
        let room = terminal.columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(16));
        let mut out = String::new();
        let header: Vec<_> = self.header.iter().map(|name| (Style::Dim, (*name).to_owned())).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (column, (style, text)) in row.iter().enumerate() {
                let text = if column == last { cut(text, room) } else { text.clone() };
                let fill = if column == last { 0 } else { widths[column] + 2 - width(&text) };
                line.push_str(&terminal.paint(*style, &text));
                line.push_str(&" ".repeat(fill));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A cell without a style.
pub fn plain(text: impl Into<String>) -> (Style, String) {
    (Style::Plain, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("Instance db-01:9100 down", "Instance db-01:9100 down"),
            ("Überlast 東京 🔥", "Überlast 東京 🔥"),
            ("\u{1b}[2J\u{1b}]0;owned\u{7}", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("one\r\ntwo\tthree\u{8}", "one\\r\\ntwo\\tthree\\u{8}"),
            ("abc\u{202e}txt.exe", "abc\\u{202e}txt.exe"),
            (
                "\u{2066}\u{2069}\u{200b}\u{200f}\u{feff}\u{e0041}",
                "\\u{2066}\\u{2069}\\u{200b}\\u{200f}\\u{feff}\\u{e0041}",
            ),
            ("\u{2028}\u{7f}\0", "\\u{2028}\\u{7f}\\u{0}"),
        ] {
            assert_eq!(inert(text), shown);
        }
    }

    #[test]
    fn cut_keeps_to_columns_not_bytes() {
        assert_eq!(cut("disk", 4), "disk");
        assert_eq!(cut("disks", 4), "dis…");
        assert_eq!(cut("東京都庁", 5), "東京…");
        assert_eq!(cut("x", 0), "…");
    }

    #[test]
    fn columns_align_whatever_the_letters() {
        let terminal = Terminal { live: false, color: false, columns: None };
        let mut table = Table::new(["NAME", "STATE"]);
        table.row([plain("東京"), plain("ok")]);
        table.row([plain("a\nb"), plain("failed")]);
        assert_eq!(table.render(terminal), "NAME  STATE\n東京  ok\na\\nb  failed\n");
    }

    #[test]
    fn colour_is_left_out_where_it_is_not_wanted() {
        let plain = Terminal { live: true, color: false, columns: None };
        assert_eq!(plain.paint(Style::Red, "x"), "x");
        assert_eq!(Terminal { color: true, ..plain }.paint(Style::Red, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
