//! Reads a Markdown page into its anchors, links, code and tables, as far as our pages use Markdown.
//!
//! Anchors are made as GitHub makes them. It renders nothing, and knows no HTML and no reference links.

use std::collections::{BTreeMap, BTreeSet};

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    /// What `#…` may name on it.
    pub anchors: BTreeSet<String>,
    /// Targets of links and pictures, and where they are.
    pub links: Vec<Placed<String>>,
    /// Code in backticks, without the backticks.
    pub inline: Vec<Placed<String>>,
    /// Fenced code.
    pub blocks: Vec<Placed<Block>>,
    /// Rows of tables, by cells; the line of dashes is left out.
    pub rows: Vec<Placed<Vec<String>>>,
    /// Headings of level 2 with the text below each, up to the next.
    pub sections: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    pub what: T,
    pub line: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The word behind the fence.
    pub language: String,
    pub text: String,
}

impl Page {
    #[must_use]
    pub fn read(text: &str) -> Page {
        let mut page = Page::default();
        let mut slugs = BTreeMap::new();
        let mut open: Option<Placed<Block>> = None;
        let mut paragraph = String::new();
        let mut begin = 1;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            if let Some((_, below)) = page.sections.last_mut() {
                below.push_str(line);
                below.push('\n');
            }
            let bare = line.trim_start();
            if let Some(language) = bare.strip_prefix("```") {
                page.paragraph(&std::mem::take(&mut paragraph), begin);
                match open.take() {
                    Some(block) => page.blocks.push(block),
                    None => {
                        let block = Block { language: language.to_owned(), text: String::new() };
                        open = Some(Placed { what: block, line: number + 1 });
                    }
                }
            } else if let Some(block) = &mut open {
                block.what.text.push_str(line);
                block.what.text.push('\n');
            } else if bare.is_empty() {
                page.paragraph(&std::mem::take(&mut paragraph), begin);
            } else if bare.starts_with('|') {
                page.paragraph(&std::mem::take(&mut paragraph), begin);
                page.paragraph(bare, number);
                page.row(bare, number);
            } else {
                if let Some(heading) = heading(line) {
                    page.anchors.insert(unique(&mut slugs, &slug(heading)));
                    if line.starts_with("## ") {
                        page.sections.push((heading.to_owned(), String::new()));
                    }
                }
                if paragraph.is_empty() {
                    begin = number;
                }
                paragraph.push_str(line);
                paragraph.push('\n');
            }
        }
        page.paragraph(&paragraph, begin);
        page
    }

    /// Links, and code in backticks, of lines that belong together.
    fn paragraph(&mut self, text: &str, begin: usize) {
        let line = |rest: &str| begin + text[..text.len() - rest.len()].matches('\n').count();
        let mut rest = text;
        while let Some(at) = rest.find(['`', ']']) {
            rest = &rest[at..];
            if let Some(target) = rest.strip_prefix("](") {
                let end = target.find(')').unwrap_or(target.len());
                self.links.push(Placed { what: target[..end].to_owned(), line: line(rest) });
                rest = &target[end..];
            } else if rest.starts_with(']') {
                rest = &rest[1..];
            } else {
                let code = rest.trim_start_matches('`');
                let ticks = &rest[..rest.len() - code.len()];
                let end = code.find(ticks).unwrap_or(0);
                if end > 0 {
                    let what = code[..end].replace('\n', " ").replace("\\|", "|");
                    self.inline.push(Placed { what, line: line(rest) });
                    rest = &code[end + ticks.len()..];
                } else {
                    rest = code;
                }
            }
        }
    }

    fn row(&mut self, line: &str, number: usize) {
        let cells = line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let cells: Vec<String> = cells.collect();
        if !cells.iter().all(|cell| cell.chars().all(|c| matches!(c, '-' | ':'))) {
            self.rows.push(Placed { what: cells, line: number });
        }
    }

    /// The rows below a head of exactly these cells, of all tables that have it.
    #[must_use]
    pub fn rows_below(&self, head: &[&str]) -> Vec<&Placed<Vec<String>>> {
        let mut found = Vec::new();
        // The line that the next row of such a table is on.
        let mut next = 0;
        for row in &self.rows {
            if row.what == head {
                // Below a head is a line of dashes.
                next = row.line + 2;
            } else if row.line == next {
                found.push(row);
                next += 1;
            }
        }
        found
    }
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim())
}

/// The anchor that GitHub gives to a heading.
fn slug(heading: &str) -> String {
    let text = heading.to_lowercase();
    let kept = text.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn unique(slugs: &mut BTreeMap<String, usize>, slug: &str) -> String {
    let seen = slugs.entry(slug.to_owned()).or_default();
    *seen += 1;
    if *seen == 1 { slug.to_owned() } else { format!("{slug}-{}", *seen - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_into_its_parts() {
        let page = Page::read(
            "# A page: of `code`\n\ntext [one](a.md#b) and `x](no)`,\nthen ![two](p.png)\n\n\
             ## Same\n| a | b |\n|---|---|\n| `x \\| y` | [c](d) |\n## Same\n   ```sh\n   run `me`\n   ```\nend",
        );
        let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["a-page-of-code", "same", "same-1"]);
        let links: Vec<_> = page.links.iter().map(|link| (link.what.as_str(), link.line)).collect();
        assert_eq!(links, [("a.md#b", 3), ("p.png", 4), ("d", 9)]);
        let inline: Vec<_> = page.inline.iter().map(|code| code.what.as_str()).collect();
        assert_eq!(inline, ["code", "x](no)", "x | y"]);
        let block = Block { language: "sh".to_owned(), text: "   run `me`\n".to_owned() };
        assert_eq!(page.blocks, [Placed { what: block, line: 12 }]);
        assert_eq!(page.sections.len(), 2);
        assert!(page.sections[1].1.ends_with("end\n"));
    }

    #[test]
    fn rows_are_found_by_the_head_of_their_table() {
        let page = Page::read("|a|b|\n|-|-|\n|1|2|\n|3|4|\n\n|c|\n|-|\n|5|\n\n|a|b|\n|-|-|\n|6|7|");
        let found: Vec<_> =
            page.rows_below(&["a", "b"]).iter().map(|row| row.what.join("")).collect();
        assert_eq!(found, ["12", "34", "67"]);
        assert!(page.rows_below(&["a"]).is_empty());
    }
}
