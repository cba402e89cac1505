//! What the template of a prompt may use: the part of minijinja's language in which nothing grows without a bound.
//!
//! A template comes from whoever may submit a job, and is rendered in a process that works for everybody. Rendering counts
//! instructions, bytes and items, but three things escape that count: how deep a template nests (a deep one overflows the
//! stack while it is compiled or dropped, which ends the process whatever catches panics), values that hold themselves (they
//! overflow it when they are printed), and values that hold others many times over (comparing them never ends). So a template
//! is read here before it is compiled, and what leads there is refused with its line:
//!
//! - blocks and brackets nest a few levels, and a block has at most [`TOKENS_MAX`] names, numbers and signs;
//! - names are bound by loops and macros alone, whose items and arguments are fields: there is no `set`, `with` or `namespace`.

use std::collections::BTreeSet;
use std::fmt;

/// Most tokens of one block.
pub const TOKENS_MAX: usize = 128;
/// Most blocks of a template.
const BLOCKS_MAX: usize = 512;
/// Most `elif` of a template.
const ELIF_MAX: usize = 64;
/// How deep blocks may nest, and brackets in a block.
const DEPTH_MAX: usize = 8;
/// Most macros.
const MACROS_MAX: usize = 16;
/// Words of an expression that no bracket can belong to.
const OPERATORS: &[&str] = &["and", "or", "not", "in", "if", "else"];

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong, and what to write.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

/// Checks that a template uses nothing that can grow without a bound. That it is well formed is for whoever compiles it.
///
/// # Errors
/// It does; the first place where.
pub fn check(template: &str) -> Result<(), Refused> {
    let mut reader = Reader { template, at: 0 };
    let mut state = State::default();
    loop {
        let found = reader.next_block().and_then(|block| match block {
            Some(block) => state.take(&block).map(|()| true),
            None => Ok(false),
        });
        match found {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(message) => {
                let before = template.get(..reader.at).unwrap_or(template);
                return Err(Refused { line: 1 + before.matches('\n').count(), message });
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Number(&'a str),
    /// A text between quotes, as it is written.
    Text(&'a str),
    Sign(u8),
}

/// A block: a statement, or an expression whose value is written.
#[derive(Debug)]
struct Block<'a> {
    is_statement: bool,
    tokens: Vec<Token<'a>>,
}

/// Finds blocks.
struct Reader<'a> {
    template: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.template.get(self.at..).unwrap_or_default()
    }

    fn next_block(&mut self) -> Result<Option<Block<'a>>, String> {
        loop {
            let Some(place) = self.rest().find('{') else { return Ok(None) };
            self.at += place + 1;
            let kind = self.rest().bytes().next();
            match kind {
                Some(b'#') => {
                    self.at += 1;
                    let end = self.rest().find("#}").ok_or("a comment `{#` has no end `#}`")?;
                    self.at += end + 2;
                }
                Some(b'{' | b'%') => {
                    self.at += 1;
                    return self.block(kind == Some(b'%')).map(Some);
                }
                Some(_) | None => {}
            }
        }
    }

    /// The block that begins here.
    fn block(&mut self, is_statement: bool) -> Result<Block<'a>, String> {
        let end = if is_statement { "%}" } else { "}}" };
        if self.rest().starts_with(['-', '+']) {
            self.at += 1;
        }
        let mut tokens = Vec::new();
        loop {
            let rest = self.rest().trim_start();
            self.at = self.template.len() - rest.len();
            if let Some(trimmed) = rest.strip_prefix(['-', '+'])
                && trimmed.starts_with(end)
            {
                self.at += 1;
            }
            if self.rest().starts_with(end) {
                self.at += end.len();
                return Ok(Block { is_statement, tokens });
            }
            if tokens.len() == TOKENS_MAX {
                return Err(format!(
                    "a block has more than {TOKENS_MAX} names, numbers and signs: write it in several"
                ));
            }
            tokens.push(self.token(end)?);
        }
    }

    fn token(&mut self, end: &str) -> Result<Token<'a>, String> {
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else { return Err(format!("a block has no end `{end}`")) };
        let span = |is_inside: fn(u8) -> bool| {
            let length = rest.bytes().position(|byte| !is_inside(byte)).unwrap_or(rest.len());
            rest.get(..length).unwrap_or_default()
        };
        let (token, length) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let name = span(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                (Token::Name(name), name.len())
            }
            b'0'..=b'9' => {
                let number = span(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                (Token::Number(number), number.len())
            }
            b'"' | b'\'' => {
                let text = quoted(rest, first).ok_or("a text in quotes has no end")?;
                (Token::Text(text), text.len() + 2)
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'|' | b'.' | b',' | b':' | b'(' | b')' | b'['
            | b']' | b'=' | b'!' | b'<' | b'>' => (Token::Sign(first), 1),
            _ => {
                let found = rest.chars().next().unwrap_or_default();
                return Err(format!("`{}` is not part of what a prompt may use", found.escape_default()));
            }
        };
        self.at += length;
        Ok(token)
    }
}

/// What stands between the quotes at the beginning of `rest`.
fn quoted(rest: &str, quote: u8) -> Option<&str> {
    let mut is_escaped = false;
    for (place, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            _ if byte == quote => return rest.get(1..place),
            _ => {}
        }
    }
    None
}

/// What is known of the blocks before.
#[derive(Debug, Default)]
struct State<'a> {
    blocks: usize,
    elifs: usize,
    open: Vec<&'a str>,
    macros: BTreeSet<&'a str>,
}

impl<'a> State<'a> {
    fn take(&mut self, block: &Block<'a>) -> Result<(), String> {
        self.blocks += 1;
        if self.blocks > BLOCKS_MAX {
            return Err(format!("a template has at most {BLOCKS_MAX} blocks"));
        }
        if !block.is_statement {
            return self.expression(&block.tokens);
        }
        let Some((Token::Name(tag), rest)) = block.tokens.split_first() else {
            return Err("a statement has no name".to_owned());
        };
        match *tag {
            "if" => self.open(tag).and_then(|()| self.expression(rest)),
            "elif" => {
                self.elifs += 1;
                if self.elifs > ELIF_MAX {
                    return Err(format!("a template has at most {ELIF_MAX} `elif`"));
                }
                self.expression(rest)
            }
            "else" => Ok(()),
            "for" => self.open(tag).and_then(|()| self.repeat(rest)),
            "macro" => self.open(tag).and_then(|()| self.define(rest)),
            "endif" | "endfor" | "endmacro" => {
                self.open.pop();
                Ok(())
            }
            _ => Err(format!("`{tag}` is not part of what a prompt may use: `if`, `for` and `macro` are")),
        }
    }

    fn open(&mut self, tag: &'a str) -> Result<(), String> {
        self.open.push(tag);
        if self.open.len() > DEPTH_MAX {
            return Err(format!("blocks nest at most {DEPTH_MAX} deep"));
        }
        Ok(())
    }

    /// `for NAMES in PATH if CONDITION`: what is looped over is a path, or a range.
    fn repeat(&self, tokens: &[Token<'a>]) -> Result<(), String> {
        let place = |tokens: &[Token<'_>], name| tokens.iter().position(|token| *token == Token::Name(name));
        if place(tokens, "recursive").is_some() {
            return Err("`recursive` is not part of what a prompt may use".to_owned());
        }
        let from = place(tokens, "in").map_or(tokens.len(), |place| place + 1);
        let rest = tokens.get(from..).unwrap_or_default();
        let (over, condition) = rest.split_at(place(rest, "if").unwrap_or(rest.len()));
        if !is_range(over) && !is_path(over) {
            return Err(
                "a loop runs over a field, such as `exemplars` or `example.choices`, or over a `range`"
                    .to_owned(),
            );
        }
        self.expression(over)?;
        self.expression(condition)
    }

    /// `macro NAME(PARAMETERS)`.
    fn define(&mut self, tokens: &[Token<'a>]) -> Result<(), String> {
        let [Token::Name(name), Token::Sign(b'('), parameters @ .., Token::Sign(b')')] = tokens else {
            return Err("a macro is written `{% macro name(argument) %}`".to_owned());
        };
        let is_plain = |token: &Token<'_>| {
            matches!(token, Token::Name(_) | Token::Text(_) | Token::Number(_) | Token::Sign(b',' | b'='))
        };
        if !parameters.iter().all(is_plain) {
            return Err("the parameters of a macro are names".to_owned());
        }
        self.macros.insert(name);
        if self.macros.len() > MACROS_MAX {
            return Err(format!("a template has at most {MACROS_MAX} macros"));
        }
        Ok(())
    }

    fn expression(&self, tokens: &[Token<'a>]) -> Result<(), String> {
        let mut depth = 0_usize;
        for (place, token) in tokens.iter().enumerate() {
            let before =
                |distance: usize| place.checked_sub(distance).and_then(|place| tokens.get(place)).copied();
            let rest = tokens.get(place + 1..).unwrap_or_default();
            match token {
                Token::Sign(b'(' | b'[') => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(format!("brackets nest at most {DEPTH_MAX} deep"));
                    }
                    if *token == Token::Sign(b'(') {
                        self.call(before(1), before(2), before(3), rest)?;
                    }
                }
                Token::Sign(b')' | b']') => depth = depth.saturating_sub(1),
                Token::Name(_) | Token::Number(_) | Token::Text(_) | Token::Sign(_) => {}
            }
        }
        Ok(())
    }

    /// Checks what is called by a bracket: the tokens before it, the nearest first, and those behind it.
    fn call(
        &self,
        first: Option<Token<'a>>,
        second: Option<Token<'a>>,
        third: Option<Token<'a>>,
        rest: &[Token<'a>],
    ) -> Result<(), String> {
        let name = match first {
            None => return Ok(()),
            Some(Token::Sign(sign)) if sign != b')' && sign != b']' => return Ok(()),
            Some(Token::Name(name)) if OPERATORS.contains(&name) => return Ok(()),
            Some(Token::Name(name)) => name,
            Some(Token::Sign(_) | Token::Number(_) | Token::Text(_)) => {
                return Err("only `range` and macros can be called".to_owned());
            }
        };
        let is_test = second == Some(Token::Name("is"))
            || second == Some(Token::Name("not")) && third == Some(Token::Name("is"));
        if second == Some(Token::Sign(b'|')) || is_test {
            return Ok(());
        }
        let is_of_loop = second == Some(Token::Sign(b'.')) && third == Some(Token::Name("loop"));
        if is_of_loop || name == "range" && second != Some(Token::Sign(b'.')) {
            return Ok(());
        }
        if second == Some(Token::Sign(b'.')) || !self.macros.contains(name) {
            return Err(format!("`{name}` cannot be called: only `range` and the template's own macros can"));
        }
        let length = rest.iter().position(|token| *token == Token::Sign(b')')).unwrap_or(rest.len());
        let is_plain = |token: &Token<'_>| {
            matches!(
                token,
                Token::Name(_) | Token::Number(_) | Token::Text(_) | Token::Sign(b'.' | b',' | b'=')
            )
        };
        if rest.iter().take(length).all(is_plain) {
            Ok(())
        } else {
            Err(format!("`{name}` takes fields, such as `example.input`"))
        }
    }
}

/// A `range` over numbers and fields, and nothing behind it.
fn is_range(tokens: &[Token<'_>]) -> bool {
    let [Token::Name("range"), Token::Sign(b'('), arguments @ .., Token::Sign(b')')] = tokens else {
        return false;
    };
    let is_plain = |token: &Token<'_>| {
        matches!(token, Token::Name(_) | Token::Number(_) | Token::Sign(b'.' | b',' | b'-' | b'|'))
    };
    arguments.iter().all(is_plain)
}

/// A field, perhaps a part of it, perhaps through filters: nothing that is made anew.
fn is_path(tokens: &[Token<'_>]) -> bool {
    let is_name = matches!(tokens.first(), Some(Token::Name(_)));
    is_name
        && tokens.iter().all(|token| {
            matches!(
                token,
                Token::Name(_) | Token::Number(_) | Token::Sign(b'.' | b'[' | b']' | b':' | b'-' | b'|')
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{BUILT_IN, Task};

    #[test]
    fn what_prompts_need_is_allowed() {
        for name in BUILT_IN {
            let task = Task::built_in(name).unwrap();
            assert_eq!(check(&task.template), Ok(()), "{name}");
        }
        for template in [
            "plain { text } with {braces}",
            "{# a comment with {% set x = 1 %} #}{{ example.input }}",
            "{{- example.input|trim|upper -}}",
            "{{ example.choices | join(', ') }}",
            "{{ example.input|replace('\\n', ' ') }}",
            "{{ 'a }} in quotes' }}{{ \"an \\\" escaped quote }}\" }}",
            "{% for choice in example.choices %}{{ loop.index }}. {{ choice }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "{% for n in range(example.choices|length) %}{{ n }}{% endfor %}{% for n in range(10) if n is divisibleby(2) %}{{ n }}{% endfor %}",
            "{% for word in exemplars[1:3] %}{{ word.input }}{% endfor %}",
            "{% if hint is defined and (hint or 'a' in 'ab') %}{{ hint }}{% elif 1 < 2 %}x{% else %}y{% endif %}",
            "{{ 'abc'[loop.index0] }}{{ a if b else c }}{{ a ~ ': ' ~ b }}{{ x is not startingwith('a') }}",
            "{% macro q(row) %}{{ row.input }}{% endmacro %}{{ q(example) }}{{ q(exemplars.0) }}",
        ] {
            assert_eq!(check(template), Ok(()), "{template}");
        }
    }

    #[test]
    fn what_can_grow_without_a_bound_is_refused() {
        let deep = |open: &str, inner: &str, close: &str| {
            format!("{}{inner}{}", open.repeat(DEPTH_MAX + 1), close.repeat(DEPTH_MAX + 1))
        };
        let loops = deep("{% for a in exemplars %}", "x", "{% endfor %}");
        let brackets = format!("{{{{ {} }}}}", deep("(", "1", ")"));
        let subscripts = format!("{{{{ {} }}}}", deep("a[", "1", "]"));
        let operators = format!("{{{{ 1{} }}}}", "+1".repeat(TOKENS_MAX));
        let filters = format!("{{{{ a{} }}}}", "|trim".repeat(TOKENS_MAX));
        let elifs = format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}x".repeat(ELIF_MAX + 1));
        let blocks = "{{ a }}".repeat(BLOCKS_MAX + 1);
        for (template, words) in [
            ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "`set`"),
            ("{% with a = b ~ b %}{{ a ~ a }}{% endwith %}", "`with`"),
            ("{% filter upper %}x{% endfilter %}", "`filter`"),
            ("{% raw %}{{ x }}{% endraw %}", "`raw`"),
            ("{%- include 'x' -%}", "`include`"),
            ("{% call q() %}x{% endcall %}", "`call`"),
            ("{% macro q(a) %}{{ q([a, a]) }}{% endmacro %}{{ q(1) }}", "`q` takes fields"),
            ("{{ namespace() }}", "`namespace` cannot be called"),
            ("{{ {'a': 1} }}", "`{`"),
            ("{{ a.b(c) }}", "`b` cannot be called"),
            ("{{ (a)(b) }}", "can be called"),
            ("{{ a[0](b) }}", "can be called"),
            ("{{ loop(a) }}", "`loop` cannot be called"),
            ("{% for a in b recursive %}x{% endfor %}", "`recursive`"),
            ("{% for a in [b ~ b] %}{{ a }}{% endfor %}", "a loop runs over a field"),
            ("{% for a in b ~ b %}{{ a }}{% endfor %}", "a loop runs over a field"),
            ("{% for a in range(1) + [[b, b]] %}{{ a }}{% endfor %}", "a loop runs over a field"),
            ("{% for a in range(1) + [[b, b]] + range(1) %}{{ a }}{% endfor %}", "a loop runs over a field"),
            ("{% macro q(a) %}{{ a }}{{ a }}{% endmacro %}{{ q(q(b)) }}", "`q` takes fields"),
            ("{% macro q(a) %}{{ a }}{{ a }}{% endmacro %}{{ q(a ~ a) }}", "`q` takes fields"),
            ("{% macro q(a=b|join(b)) %}{% endmacro %}", "the parameters of a macro are names"),
            ("{{ \u{e9} }}", "`\\u{e9}`"),
            ("{{ a", "has no end"),
            ("{{ 'a }}", "has no end"),
            ("{# a", "has no end"),
            (&loops, "blocks nest"),
            (&brackets, "brackets nest"),
            (&subscripts, "brackets nest"),
            (&operators, "a block has more than"),
            (&filters, "a block has more than"),
            (&elifs, "`elif`"),
            (&blocks, "blocks"),
        ] {
            let refused = check(&format!("first line\n{template}")).expect_err(template);
            assert!(refused.message.contains(words), "{template}: {refused}");
            assert_eq!(refused.line, 2, "{template}: {refused}");
        }
    }
}
