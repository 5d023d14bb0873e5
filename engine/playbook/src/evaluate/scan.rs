//! Limits on a text, checked before any parser sees it.

use super::CompileError;

/// The longest template.
pub(super) const TEMPLATE_BYTES: usize = 8 * 1024;
/// The longest condition.
const EXPRESSION_BYTES: usize = 2 * 1024;
const NESTING: usize = 32;
const BLOCKS: usize = 64;
const OPERATORS: usize = 150;
/// How deep brackets may stand in a condition.
const BRACKETS: usize = 16;
/// How deep they may stand for the parser to do with the caller's stack: it takes up to 200 KiB a level.
const SHALLOW: usize = 4;

/// Refuses a template whose size or depth could exhaust a parser's stack.
pub(super) fn template(text: &str) -> Result<(), CompileError> {
    if text.len() > TEMPLATE_BYTES {
        let message = format!("template of {} bytes; the limit is {TEMPLATE_BYTES}", text.len());
        return Err(CompileError::new(0, message));
    }
    let bytes = text.as_bytes();
    let (mut open, mut blocks, mut brackets) = (0_usize, 0_usize, 0_usize);
    let mut inside = false;
    let mut at = 0;
    while at < bytes.len() {
        if open > NESTING || brackets > NESTING || blocks > BLOCKS {
            let message = format!("template nested deeper than {NESTING} levels, or of more than {BLOCKS} blocks");
            return Err(CompileError::new(at, message));
        }
        let pair = &bytes[at..bytes.len().min(at + 2)];
        if pair == b"{{" {
            inside = true;
            let word = text[at..].trim_start_matches(['{', '~', ' ', '\t', '\n', '\r']);
            if word.starts_with(['#', '^']) || word.starts_with("else") || text[at..].starts_with("{{{{") {
                blocks += 1;
                open += usize::from(!word.starts_with("else"));
            } else if word.starts_with('/') {
                open = open.saturating_sub(1);
            }
            at += 2;
            continue;
        }
        if pair == b"}}" {
            inside = false;
            brackets = 0;
            at += 2;
            continue;
        }
        if inside {
            match bytes[at] {
                b'(' | b'[' | b'{' => brackets += 1,
                b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
        }
        at += 1;
    }
    Ok(())
}

/// Refuses a condition whose size or depth could exhaust the stack while it is parsed; whether it is shallow.
pub(super) fn expression(text: &str) -> Result<bool, CompileError> {
    if text.len() > EXPRESSION_BYTES {
        let message = format!("expression of {} bytes; the limit is {EXPRESSION_BYTES}", text.len());
        return Err(CompileError::new(0, message));
    }
    let (mut depth, mut deepest, mut operators) = (0_usize, 0_usize, 0_usize);
    let mut quote = None;
    let mut skip = false;
    for (at, letter) in text.char_indices() {
        if skip {
            skip = false;
            continue;
        }
        if let Some(end) = quote {
            match letter {
                '\\' => skip = true,
                letter if letter == end => quote = None,
                _ => {}
            }
            continue;
        }
        match letter {
            '"' | '\'' => quote = Some(letter),
            '(' | '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
                operators += 1;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '?' | '!' | '<' | '>' | '=' | '.' | '&' | '|' => operators += 1,
            'i' if text[at..].starts_with("in ") => operators += 1,
            _ => {}
        }
        if depth > BRACKETS {
            return Err(CompileError::new(at, format!("expression nested deeper than {BRACKETS} brackets")));
        }
        if operators > OPERATORS {
            let message = format!("expression of more than {OPERATORS} operators");
            return Err(CompileError::new(at, message).help("split it over the outputs of several steps"));
        }
    }
    Ok(deepest <= SHALLOW)
}
