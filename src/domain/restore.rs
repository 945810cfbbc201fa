//! What becomes of a state when another cluster begins with it: everything stays as it was, only the cluster's identity
//! and its nodes are new.

use bytes::Bytes;

use crate::keys;
use crate::query::Meta;
use crate::record::check_format;
use crate::store::StoreError;

/// The value under which a restored state keeps a record, or None when it does not: the nodes of the old cluster and
/// their disks mean nothing to the new one.
///
/// # Errors
/// When the record cannot be read, or belongs to a table that this release does not know.
pub fn adopt(key: &[u8], value: &[u8], cluster_id: &str) -> Result<Option<Bytes>, StoreError> {
    check_format(key, value)?;
    let value = Bytes::copy_from_slice(value);
    match keys::owner(key)? {
        keys::Owner::Store => Ok(Some(value)),
        keys::Owner::Nodes => Ok(None),
        keys::Owner::Meta => {
            let mut meta = Meta::from_record(Some(value))?;
            meta.cluster_id = Some(cluster_id.to_owned());
            Ok(Some(meta.to_record()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Found, Node, Operation};
    use crate::store::{DOMAIN_END, DOMAIN_FIRST, MemoryStore, Order, Reader};
    use crate::{Overlay, apply, query};

    #[test]
    fn the_new_cluster_has_the_state_and_none_of_the_nodes() {
        let mut old = MemoryStore::default();
        let operations = [
            Operation::Found(Found { cluster_id: "old".into(), history_limit: 7 }),
            Operation::RegisterNode(Node {
                id: 1,
                incarnation: "disk".into(),
                http: "a:1".into(),
                grpc: "a:2".into(),
                raft: "a:3".into(),
                version: "0".into(),
            }),
        ];
        for operation in operations {
            let mut overlay = Overlay::new(&old);
            apply(&mut overlay, 5, &Command::new("test", operation)).unwrap();
            let writes = overlay.into_writes();
            old.apply_writes(writes);
        }
        let mut writes = crate::Writes::new();
        old.scan(&[DOMAIN_FIRST], &[DOMAIN_END], Order::Ascending, &mut |key, value| {
            if let Some(value) = adopt(key, value, "new")? {
                writes.insert(key.to_vec(), Some(value));
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        let mut new = MemoryStore::default();
        new.apply_writes(writes);
        assert!(query::nodes(&new).unwrap().is_empty());
        let meta = Meta { cluster_id: Some("new".into()), ..query::meta(&old).unwrap() };
        assert_eq!(query::meta(&new).unwrap(), meta);
    }

    #[test]
    fn a_table_of_a_later_release_is_refused() {
        let error = adopt(&[0xfe, 1], b"", "new").unwrap_err().to_string();
        assert!(error.contains("release"), "{error}");
        assert!(adopt(&[], b"", "new").is_err());
    }
}
