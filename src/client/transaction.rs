//! Transactions: comparisons, what to do when all of them hold, and what to do otherwise; all of it or nothing, at one
//! revision.

use std::future::IntoFuture;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::Error;
use crate::namespace::Key;
use crate::reads::Answer;
use crate::v1::{self, txn_op};
use crate::value::{Versioned, encode};
use crate::writes::Written;

/// A transaction; see [`Client::transaction`]. Awaited, it is [`TransactionOutcome`].
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Transaction {
    client: Client,
    request: v1::TxnRequest,
    /// The first operation that cannot be sent.
    broken: Option<Error>,
}

/// A comparison; see [`Key::version_is`] and [`Key::is_absent`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Compare(v1::Compare);

/// One step of a transaction; see [`Key::set`], [`Key::delete`] and [`Key::get`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Operation(Result<txn_op::Op, Error>);

/// What became of a transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransactionOutcome {
    /// All comparisons held, and the first list was done; else the second one was.
    pub succeeded: bool,
    /// The revision that the transaction made; what it was when it changed nothing.
    pub revision: u64,
    /// Of each operation that was done, in order.
    pub results: Vec<OperationResult>,
}

/// What became of one operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum OperationResult {
    /// A set or a delete.
    Written(Written),
    /// A get: the entry, if there is one; see [`TransactionOutcome::value`].
    Got(Option<Box<v1::Entry>>),
}

impl Client {
    /// A transaction over any entries, also of several namespaces.
    ///
    /// ```no_run
    /// # use llm_config_client::{Client, Error};
    /// # async fn example(client: &Client) -> Result<(), Error> {
    /// let app = client.namespace("shop/assistant");
    /// let outcome = client
    ///     .transaction()
    ///     .when(app.key("prompt").version_is(3))
    ///     .then(app.key("prompt").set("Be brief."))
    ///     .then(app.key("prompt_draft").delete())
    ///     .otherwise(app.key("prompt").get())
    ///     .await?;
    /// if !outcome.succeeded {
    ///     println!("somebody was faster: {:?}", outcome.value::<String>(0)?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn transaction(&self) -> Transaction {
        Transaction { client: self.clone(), request: v1::TxnRequest::default(), broken: None }
    }
}

impl Key {
    /// Holds when the entry has this version; 0: when it does not exist.
    pub fn version_is(&self, version: u64) -> Compare {
        Compare(v1::Compare {
            namespace: self.namespace.to_string(),
            key: self.key.clone(),
            environment: self.environment.as_str().to_owned(),
            version,
        })
    }

    /// Holds when the entry does not exist.
    pub fn is_absent(&self) -> Compare {
        self.version_is(0)
    }

    /// Writes the entry, as JSON.
    pub fn set<T: Serialize + ?Sized>(&self, value: &T) -> Operation {
        Operation(encode(value, &self.namespace, &self.key).map(|value| {
            txn_op::Op::Set(txn_op::Set {
                namespace: self.namespace.to_string(),
                key: self.key.clone(),
                environment: self.environment.as_str().to_owned(),
                value: value.into(),
                ..Default::default()
            })
        }))
    }

    /// Deletes the entry.
    pub fn delete(&self) -> Operation {
        Operation(Ok(txn_op::Op::Delete(txn_op::Delete {
            namespace: self.namespace.to_string(),
            key: self.key.clone(),
            environment: self.environment.as_str().to_owned(),
            ..Default::default()
        })))
    }

    /// Reads the entry as it is then, secrets masked.
    pub fn get(&self) -> Operation {
        Operation(Ok(txn_op::Op::Get(txn_op::Get {
            namespace: self.namespace.to_string(),
            key: self.key.clone(),
            environment: self.environment.as_str().to_owned(),
        })))
    }
}

impl Operation {
    /// A choice that this kind of operation does not have is refused when the transaction is awaited, as one that was
    /// dropped in silence would be missed.
    fn choose(self, choice: &'static str, change: impl FnOnce(&mut txn_op::Op) -> bool) -> Self {
        Self(self.0.and_then(|mut op| {
            if change(&mut op) {
                return Ok(op);
            }
            Err(Error::InvalidArgument {
                field: choice,
                reason: "this operation has none; leave it away".to_owned(),
            })
        }))
    }

    /// Why this change; of a set or a delete.
    pub fn comment(self, comment: impl Into<String>) -> Self {
        self.choose("comment", |op| match op {
            txn_op::Op::Set(set) => {
                set.comment = comment.into();
                true
            }
            txn_op::Op::Delete(delete) => {
                delete.comment = comment.into();
                true
            }
            txn_op::Op::Get(_) => false,
        })
    }

    /// What the entry is for; of a set.
    pub fn description(self, description: impl Into<String>) -> Self {
        self.choose("description", |op| match op {
            txn_op::Op::Set(set) => {
                set.description = description.into();
                true
            }
            txn_op::Op::Delete(_) | txn_op::Op::Get(_) => false,
        })
    }

    /// Its tags; of a set.
    pub fn tags<S: Into<String>>(self, tags: impl IntoIterator<Item = S>) -> Self {
        self.choose("tags", |op| match op {
            txn_op::Op::Set(set) => {
                set.tags = tags.into_iter().map(Into::into).collect();
                true
            }
            txn_op::Op::Delete(_) | txn_op::Op::Get(_) => false,
        })
    }

    /// Whether the value is stored encrypted; of a set.
    pub fn secret(self, secret: bool) -> Self {
        self.choose("secret", |op| match op {
            txn_op::Op::Set(set) => {
                set.secret = Some(secret);
                true
            }
            txn_op::Op::Delete(_) | txn_op::Op::Get(_) => false,
        })
    }
}

impl Transaction {
    /// Adds a comparison.
    pub fn when(mut self, compare: Compare) -> Self {
        self.request.compare.push(compare.0);
        self
    }

    /// Adds what is done when every comparison holds.
    pub fn then(mut self, operation: Operation) -> Self {
        if let Some(op) = self.checked(operation) {
            self.request.success.push(op);
        }
        self
    }

    /// Adds what is done when one does not.
    pub fn otherwise(mut self, operation: Operation) -> Self {
        if let Some(op) = self.checked(operation) {
            self.request.failure.push(op);
        }
        self
    }

    /// The key that tells this transaction from others; see [`Set::idempotency_key`](crate::Set::idempotency_key).
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.idempotency_key = key.into();
        self
    }

    fn checked(&mut self, operation: Operation) -> Option<v1::TxnOp> {
        match operation.0 {
            Ok(op) => Some(v1::TxnOp { op: Some(op) }),
            Err(error) => {
                self.broken.get_or_insert(error);
                None
            }
        }
    }
}

impl IntoFuture for Transaction {
    type Output = Result<TransactionOutcome, Error>;
    type IntoFuture = Answer<TransactionOutcome>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if let Some(error) = self.broken {
                return Err(error);
            }
            let answer = self.client.txn(self.request).await?;
            let results = answer.results.into_iter().map(result).collect::<Result<_, _>>()?;
            Ok(TransactionOutcome {
                succeeded: answer.succeeded,
                revision: answer.revision,
                results,
            })
        })
    }
}

fn result(result: v1::TxnResult) -> Result<OperationResult, Error> {
    if result.op == "get" {
        return Ok(OperationResult::Got(result.entry.filter(|entry| !entry.deleted).map(Box::new)));
    }
    let entry = result.entry.ok_or(Error::Malformed { missing: "entry" })?;
    Ok(OperationResult::Written(Written::of(&entry, entry.version == 1)))
}

impl TransactionOutcome {
    /// What the get at this place of the list read; `None` when there was no such entry.
    ///
    /// # Errors
    /// [`Error::Deserialize`]; [`Error::InvalidArgument`] when there is no get at this place.
    pub fn value<T: DeserializeOwned>(&self, index: usize) -> Result<Option<Versioned<T>>, Error> {
        match self.results.get(index) {
            Some(OperationResult::Got(entry)) => {
                entry.as_deref().cloned().map(Versioned::of).transpose()
            }
            _ => Err(Error::InvalidArgument {
                field: "index",
                reason: format!("operation {index} is no get that was done"),
            }),
        }
    }

    /// What became of the set or delete at this place of the list.
    #[must_use]
    pub fn written(&self, index: usize) -> Option<Written> {
        match self.results.get(index) {
            Some(OperationResult::Written(written)) => Some(*written),
            _ => None,
        }
    }
}
