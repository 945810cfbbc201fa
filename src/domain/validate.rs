//! The bounds of commands that their types do not hold by themselves, each refusal naming its field.

use crate::access::{Role, Token, check_role_name};
use crate::command::{
    AddNode, AuditRetention, CheckedSchema, Command, Found, Node, Operation, Origin, PutSchema,
    Reseal, Rollback, Set, Txn, TxnOp,
};
use crate::event::AuditEvent;
use crate::limits;
use crate::names::{Address, InvalidArgument, Key, Namespace, check_line};
use crate::sealed::{DataKey, Value, validate_data_key, validate_sealed};

impl Command {
    /// At least as many bytes as [`Command::encode`] gives. Above [`limits::COMMAND_BYTES_MAX`] the command is refused;
    /// a gateway may look first, to say "payload too large" instead of "invalid".
    pub fn size(&self) -> usize {
        let operation = match &self.operation {
            Operation::Set(set) => set_size(set),
            Operation::Delete(delete) => address_size(&delete.address) + delete.comment.len(),
            Operation::Rollback(rollback) => {
                let resealed = rollback.resealed.as_ref().map_or(0, |sealed| sealed.bytes.len());
                address_size(&rollback.address) + rollback.comment.len() + resealed
            }
            Operation::Txn(txn) => {
                let compares =
                    txn.compare.iter().map(|compare| address_size(&compare.address)).sum::<usize>();
                compares + txn.success.iter().chain(&txn.failure).map(txn_op_size).sum::<usize>()
            }
            Operation::Compact(_) => 0,
            Operation::Found(found) => found.cluster_id.len(),
            Operation::RegisterNode(node) | Operation::AddNode(AddNode { node }) => {
                node.texts().iter().map(|(_, text)| text.len()).sum()
            }
            Operation::RemoveNode(_) | Operation::DropDataKey(_) => limits::NAMESPACE_BYTES_MAX,
            Operation::SetAuditRetention(_) => 0,
            Operation::Bootstrap(token) | Operation::CreateToken(token) => token_size(token),
            Operation::PutRole(role) => role_size(role),
            Operation::RevokeToken(text)
            | Operation::DeleteRole(text)
            | Operation::LiftBan(text) => text.len(),
            Operation::Ban(order) => order.address.len() + order.reason.len(),
            Operation::AddDataKey(key) => data_key_size(key),
            Operation::RewrapDataKeys(keys) => keys.iter().map(data_key_size).sum(),
            Operation::Reseal(reseal) => reseal_size(reseal),
            Operation::Record(events) => events.iter().map(AuditEvent::size).sum(),
            Operation::PutSchema(put) => {
                schema_size(&put.namespace, &put.key)
                    + put.schema.as_bytes().len()
                    + put.comment.len()
            }
            Operation::DeleteSchema(delete) => {
                schema_size(&delete.namespace, &delete.key) + delete.comment.len()
            }
        };
        let schemas =
            self.schemas.iter().map(|checked| schema_size(&checked.namespace, &checked.key));
        let origin = self.origin.as_ref().map_or(0, origin_size);
        let request =
            self.request.as_ref().map_or(0, |request| request.key.len() + request.digest.len());
        let schemas = schemas.sum::<usize>();
        2 * MESSAGE_OVERHEAD + self.actor.len() + request + origin + schemas + operation
    }

    /// Checks every bound that the types do not hold by themselves.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        check_line("actor", &self.actor, limits::ACTOR_BYTES_MAX)?;
        if let Some(request) = &self.request {
            check_line("idempotency_key", &request.key, limits::IDEMPOTENCY_KEY_BYTES_MAX)?;
        }
        self.origin.as_ref().map_or(Ok(()), validate_origin)?;
        if self.schemas.len() > limits::SCHEMAS_CHECKED_MAX {
            let reason =
                format!("was checked by more than {} schemas", limits::SCHEMAS_CHECKED_MAX);
            return Err(InvalidArgument::new("request", reason));
        }
        let before = |one: &CheckedSchema, next: &CheckedSchema| {
            (&one.namespace, &one.key) < (&next.namespace, &next.key)
        };
        if !self.schemas.is_sorted_by(before) {
            let reason = "names the schemas that it was checked by out of order";
            return Err(InvalidArgument::new("request", reason));
        }
        match &self.operation {
            Operation::Set(set) => validate_set(set),
            Operation::Delete(delete) => {
                check_text("comment", &delete.comment, limits::COMMENT_BYTES_MAX)
            }
            Operation::Rollback(rollback) => validate_rollback(rollback),
            Operation::Txn(txn) => validate_txn(txn),
            Operation::Compact(_) => Ok(()),
            Operation::Found(found) => validate_found(found),
            Operation::RegisterNode(node) | Operation::AddNode(AddNode { node }) => {
                validate_node(node)
            }
            Operation::RemoveNode(remove) => validate_node_id(remove.id),
            Operation::Bootstrap(token) | Operation::CreateToken(token) => token.validate(),
            Operation::RevokeToken(id) => check_line("id", id, limits::TOKEN_ID_BYTES_MAX),
            Operation::PutRole(role) => role.validate(),
            Operation::DeleteRole(name) => check_role_name("name", name),
            Operation::Ban(order) => order.validate(),
            Operation::LiftBan(address) => check_line("address", address, limits::SOURCE_BYTES_MAX),
            Operation::AddDataKey(key) => validate_data_key(key),
            Operation::RewrapDataKeys(keys) => keys.iter().try_for_each(validate_data_key),
            Operation::Reseal(reseal) => validate_reseal(reseal),
            Operation::DropDataKey(_) => Ok(()),
            Operation::Record(events) => validate_events(events),
            Operation::SetAuditRetention(retention) => validate_retention(*retention),
            Operation::PutSchema(put) => validate_put_schema(put),
            Operation::DeleteSchema(delete) => {
                check_text("comment", &delete.comment, limits::COMMENT_BYTES_MAX)
            }
        }?;
        let size = self.size();
        if size > limits::COMMAND_BYTES_MAX {
            let reason = format!(
                "the transaction takes {size} bytes, at most {} are allowed",
                limits::COMMAND_BYTES_MAX
            );
            return Err(InvalidArgument::new("success", reason));
        }
        Ok(())
    }
}

/// Tags, lengths and numbers of one encoded message, rounded up.
const MESSAGE_OVERHEAD: usize = 64;

fn address_size(address: &Address) -> usize {
    MESSAGE_OVERHEAD + address.namespace.as_str().len() + address.key.as_str().len()
}

fn schema_size(namespace: &Namespace, key: &Key) -> usize {
    MESSAGE_OVERHEAD + namespace.as_str().len() + key.as_str().len()
}

fn set_size(set: &Set) -> usize {
    let tags = set.tags.iter().map(|tag| 8 + tag.len()).sum::<usize>();
    address_size(&set.address) + set.value.size() + set.description.len() + set.comment.len() + tags
}

fn origin_size(origin: &Origin) -> usize {
    let roles = origin
        .authority
        .as_ref()
        .map_or(0, |authority| authority.roles.iter().map(|role| 8 + role.len()).sum());
    2 * MESSAGE_OVERHEAD
        + origin.principal.len()
        + origin.source.len()
        + origin.request_id.len()
        + roles
}

fn token_size(token: &Token) -> usize {
    let roles = token.roles.iter().map(|role| 8 + role.len()).sum::<usize>();
    let namespaces =
        token.scope.namespaces.iter().map(|name| 8 + name.as_str().len()).sum::<usize>();
    // Ids, names and what proves it are bounded.
    4 * MESSAGE_OVERHEAD
        + limits::CERTIFICATE_NAME_BYTES_MAX
        + token.name.len()
        + roles
        + namespaces
}

fn role_size(role: &Role) -> usize {
    let grants = role.grants.iter().map(|grant| {
        let namespaces =
            grant.scope.namespaces.iter().map(|name| 8 + name.as_str().len()).sum::<usize>();
        2 * MESSAGE_OVERHEAD + namespaces
    });
    role.name.len() + role.description.len() + grants.sum::<usize>()
}

fn data_key_size(key: &DataKey) -> usize {
    MESSAGE_OVERHEAD + key.owner.len() + key.master_id.len() + key.wrapped.len()
}

fn reseal_size(reseal: &Reseal) -> usize {
    let sealed = |bytes: usize| 2 * MESSAGE_OVERHEAD + bytes;
    let versions = reseal.versions.iter().map(|version| sealed(version.sealed.bytes.len()));
    address_size(&reseal.address) + versions.sum::<usize>()
}

fn txn_op_size(op: &TxnOp) -> usize {
    match op {
        TxnOp::Set(set) => set_size(set),
        TxnOp::Delete(delete) => address_size(&delete.address) + delete.comment.len(),
        TxnOp::Get(address) => address_size(address),
    }
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), InvalidArgument> {
    if text.len() > max {
        return Err(InvalidArgument::new(
            field,
            format!("has {} bytes, at most {max} are allowed", text.len()),
        ));
    }
    Ok(())
}

fn validate_origin(origin: &Origin) -> Result<(), InvalidArgument> {
    for (text, max) in [
        (&origin.principal, limits::ACTOR_BYTES_MAX),
        (&origin.source, limits::SOURCE_BYTES_MAX),
        (&origin.request_id, limits::AUDIT_REQUEST_ID_BYTES_MAX),
    ] {
        if text.len() > max || text.chars().any(char::is_control) {
            let reason =
                format!("comes with a text of more than {max} bytes, or with control characters");
            return Err(InvalidArgument::new("request", reason));
        }
    }
    match &origin.authority {
        Some(authority) if authority.token_id.is_none() => {
            crate::access::check_roles(&authority.roles)
        }
        Some(authority) if authority.roles.len() > limits::PRINCIPAL_ROLES_MAX => {
            Err(InvalidArgument::new("roles", "are too many"))
        }
        Some(_) | None => Ok(()),
    }
}

fn validate_reseal(reseal: &Reseal) -> Result<(), InvalidArgument> {
    if reseal.versions.len() > limits::RESEALS_PER_COMMAND_MAX {
        let reason = format!("has more than {} secrets", limits::RESEALS_PER_COMMAND_MAX);
        return Err(InvalidArgument::new("request", reason));
    }
    reseal.versions.iter().try_for_each(|version| validate_sealed(&version.sealed))
}

fn validate_events(events: &[AuditEvent]) -> Result<(), InvalidArgument> {
    if events.is_empty() || events.len() > limits::AUDIT_EVENTS_PER_COMMAND_MAX {
        let reason = format!("records 1 to {} events", limits::AUDIT_EVENTS_PER_COMMAND_MAX);
        return Err(InvalidArgument::new("request", reason));
    }
    events.iter().try_for_each(AuditEvent::validate)
}

fn validate_retention(retention: AuditRetention) -> Result<(), InvalidArgument> {
    let AuditRetention { max_age_ms, max_bytes } = retention;
    if max_age_ms < limits::AUDIT_AGE_MS_MIN {
        let reason = format!("is below {}, an hour", limits::AUDIT_AGE_MS_MIN);
        return Err(InvalidArgument::new("max_age_ms", reason));
    }
    if max_bytes < limits::AUDIT_BYTES_MIN {
        let reason = format!("is below {}", limits::AUDIT_BYTES_MIN);
        return Err(InvalidArgument::new("max_bytes", reason));
    }
    Ok(())
}

fn validate_put_schema(put: &PutSchema) -> Result<(), InvalidArgument> {
    let size = put.schema.as_bytes().len();
    if size > limits::SCHEMA_BYTES_MAX {
        let reason = format!("has {size} bytes, at most {} are allowed", limits::SCHEMA_BYTES_MAX);
        return Err(InvalidArgument::new("schema", reason));
    }
    check_text("comment", &put.comment, limits::COMMENT_BYTES_MAX)
}

fn validate_set(set: &Set) -> Result<(), InvalidArgument> {
    if let Value::Sealed(sealed) = &set.value {
        validate_sealed(sealed)?;
    }
    check_text("description", &set.description, limits::DESCRIPTION_BYTES_MAX)?;
    check_text("comment", &set.comment, limits::COMMENT_BYTES_MAX)?;
    if set.tags.len() > limits::TAGS_MAX {
        let reason =
            format!("has {} tags, at most {} are allowed", set.tags.len(), limits::TAGS_MAX);
        return Err(InvalidArgument::new("tags", reason));
    }
    for (index, tag) in set.tags.iter().enumerate() {
        check_line("tags", tag, limits::TAG_BYTES_MAX).map_err(|error| {
            InvalidArgument::new("tags", format!("tag {index}: {}", error.reason))
        })?;
    }
    Ok(())
}

fn validate_rollback(rollback: &Rollback) -> Result<(), InvalidArgument> {
    if rollback.version == 0 {
        return Err(InvalidArgument::new("version", "versions count from 1"));
    }
    rollback.resealed.as_ref().map_or(Ok(()), validate_sealed)?;
    check_text("comment", &rollback.comment, limits::COMMENT_BYTES_MAX)
}

fn validate_txn(txn: &Txn) -> Result<(), InvalidArgument> {
    let counts = [
        ("compare", txn.compare.len(), limits::TXN_COMPARES_MAX),
        ("success", txn.success.len(), limits::TXN_OPS_MAX),
        ("failure", txn.failure.len(), limits::TXN_OPS_MAX),
    ];
    for (field, count, max) in counts {
        if count > max {
            return Err(InvalidArgument::new(
                field,
                format!("has {count} elements, at most {max} are allowed"),
            ));
        }
    }
    for (field, ops) in [("success", &txn.success), ("failure", &txn.failure)] {
        for (index, op) in ops.iter().enumerate() {
            let checked = match op {
                TxnOp::Set(set) => validate_set(set),
                TxnOp::Delete(delete) => {
                    check_text("comment", &delete.comment, limits::COMMENT_BYTES_MAX)
                }
                TxnOp::Get(_) => Ok(()),
            };
            checked.map_err(|error| {
                InvalidArgument::new(field, format!("operation {index}: {error}"))
            })?;
        }
    }
    Ok(())
}

fn validate_found(found: &Found) -> Result<(), InvalidArgument> {
    check_line("cluster_id", &found.cluster_id, limits::NODE_TEXT_BYTES_MAX)?;
    if !(1..=limits::HISTORY_LIMIT_MAX).contains(&found.history_limit) {
        let reason = format!(
            "{} is out of range, allowed are 1 to {}",
            found.history_limit,
            limits::HISTORY_LIMIT_MAX
        );
        return Err(InvalidArgument::new("history_limit", reason));
    }
    Ok(())
}

impl Node {
    fn texts(&self) -> [(&'static str, &str); 5] {
        [
            ("incarnation", &self.incarnation),
            ("http", &self.http),
            ("grpc", &self.grpc),
            ("raft", &self.raft),
            ("version", &self.version),
        ]
    }
}

fn validate_node_id(id: u64) -> Result<(), InvalidArgument> {
    if id == 0 {
        return Err(InvalidArgument::new("id", "node ids count from 1"));
    }
    Ok(())
}

fn validate_node(node: &Node) -> Result<(), InvalidArgument> {
    validate_node_id(node.id)?;
    for (field, text) in node.texts() {
        check_line(field, text, limits::NODE_TEXT_BYTES_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Compare, DecodeError};
    use crate::value::JsonValue;

    fn set(value: &str) -> Set {
        Set {
            address: Address::parse("ns", "key", "base").unwrap(),
            value: JsonValue::parse(value.as_bytes()).unwrap().into(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
            declassify: false,
        }
    }

    fn refused_field(operation: Operation) -> &'static str {
        Command::new("test", operation).validate().unwrap_err().field
    }

    #[test]
    fn every_bound_names_its_field() {
        let base = set("1");
        let node = |id, raft: &str| Node {
            id,
            incarnation: "i".into(),
            http: "h:1".into(),
            grpc: "h:2".into(),
            raft: raft.into(),
            version: "1".into(),
        };
        let table = [
            ("description", Operation::Set(Set { description: "x".repeat(4097), ..base.clone() })),
            ("comment", Operation::Set(Set { comment: "x".repeat(4097), ..base.clone() })),
            ("tags", Operation::Set(Set { tags: vec!["t".into(); 33], ..base.clone() })),
            ("tags", Operation::Set(Set { tags: vec![String::new()], ..base.clone() })),
            ("tags", Operation::Set(Set { tags: vec!["x".repeat(129)], ..base.clone() })),
            (
                "version",
                Operation::Rollback(Rollback {
                    address: base.address.clone(),
                    version: 0,
                    expected_version: None,
                    comment: String::new(),
                    resealed: None,
                }),
            ),
            (
                "compare",
                Operation::Txn(Txn {
                    compare: vec![Compare { address: base.address.clone(), version: 0 }; 10_001],
                    success: vec![],
                    failure: vec![],
                }),
            ),
            (
                "success",
                Operation::Txn(Txn {
                    compare: vec![],
                    success: vec![TxnOp::Get(base.address.clone()); 10_001],
                    failure: vec![],
                }),
            ),
            (
                "failure",
                Operation::Txn(Txn {
                    compare: vec![],
                    success: vec![],
                    failure: vec![TxnOp::Get(base.address.clone()); 10_001],
                }),
            ),
            (
                "failure",
                Operation::Txn(Txn {
                    compare: vec![],
                    success: vec![],
                    failure: vec![TxnOp::Set(Set { comment: "x".repeat(4097), ..base.clone() })],
                }),
            ),
            ("cluster_id", Operation::Found(Found { cluster_id: String::new(), history_limit: 1 })),
            ("history_limit", Operation::Found(Found { cluster_id: "c".into(), history_limit: 0 })),
            (
                "history_limit",
                Operation::Found(Found { cluster_id: "c".into(), history_limit: 10_001 }),
            ),
            ("id", Operation::RegisterNode(node(0, "r"))),
            ("raft", Operation::RegisterNode(node(1, ""))),
            ("raft", Operation::AddNode(AddNode { node: node(1, "") })),
            ("id", Operation::RemoveNode(crate::RemoveNode { id: 0 })),
        ];
        for (field, operation) in table {
            assert_eq!(refused_field(operation.clone()), field, "{operation:?}");
        }
        assert_eq!(
            Command::new("", Operation::Set(base.clone())).validate().unwrap_err().field,
            "actor"
        );
        let keyed = Command::new("a", Operation::Set(base)).with_request_id("k".repeat(65));
        assert_eq!(keyed.validate().unwrap_err().field, "idempotency_key");
    }

    #[test]
    fn a_transaction_above_the_command_limit_is_refused() {
        let megabyte = set(&format!("\"{}\"", "x".repeat(limits::VALUE_BYTES_MAX - 2)));
        let txn = |count| {
            Operation::Txn(Txn {
                compare: vec![],
                success: vec![TxnOp::Set(megabyte.clone()); count],
                failure: vec![],
            })
        };
        assert!(Command::new("test", txn(3)).validate().is_ok());
        assert_eq!(refused_field(txn(4)), "success");
        let bytes = Command::new("test", txn(4)).encode();
        assert_eq!(
            Command::decode(bytes.clone()),
            Err(DecodeError::TooLarge { size: bytes.len() })
        );
    }
}
