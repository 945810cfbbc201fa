//! What a schema says, as far as its cost goes: which of its parts look at a value, and which at what is in the value.
//!
//! Checking a value by a schema can take longer than anybody can wait: parts that refer to each other multiply with each
//! level of the value. So the steps that checking a value takes are counted before it is checked, each pair of a part and a
//! place in the value once, and too many are refused. What the parts mean is the library's.

use std::collections::{HashMap, VecDeque};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// The only draft that is spoken.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Parts that follow each other without going deeper into the value: each takes room on the stack.
const IN_PLACE_MAX: u32 = 16;
/// Bytes that are looked at in one step.
const STEP_BYTES: usize = 64;
/// Keywords whose schemas look at the same value.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords that hold what a value is compared with.
const COMPARED: [&str; 3] = ["enum", "const", "required"];
/// Keywords that look into a text.
const OF_TEXT: [&str; 3] = ["pattern", "minLength", "maxLength"];

type NodeId = usize;

/// One schema in the document.
#[derive(Debug, Default)]
struct Node {
    /// Steps that its own keywords take.
    weight: u64,
    /// Steps that it takes together with the schemas that look at the same value.
    spread: u64,
    reads_text: bool,
    compares_elements: bool,
    in_place: Vec<NodeId>,
    properties: HashMap<String, NodeId>,
    /// Members that no entry of `properties` names.
    other_members: Vec<NodeId>,
    /// Any members.
    members: Vec<NodeId>,
    /// The names of members.
    names: Vec<NodeId>,
    prefix: Vec<NodeId>,
    /// The elements from a place on.
    elements: Vec<(usize, NodeId)>,
}

/// The schemas of a document, and how they follow each other.
#[derive(Debug)]
pub(super) struct Document {
    /// The root is the first.
    nodes: Vec<Node>,
}

/// Checking takes more steps than are allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooCostly;

impl Document {
    /// Reads a well-formed schema. The reason of a refusal names the place.
    pub(super) fn read(schema: &Value) -> Result<Self, String> {
        let mut nodes = Reading::new(schema).nodes()?;
        spread(&mut nodes)?;
        Ok(Self { nodes })
    }

    /// The most steps that checking the value takes, unless they are more than `steps_max`.
    pub(super) fn cost(&self, value: &Value, steps_max: u64) -> Result<u64, TooCostly> {
        Counting { nodes: &self.nodes, steps_max, known: HashMap::new() }.visit(0, value)
    }
}

/// Finds out what each schema takes with those that look at the same value. Refuses those that do so for ever, or for longer
/// than there is room on a stack.
fn spread(nodes: &mut [Node]) -> Result<(), String> {
    /// What is known of a schema; `None` while it is being found out.
    type Known = HashMap<NodeId, Option<(u32, u64)>>;
    fn find(nodes: &[Node], id: NodeId, known: &mut Known) -> Result<(u32, u64), String> {
        match known.get(&id) {
            Some(Some(found)) => return Ok(*found),
            Some(None) => {
                return Err("refers to itself without going deeper into the value".into());
            }
            None => {}
        }
        known.insert(id, None);
        let Some(node) = nodes.get(id) else { return Ok((0, 0)) };
        let (mut length, mut steps) = (0, node.weight);
        for next in &node.in_place {
            // Bounds the recursion as well: what is too long is given up before it goes on.
            if known.values().filter(|found| found.is_none()).count() > IN_PLACE_MAX as usize {
                return Err(too_long());
            }
            let (longer, more) = find(nodes, *next, known)?;
            length = length.max(longer.saturating_add(1));
            steps = steps.saturating_add(more);
        }
        if length > IN_PLACE_MAX {
            return Err(too_long());
        }
        known.insert(id, Some((length, steps)));
        Ok((length, steps))
    }
    let mut known = Known::new();
    for id in 0..nodes.len() {
        let (_, steps) = find(nodes, id, &mut known)?;
        if let Some(node) = nodes.get_mut(id) {
            node.spread = steps;
        }
    }
    Ok(())
}

fn too_long() -> String {
    format!("has more than {IN_PLACE_MAX} parts that look at the same value one after another")
}

struct Counting<'d> {
    nodes: &'d [Node],
    steps_max: u64,
    /// By schema and by where the part of the value lies in memory, where it stays while it is counted.
    known: HashMap<(NodeId, *const Value), u64>,
}

impl Counting<'_> {
    fn visit(&mut self, id: NodeId, value: &Value) -> Result<u64, TooCostly> {
        let place = (id, std::ptr::from_ref(value));
        if let Some(steps) = self.known.get(&place) {
            return Ok(*steps);
        }
        let nodes = self.nodes;
        let Some(node) = nodes.get(id) else { return Ok(0) };
        // Counting takes a step for each pair as well.
        if self.known.len() as u64 >= self.steps_max {
            return Err(TooCostly);
        }
        let mut steps = node.weight;
        for next in &node.in_place {
            self.add(&mut steps, *next, value)?;
        }
        match value {
            Value::String(text) if node.reads_text => {
                steps = steps.saturating_add((text.len() / STEP_BYTES) as u64);
            }
            Value::Object(members) => self.visit_members(&mut steps, node, members)?,
            Value::Array(elements) => {
                if node.compares_elements {
                    steps = steps.saturating_add(elements.len() as u64);
                }
                for (index, element) in elements.iter().enumerate() {
                    let from = node.elements.iter().filter(|(from, _)| index >= *from);
                    let of = from.map(|(_, id)| id).chain(node.prefix.get(index));
                    for next in of {
                        self.add(&mut steps, *next, element)?;
                    }
                }
            }
            _ => {}
        }
        if steps > self.steps_max {
            return Err(TooCostly);
        }
        self.known.insert(place, steps);
        Ok(steps)
    }

    fn visit_members(
        &mut self,
        steps: &mut u64,
        node: &Node,
        members: &Map<String, Value>,
    ) -> Result<(), TooCostly> {
        for (name, member) in members {
            let named = node.properties.get(name);
            let others = if named.is_none() { &node.other_members[..] } else { &[] };
            for next in named.into_iter().chain(others).chain(&node.members) {
                self.add(steps, *next, member)?;
            }
            for id in &node.names {
                let spread = self.nodes.get(*id).map_or(0, |node| node.spread);
                let looks = 1 + (name.len() / STEP_BYTES) as u64;
                *steps = steps.saturating_add(spread.saturating_mul(looks));
            }
        }
        Ok(())
    }

    fn add(&mut self, steps: &mut u64, id: NodeId, value: &Value) -> Result<(), TooCostly> {
        *steps = steps.saturating_add(self.visit(id, value)?);
        if *steps > self.steps_max { Err(TooCostly) } else { Ok(()) }
    }
}

/// Collects the schemas of a document that are reached from its root.
struct Reading<'s> {
    root: &'s Value,
    /// Where they are, as JSON Pointers (RFC 6901).
    known: HashMap<String, NodeId>,
    waiting: VecDeque<(String, &'s Value)>,
    /// Names of places that references may use.
    anchors: Vec<(&'s str, String)>,
}

impl<'s> Reading<'s> {
    fn new(root: &'s Value) -> Self {
        Self { root, known: HashMap::new(), waiting: VecDeque::new(), anchors: Vec::new() }
    }

    fn nodes(mut self) -> Result<Vec<Node>, String> {
        if let Some(draft) = self.root.get("$schema")
            && draft.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT)
        {
            return Err(format!("$schema: only {DRAFT} is known here; leave it out or change it"));
        }
        self.find_anchors();
        self.known.insert(String::new(), 0);
        self.waiting.push_back((String::new(), self.root));
        let mut nodes = Vec::new();
        while let Some((pointer, schema)) = self.waiting.pop_front() {
            let node = self.node(&pointer, schema);
            nodes.push(node.map_err(|reason| format!("at \"{pointer}\": {reason}"))?);
        }
        Ok(nodes)
    }

    fn find_anchors(&mut self) {
        let mut waiting = vec![(String::new(), self.root)];
        while let Some((pointer, value)) = waiting.pop() {
            match value {
                Value::Object(members) => {
                    for keyword in ["$anchor", "$dynamicAnchor"] {
                        if let Some(Value::String(name)) = members.get(keyword) {
                            self.anchors.push((name, pointer.clone()));
                        }
                    }
                    waiting
                        .extend(members.iter().map(|(name, value)| (below(&pointer, name), value)));
                }
                Value::Array(elements) => waiting.extend(
                    elements
                        .iter()
                        .enumerate()
                        .map(|(at, v)| (below(&pointer, &at.to_string()), v)),
                ),
                _ => {}
            }
        }
    }

    /// The number of the schema at a place; it is read later.
    fn id(&mut self, pointer: String, schema: &'s Value) -> NodeId {
        let next = self.known.len();
        match self.known.get(&pointer) {
            Some(id) => *id,
            None => {
                self.known.insert(pointer.clone(), next);
                self.waiting.push_back((pointer, schema));
                next
            }
        }
    }

    fn node(&mut self, pointer: &str, schema: &'s Value) -> Result<Node, String> {
        let mut node = Node { weight: 1, ..Node::default() };
        let Value::Object(keywords) = schema else { return Ok(node) };
        if !pointer.is_empty() && (keywords.contains_key("$id") || keywords.contains_key("$schema"))
        {
            return Err("$id and $schema are allowed at the root only".into());
        }
        node.weight += keywords.len() as u64;
        for keyword in COMPARED {
            let bytes = keywords.get(keyword).map_or(0, |compared| compared.to_string().len());
            node.weight += (bytes / STEP_BYTES) as u64;
        }
        node.reads_text = OF_TEXT.iter().any(|keyword| keywords.contains_key(*keyword));
        node.compares_elements = keywords.contains_key("uniqueItems");
        self.read_in_place(&mut node, pointer, keywords)?;
        self.read_members(&mut node, pointer, keywords);
        self.read_elements(&mut node, pointer, keywords);
        Ok(node)
    }

    fn read_in_place(
        &mut self,
        node: &mut Node,
        pointer: &str,
        keywords: &'s Map<String, Value>,
    ) -> Result<(), String> {
        for keyword in IN_PLACE {
            node.in_place.extend(self.single(pointer, keywords, keyword));
        }
        for keyword in IN_PLACE_LISTS {
            node.in_place.extend(self.list(pointer, keywords, keyword));
        }
        node.in_place.extend(self.named(pointer, keywords, "dependentSchemas").into_values());
        for keyword in ["$ref", "$dynamicRef"] {
            if let Some(Value::String(reference)) = keywords.get(keyword) {
                node.in_place.extend(self.referred(keyword, reference)?);
            }
        }
        Ok(())
    }

    fn read_members(&mut self, node: &mut Node, pointer: &str, keywords: &'s Map<String, Value>) {
        node.properties = self.named(pointer, keywords, "properties");
        node.members.extend(self.named(pointer, keywords, "patternProperties").into_values());
        // Each pattern is looked for in each name.
        let patterns = node.members.len() as u64;
        node.weight += patterns;
        node.other_members.extend(self.single(pointer, keywords, "additionalProperties"));
        node.members.extend(self.single(pointer, keywords, "unevaluatedProperties"));
        node.names.extend(self.single(pointer, keywords, "propertyNames"));
    }

    fn read_elements(&mut self, node: &mut Node, pointer: &str, keywords: &'s Map<String, Value>) {
        node.prefix = self.list(pointer, keywords, "prefixItems");
        let rest = node.prefix.len();
        let mut elements = Vec::new();
        for (keyword, from) in [("items", rest), ("contains", 0), ("unevaluatedItems", 0)] {
            elements.extend(self.single(pointer, keywords, keyword).map(|id| (from, id)));
        }
        node.elements = elements;
    }

    fn single(
        &mut self,
        pointer: &str,
        keywords: &'s Map<String, Value>,
        keyword: &str,
    ) -> Option<NodeId> {
        let schema = keywords.get(keyword)?;
        Some(self.id(below(pointer, keyword), schema))
    }

    fn list(
        &mut self,
        pointer: &str,
        keywords: &'s Map<String, Value>,
        keyword: &str,
    ) -> Vec<NodeId> {
        let Some(Value::Array(schemas)) = keywords.get(keyword) else { return Vec::new() };
        let pointer = below(pointer, keyword);
        let each = schemas.iter().enumerate();
        each.map(|(at, schema)| self.id(below(&pointer, &at.to_string()), schema)).collect()
    }

    fn named(
        &mut self,
        pointer: &str,
        keywords: &'s Map<String, Value>,
        keyword: &str,
    ) -> HashMap<String, NodeId> {
        let Some(Value::Object(schemas)) = keywords.get(keyword) else { return HashMap::new() };
        let pointer = below(pointer, keyword);
        let each = schemas.iter();
        each.map(|(name, schema)| (name.clone(), self.id(below(&pointer, name), schema))).collect()
    }

    /// Where a reference leads; a dynamic one to each place of its name.
    fn referred(&mut self, keyword: &str, reference: &str) -> Result<Vec<NodeId>, String> {
        let outside = || {
            let shown: String = reference.chars().take(100).collect();
            format!(
                "{keyword}: {shown:?} leads out of the schema; only references into it are followed, like \
                 \"#/$defs/name\""
            )
        };
        let fragment = reference.strip_prefix('#').ok_or_else(outside)?;
        let fragment = percent_decode_str(fragment).decode_utf8().map_err(|_| outside())?;
        let places: Vec<String> = if fragment.is_empty() || fragment.starts_with('/') {
            vec![fragment.into_owned()]
        } else {
            let named = self.anchors.iter().filter(|(name, _)| *name == fragment);
            named.map(|(_, pointer)| pointer.clone()).collect()
        };
        let mut found = Vec::new();
        for pointer in places {
            if let Some(schema) = self.root.pointer(&pointer) {
                found.push(self.id(pointer, schema));
            }
        }
        if found.is_empty() {
            let shown: String = reference.chars().take(100).collect();
            return Err(format!("{keyword}: there is no {shown:?} in the schema"));
        }
        Ok(found)
    }
}

/// The JSON Pointer of what is at `name` below another.
fn below(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cost(schema: &Value, value: &Value) -> Result<u64, TooCostly> {
        Document::read(schema).unwrap().cost(value, 100_000)
    }

    #[test]
    fn what_is_not_looked_at_costs_nothing() {
        let schema =
            json!({"properties": {"a": {"type": "number"}, "b": {"items": {"minimum": 1}}}});
        let small = cost(&schema, &json!({})).unwrap();
        assert_eq!(cost(&schema, &json!({"c": [1, 2, 3]})).unwrap(), small);
        let one = cost(&schema, &json!({"a": 1})).unwrap();
        assert!(one > small);
        let (few, many) = (json!({"b": vec![1; 10]}), json!({"b": vec![1; 1000]}));
        assert!(cost(&schema, &many).unwrap() > 50 * cost(&schema, &few).unwrap());
    }

    #[test]
    fn parts_that_multiply_with_each_level_are_counted_as_often() {
        let schema = json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
        let (ten, eleven) =
            (cost(&schema, &nested(10)).unwrap(), cost(&schema, &nested(11)).unwrap());
        assert!(eleven > 2 * ten - 100, "{ten} {eleven}");
        assert_eq!(cost(&schema, &nested(60)), Err(TooCostly));
        // A tree of one part costs no more than it has nodes.
        let tree = json!({"properties": {"a": {"$ref": "#"}}});
        assert!(cost(&tree, &nested(60)).unwrap() < 500);
    }

    #[test]
    fn a_schema_that_goes_round_in_one_place_is_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}}),
            json!({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]}),
        ] {
            let error = Document::read(&schema).unwrap_err();
            assert!(error.contains("refers to itself"), "{error}");
        }
        let chain = |length: usize| {
            let defs = (0..length)
                .map(|at| (format!("d{at}"), json!({"$ref": format!("#/$defs/d{}", at + 1)})));
            let mut defs: Map<String, Value> = defs.collect();
            defs.insert(format!("d{length}"), json!(true));
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        assert!(Document::read(&chain(10)).is_ok());
        for length in [20, 2_500] {
            let error = Document::read(&chain(length)).unwrap_err();
            assert!(error.contains("one after another"), "{error}");
        }
    }

    #[test]
    fn references_lead_into_the_schema_only() {
        for (schema, part) in [
            (json!({"$ref": "https://example.org/a.json"}), "leads out"),
            (json!({"items": {"$ref": "other.json#/a"}}), "at \"/items\""),
            (json!({"$ref": "#/$defs/none"}), "there is no"),
            (json!({"$ref": "#none"}), "there is no"),
            (json!({"properties": {"a": {"$id": "b"}}}), "at the root only"),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "$schema"),
        ] {
            let error = Document::read(&schema).unwrap_err();
            assert!(error.contains(part), "{schema}: {error}");
        }
        for schema in [
            json!({"$schema": DRAFT, "$id": "https://example.org/model", "items": {"$ref": "#/$defs/a~1b%25"},
                   "$defs": {"a/b%": {"type": "number"}}}),
            json!({"items": {"$ref": "#here"}, "$defs": {"x": {"$anchor": "here"}}}),
            json!(true),
        ] {
            assert!(Document::read(&schema).is_ok(), "{schema}");
        }
    }

    #[test]
    fn texts_names_and_lists_that_are_compared_cost_by_their_size() {
        let more = |schema: Value, little: Value, much: Value| {
            assert!(
                cost(&schema, &much).unwrap() > cost(&schema, &little).unwrap() + 100,
                "{schema}"
            );
        };
        more(json!({"pattern": "a"}), json!("a"), json!("a".repeat(64_000)));
        more(json!({"uniqueItems": true}), json!([1]), json!(vec![1; 1000]));
        let names = (0..1000).map(|n| (n.to_string(), json!(1))).collect::<Map<_, _>>();
        more(json!({"propertyNames": {"maxLength": 5}}), json!({"a": 1}), Value::Object(names));
        let choices: Vec<String> = (0..1000).map(|n| format!("choice number {n}")).collect();
        assert!(cost(&json!({"enum": choices}), &json!(1)).unwrap() > 100);
    }
}
