//! What the rules do with tokens, roles, bans, keys and the audit log, by example.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::ops::ControlFlow;

use bytes::Bytes;
use llm_config_domain::{
    Action, Address, AuditEvent, AuditKind, AuditQuery, AuditRetention, Authority, BanOrder,
    Command, Credential, DataKey, Delete, DropDataKey, Environment, Found, Grant, JsonValue,
    MemoryStore, Namespace, Operation, Order, Origin, Outcome, Overlay, Reader, Rejection, Reseal,
    ResealedVersion, Role, Rollback, Scope, Sealed, Set, Token, Value, Writes, apply, audit, bans,
    key_ring, limits, policy, query,
};

const AUDIT_TABLE: u8 = 0x1d;
const HOUR_MS: u64 = 3_600_000;

fn founded() -> MemoryStore {
    let mut store = MemoryStore::default();
    let found = Found { cluster_id: "c".into(), history_limit: 3 };
    run(&mut store, 0, &Command::new("system", Operation::Found(found))).unwrap();
    store
}

fn run(store: &mut MemoryStore, time_ms: u64, command: &Command) -> Result<Outcome, Rejection> {
    let mut overlay = Overlay::new(&*store);
    // Through its bytes, as in a log.
    let command = Command::decode(command.encode()).unwrap();
    let (applied, _) = apply(&mut overlay, time_ms, &command).unwrap();
    let writes = overlay.into_writes();
    store.apply_writes(writes);
    applied.result
}

fn by(operation: Operation) -> Command {
    Command::new("ann", operation).from_origin(origin())
}

fn origin() -> Origin {
    Origin {
        principal: "t-ann".into(),
        source: "192.0.2.7".into(),
        request_id: "r-1".into(),
        node: 2,
        authority: None,
    }
}

fn address(key: &str) -> Address {
    Address::parse("team/app", key, "production").unwrap()
}

fn set(key: &str, value: impl Into<Value>) -> Operation {
    Operation::Set(Set {
        address: address(key),
        value: value.into(),
        description: String::new(),
        tags: Vec::new(),
        comment: "as asked".into(),
        expected_version: None,
        declassify: false,
    })
}

fn json(text: &str) -> JsonValue {
    JsonValue::parse(text.as_bytes()).unwrap()
}

fn sealed(key_version: u32, version: u64) -> Sealed {
    Sealed { key_version, version, bytes: Bytes::from(format!("cipher {key_version} {version}")) }
}

fn data_key(version: u32) -> DataKey {
    DataKey {
        owner: "team/app".into(),
        version,
        master_id: Bytes::from_static(b"master"),
        wrapped: Bytes::from_static(b"wrapped"),
        created_at_ms: 0,
    }
}

fn token(id: &str, roles: &[&str]) -> Token {
    Token {
        id: id.into(),
        name: format!("holder of {id}"),
        prefix: format!("lcm_{id}"),
        credential: Credential::Hash([7; 32]),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        scope: Scope::default(),
        created_at_ms: 0,
        created_by: String::new(),
        expires_at_ms: 0,
    }
}

fn with_authority(operation: Operation, authority: Authority) -> Command {
    Command::new("ann", operation).from_origin(Origin { authority: Some(authority), ..origin() })
}

// ---- Rights ----

#[test]
fn a_right_that_was_taken_away_before_the_command_commits_stops_it() {
    let mut store = founded();
    run(&mut store, 1, &by(Operation::CreateToken(token("t-1", &["editor"])))).unwrap();
    let seen = query::meta(&store).unwrap().policy_revision;
    let authority = |policy_revision| Authority {
        policy_revision,
        token_id: Some("t-1".into()),
        ..Authority::default()
    };
    let write = |policy_revision| with_authority(set("k", json("1")), authority(policy_revision));
    run(&mut store, 2, &write(seen)).unwrap();
    // The policy moves on, and the token keeps its right.
    run(&mut store, 3, &by(Operation::CreateToken(token("t-2", &["viewer"])))).unwrap();
    run(&mut store, 4, &write(seen)).unwrap();
    run(&mut store, 5, &by(Operation::RevokeToken("t-1".into()))).unwrap();
    assert_eq!(run(&mut store, 6, &write(seen)), Err(Rejection::Unauthenticated));
    assert_eq!(query::get(&store, &address("k")).unwrap().unwrap().version, 2);
}

#[test]
fn a_role_that_changes_changes_what_its_holders_may_do() {
    let mut store = founded();
    let role = |actions: &[Action], namespaces: &[&str]| Role {
        name: "writers".into(),
        description: String::new(),
        grants: vec![Grant {
            actions: actions.to_vec(),
            scope: Scope {
                namespaces: namespaces.iter().map(|name| Namespace::parse(name).unwrap()).collect(),
                environments: vec![Environment::Production],
            },
        }],
    };
    run(&mut store, 1, &by(Operation::PutRole(role(&[Action::Write], &["team"])))).unwrap();
    let authority =
        Authority { policy_revision: 0, roles: vec!["writers".into()], ..Authority::default() };
    let write = with_authority(set("k", json("1")), authority.clone());
    run(&mut store, 2, &write).unwrap();
    run(&mut store, 3, &by(Operation::PutRole(role(&[Action::Write], &["other"])))).unwrap();
    let denied = run(&mut store, 4, &write).unwrap_err();
    assert!(denied.to_string().contains("write in namespace team/app"), "{denied}");
    run(&mut store, 5, &by(Operation::DeleteRole("writers".into()))).unwrap();
    assert!(matches!(run(&mut store, 6, &write), Err(Rejection::PermissionDenied { .. })));
    assert_eq!(
        run(&mut store, 7, &by(Operation::DeleteRole("writers".into()))),
        Err(Rejection::NotFound)
    );
    let built_in = run(&mut store, 8, &by(Operation::DeleteRole("admin".into()))).unwrap_err();
    assert!(built_in.to_string().contains("built in"), "{built_in}");
}

#[test]
fn an_expired_right_is_none() {
    let mut store = founded();
    let authority = Authority {
        policy_revision: 0,
        roles: vec!["admin".into()],
        expires_at_ms: 10,
        ..Authority::default()
    };
    run(&mut store, 9, &with_authority(set("k", json("1")), authority.clone())).unwrap();
    let late = with_authority(set("k", json("2")), authority);
    assert_eq!(run(&mut store, 10, &late), Err(Rejection::Unauthenticated));
}

#[test]
fn the_first_token_is_taken_once() {
    let mut store = founded();
    run(&mut store, 1, &by(Operation::Bootstrap(token("t-1", &["admin"])))).unwrap();
    let again = run(&mut store, 2, &by(Operation::Bootstrap(token("t-2", &["admin"]))));
    assert_eq!(again, Err(Rejection::AlreadyBootstrapped));
    let taken = run(&mut store, 3, &by(Operation::CreateToken(token("t-1", &["admin"]))));
    assert_eq!(taken, Err(Rejection::TokenExists { id: "t-1".into() }));
    let kept = policy::token(&store, "t-1").unwrap().unwrap();
    assert_eq!((kept.created_at_ms, kept.created_by.as_str()), (1, "ann"));
}

// ---- Bans ----

#[test]
fn bans_double_up_to_the_longest_however_often_somebody_returns() {
    let (minute, day) = (60_000, 24 * 3_600_000);
    for (first_ms, longest_ms) in [(minute, day), (u64::MAX, u64::MAX)] {
        let mut store = founded();
        let ban = by(Operation::Ban(BanOrder {
            address: "192.0.2.9".into(),
            first_ms,
            longest_ms,
            reason: "guesses".into(),
        }));
        let mut now_ms = 0;
        for strikes in 0..70 {
            let Ok(Outcome::Banned { until_ms, .. }) = run(&mut store, now_ms, &ban) else {
                panic!("no ban")
            };
            let doubled = 2_u64.checked_pow(strikes).and_then(|times| first_ms.checked_mul(times));
            let length = doubled.map_or(longest_ms, |length| length.min(longest_ms));
            assert_eq!(until_ms, now_ms.saturating_add(length), "after {strikes}");
            if until_ms == u64::MAX {
                break;
            }
            now_ms = until_ms;
        }
    }
}

#[test]
fn bans_grow_with_each_return_and_are_forgiven_in_the_end() {
    let mut store = founded();
    let ban = by(Operation::Ban(BanOrder {
        address: "192.0.2.9".into(),
        first_ms: 1_000,
        longest_ms: 5_000,
        reason: "guesses".into(),
    }));
    let mut at = |time_ms| match run(&mut store, time_ms, &ban) {
        Ok(Outcome::Banned { until_ms, strikes }) => (until_ms - time_ms, strikes),
        other => panic!("{other:?}"),
    };
    assert_eq!(at(0), (1_000, 1));
    assert_eq!(at(400), (600, 1), "another node asks for the same");
    assert_eq!(at(1_000), (2_000, 2));
    assert_eq!(at(3_000), (4_000, 3));
    assert_eq!(at(7_000), (5_000, 4), "never longer than the longest");
    let forgotten = 12_000 + limits::BAN_MEMORY_MS;
    assert_eq!(at(forgotten), (1_000, 1));
    run(&mut store, forgotten, &by(Operation::LiftBan("192.0.2.9".into()))).unwrap();
    assert!(bans::all(&store).unwrap().is_empty());
    let again = run(&mut store, forgotten, &by(Operation::LiftBan("192.0.2.9".into())));
    assert_eq!(again, Err(Rejection::NotFound));
}

// ---- Secrets ----

#[test]
fn a_secret_fits_one_version_and_needs_its_key() {
    let mut store = founded();
    let unknown = run(&mut store, 1, &by(set("k", Value::Sealed(sealed(1, 1)))));
    assert_eq!(unknown, Err(Rejection::UnknownKey { version: 1 }));
    run(&mut store, 1, &by(Operation::AddDataKey(data_key(1)))).unwrap();
    assert_eq!(
        run(&mut store, 1, &by(Operation::AddDataKey(data_key(1)))),
        Err(Rejection::KeyVersion { latest: 1 })
    );
    run(&mut store, 2, &by(set("k", Value::Sealed(sealed(1, 1))))).unwrap();
    let stale = run(&mut store, 3, &by(set("k", Value::Sealed(sealed(1, 1)))));
    assert_eq!(stale, Err(Rejection::SealedForOther { version: 2 }));
    let bare = run(&mut store, 4, &by(set("k", json("1"))));
    assert_eq!(bare, Err(Rejection::EntryIsSecret));
    let Operation::Set(open) = set("k", json("1")) else { panic!("a set") };
    run(&mut store, 5, &by(Operation::Set(Set { declassify: true, ..open }))).unwrap();
    let back = |resealed| {
        by(Operation::Rollback(Rollback {
            address: address("k"),
            version: 1,
            expected_version: None,
            comment: String::new(),
            resealed,
        }))
    };
    assert_eq!(run(&mut store, 6, &back(None)), Err(Rejection::NeedsReseal { version: 3 }));
    run(&mut store, 6, &back(Some(sealed(1, 3)))).unwrap();
    let entry = query::get(&store, &address("k")).unwrap().unwrap();
    assert_eq!(entry.value, Some(Value::Sealed(sealed(1, 3))));
}

#[test]
fn a_key_goes_when_nothing_needs_it_any_more() {
    let mut store = founded();
    run(&mut store, 1, &by(Operation::AddDataKey(data_key(1)))).unwrap();
    run(&mut store, 2, &by(set("k", Value::Sealed(sealed(1, 1))))).unwrap();
    run(&mut store, 3, &by(set("k", Value::Sealed(sealed(1, 2))))).unwrap();
    run(&mut store, 4, &by(Operation::AddDataKey(data_key(2)))).unwrap();
    let drop =
        |version| by(Operation::DropDataKey(DropDataKey { owner: "team/app".into(), version }));
    assert_eq!(run(&mut store, 5, &drop(1)), Err(Rejection::KeyInUse));
    assert_eq!(run(&mut store, 5, &drop(2)), Err(Rejection::KeyInUse), "the newest stays");
    let reseal = |versions: &[u64]| {
        let versions = versions
            .iter()
            .map(|version| ResealedVersion { version: *version, sealed: sealed(2, *version) });
        by(Operation::Reseal(Reseal {
            address: address("k"),
            from_key_version: 1,
            versions: versions.collect(),
        }))
    };
    run(&mut store, 6, &reseal(&[1])).unwrap();
    assert_eq!(run(&mut store, 7, &drop(1)), Err(Rejection::KeyInUse));
    run(&mut store, 8, &reseal(&[1, 2, 9])).unwrap();
    run(&mut store, 9, &drop(1)).unwrap();
    assert_eq!(key_ring::data_keys(&store).unwrap().len(), 1);
    assert_eq!(key_ring::sealed_version(&store, &address("k"), 1).unwrap(), Some(sealed(2, 1)));
    assert_eq!(query::meta(&store).unwrap().revision, 2, "no watcher is told");
}

#[test]
fn history_that_goes_lets_its_key_go() {
    let mut store = founded();
    run(&mut store, 1, &by(Operation::AddDataKey(data_key(1)))).unwrap();
    for version in 1..=6 {
        run(&mut store, 2, &by(set("k", Value::Sealed(sealed(1, version))))).unwrap();
    }
    let compact = llm_config_domain::Compact { revision: 6 };
    run(&mut store, 3, &by(Operation::Compact(compact))).unwrap();
    let versions = |store: &MemoryStore| {
        let found = key_ring::sealed_with(store, "team/app", 1, 100).unwrap();
        found.into_iter().map(|(_, version)| version).collect::<Vec<_>>()
    };
    assert_eq!(versions(&store), [4, 5, 6], "as many as history shows");
    let delete = Delete { address: address("k"), expected_version: None, comment: String::new() };
    run(&mut store, 4, &by(Operation::Delete(delete))).unwrap();
    let compact = llm_config_domain::Compact { revision: 8 };
    run(&mut store, 5, &by(Operation::Compact(compact))).unwrap();
    assert_eq!(versions(&store), [0; 0]);
}

// ---- The audit log ----

fn events(count: usize) -> Operation {
    let event = |n: usize| AuditEvent {
        kind: AuditKind::AccessDenied,
        actor: "bob".into(),
        principal: String::new(),
        source: "192.0.2.8".into(),
        request_id: format!("r-{n}"),
        node: 1,
        targets: Vec::new(),
        comment: String::new(),
        detail: "401".into(),
    };
    Operation::Record((0..count).map(event).collect())
}

fn with_records() -> MemoryStore {
    let mut store = founded();
    run(&mut store, 10, &by(set("a", json("1")))).unwrap();
    run(&mut store, 20, &by(set("b", json("2")))).unwrap();
    run(&mut store, 30, &Command::new("node", events(3))).unwrap();
    run(&mut store, 40, &by(set("a", json("3")))).unwrap();
    store
}

fn verify(store: &MemoryStore) -> Result<(u64, u64), (u64, &'static str)> {
    match audit::verify(store, &|| true).unwrap().unwrap() {
        Ok(chain) => Ok((chain.first, chain.last)),
        Err(broken) => Err((broken.sequence, broken.reason)),
    }
}

#[test]
fn a_record_says_who_what_when_why_and_from_where() {
    let store = with_records();
    let newest = AuditQuery { limit: 1, ..AuditQuery::default() };
    let record = audit::records(&store, &newest).unwrap().page.items.remove(0);
    assert_eq!((record.sequence, record.time_ms, record.revision), (6, 40, 3));
    let event = record.event;
    assert_eq!((event.kind, event.actor.as_str()), (AuditKind::ConfigSet, "ann"));
    assert_eq!((event.principal.as_str(), event.source.as_str()), ("t-ann", "192.0.2.7"));
    assert_eq!((event.request_id.as_str(), event.comment.as_str()), ("r-1", "as asked"));
    assert_eq!((event.node, event.targets[0].version), (2, 2));
    assert_eq!(event.targets[0].address, address("a"));
}

#[test]
fn records_are_found_by_what_is_asked_for_and_in_pages() {
    let store = with_records();
    let sequences = |query: AuditQuery| {
        let found = audit::records(&store, &query).unwrap();
        found.page.items.iter().map(|record| record.sequence).collect::<Vec<_>>()
    };
    let all = AuditQuery { limit: 100, ..AuditQuery::default() };
    assert_eq!(sequences(all.clone()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(sequences(AuditQuery { key: Some("a".into()), ..all.clone() }), [6, 1]);
    assert_eq!(sequences(AuditQuery { actor: Some("bob".into()), ..all.clone() }), [5, 4, 3]);
    assert_eq!(sequences(AuditQuery { actor: Some("t-ann".into()), ..all.clone() }), [6, 2, 1]);
    let between = AuditQuery { from_ms: Some(20), to_ms: Some(40), ..all.clone() };
    assert_eq!(sequences(between), [5, 4, 3, 2]);
    let of_kind = AuditQuery { kind: Some(AuditKind::ConfigSet), ..all.clone() };
    assert_eq!(sequences(of_kind), [6, 2, 1]);
    assert_eq!(sequences(AuditQuery { after: Some(5), limit: 2, ..all.clone() }), [4, 3]);
    let forward = AuditQuery { oldest_first: true, after: Some(2), limit: 2, ..all };
    assert_eq!(sequences(forward), [3, 4]);
}

/// The stored records, first to last.
fn stored(store: &MemoryStore) -> Vec<(Vec<u8>, Bytes)> {
    let mut found = Vec::new();
    store
        .scan(&[AUDIT_TABLE], &[AUDIT_TABLE + 1], Order::Ascending, &mut |key, value| {
            found.push((key.to_vec(), Bytes::copy_from_slice(value)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    found
}

#[test]
fn whatever_is_done_to_the_records_is_found() {
    let store = with_records();
    assert_eq!(verify(&store), Ok((1, 6)));
    let records = stored(&store);
    let tampered = |writes: Writes| {
        let mut store = store.clone();
        store.apply_writes(writes);
        verify(&store).unwrap_err()
    };
    for (index, (key, value)) in records.iter().enumerate() {
        let sequence = index as u64 + 1;
        for at in 0..value.len() {
            let mut altered = value.to_vec();
            altered[at] ^= 1;
            let (found, _) = tampered([(key.clone(), Some(altered.into()))].into());
            assert_eq!(found, sequence, "byte {at} of record {sequence}");
        }
        let (found, reason) = tampered([(key.clone(), None)].into());
        assert_eq!((found, reason), (sequence, "it is missing"));
    }
    let swap = [
        (records[1].0.clone(), Some(records[2].1.clone())),
        (records[2].0.clone(), Some(records[1].1.clone())),
    ];
    assert_eq!(tampered(swap.into()), (2, "it is another record"));
    let mut beyond = records[5].0.clone();
    beyond[8] += 1;
    assert_eq!(tampered([(beyond, Some(records[5].1.clone()))].into()).0, 7);
    let mut before = records[0].0.clone();
    before[8] = 0;
    assert_eq!(tampered([(before, Some(records[0].1.clone()))].into()).0, 0);
}

#[test]
fn what_goes_by_age_leaves_a_chain_that_can_be_checked() {
    let mut store = with_records();
    let retention = AuditRetention { max_age_ms: HOUR_MS, max_bytes: limits::AUDIT_BYTES_MIN };
    run(&mut store, 50, &by(Operation::SetAuditRetention(retention))).unwrap();
    assert_eq!(verify(&store), Ok((1, 7)));
    run(&mut store, HOUR_MS + 31, &by(set("a", json("4")))).unwrap();
    assert_eq!(verify(&store), Ok((6, 8)));
    run(&mut store, 10 * HOUR_MS, &by(set("a", json("5")))).unwrap();
    assert_eq!(verify(&store), Ok((9, 9)), "the newest stays");
    assert_eq!(stored(&store).len(), 1);
}

#[test]
fn what_goes_by_size_leaves_a_chain_that_can_be_checked() {
    let mut store = founded();
    let retention = AuditRetention { max_age_ms: HOUR_MS, max_bytes: limits::AUDIT_BYTES_MIN };
    run(&mut store, 1, &by(Operation::SetAuditRetention(retention))).unwrap();
    for time_ms in 0..80 {
        run(&mut store, time_ms, &Command::new("node", events(200))).unwrap();
        assert!(verify(&store).is_ok());
    }
    let meta = query::meta(&store).unwrap().audit;
    let bytes: u64 = stored(&store).iter().map(|(_, value)| value.len() as u64).sum();
    assert_eq!(meta.bytes, bytes);
    assert!(meta.start > 1 && bytes <= limits::AUDIT_BYTES_MIN, "{meta:?}");
}

#[test]
fn a_command_without_an_origin_is_applied_as_it_always_was() {
    let mut store = founded();
    run(&mut store, 1, &Command::new("ann", set("k", json("1")))).unwrap();
    assert_eq!(query::meta(&store).unwrap().audit.next, 1);
}
