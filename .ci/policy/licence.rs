//! Decides whether a licence expression can be met with a list of accepted licences.
//!
//! It reads the part of SPDX that crates use: `AND`, `OR` (also written `/`), `WITH` and parentheses. An expression
//! that it cannot read is refused.

/// Whether some choice that `expression` offers consists of accepted licences only.
pub fn is_accepted(expression: &str, accepted: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, accepted };
    parser.any() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    accepted: &'a [&'a str],
}

impl Parser<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any()?;
            return self.take(")").then_some(met);
        }
        let (licence, rest) = self.words.split_first()?;
        if matches!(*licence, "AND" | "OR" | "WITH" | ")") {
            return None;
        }
        self.words = rest;
        let mut name = (*licence).to_owned();
        if self.take("WITH") {
            let (exception, rest) = self.words.split_first()?;
            self.words = rest;
            name = format!("{name} WITH {exception}");
        }
        Some(self.accepted.contains(&name.as_str()))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::is_accepted;

    const ACCEPTED: &[&str] =
        &["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn one_accepted_choice_is_enough() {
        for expression in
            ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND Unicode-3.0"]
        {
            assert!(is_accepted(expression, ACCEPTED), "{expression}");
        }
        assert!(is_accepted("Apache-2.0 WITH LLVM-exception", ACCEPTED));
    }

    #[test]
    fn what_has_no_accepted_choice_is_refused() {
        for expression in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND OpenSSL",
            "GPL-3.0 WITH LLVM-exception",
            "",
            "MIT OR",
            "(MIT",
            "MIT Apache-2.0",
        ] {
            assert!(!is_accepted(expression, ACCEPTED), "{expression}");
        }
    }
}
