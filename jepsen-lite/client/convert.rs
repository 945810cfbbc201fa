//! Between the messages of the API and the words of a history.

use jepsen_lite::history::{Compare, Entry, Keyed, Read, TxnOp, TxnResult, Value};
use llm_config_client::v1;
use tonic::Status;

use super::Vault;

/// Where an entry is: `namespace/key@environment`. Keys of workloads have no slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// Its environment.
    pub environment: String,
}

impl Address {
    /// Takes a name of a history apart.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        let (rest, environment) = name.rsplit_once('@').unwrap_or((name, "base"));
        let (namespace, key) = rest.rsplit_once('/').unwrap_or(("", rest));
        let owned = str::to_owned;
        Self { namespace: owned(namespace), key: owned(key), environment: owned(environment) }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.namespace, self.key, self.environment)
    }
}

pub(super) fn read(read: Read) -> v1::ReadOptions {
    let consistency =
        if read.linearizable { v1::Consistency::Linearizable } else { v1::Consistency::Cached };
    v1::ReadOptions {
        consistency: consistency.into(),
        min_revision: read.min_revision,
        max_staleness_ms: read.max_staleness_ms,
    }
}

pub(super) fn get(name: &str, how: Read, version: Option<u64>) -> v1::GetRequest {
    let at = Address::parse(name);
    v1::GetRequest {
        namespace: at.namespace,
        key: at.key,
        environment: at.environment,
        read: Some(read(how)),
        version,
        reveal: how.reveal,
        ..v1::GetRequest::default()
    }
}

pub(super) fn present(entry: Option<v1::Entry>) -> Result<Entry, Status> {
    self::entry(entry.ok_or_else(|| Status::internal("an answer without its entry"))?)
}

pub(super) fn entry(entry: v1::Entry) -> Result<Entry, Status> {
    let value = if entry.deleted { None } else { Some(value(&entry.value)?) };
    Ok(Entry { version: entry.version, revision: entry.revision, value })
}

fn value(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|error| Status::internal(format!("no JSON: {error}")))
}

pub(super) fn keyed(entry: v1::Entry) -> Result<Keyed, Status> {
    let address = Address {
        namespace: entry.namespace.clone(),
        key: entry.key.clone(),
        environment: entry.environment.clone(),
    };
    Ok(Keyed { key: address.to_string(), entry: self::entry(entry)? })
}

pub(super) fn txn(
    compare: &[Compare],
    success: &[TxnOp],
    failure: &[TxnOp],
    idempotency_key: Option<&str>,
    vault: &Vault,
) -> v1::TxnRequest {
    let step = |op: &TxnOp| step(op, vault);
    let comparison = |compare: &Compare| {
        let at = Address::parse(&compare.key);
        v1::Compare {
            namespace: at.namespace,
            key: at.key,
            environment: at.environment,
            version: compare.version,
        }
    };
    v1::TxnRequest {
        compare: compare.iter().map(comparison).collect(),
        success: success.iter().map(step).collect(),
        failure: failure.iter().map(step).collect(),
        idempotency_key: idempotency_key.unwrap_or_default().to_owned(),
    }
}

fn step(op: &TxnOp, vault: &Vault) -> v1::TxnOp {
    use v1::txn_op::{Delete, Get, Op, Set};
    let at = Address::parse(op.key());
    let (namespace, key, environment) = (at.namespace, at.key, at.environment);
    let op = match op {
        TxnOp::Set { value, .. } => {
            let (value, secret) = vault.sent(value);
            let value = value.into();
            Op::Set(Set { namespace, key, environment, value, secret, ..Set::default() })
        }
        TxnOp::Delete { .. } => {
            Op::Delete(Delete { namespace, key, environment, ..Delete::default() })
        }
        TxnOp::Get { .. } => Op::Get(Get { namespace, key, environment }),
    };
    v1::TxnOp { op: Some(op) }
}

pub(super) fn results(
    steps: &[TxnOp],
    results: Vec<v1::TxnResult>,
) -> Result<Vec<TxnResult>, Status> {
    if steps.len() != results.len() {
        return Err(Status::internal("not one result for each step"));
    }
    let result = |(step, result): (&TxnOp, v1::TxnResult)| match step {
        TxnOp::Get { .. } => Ok(TxnResult::Got { entry: result.entry.map(entry).transpose()? }),
        TxnOp::Set { .. } | TxnOp::Delete { .. } => {
            Ok(TxnResult::Written { version: present(result.entry)?.version })
        }
    };
    steps.iter().zip(results).map(result).collect()
}
