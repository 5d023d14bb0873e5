//! Limits on a text, checked before any parser sees it.

use super::CompileError;

/// The longest template.
pub(super) const TEMPLATE_BYTES: usize = 8 * 1024;
/// The longest condition.
const EXPRESSION_BYTES: usize = 2 * 1024;
const NESTING: usize = 32;
const BLOCKS: usize = 64;
/// Operators, dots and brackets of a condition, those inside of its texts too: what a text is, only the parser can tell.
const OPERATORS: usize = 200;
const BRACKETS: usize = 100;

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

/// Refuses a condition that could exhaust the parser's stack, whatever it makes of it; whether it is so small that
/// the caller's stack will do. Each bracket can be a level of 200 KiB, also in a text that is wrong:
/// the parser's recovery takes `()()` for `(()`.
pub(super) fn expression(text: &str) -> Result<bool, CompileError> {
    if text.len() > EXPRESSION_BYTES {
        let message = format!("expression of {} bytes; the limit is {EXPRESSION_BYTES}", text.len());
        return Err(CompileError::new(0, message));
    }
    let (mut brackets, mut operators) = (0_usize, 0_usize);
    for (at, letter) in text.bytes().enumerate() {
        match letter {
            b'(' | b'[' | b'{' => {
                brackets += 1;
                operators += 1;
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'?' | b'!' | b'<' | b'>' | b'=' | b'.' | b'&' | b'|' => operators += 1,
            b'i' if text[at..].starts_with("in ") => operators += 1,
            _ => {}
        }
        if brackets > BRACKETS || operators > OPERATORS {
            let message = format!("expression of more than {BRACKETS} brackets or {OPERATORS} operators");
            return Err(CompileError::new(at, message).help("split it over the outputs of several steps"));
        }
    }
    Ok(brackets <= 2 && operators <= 16)
}
