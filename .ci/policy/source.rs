//! Reads one Rust file into the paths and names that it uses outside its tests.
//!
//! It works on tokens, not on the syntax tree, so that a path inside `tokio::select!` counts like any other, and so
//! that comments and strings never do. It resolves nothing: `modules` knows what the paths mean.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// What a file uses. Items under `#[cfg(test)]` are left out.
#[derive(Debug, Default)]
pub struct Source {
    /// Every `a::b::c`, with the groups of a `use` written out; a glob ends in `*`.
    pub paths: Vec<Used<Vec<String>>>,
    /// Every name, in order.
    pub names: Vec<Used<String>>,
    /// Modules declared as `#[cfg(test)] mod name;`: their files are tests too.
    pub test_modules: Vec<TestModule>,
}

/// A test module in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestModule {
    pub name: String,
    /// The file, from the folder of the one that declares it, when `#[path]` names it.
    pub file: Option<String>,
}

/// Something used, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used<T> {
    pub what: T,
    pub line: usize,
    /// How many inline `mod name { … }` surround it: what one `super` inside them does not leave.
    pub nesting: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Mark(char),
    Open(Delimiter),
    Close,
    Other,
}

#[derive(Debug, Clone)]
struct Placed {
    token: Token,
    line: usize,
    nesting: usize,
}

impl Source {
    /// Fails, with the tokenizer's words, only on text that rustc would not accept either.
    pub fn parse(text: &str) -> Result<Source, String> {
        let stream = TokenStream::from_str(text).map_err(|error| error.to_string())?;
        let mut reader = Reader::default();
        reader.flatten(stream, 0);
        let mut source = Source { test_modules: reader.test_modules, ..Source::default() };
        collect(&reader.tokens, &mut source);
        Ok(source)
    }
}

/// Whether the file says at its top what it is for.
pub fn opens_with_docs(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 4)
}

#[derive(Default)]
struct Reader {
    tokens: Vec<Placed>,
    test_modules: Vec<TestModule>,
}

impl Reader {
    fn flatten(&mut self, stream: TokenStream, nesting: usize) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            if is_cfg_test(&trees[at..]) {
                at = self.skip_item(&trees, at + 2);
                continue;
            }
            let inside_module = at >= 2 && names(&trees[at - 2], "mod");
            self.push(&trees[at], nesting, inside_module);
            at += 1;
        }
    }

    fn push(&mut self, tree: &TokenTree, nesting: usize, inside_module: bool) {
        let line = tree.span().start().line;
        let mut place = |token, line| self.tokens.push(Placed { token, line, nesting });
        match tree {
            TokenTree::Ident(name) => place(Token::Name(name.to_string()), line),
            TokenTree::Punct(mark) => place(Token::Mark(mark.as_char()), line),
            TokenTree::Literal(_) => place(Token::Other, line),
            TokenTree::Group(group) => {
                place(Token::Open(group.delimiter()), line);
                let module = inside_module && group.delimiter() == Delimiter::Brace;
                self.flatten(group.stream(), nesting + usize::from(module));
                let line = group.span_close().start().line;
                self.tokens.push(Placed { token: Token::Close, line, nesting });
            }
        }
    }

    /// The position after the item that starts at `at`: behind its first `;` or `{ … }`.
    fn skip_item(&mut self, trees: &[TokenTree], mut at: usize) -> usize {
        let mut file = None;
        while at < trees.len() {
            if let TokenTree::Group(group) = &trees[at] {
                file = file.or_else(|| path_attribute(group));
            }
            if names(&trees[at], "mod")
                && let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(mark))) =
                    (trees.get(at + 1), trees.get(at + 2))
                && mark.as_char() == ';'
            {
                self.test_modules.push(TestModule { name: name.to_string(), file: file.take() });
            }
            let ends = match &trees[at] {
                TokenTree::Punct(mark) => mark.as_char() == ';',
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Ident(_) | TokenTree::Literal(_) => false,
            };
            at += 1;
            if ends {
                break;
            }
        }
        at
    }
}

/// The file that `[path = "…"]` names.
fn path_attribute(group: &Group) -> Option<String> {
    let trees: Vec<TokenTree> = group.stream().into_iter().collect();
    let [name, TokenTree::Punct(_), TokenTree::Literal(file)] = trees.as_slice() else {
        return None;
    };
    let attribute = group.delimiter() == Delimiter::Bracket && names(name, "path");
    attribute.then(|| file.to_string().trim_matches('"').to_owned())
}

fn names(tree: &TokenTree, name: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == name)
}

/// `#[cfg(test)]` and `#[test]`-like attributes are two trees: the mark and the bracket.
fn is_cfg_test(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(mark), TokenTree::Group(group), ..] = trees else { return false };
    if mark.as_char() != '#' || group.delimiter() != Delimiter::Bracket {
        return false;
    }
    let text: String = group.stream().to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

fn collect(tokens: &[Placed], source: &mut Source) {
    for Placed { token, line, nesting } in tokens {
        if let Token::Name(name) = token {
            source.names.push(Used { what: name.clone(), line: *line, nesting: *nesting });
        }
    }
    let mut at = 0;
    while at < tokens.len() {
        let starts = matches!(tokens[at].token, Token::Name(_)) && is_separator(tokens, at + 1);
        // `<T as Trait>::Item::x`: what follows a type is no path of its own.
        let continues = at >= 2 && is_separator(tokens, at - 2);
        if starts && !continues {
            at = read_tree(tokens, at, &mut Vec::new(), &mut source.paths);
        } else {
            at += 1;
        }
    }
}

fn is_separator(tokens: &[Placed], at: usize) -> bool {
    let colon = |at: usize| tokens.get(at).is_some_and(|placed| placed.token == Token::Mark(':'));
    colon(at) && colon(at + 1)
}

/// Reads one path or one branch of a `use` from `at`; returns the position behind it.
fn read_tree(
    tokens: &[Placed],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Used<Vec<String>>>,
) -> usize {
    let depth = prefix.len();
    let Some(first) = tokens.get(at) else { return at };
    let (line, nesting) = (first.line, first.nesting);
    loop {
        match tokens.get(at).map(|placed| &placed.token) {
            Some(Token::Name(name)) => prefix.push(name.clone()),
            Some(Token::Mark('*')) => prefix.push("*".to_owned()),
            Some(Token::Open(Delimiter::Brace)) => {
                at = read_group(tokens, at + 1, prefix, found);
                prefix.truncate(depth);
                return at;
            }
            _ => break, // `Vec::<u8>::new` ends here: what follows is a type
        }
        at += 1;
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    found.push(Used { what: prefix.clone(), line, nesting });
    prefix.truncate(depth);
    at
}

fn read_group(
    tokens: &[Placed],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Used<Vec<String>>>,
) -> usize {
    let mut branch = true;
    while let Some(placed) = tokens.get(at) {
        match &placed.token {
            Token::Close => return at + 1,
            Token::Mark(',') => (branch, at) = (true, at + 1),
            _ if branch => (branch, at) = (false, read_tree(tokens, at, prefix, found)),
            _ => at += 1, // `as alias`
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::parse(text).unwrap();
        source.paths.into_iter().map(|path| path.what.join("::")).collect()
    }

    #[test]
    fn grouped_and_renamed_imports_are_written_out() {
        assert_eq!(
            paths("use crate::{a::{B, c::*}, d as e, f};"),
            ["crate::a::B", "crate::a::c::*", "crate::d", "crate::f"]
        );
    }

    #[test]
    fn paths_in_expressions_and_macros_count() {
        assert_eq!(
            paths("fn f() { tokio::select! { _ = crate::http::run() => {} } }"),
            ["tokio::select", "crate::http::run"]
        );
        assert_eq!(paths("fn f() { Vec::<crate::grpc::X>::new(); }"), ["Vec", "crate::grpc::X"]);
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = r#"
            // crate::http::x
            /* crate::http::y */
            const TEXT: &str = "crate::http::z";
            #[cfg(test)] mod scripted;
            #[cfg(test)]
            mod tests { use crate::http::Router; }
            fn kept() { crate::cache::get() }
        "#;
        assert_eq!(paths(text), ["crate::cache::get"]);
        let declared = TestModule { name: "scripted".to_owned(), file: None };
        assert_eq!(Source::parse(text).unwrap().test_modules, [declared]);
    }

    #[test]
    fn an_inline_module_is_counted_as_nesting() {
        let source = Source::parse("use super::a; mod inner { use super::b; }").unwrap();
        let nesting: Vec<usize> = source.paths.iter().map(|path| path.nesting).collect();
        assert_eq!(nesting, [0, 1]);
    }

    #[test]
    fn a_file_must_say_what_it_is_for() {
        assert!(opens_with_docs("//! Purpose.\nuse a;"));
        assert!(!opens_with_docs("use a;\n//! Purpose."));
        assert!(!opens_with_docs("//!\n"));
        assert!(!opens_with_docs(""));
    }
}
