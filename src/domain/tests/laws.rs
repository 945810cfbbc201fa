//! Laws that hold for every sequence of commands and every input, checked on random ones.
//!
//! Sequences are drawn from few names, so that commands meet: conflicts, deletes of what is there, keys used twice.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use llm_config_domain::{
    Action, AddNode, Address, Applied, AuditEvent, AuditKind, AuditRetention, Authority, BanOrder,
    Batch, Change, CheckedSchema, Command, Compact, Compare, Credential, DataKey, Delete,
    DeleteSchema, DropDataKey, Entry, Environment, Found, Grant, JsonValue, Key, ListQuery,
    MemoryStore, Meta, Namespace, Node, Operation, Order, Origin, Outcome, Overlay, PutSchema,
    QueryError, Reader, Rejection, RemoveNode, Reseal, ResealedVersion, Role, Rollback, Scope,
    Sealed, Set, Token, Txn, TxnOp, Value, apply, audit, digest, key_ring, limits, query, schemas,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

// ---- Random commands ----

fn address() -> impl Strategy<Value = Address> {
    let namespaces = prop_oneof![Just("a"), Just("a/b")];
    let keys = prop_oneof![3 => Just("k"), 1 => Just("k/1"), 1 => Just("ключ")];
    let environments =
        prop_oneof![4 => Just("base"), 2 => Just("prod"), 1 => Just("edge"), 1 => Just("dev")];
    (namespaces, keys, environments)
        .prop_map(|(ns, key, env)| Address::parse(ns, key, env).unwrap())
}

fn json() -> impl Strategy<Value = JsonValue> {
    let text = prop_oneof![
        Just("null"),
        Just("\"x\""),
        Just("{\"a\": [1, 2.50]}"),
        Just("12345678901234567890123")
    ];
    text.prop_map(|text| JsonValue::parse(text.as_bytes()).unwrap())
}

/// Most secrets are for another version than the one that comes next, and refused.
fn sealed() -> impl Strategy<Value = Sealed> {
    (1..3_u32, 1..6_u64, vec(any::<u8>(), 1..4)).prop_map(|(key_version, version, bytes)| Sealed {
        key_version,
        version,
        bytes: bytes.into(),
    })
}

fn value() -> impl Strategy<Value = llm_config_domain::Value> {
    prop_oneof![
        2 => json().prop_map(llm_config_domain::Value::Json),
        1 => sealed().prop_map(llm_config_domain::Value::Sealed),
    ]
}

fn expected() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 1 => (0..4_u64).prop_map(Some)]
}

fn set() -> impl Strategy<Value = Set> {
    (
        address(),
        value(),
        "[a-z]{0,3}",
        vec("[a-z]{1,3}", 0..3),
        "[a-z]{0,3}",
        expected(),
        any::<bool>(),
    )
        .prop_map(
            |(address, value, description, tags, comment, expected_version, declassify)| Set {
                address,
                value,
                description,
                tags,
                comment,
                expected_version,
                declassify,
            },
        )
}

fn delete() -> impl Strategy<Value = Delete> {
    (address(), expected(), "[a-z]{0,3}").prop_map(|(address, expected_version, comment)| Delete {
        address,
        expected_version,
        comment,
    })
}

fn txn_op() -> impl Strategy<Value = TxnOp> {
    prop_oneof![
        3 => set().prop_map(TxnOp::Set),
        1 => delete().prop_map(TxnOp::Delete),
        1 => address().prop_map(TxnOp::Get),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let compare = (address(), 0..4_u64).prop_map(|(address, version)| Compare { address, version });
    (vec(compare, 0..2), vec(txn_op(), 0..4), vec(txn_op(), 0..3))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

fn node() -> impl Strategy<Value = Node> {
    (0..3_u64, "[ab]", "[a-z]{1,4}").prop_map(|(id, incarnation, host)| Node {
        id,
        incarnation,
        http: format!("{host}:1"),
        grpc: format!("{host}:2"),
        raft: format!("{host}:3"),
        version: "0.1.0".into(),
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => set().prop_map(Operation::Set),
        5 => delete().prop_map(Operation::Delete),
        4 => (address(), 0..6_u64, expected(), "[a-z]{0,2}", option::of(sealed())).prop_map(
            |(address, version, expected_version, comment, resealed)| {
                Operation::Rollback(Rollback { address, version, expected_version, comment, resealed })
            }
        ),
        6 => txn().prop_map(Operation::Txn),
        2 => (0..20_u64).prop_map(|revision| Operation::Compact(Compact { revision })),
        1 => (0..5_u64).prop_map(|history_limit| Operation::Found(Found { cluster_id: "other".into(), history_limit })),
        1 => node().prop_map(Operation::RegisterNode),
        1 => node().prop_map(|node| Operation::AddNode(AddNode { node })),
        1 => (0..3_u64).prop_map(|id| Operation::RemoveNode(RemoveNode { id })),
        2 => schema(),
        6 => security(),
    ]
}

fn schema() -> impl Strategy<Value = Operation> {
    let put = (address(), expected()).prop_map(|(Address { namespace, key, .. }, expected)| {
        Operation::PutSchema(PutSchema {
            namespace,
            key,
            schema: JsonValue::parse(b"true").unwrap(),
            expected_version: expected,
            comment: String::new(),
        })
    });
    let delete = (address(), expected()).prop_map(|(Address { namespace, key, .. }, expected)| {
        Operation::DeleteSchema(DeleteSchema {
            namespace,
            key,
            expected_version: expected,
            comment: String::new(),
        })
    });
    prop_oneof![2 => put, 1 => delete]
}

fn checked() -> impl Strategy<Value = Vec<CheckedSchema>> {
    let checked = (address(), 1..4_u64)
        .prop_map(|(Address { namespace, key, .. }, version)| ((namespace, key), version));
    vec(checked, 0..4).prop_map(|checked| {
        let once: BTreeMap<_, _> = checked.into_iter().collect();
        let named = |((namespace, key), version)| CheckedSchema { namespace, key, version };
        once.into_iter().map(named).collect()
    })
}

fn data_key() -> impl Strategy<Value = DataKey> {
    (prop_oneof![Just("a"), Just("a/b"), Just("")], 1..4_u32).prop_map(|(owner, version)| DataKey {
        owner: owner.into(),
        version,
        master_id: Bytes::from_static(b"m"),
        wrapped: Bytes::from_static(b"w"),
        created_at_ms: 0,
    })
}

fn token() -> impl Strategy<Value = Token> {
    ("[xy]", prop_oneof![Just("viewer"), Just("own"), Just("gone")], 0..2_000_u64).prop_map(
        |(id, role, expires_at_ms)| Token {
            name: format!("holder of {id}"),
            id,
            prefix: String::new(),
            credential: Credential::Hash([7; 32]),
            roles: vec![role.into()],
            scope: Scope::default(),
            created_at_ms: 0,
            created_by: String::new(),
            expires_at_ms,
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    (prop_oneof![Just("own"), Just("admin")], any::<bool>()).prop_map(|(name, writes)| Role {
        name: name.into(),
        description: String::new(),
        grants: vec![Grant {
            actions: if writes { vec![Action::Write] } else { vec![Action::Read] },
            scope: Scope::default(),
        }],
    })
}

fn event() -> impl Strategy<Value = AuditEvent> {
    ("[ab]", prop_oneof![Just(AuditKind::AccessDenied), Just(AuditKind::SecretReveal)]).prop_map(
        |(actor, kind)| AuditEvent {
            kind,
            actor,
            principal: String::new(),
            source: "192.0.2.1".into(),
            request_id: "r".into(),
            node: 1,
            targets: Vec::new(),
            comment: String::new(),
            detail: "reads".into(),
        },
    )
}

fn security() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => data_key().prop_map(Operation::AddDataKey),
        1 => data_key().prop_map(|key| Operation::RewrapDataKeys(vec![key])),
        2 => (address(), 1..3_u32, vec(sealed(), 0..3)).prop_map(|(address, from_key_version, sealed)| {
            let versions = sealed
                .into_iter()
                .map(|sealed| ResealedVersion { version: sealed.version, sealed })
                .collect();
            Operation::Reseal(Reseal { address, from_key_version, versions })
        }),
        2 => data_key().prop_map(|key| {
            Operation::DropDataKey(DropDataKey { owner: key.owner, version: key.version })
        }),
        1 => token().prop_map(Operation::Bootstrap),
        2 => token().prop_map(Operation::CreateToken),
        1 => token().prop_map(|token| Operation::RevokeToken(token.id)),
        1 => role().prop_map(Operation::PutRole),
        1 => role().prop_map(|role| Operation::DeleteRole(role.name)),
        2 => (1..3_u64).prop_map(|first_ms| Operation::Ban(BanOrder {
            address: "192.0.2.1".into(),
            first_ms,
            longest_ms: 10,
            reason: "guesses".into(),
        })),
        1 => Just(Operation::LiftBan("192.0.2.1".into())),
        1 => vec(event(), 0..3).prop_map(Operation::Record),
        1 => (0..3_u64).prop_map(|hours| Operation::SetAuditRetention(AuditRetention {
            max_age_ms: hours * 3_600_000,
            max_bytes: 1 << 20,
        })),
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    let authority = (0..3_u64, option::of("[xy]"), prop_oneof![Just("editor"), Just("own")])
        .prop_map(|(policy_revision, token_id, role)| Authority {
            policy_revision,
            token_id,
            roles: vec![role.into()],
            expires_at_ms: 0,
        });
    ("[pq]?", option::weighted(0.3, authority)).prop_map(|(principal, authority)| Origin {
        principal,
        source: "192.0.2.7".into(),
        request_id: "r".into(),
        node: 1,
        authority,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let key = option::weighted(0.3, prop_oneof![Just("one"), Just("two")]);
    ("[ab]", operation(), key, option::of(origin()), checked()).prop_map(
        |(actor, operation, key, origin, checked)| {
            let command = Command { origin, ..Command::new(actor, operation) }.checked_by(checked);
            match key {
                Some(key) => command.with_request_id(key),
                None => command,
            }
        },
    )
}

/// A founded cluster's log: each command with its time, which jumps about and now and then past the window. Some commands
/// come twice, as after a lost answer.
fn log() -> impl Strategy<Value = Vec<(u64, Command)>> {
    let time = prop_oneof![8 => 0..1000_u64, 1 => 600_000..2_000_000_u64];
    let line = (time, command(), 1..=2_usize);
    (1..4_u64, vec(line, 1..60)).prop_map(|(history_limit, lines)| {
        let found = Found { cluster_id: "c".into(), history_limit };
        let mut log = vec![(0, Command::new("a", Operation::Found(found)))];
        for owner in ["a", "a/b"] {
            let key = DataKey {
                owner: owner.into(),
                version: 1,
                master_id: Bytes::from_static(b"m"),
                wrapped: Bytes::from_static(b"w"),
                created_at_ms: 0,
            };
            log.push((0, Command::new("a", Operation::AddDataKey(key))));
        }
        for (time_ms, command, times) in lines {
            log.extend(std::iter::repeat_n((time_ms, command), times));
        }
        log
    })
}

// ---- Running them ----

fn run(store: &mut MemoryStore, time_ms: u64, command: &Command) -> (Applied, Vec<Change>) {
    let mut overlay = Overlay::new(&*store);
    let answer = apply(&mut overlay, time_ms, command).unwrap();
    let writes = overlay.into_writes();
    store.apply_writes(writes);
    answer
}

fn run_all(store: &mut MemoryStore, log: &[(u64, Command)]) -> Vec<(Applied, Vec<Change>)> {
    log.iter().map(|(time_ms, command)| run(store, *time_ms, command)).collect()
}

/// What a node installs from a snapshot: every key and value, nothing else.
fn copy(store: &MemoryStore) -> MemoryStore {
    let mut writes = BTreeMap::new();
    store
        .scan(&[0x10], &[0xff], Order::Ascending, &mut |key, value| {
            writes.insert(key.to_vec(), Some(Bytes::copy_from_slice(value)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let mut copy = MemoryStore::default();
    copy.apply_writes(writes);
    copy
}

fn rows(store: &MemoryStore, table: u8) -> u64 {
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        rows += 1;
        Ok(ControlFlow::Continue(()))
    };
    store.scan(&[table], &[table + 1], Order::Ascending, count).unwrap();
    rows
}

fn meta(store: &MemoryStore) -> Meta {
    query::meta(store).unwrap()
}

fn all_addresses() -> Vec<Address> {
    let names = ["a", "a/b"].into_iter().flat_map(|ns| ["k", "k/1", "ключ"].map(|key| (ns, key)));
    let environments =
        |(ns, key)| Environment::ALL.map(|env| Address::parse(ns, key, env.as_str()).unwrap());
    names.flat_map(environments).collect()
}

/// A secret put under another key is the same version with other bytes: the one change of what was told before.
fn reseal(entry: &mut Entry, command: &Command) {
    let Operation::Reseal(reseal) = &command.operation else { return };
    if entry.address != reseal.address {
        return;
    }
    let Some(Value::Sealed(sealed)) = &mut entry.value else { return };
    if sealed.key_version != reseal.from_key_version {
        return;
    }
    let resealed = reseal.versions.iter().find(|resealed| {
        resealed.version == entry.version && resealed.sealed.version == entry.version
    });
    if let Some(resealed) = resealed {
        *sealed = resealed.sealed.clone();
    }
}

fn cases(cases: u32) -> ProptestConfig {
    // Failing inputs belong into a script or a named test, not into a file of seeds.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn the_same_log_gives_the_same_state_and_answers_however_it_is_batched(log in log(), batch in 1..10_usize) {
        let (mut one, mut batched) = (MemoryStore::default(), MemoryStore::default());
        let answers = run_all(&mut one, &log);
        let mut batched_answers = Vec::new();
        for commands in log.chunks(batch) {
            let mut together = Batch::new(&batched);
            for (time_ms, command) in commands {
                let sent = Command::decode(command.encode());
                match sent {
                    Ok(sent) => batched_answers.push(together.apply(*time_ms, &sent).unwrap()),
                    // What decoding refuses, apply refuses as well: no node depends on where it is caught.
                    Err(_) => batched_answers.push(together.apply(*time_ms, command).unwrap()),
                }
            }
            let writes = together.into_writes();
            batched.apply_writes(writes);
        }
        prop_assert_eq!(answers, batched_answers);
        prop_assert_eq!(digest(&one).unwrap(), digest(&batched).unwrap());
        prop_assert_eq!(one, batched);
    }

    #[test]
    fn a_snapshot_at_any_point_continues_the_same(log in log(), at in any::<prop::sample::Index>()) {
        let mut store = MemoryStore::default();
        let at = at.index(log.len());
        run_all(&mut store, &log[..at]);
        let mut installed = copy(&store);
        let answers = run_all(&mut store, &log[at..]);
        prop_assert_eq!(answers, run_all(&mut installed, &log[at..]));
        prop_assert_eq!(digest(&store).unwrap(), digest(&installed).unwrap());
    }

    #[test]
    fn a_refusal_or_a_replayed_answer_changes_nothing(log in log()) {
        let mut store = MemoryStore::default();
        for (time_ms, command) in &log {
            let before = store.clone();
            let (applied, changes) = run(&mut store, *time_ms, command);
            if applied.result.is_err() || applied.replayed {
                prop_assert!(changes.is_empty());
                prop_assert_eq!(digest(&before).unwrap(), digest(&store).unwrap());
            }
        }
    }

    #[test]
    fn a_retry_within_the_window_gets_the_first_answer(log in log()) {
        let mut store = MemoryStore::default();
        for (time_ms, command) in &log {
            let (first, _) = run(&mut store, *time_ms, command);
            let (second, changes) = run(&mut store, *time_ms, command);
            let judged = |applied: &Applied| {
                matches!(
                    applied.result,
                    Err(Rejection::Unauthenticated | Rejection::PermissionDenied { .. })
                )
            };
            if command.request.is_some() && first.result.is_ok() && judged(&second) {
                // The command itself changed the policy, and the retry has no right any more: not even to the answer.
                let authority = command.origin.as_ref().and_then(|origin| origin.authority.as_ref());
                prop_assert!(authority.is_some() && command.operation.changes_rules());
                prop_assert!(changes.is_empty());
            } else if command.request.is_some() && first.result.is_ok() {
                prop_assert!(second.replayed && changes.is_empty());
                prop_assert_eq!((first.revision, first.result), (second.revision, second.result));
            } else if command.request.is_some() && !first.replayed {
                prop_assert_eq!(first, second);
            }
        }
    }

    #[test]
    fn every_secret_that_is_stored_has_its_key_and_the_index_knows_it(log in log()) {
        let mut store = MemoryStore::default();
        for (time_ms, command) in &log {
            run(&mut store, *time_ms, command);
        }
        let mut needed = BTreeSet::new();
        for address in all_addresses() {
            for version in 1..100 {
                if let Some(sealed) = key_ring::sealed_version(&store, &address, version).unwrap() {
                    prop_assert_eq!(sealed.version, version);
                    needed.insert((address.clone(), sealed.key_version, version));
                }
            }
        }
        let mut indexed = BTreeSet::new();
        for owner in ["a", "a/b"] {
            for key_version in 1..5 {
                for (address, version) in key_ring::sealed_with(&store, owner, key_version, 1000).unwrap() {
                    prop_assert!(key_ring::data_key(&store, owner, key_version).unwrap().is_some());
                    indexed.insert((address, key_version, version));
                }
            }
        }
        prop_assert_eq!(needed, indexed);
        let meta = meta(&store);
        let counted = (meta.tokens, meta.roles, meta.bans, meta.data_keys);
        prop_assert_eq!(counted, (rows(&store, 0x18), rows(&store, 0x19), rows(&store, 0x1a), rows(&store, 0x1b)));
    }

    #[test]
    fn a_value_that_is_stored_was_checked_by_the_schema_in_place(log in log()) {
        let mut store = MemoryStore::default();
        let mut used = BTreeSet::new();
        for (time_ms, command) in &log {
            let (applied, changes) = run(&mut store, *time_ms, command);
            for change in changes.iter().filter(|change| !change.entry.deleted()) {
                let Address { namespace, key, .. } = &change.entry.address;
                if let Some(schema) = schemas::get(&store, namespace, key).unwrap() {
                    let checked = CheckedSchema {
                        namespace: namespace.clone(),
                        key: key.clone(),
                        version: schema.version,
                    };
                    prop_assert!(command.schemas.contains(&checked));
                }
            }
            if let (Ok(Outcome::SchemaPut { version, .. }), false) = (&applied.result, applied.replayed) {
                prop_assert!(used.insert(*version), "{} was used before", version);
            }
        }
        prop_assert_eq!(meta(&store).schemas, rows(&store, 0x1e));
    }

    #[test]
    fn every_change_with_an_origin_has_its_record_and_the_chain_is_whole(log in log()) {
        let mut store = MemoryStore::default();
        for (time_ms, command) in &log {
            let before = meta(&store).audit.next;
            let (applied, changes) = run(&mut store, *time_ms, command);
            let recorded = meta(&store).audit.next - before;
            if !changes.is_empty() {
                prop_assert_eq!(recorded, u64::from(command.origin.is_some()));
            }
            if applied.result.is_err() || applied.replayed {
                prop_assert_eq!(recorded, 0);
            }
            let verdict = audit::verify(&store, &|| true).unwrap().unwrap();
            prop_assert!(verdict.is_ok(), "{:?}", verdict);
        }
        prop_assert_eq!(meta(&store).audit.next - meta(&store).audit.start, rows(&store, 0x1d));
    }

    #[test]
    fn a_node_id_has_one_disk_and_none_after_its_removal(log in log()) {
        let mut store = MemoryStore::default();
        let mut disks: BTreeMap<u64, String> = BTreeMap::new();
        let mut removed: BTreeMap<u64, String> = BTreeMap::new();
        for (time_ms, command) in &log {
            run(&mut store, *time_ms, command);
            let nodes = query::nodes(&store).unwrap();
            let gone = query::removed_nodes(&store).unwrap();
            for node in &nodes {
                let first = disks.entry(node.id).or_insert_with(|| node.incarnation.clone());
                prop_assert_eq!(first.as_str(), node.incarnation.as_str());
                prop_assert!(!removed.contains_key(&node.id), "{} came back", node.id);
            }
            for node in &gone {
                removed.entry(node.id).or_insert_with(|| node.incarnation.clone());
                prop_assert_eq!(disks.get(&node.id).cloned().unwrap_or_default(), node.incarnation.clone());
            }
            prop_assert_eq!(gone.len(), removed.len(), "a removal was forgotten");
        }
    }

    #[test]
    fn versions_count_without_reuse_and_revisions_grow(log in log()) {
        let mut store = MemoryStore::default();
        let mut latest: BTreeMap<Address, Change> = BTreeMap::new();
        let mut revision = 0;
        for (time_ms, command) in &log {
            let (applied, changes) = run(&mut store, *time_ms, command);
            if applied.result.is_ok() {
                latest.values_mut().for_each(|change| reseal(Arc::make_mut(&mut change.entry), command));
            }
            if !changes.is_empty() {
                revision += 1;
                prop_assert_eq!(applied.revision, revision);
            }
            prop_assert_eq!(meta(&store).revision, revision);
            for change in changes {
                let address = change.entry.address.clone();
                let before = latest.get(&address).map_or(0, |change| change.entry.version);
                prop_assert_eq!(change.entry.version, before + 1);
                prop_assert_eq!(change.entry.revision, revision);
                latest.insert(address, change);
            }
        }
        for address in all_addresses() {
            let entry = latest.get(&address).map(|change| change.entry.clone()).filter(|entry| !entry.deleted());
            prop_assert_eq!(query::get(&store, &address).unwrap().map(Arc::new), entry);
        }
    }

    #[test]
    fn every_change_from_the_floor_on_is_read_as_it_was_told(log in log(), page in 1..5_usize) {
        let mut store = MemoryStore::default();
        let mut told: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
        for (time_ms, command) in &log {
            let (applied, changes) = run(&mut store, *time_ms, command);
            if applied.result.is_ok() {
                told.values_mut().flatten().for_each(|change| reseal(Arc::make_mut(&mut change.entry), command));
            }
            if !changes.is_empty() {
                told.insert(applied.revision, changes);
            }
            let floor = meta(&store).oldest_revision;
            let mut from = floor;
            let mut read = BTreeMap::new();
            loop {
                let revisions = query::changes(&store, from, page).unwrap();
                prop_assert!(revisions.len() <= page);
                let Some(last) = revisions.last() else { break };
                prop_assert!(last.revision >= from);
                from = last.revision + 1;
                read.extend(revisions.into_iter().map(|revision| (revision.revision, revision.changes)));
            }
            prop_assert_eq!(&read, &told.range(floor..).map(|(r, c)| (*r, c.clone())).collect());
            if floor > 1 {
                let refusal = QueryError::Refused(Rejection::Compacted { oldest_revision: floor });
                prop_assert_eq!(query::changes(&store, floor - 1, page), Err(refusal));
            }
        }
    }

    #[test]
    fn history_shows_the_last_versions_and_no_more(log in log(), page in 1..4_usize) {
        let mut store = MemoryStore::default();
        let mut told: BTreeMap<Address, Vec<u64>> = BTreeMap::new();
        let mut deletions: BTreeMap<Address, (u64, u64)> = BTreeMap::new();
        let mut kept_from: BTreeMap<Address, u64> = BTreeMap::new();
        for (time_ms, command) in &log {
            for change in run(&mut store, *time_ms, command).1 {
                let Entry { address, version, revision, value, .. } = Arc::unwrap_or_clone(change.entry);
                deletions.remove(&address);
                if value.is_none() {
                    deletions.insert(address.clone(), (version, revision));
                }
                told.entry(address).or_default().insert(0, version);
            }
            // What is before the deletion of a deleted entry goes when the deletion leaves the change log.
            let start = meta(&store).change_log_start;
            for (address, (version, _)) in deletions.iter().filter(|(_, (_, revision))| *revision < start) {
                kept_from.insert(address.clone(), *version);
            }
        }
        let limit = meta(&store).history_limit;
        for address in all_addresses() {
            let Some(versions) = told.get(&address) else {
                prop_assert_eq!(query::history(&store, &address, None, 1), Err(Rejection::NotFound.into()));
                continue;
            };
            let kept = kept_from.get(&address).copied().unwrap_or(0);
            let recent = versions.iter().copied().take(limit.try_into().unwrap());
            let shown: Vec<u64> = recent.filter(|version| *version >= kept).collect();
            let (mut read, mut before) = (Vec::new(), None);
            loop {
                let history = query::history(&store, &address, before, page).unwrap();
                read.extend(history.items.iter().map(|entry| entry.version));
                prop_assert!(read.len() <= shown.len());
                before = read.last().copied();
                if !history.more {
                    break;
                }
            }
            prop_assert_eq!(&read, &shown);
            for version in versions {
                prop_assert_eq!(query::get_version(&store, &address, *version).is_ok(), shown.contains(version));
            }
        }
    }

    #[test]
    fn pages_add_up_and_counts_are_right(log in log(), limit in 1..4_usize) {
        let mut store = MemoryStore::default();
        run_all(&mut store, &log);
        let meta = meta(&store);
        let mut active = [0; 5];
        let mut per_namespace: BTreeMap<Namespace, u64> = BTreeMap::new();
        for address in all_addresses() {
            if query::get(&store, &address).unwrap().is_some() {
                active[address.environment.index()] += 1;
                *per_namespace.entry(address.namespace).or_default() += 1;
            }
        }
        prop_assert_eq!(meta.active, active);
        prop_assert_eq!(meta.change_log_entries, rows(&store, 0x12));
        prop_assert_eq!(meta.requests, rows(&store, 0x14));
        prop_assert_eq!(meta.requests, rows(&store, 0x15));

        let listed = query::namespaces(&store, "", None, 100).unwrap().items;
        let listed: BTreeMap<_, _> = listed.into_iter().map(|summary| (summary.namespace, summary.entries)).collect();
        prop_assert_eq!(&listed, &per_namespace);

        for namespace in per_namespace.keys() {
            for environment in Environment::ALL {
                let ask = |after, limit| {
                    let (namespace, prefix) = (namespace.clone(), String::new());
                    query::list(&store, &ListQuery { namespace, environment, prefix, after, limit }).unwrap()
                };
                let full = ask(None, limits::PAGE_LIMIT_MAX);
                let (mut items, mut after) = (Vec::new(), None);
                loop {
                    let page = ask(after, limit);
                    items.extend(page.items);
                    prop_assert!(items.len() <= full.items.len());
                    after = items.last().map(|entry| entry.address.key.clone());
                    if !page.more {
                        break;
                    }
                }
                prop_assert!(!full.more);
                prop_assert_eq!(items, full.items);
            }
        }
    }

    #[test]
    fn a_resolved_namespace_is_what_each_lookup_finds(log in log()) {
        let mut store = MemoryStore::default();
        run_all(&mut store, &log);
        for namespace in ["a", "a/b"].map(|ns| Namespace::parse(ns).unwrap()) {
            for environment in Environment::ALL {
                let mut expected = Vec::new();
                for key in ["k", "k/1", "ключ"].map(|key| Key::parse(key).unwrap()) {
                    if let Some(entry) = query::resolve_entry(&store, &namespace, &key, environment).unwrap() {
                        expected.push((key, entry.value.unwrap(), entry.address.environment));
                    }
                }
                prop_assert_eq!(query::resolve(&store, &namespace, environment).unwrap().values, expected);
            }
        }
    }

    #[test]
    fn answers_survive_the_wire(log in log()) {
        for (applied, _) in run_all(&mut MemoryStore::default(), &log) {
            prop_assert_eq!(Applied::decode(applied.encode()), Ok(applied));
        }
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn commands_survive_the_wire(command in command()) {
        let bytes = command.encode();
        prop_assert!(bytes.len() <= command.size());
        match command.validate() {
            Ok(()) => prop_assert_eq!(Command::decode(bytes), Ok(command)),
            Err(invalid) => prop_assert_eq!(Command::decode(bytes), Err(invalid.into())),
        }
    }

    #[test]
    fn decoding_never_panics(command in command(), noise in vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), byte: u8) {
        let decode = |bytes: Vec<u8>| {
            let bytes = Bytes::from(bytes);
            drop(Applied::decode(bytes.clone()));
            Command::decode(bytes)
        };
        drop(decode(noise.clone()));
        drop(decode([vec![1], noise].concat()));
        let mut bytes = command.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = decode(bytes) {
            prop_assert_eq!(decoded.validate(), Ok(()));
        }
    }

    #[test]
    fn an_overlay_scans_like_the_sum_of_its_parts(
        base in btree_map(vec(0..4_u8, 0..3), vec(any::<u8>(), 0..2), 0..12),
        writes in vec((vec(0..4_u8, 0..3), option::of(vec(any::<u8>(), 0..2))), 0..12),
        from in vec(0..4_u8, 0..3),
        to in vec(0..5_u8, 0..3),
        stop_after in 1..8_usize,
    ) {
        let mut store = MemoryStore::default();
        store.apply_writes(base.iter().map(|(key, value)| (key.clone(), Some(Bytes::from(value.clone())))).collect());
        let mut overlay = Overlay::new(&store);
        let mut model = base;
        for (key, value) in writes {
            match value {
                Some(value) => {
                    overlay.put(key.clone(), Bytes::from(value.clone()));
                    model.insert(key, value);
                }
                None => {
                    overlay.delete(key.clone());
                    model.remove(&key);
                }
            }
        }
        let mut expected: Vec<_> = model.clone().into_iter().filter(|(key, _)| (&from..&to).contains(&key)).collect();
        for order in [Order::Ascending, Order::Descending] {
            let mut seen = Vec::new();
            overlay.scan(&from, &to, order, &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                Ok(if seen.len() == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            }).unwrap();
            prop_assert_eq!(&seen[..], &expected[..stop_after.min(expected.len())]);
            expected.reverse();
        }
        for key in model.keys() {
            prop_assert_eq!(overlay.get(key).unwrap().map(|value| value.to_vec()), model.get(key).cloned());
        }
        let writes = overlay.into_writes();
        store.apply_writes(writes);
        let mut committed = BTreeMap::new();
        store.scan(&[], &[0xff], Order::Ascending, &mut |key, value| {
            committed.insert(key.to_vec(), value.to_vec());
            Ok(ControlFlow::Continue(()))
        }).unwrap();
        prop_assert_eq!(committed, model);
    }

    #[test]
    fn accepted_json_means_the_same_to_others(text in r#"[ \n]{0,2}([\[\]{}",:\\ ]|true|null|"a"|"b\\u00e9":|-?[0-9]{1,3}|[.eE+-]|1e30[0-9]|\[1, ?2\]|\{"x": ?0\}){0,8}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match JsonValue::parse(text.as_bytes()) {
            Ok(ours) => {
                prop_assert_eq!(JsonValue::parse(ours.as_bytes()), Ok(ours.clone()));
                prop_assert_eq!(ours.to_json(), theirs.unwrap());
                prop_assert!(ours.as_bytes().len() <= text.len());
            }
            // Theirs takes more: duplicate keys. Anything else they must refuse as well.
            Err(error) => prop_assert!(theirs.is_err() || error.to_string().contains("occurs twice"), "{text}: {error}"),
        }
    }

    #[test]
    fn any_tree_is_accepted_and_kept(tree in tree()) {
        let pretty = serde_json::to_string_pretty(&tree).unwrap();
        let value = JsonValue::parse(pretty.as_bytes()).unwrap();
        prop_assert_eq!(value.as_str(), serde_json::to_string(&tree).unwrap());
        prop_assert_eq!(value.to_json(), tree);
    }
}

fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Into::into),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
