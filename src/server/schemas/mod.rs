//! Contracts that values have to meet: JSON Schema (draft 2020-12), read once, looked up for each write.
//!
//! What a schema may cost is bounded: its size and the number of schemas by the state machine, the steps that checking a value
//! takes by `document`, patterns by a linear engine of bounded size, the schemas that are kept ready by their bytes. Nothing
//! is ever fetched.

mod document;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator, draft202012};
use llm_config_domain::{Key, Namespace, Reader, Schema, StoreError, schemas};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::error::Violation;
use document::Document;

/// Steps that checking one value may take: about a tenth of a second.
const STEPS_MAX: u64 = 2_000_000;
/// Steps that may be taken on a thread that serves connections.
const STEPS_AT_ONCE: u64 = 10_000;
/// Most violations that are told.
pub const VIOLATIONS_MAX: usize = 20;
/// Longest message or path of one.
const MESSAGE_BYTES_MAX: usize = 256;
/// Bytes of patterns, once they are compiled, and of what matching them keeps.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Most schemas, and bytes of their texts, that are kept ready.
const READY_MAX: usize = 1_000;
const READY_BYTES_MAX: usize = 4 << 20;

/// A schema that values are checked by.
#[derive(Debug)]
pub struct Contract {
    validator: Validator,
    document: Document,
}

impl Contract {
    /// Reads a schema. The reason why it is refused names the place in it.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let schema: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !(schema.is_object() || schema.is_boolean()) {
            return Err("must be an object, or true or false".into());
        }
        let shown = |error: jsonschema::ValidationError<'_>| {
            let place = cut(error.instance_path().to_string());
            format!("at \"{place}\": {}", cut(error.masked().to_string()))
        };
        draft202012::meta::validate(&schema).map_err(shown)?;
        let document = Document::read(&schema)?;
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let options = draft202012::options().with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(shown)?;
        Ok(Self { validator, document })
    }

    /// Whether checking a value is quick enough for a thread that serves connections; `None` when it takes too long
    /// altogether.
    pub fn is_quick(&self, value: &Value) -> Option<bool> {
        let steps = self.document.cost(value, STEPS_MAX).ok()?;
        Some(steps <= STEPS_AT_ONCE)
    }

    /// What a value does not meet, of much the beginning.
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        let found = self.validator.iter_errors(value).take(VIOLATIONS_MAX);
        found
            .map(|error| Violation {
                path: cut(error.instance_path().to_string()),
                message: cut(error.masked().to_string()),
            })
            .collect()
    }
}

/// What is told of a value that cannot be checked.
pub fn too_costly() -> Violation {
    Violation {
        path: String::new(),
        message: format!(
            "takes more than {STEPS_MAX} steps to check by this schema; make the value smaller, or the schema simpler"
        ),
    }
}

/// The beginning of a text, in whole characters.
fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// The versions of all schemas.
type Versions = HashMap<Namespace, HashMap<Key, u64>>;

/// Which schemas there are, as far as this node has applied, and those that were used last.
#[derive(Debug)]
pub struct Schemas {
    /// An error while they could not be read.
    known: RwLock<Result<Versions, StoreError>>,
    ready: Mutex<Ready>,
}

#[derive(Debug)]
struct Ready {
    /// By version, which no two share.
    contracts: LruCache<u64, (Arc<Contract>, usize)>,
    bytes: usize,
}

impl Default for Schemas {
    fn default() -> Self {
        let contracts = LruCache::new(NonZeroUsize::new(READY_MAX).unwrap_or(NonZeroUsize::MIN));
        Self {
            known: RwLock::new(Ok(Versions::new())),
            ready: Mutex::new(Ready { contracts, bytes: 0 }),
        }
    }
}

impl Schemas {
    /// Takes over what the state says.
    pub fn reload(&self, state: &dyn Reader) {
        let read = schemas::versions(state).map(|all| {
            let mut versions = Versions::new();
            for (namespace, key, version) in all {
                versions.entry(namespace).or_default().insert(key, version);
            }
            versions
        });
        *self.known.write() = read;
    }

    /// The version of a key's schema, if it has one.
    ///
    /// # Errors
    /// When the state could not be read.
    pub fn version(&self, namespace: &Namespace, key: &Key) -> Result<Option<u64>, StoreError> {
        match &*self.known.read() {
            Ok(known) => Ok(known.get(namespace).and_then(|keys| keys.get(key)).copied()),
            Err(error) => Err(error.clone()),
        }
    }

    /// The contract of a schema that was put here, read when it is not at hand.
    ///
    /// # Errors
    /// When it is none: it was put by another release.
    pub fn contract(&self, schema: &Schema) -> Result<Arc<Contract>, String> {
        if let Some((contract, _)) = self.ready.lock().contracts.get(&schema.version) {
            return Ok(Arc::clone(contract));
        }
        let contract = Arc::new(Contract::read(schema.schema.as_bytes())?);
        let bytes = schema.schema.as_bytes().len();
        let mut ready = self.ready.lock();
        ready.bytes += bytes;
        let entry = (Arc::clone(&contract), bytes);
        if let Some((_, (_, gone))) = ready.contracts.push(schema.version, entry) {
            ready.bytes -= gone;
        }
        while ready.bytes > READY_BYTES_MAX
            && let Some((_, (_, gone))) = ready.contracts.pop_lru()
        {
            ready.bytes -= gone;
        }
        Ok(contract)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    //! The body of the fuzz target for schemas.

    use super::Contract;

    /// A schema, a zero byte, and a value: what is accepted checks any value within its bounds, and says why in few words.
    pub fn schema(data: &[u8]) {
        let mut parts = data.splitn(2, |byte| *byte == 0);
        let (Some(schema), value) = (parts.next(), parts.next().unwrap_or(b"null")) else { return };
        // What the state machine lets through.
        let bounded = |text: &[u8]| llm_config_domain::JsonValue::parse(text).ok();
        let (Some(schema), Some(value)) = (bounded(schema), bounded(value)) else { return };
        if schema.as_bytes().len() > llm_config_domain::limits::SCHEMA_BYTES_MAX {
            return;
        }
        let contract = match Contract::read(schema.as_bytes()) {
            Ok(contract) => contract,
            Err(reason) => return assert!(reason.len() <= 1024, "{} bytes", reason.len()),
        };
        let value = value.to_json();
        if contract.is_quick(&value).is_some() {
            let violations = contract.violations(&value);
            assert!(violations.iter().all(|one| one.path.len() + one.message.len() < 600));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contract(schema: &Value) -> Contract {
        Contract::read(schema.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_violation_names_its_place_and_does_not_repeat_the_value() {
        let schema = json!({
            "type": "object",
            "required": ["model"],
            "properties": {
                "model": {"type": "string"},
                "temperature": {"type": "number", "maximum": 2},
                "stop": {"items": {"type": "string"}},
            },
            "additionalProperties": false,
        });
        let contract = contract(&schema);
        assert_eq!(contract.violations(&json!({"model": "m", "temperature": 0.2})), []);
        let found = contract.violations(&json!({"temperature": 31337, "stop": ["a", 41], "x": 1}));
        let paths: Vec<&str> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(paths.contains(&"/temperature") && paths.contains(&"/stop/1"), "{paths:?}");
        assert!(found.iter().all(|one| !one.message.contains("31337")), "{found:?}");
        let long = json!({"temperature": "x".repeat(10_000), "model": 1});
        assert!(contract.violations(&long)[0].message.len() <= MESSAGE_BYTES_MAX + 3);
    }

    #[test]
    fn many_violations_are_told_in_part() {
        let contract = contract(&json!({"items": {"type": "string"}}));
        assert_eq!(contract.violations(&json!(vec![1; 1000])).len(), VIOLATIONS_MAX);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_its_place() {
        for (schema, part) in [
            (json!(1), "must be an object"),
            (json!({"type": "text"}), "/type"),
            (json!({"properties": {"a": {"minimum": "x"}}}), "/properties/a/minimum"),
            (json!({"pattern": "("}), "pattern"),
            (json!({"pattern": "(?=a)"}), "pattern"),
            (json!({"pattern": "(a{1000}){1000}"}), "pattern"),
            (json!({"$ref": "http://127.0.0.1/a"}), "leads out"),
        ] {
            let error = Contract::read(schema.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(part) && error.len() < 1024, "{schema}: {error}");
        }
    }

    #[test]
    fn patterns_cannot_take_for_ever() {
        let contract = contract(&json!({"pattern": "^(a+)+$"}));
        let value = json!(format!("{}b", "a".repeat(100_000)));
        assert!(contract.is_quick(&value).is_some());
        assert_eq!(contract.violations(&value).len(), 1);
    }

    #[test]
    fn a_value_that_takes_too_long_is_not_checked() {
        let contract =
            contract(&json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}));
        let nested = (0..60).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(contract.is_quick(&nested), None);
        assert_eq!(contract.is_quick(&json!({"a": 1})), Some(true));
    }

    #[test]
    fn the_longest_chains_on_the_deepest_value_have_room_on_a_stack() {
        // As deep as a value may be, through as many parts in one place as a schema may have.
        let mut defs: serde_json::Map<String, Value> = (0..15)
            .map(|at| (format!("d{at}"), json!({"$ref": format!("#/$defs/d{}", at + 1)})))
            .collect();
        defs.insert("d15".into(), json!({"properties": {"a": {"$ref": "#/$defs/d0"}}}));
        let contract = contract(&json!({"$ref": "#/$defs/d0", "$defs": defs}));
        let deep = (0..63).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(contract.is_quick(&deep), Some(true));
        assert_eq!(contract.violations(&deep), []);
    }

    #[test]
    fn schemas_that_multiply_are_read_without_multiplying() {
        let mut defs: serde_json::Map<String, Value> = (0..14)
            .map(|at| {
                let next = json!({"$ref": format!("#/$defs/d{}", at + 1)});
                (format!("d{at}"), json!({"properties": {"a": next, "b": next, "c": next}}))
            })
            .collect();
        defs.insert("d14".into(), json!({"type": "number"}));
        let contract = contract(&json!({"$ref": "#/$defs/d0", "$defs": defs}));
        assert_eq!(contract.violations(&json!({"a": {"b": {"c": 1}}})), []);
    }

    #[test]
    fn contracts_are_kept_ready_up_to_their_bounds() {
        let schemas = Schemas::default();
        let filler = "x".repeat(60 << 10);
        for version in 1..=100 {
            let schema = Schema {
                namespace: Namespace::parse("app").unwrap(),
                key: Key::parse("k").unwrap(),
                schema: llm_config_domain::JsonValue::parse(
                    json!({"description": filler}).to_string().as_bytes(),
                )
                .unwrap(),
                version,
                created_at_ms: 0,
                created_by: String::new(),
                updated_at_ms: 0,
                updated_by: String::new(),
                comment: String::new(),
            };
            schemas.contract(&schema).unwrap();
        }
        let ready = schemas.ready.lock();
        assert!(ready.bytes <= READY_BYTES_MAX && ready.contracts.len() > 60);
        let sum: usize = ready.contracts.iter().map(|(_, (_, bytes))| bytes).sum();
        assert_eq!(sum, ready.bytes);
    }

    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("schema", fuzzing::schema);
    }
}
