//! Where each table lives in the ordered key space. Nothing else builds or takes apart a storage key.
//!
//! | table          | key                                                   | record         |
//! |----------------|-------------------------------------------------------|----------------|
//! | heads          | `10` namespace `00` environment key                   | Head           |
//! | versions       | `11` namespace `00` environment key `00` version      | Version        |
//! | changes        | `12` revision sequence                                | ChangeRecord   |
//! | namespaces     | `13` namespace                                        | NamespaceCount |
//! | requests       | `14` actor `00` idempotency key                       | Request        |
//! | request expiry | `15` time actor `00` idempotency key                  | (empty)        |
//! | nodes          | `16` id                                               | Node           |
//! | meta           | `17`                                                  | Meta           |
//! | tokens         | `18` id                                               | Token          |
//! | roles          | `19` name                                             | Role           |
//! | bans           | `1a` network address                                  | Ban            |
//! | data keys      | `1b` owner `00` version                               | DataKey        |
//! | sealed         | `1c` namespace `00` key version, environment, key `00` version | (empty) |
//! | audit          | `1d` sequence                                         | Audit          |
//! | schemas        | `1e` namespace `00` key                               | Schema         |
//!
//! Numbers are big-endian, so that keys sort by them. Names contain no control characters, so `00` ends them.

use crate::names::{Address, Environment, Key, Namespace};
use crate::store::{DOMAIN_FIRST, StoreError};

const HEADS: u8 = 0x10;
const VERSIONS: u8 = 0x11;
const CHANGES: u8 = 0x12;
const NAMESPACES: u8 = 0x13;
const REQUESTS: u8 = 0x14;
const REQUEST_EXPIRY: u8 = 0x15;
const NODES: u8 = 0x16;
const META: u8 = 0x17;
const TOKENS: u8 = 0x18;
const ROLES: u8 = 0x19;
const BANS: u8 = 0x1a;
const DATA_KEYS: u8 = 0x1b;
const SEALED: u8 = 0x1c;
const AUDIT: u8 = 0x1d;
const SCHEMAS: u8 = 0x1e;

const END: u8 = 0;

/// The table that a key belongs to, for messages.
pub(crate) fn table(key: &[u8]) -> Option<&'static str> {
    Some(match *key.first()? {
        HEADS => "heads",
        VERSIONS => "versions",
        CHANGES => "changes",
        NAMESPACES => "namespaces",
        REQUESTS => "requests",
        REQUEST_EXPIRY => "request expiry",
        NODES => "nodes",
        META => "meta",
        TOKENS => "tokens",
        ROLES => "roles",
        BANS => "bans",
        DATA_KEYS => "data keys",
        SEALED => "sealed",
        AUDIT => "audit",
        SCHEMAS => "schemas",
        other if other < DOMAIN_FIRST => return None,
        _ => "unknown",
    })
}

fn join(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

fn corrupt(table: &str) -> StoreError {
    StoreError::Corrupt(format!("a key of the {table} table cannot be read"))
}

/// The first key after every key that starts with `prefix`.
fn after_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

pub(crate) fn head(address: &Address) -> Vec<u8> {
    heads(&address.namespace, address.environment, address.key.as_str())
}

/// Whether a record is the head of an entry.
pub(crate) fn is_head(storage_key: &[u8]) -> bool {
    storage_key.first() == Some(&HEADS)
}

fn heads(namespace: &Namespace, environment: Environment, key: &str) -> Vec<u8> {
    join(HEADS, &[namespace.as_str().as_bytes(), &[END, environment.code()], key.as_bytes()])
}

/// The heads of one namespace and environment whose key starts with `prefix` and comes after `after`.
pub(crate) fn head_range(
    namespace: &Namespace,
    environment: Environment,
    prefix: &str,
    after: Option<&Key>,
) -> (Vec<u8>, Vec<u8>) {
    let start = heads(namespace, environment, prefix);
    let end = after_prefix(start.clone());
    let resume = after.map(|key| {
        let mut resume = heads(namespace, environment, key.as_str());
        resume.push(END);
        resume
    });
    (resume.unwrap_or_default().max(start), end)
}

/// The key part of a head's storage key.
pub(crate) fn head_key(namespace: &Namespace, storage_key: &[u8]) -> Result<Key, StoreError> {
    let key = storage_key.get(1 + namespace.as_str().len() + 2..);
    key.and_then(|key| std::str::from_utf8(key).ok())
        .and_then(|key| Key::parse(key).ok())
        .ok_or_else(|| corrupt("heads"))
}

pub(crate) fn version(address: &Address, version: u64) -> Vec<u8> {
    join(
        VERSIONS,
        &[
            address.namespace.as_str().as_bytes(),
            &[END, address.environment.code()],
            address.key.as_str().as_bytes(),
            &[END],
            &version.to_be_bytes(),
        ],
    )
}

/// The number at the end of a version's storage key.
pub(crate) fn version_number(storage_key: &[u8]) -> Result<u64, StoreError> {
    storage_key
        .last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| corrupt("versions"))
}

pub(crate) fn change(revision: u64, sequence: u32) -> Vec<u8> {
    join(CHANGES, &[&revision.to_be_bytes(), &sequence.to_be_bytes()])
}

/// Where changes end.
pub(crate) fn changes_end() -> Vec<u8> {
    vec![CHANGES + 1]
}

/// The revision in a change's storage key.
pub(crate) fn change_revision(storage_key: &[u8]) -> Result<u64, StoreError> {
    storage_key.get(1..9).and_then(number).ok_or_else(|| corrupt("changes"))
}

pub(crate) fn namespace(namespace: &Namespace) -> Vec<u8> {
    join(NAMESPACES, &[namespace.as_str().as_bytes()])
}

/// The namespaces that start with `prefix` and come after `after`.
pub(crate) fn namespace_range(prefix: &str, after: Option<&Namespace>) -> (Vec<u8>, Vec<u8>) {
    let start = join(NAMESPACES, &[prefix.as_bytes()]);
    let end = after_prefix(start.clone());
    let resume = after.map(|after| join(NAMESPACES, &[after.as_str().as_bytes(), &[END]]));
    (resume.unwrap_or_default().max(start), end)
}

/// The namespace in its storage key.
pub(crate) fn namespace_name(storage_key: &[u8]) -> Result<Namespace, StoreError> {
    let name = storage_key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| Namespace::parse(name).ok()).ok_or_else(|| corrupt("namespaces"))
}

pub(crate) fn request(actor: &str, key: &str) -> Vec<u8> {
    join(REQUESTS, &[actor.as_bytes(), &[END], key.as_bytes()])
}

pub(crate) fn request_expiry(time_ms: u64, actor: &str, key: &str) -> Vec<u8> {
    join(REQUEST_EXPIRY, &[&time_ms.to_be_bytes(), actor.as_bytes(), &[END], key.as_bytes()])
}

/// All expiry records made at `from_ms` or later.
pub(crate) fn request_expiry_range(from_ms: u64) -> (Vec<u8>, Vec<u8>) {
    (join(REQUEST_EXPIRY, &[&from_ms.to_be_bytes()]), vec![REQUEST_EXPIRY + 1])
}

/// The time in an expiry record's storage key, and the storage key of the request it belongs to.
pub(crate) fn expiring_request(storage_key: &[u8]) -> Result<(u64, Vec<u8>), StoreError> {
    let time = storage_key.get(1..9).and_then(number);
    match (time, storage_key.get(9..)) {
        (Some(time), Some(request)) => Ok((time, join(REQUESTS, &[request]))),
        _ => Err(corrupt("request expiry")),
    }
}

pub(crate) fn node(id: u64) -> Vec<u8> {
    join(NODES, &[&id.to_be_bytes()])
}

pub(crate) fn nodes() -> (Vec<u8>, Vec<u8>) {
    (vec![NODES], vec![NODES + 1])
}

pub(crate) fn meta() -> Vec<u8> {
    vec![META]
}

pub(crate) fn token(id: &str) -> Vec<u8> {
    join(TOKENS, &[id.as_bytes()])
}

pub(crate) fn tokens() -> (Vec<u8>, Vec<u8>) {
    (vec![TOKENS], vec![TOKENS + 1])
}

pub(crate) fn role(name: &str) -> Vec<u8> {
    join(ROLES, &[name.as_bytes()])
}

pub(crate) fn roles() -> (Vec<u8>, Vec<u8>) {
    (vec![ROLES], vec![ROLES + 1])
}

pub(crate) fn ban(address: &str) -> Vec<u8> {
    join(BANS, &[address.as_bytes()])
}

pub(crate) fn bans() -> (Vec<u8>, Vec<u8>) {
    (vec![BANS], vec![BANS + 1])
}

pub(crate) fn data_key(owner: &str, version: u32) -> Vec<u8> {
    join(DATA_KEYS, &[owner.as_bytes(), &[END], &version.to_be_bytes()])
}

/// The keys of one owner.
pub(crate) fn data_keys_of(owner: &str) -> (Vec<u8>, Vec<u8>) {
    let start = join(DATA_KEYS, &[owner.as_bytes(), &[END]]);
    let end = after_prefix(start.clone());
    (start, end)
}

pub(crate) fn data_keys() -> (Vec<u8>, Vec<u8>) {
    (vec![DATA_KEYS], vec![DATA_KEYS + 1])
}

/// That a version of an entry needs a data key of its namespace.
pub(crate) fn sealed(address: &Address, key_version: u32, version: u64) -> Vec<u8> {
    join(
        SEALED,
        &[
            address.namespace.as_str().as_bytes(),
            &[END],
            &key_version.to_be_bytes(),
            &[address.environment.code()],
            address.key.as_str().as_bytes(),
            &[END],
            &version.to_be_bytes(),
        ],
    )
}

/// Everything that needs one data key.
pub(crate) fn sealed_with(namespace: &str, key_version: u32) -> (Vec<u8>, Vec<u8>) {
    let start = join(SEALED, &[namespace.as_bytes(), &[END], &key_version.to_be_bytes()]);
    let end = after_prefix(start.clone());
    (start, end)
}

/// The entry and the version in the storage key of what needs a data key.
pub(crate) fn sealed_version(
    namespace: &str,
    storage_key: &[u8],
) -> Result<(Address, u64), StoreError> {
    let parts = || {
        let rest = storage_key.get(1 + namespace.len() + 1 + 4..)?;
        let (code, rest) = rest.split_first()?;
        let (key, version) = rest.split_at_checked(rest.len().checked_sub(9)?)?;
        let address = Address {
            namespace: Namespace::parse(namespace).ok()?,
            key: Key::parse(std::str::from_utf8(key).ok()?).ok()?,
            environment: Environment::from_code(*code)?,
        };
        Some((address, number(version.get(1..)?)?))
    };
    parts().ok_or_else(|| corrupt("sealed"))
}

pub(crate) fn audit(sequence: u64) -> Vec<u8> {
    join(AUDIT, &[&sequence.to_be_bytes()])
}

/// Where audit records end.
pub(crate) fn audits_end() -> Vec<u8> {
    vec![AUDIT + 1]
}

/// The sequence number in an audit record's storage key.
pub(crate) fn audit_sequence(storage_key: &[u8]) -> Result<u64, StoreError> {
    storage_key.get(1..).and_then(number).ok_or_else(|| corrupt("audit"))
}

pub(crate) fn schema(namespace: &Namespace, key: &str) -> Vec<u8> {
    join(SCHEMAS, &[namespace.as_str().as_bytes(), &[END], key.as_bytes()])
}

pub(crate) fn schemas() -> (Vec<u8>, Vec<u8>) {
    (vec![SCHEMAS], vec![SCHEMAS + 1])
}

/// The schemas of one namespace whose key starts with `prefix` and comes after `after`.
pub(crate) fn schema_range(
    namespace: &Namespace,
    prefix: &str,
    after: Option<&Key>,
) -> (Vec<u8>, Vec<u8>) {
    let start = schema(namespace, prefix);
    let end = after_prefix(start.clone());
    let resume = after.map(|key| {
        let mut resume = schema(namespace, key.as_str());
        resume.push(END);
        resume
    });
    (resume.unwrap_or_default().max(start), end)
}

/// To whom a record belongs when a state is taken into another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// What was stored, and what is remembered about it.
    Store,
    /// The nodes of the cluster.
    Nodes,
    /// The cluster and the store in one record.
    Meta,
}

/// Judges by the table that a key is in.
pub(crate) fn owner(key: &[u8]) -> Result<Owner, StoreError> {
    match key.first() {
        Some(
            &(HEADS | VERSIONS | CHANGES | NAMESPACES | REQUESTS | REQUEST_EXPIRY | TOKENS | ROLES
            | BANS | DATA_KEYS | SEALED | AUDIT | SCHEMAS),
        ) => Ok(Owner::Store),
        Some(&NODES) => Ok(Owner::Nodes),
        Some(&META) => Ok(Owner::Meta),
        table => Err(StoreError::Corrupt(format!(
            "table {table:02x?} is not known to this release; use the release that wrote it or a newer one"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        assert_eq!(after_prefix(vec![1, 2]), [1, 3]);
        assert_eq!(after_prefix(vec![1, 0xff, 0xff]), [2]);
    }

    #[test]
    fn neighbouring_names_do_not_mix() {
        let parse = |namespace: &str| Namespace::parse(namespace).unwrap();
        let (from, to) = head_range(&parse("a"), Environment::Base, "k", None);
        let inside = head(&Address::parse("a", "k/1", "base").unwrap());
        assert!(from <= inside && inside < to);
        for outside in
            [("a", "l", "base"), ("a", "k", "dev"), ("a/b", "k", "base"), ("a-", "k", "base")]
        {
            let key = head(&Address::parse(outside.0, outside.1, outside.2).unwrap());
            assert!(key < from || to <= key, "{outside:?}");
        }
        let one = Address::parse("a", "k", "base").unwrap();
        assert_eq!(head_key(&one.namespace, &head(&one)), Ok(one.key.clone()));
        assert_eq!(version_number(&version(&one, 7)), Ok(7));
        assert!(version(&one, 255) < version(&one, 256));
        assert_eq!(sealed_version("a", &sealed(&one, 3, 7)), Ok((one.clone(), 7)));
        let (from, to) = sealed_with("a", 3);
        assert!(from < sealed(&one, 3, 7) && sealed(&one, 3, 7) < to && to <= sealed(&one, 4, 0));
        assert_eq!(audit_sequence(&audit(258)), Ok(258));
        assert_eq!(expiring_request(&request_expiry(5, "a", "k")), Ok((5, request("a", "k"))));
    }
}
