//! `txn`: operations that depend on versions, from a document or from options; and what they would do.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use llm_config_client::v1::txn_op::Op;
use llm_config_client::{Client, v1};
use prost::Message as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::Usage;
use crate::args::{FileFormat, Txn};
use crate::diff::{Preview, State};
use crate::document;
use crate::output::{self, Output, cell, table};
use crate::view::{EntryView, raw};

/// Most operations, and most comparisons, of a transaction.
pub(crate) const OPERATIONS_MAX: usize = 10_000;
/// Most bytes of a transaction: 4 MiB, with room for what the nodes add to it.
pub(crate) const BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// A value is at most 1 MiB, and a document is read before it is measured.
const FILE_BYTES_MAX: u64 = 64 << 20;
const READS_IN_FLIGHT: usize = 16;

/// The body of HTTP's `POST /txn`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    compare: Vec<ByName<CompareDocument>>,
    #[serde(default)]
    success: Vec<ByName<OpDocument>>,
    #[serde(default)]
    failure: Vec<ByName<OpDocument>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareDocument {
    namespace: String,
    key: String,
    env: Option<String>,
    version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpName {
    Set,
    Delete,
    Get,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpDocument {
    op: OpName,
    namespace: String,
    key: String,
    env: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
    secret: Option<bool>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    comment: Option<String>,
    expected_version: Option<u64>,
}

/// A structure from an object only: a list, too, would be taken for its fields in order.
#[derive(Debug)]
struct ByName<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = ByName<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ByName<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(ByName)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Null is a value, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Debug, Serialize)]
struct Answer {
    succeeded: bool,
    revision: u64,
    results: Vec<ResultView>,
}

#[derive(Debug, Serialize)]
struct ResultView {
    op: String,
    entry: Option<EntryView>,
}

pub(crate) async fn run(
    client: &Client,
    args: Txn,
    environment: &str,
    output: Output,
) -> anyhow::Result<()> {
    let defaults = Defaults { environment, comment: &args.comment };
    let mut request = match &args.file {
        Some(file) => {
            let text = output::read_file(file, FILE_BYTES_MAX)?;
            read(&text, args.format, file, defaults)
                .map_err(|error| Usage(format!("{file}: {error:#}")))?
        }
        None => from_options(&args, defaults)?,
    };
    request.idempotency_key.clone_from(&args.idempotency_key);
    check_size(&request)?;
    if args.dry_run {
        return dry_run(client, &request, output).await;
    }
    let response = client.txn(request).await?;
    let results = response.results.into_iter().map(|result| {
        Ok(ResultView { op: result.op, entry: result.entry.map(EntryView::new).transpose()? })
    });
    let answer = Answer {
        succeeded: response.succeeded,
        revision: response.revision,
        results: results.collect::<anyhow::Result<_>>()?,
    };
    output.print(&answer, answer_table)?;
    if !answer.succeeded {
        bail!("a comparison did not hold: the operations of `success` were not run");
    }
    output::remark(&format!("done at revision {}", answer.revision));
    Ok(())
}

fn answer_table(answer: &Answer) -> comfy_table::Table {
    let mut table = table(&["OP", "NAMESPACE", "ENVIRONMENT", "KEY", "VERSION", "VALUE"]);
    for result in &answer.results {
        let Some(entry) = &result.entry else {
            table.add_row([
                cell(&result.op),
                "-".to_owned(),
                "-".to_owned(),
                "(not there)".to_owned(),
            ]);
            continue;
        };
        table.add_row([
            cell(&result.op),
            cell(&entry.namespace),
            cell(&entry.environment),
            cell(&entry.key),
            entry.version.to_string(),
            cell(entry.value_text()),
        ]);
    }
    table
}

/// What counts where the document says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub(crate) environment: &'a str,
    pub(crate) comment: &'a str,
}

/// The request that a document asks for.
pub(crate) fn read(
    text: &[u8],
    format: Option<FileFormat>,
    name: &str,
    defaults: Defaults<'_>,
) -> anyhow::Result<v1::TxnRequest> {
    let text = document::json(text, format, name)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let ByName::<Document>(document) =
        serde_path_to_error::deserialize(&mut json).context("not a transaction")?;
    json.end().context("there is more behind the transaction")?;
    let compare = document.compare.into_iter().map(|ByName(compare)| v1::Compare {
        namespace: compare.namespace,
        key: compare.key,
        environment: compare.env.unwrap_or_else(|| defaults.environment.to_owned()),
        version: compare.version,
    });
    Ok(v1::TxnRequest {
        compare: compare.collect(),
        success: operations("success", document.success, defaults)?,
        failure: operations("failure", document.failure, defaults)?,
        ..Default::default()
    })
}

fn operations(
    list: &str,
    documents: Vec<ByName<OpDocument>>,
    defaults: Defaults<'_>,
) -> anyhow::Result<Vec<v1::TxnOp>> {
    let one = |(index, ByName(document))| {
        operation(document, defaults)
            .map_err(|(field, reason)| anyhow::anyhow!("{list}[{index}].{field}: {reason}"))
    };
    documents.into_iter().enumerate().map(one).collect()
}

/// Refuses fields that the operation would ignore, by name.
fn operation(
    given: OpDocument,
    defaults: Defaults<'_>,
) -> Result<v1::TxnOp, (&'static str, &'static str)> {
    let set_only = [
        ("value", given.value.is_some()),
        ("secret", given.secret.is_some()),
        ("description", given.description.is_some()),
        ("tags", given.tags.is_some()),
    ];
    let change_only = [
        ("comment", given.comment.is_some()),
        ("expected_version", given.expected_version.is_some()),
    ];
    let ignored =
        |fields: &[(&'static str, bool)]| fields.iter().find(|(_, given)| *given).copied();
    if given.op != OpName::Set
        && let Some((field, _)) = ignored(&set_only)
    {
        return Err((field, "is for set only; leave it out"));
    }
    if given.op == OpName::Get
        && let Some((field, _)) = ignored(&change_only)
    {
        return Err((field, "is for set and delete only; leave it out"));
    }
    let (namespace, key) = (given.namespace, given.key);
    let environment = given.env.unwrap_or_else(|| defaults.environment.to_owned());
    let comment = given.comment.unwrap_or_else(|| defaults.comment.to_owned());
    let expected_version = given.expected_version;
    let op = match given.op {
        OpName::Set => Op::Set(v1::txn_op::Set {
            namespace,
            key,
            environment,
            value: given
                .value
                .ok_or(("value", "is missing; null is a value, too"))?
                .get()
                .to_owned()
                .into(),
            description: given.description.unwrap_or_default(),
            tags: given.tags.unwrap_or_default(),
            comment,
            expected_version,
            secret: given.secret,
        }),
        OpName::Delete => Op::Delete(v1::txn_op::Delete {
            namespace,
            key,
            environment,
            expected_version,
            comment,
        }),
        OpName::Get => Op::Get(v1::txn_op::Get { namespace, key, environment }),
    };
    Ok(v1::TxnOp { op: Some(op) })
}

fn from_options(args: &Txn, defaults: Defaults<'_>) -> Result<v1::TxnRequest, Usage> {
    let environment = || defaults.environment.to_owned();
    let mut request = v1::TxnRequest::default();
    for compare in args.compare.chunks_exact(3) {
        let [namespace, key, version] = compare else { continue };
        let version = version.parse().map_err(|_| {
            Usage(format!("--compare {namespace} {key} {version}: the version is not a number; 0: must not exist"))
        })?;
        request.compare.push(v1::Compare {
            namespace: namespace.clone(),
            key: key.clone(),
            environment: environment(),
            version,
        });
    }
    for set in args.set.chunks_exact(3) {
        let [namespace, key, value] = set else { continue };
        let value: &RawValue = serde_json::from_str(value).map_err(|error| {
            Usage(format!("--set {namespace} {key}: the value is not JSON ({error}); a text is written in double quotes"))
        })?;
        let set = v1::txn_op::Set {
            namespace: namespace.clone(),
            key: key.clone(),
            environment: environment(),
            value: value.get().to_owned().into(),
            comment: defaults.comment.to_owned(),
            ..Default::default()
        };
        request.success.push(v1::TxnOp { op: Some(Op::Set(set)) });
    }
    for delete in args.delete.chunks_exact(2) {
        let [namespace, key] = delete else { continue };
        let delete = v1::txn_op::Delete {
            namespace: namespace.clone(),
            key: key.clone(),
            environment: environment(),
            comment: defaults.comment.to_owned(),
            ..Default::default()
        };
        request.success.push(v1::TxnOp { op: Some(Op::Delete(delete)) });
    }
    for get in args.read.chunks_exact(2) {
        let [namespace, key] = get else { continue };
        let get = v1::txn_op::Get {
            namespace: namespace.clone(),
            key: key.clone(),
            environment: environment(),
        };
        request.success.push(v1::TxnOp { op: Some(Op::Get(get)) });
    }
    Ok(request)
}

/// What no node would take is not sent.
fn check_size(request: &v1::TxnRequest) -> anyhow::Result<()> {
    for (name, count) in [
        ("compare", request.compare.len()),
        ("success", request.success.len()),
        ("failure", request.failure.len()),
    ] {
        if count > OPERATIONS_MAX {
            bail!("{name} has {count} items; a transaction takes at most {OPERATIONS_MAX}");
        }
    }
    let bytes = request.encoded_len();
    if bytes > BYTES_MAX {
        bail!("the transaction is {bytes} bytes; at most 4 MiB are taken, so write it in several");
    }
    Ok(())
}

type Place = (String, String, String);

fn place(op: &v1::TxnOp) -> Option<Place> {
    let (namespace, key, environment) = match op.op.as_ref()? {
        Op::Set(set) => (&set.namespace, &set.key, &set.environment),
        Op::Delete(delete) => (&delete.namespace, &delete.key, &delete.environment),
        Op::Get(get) => (&get.namespace, &get.key, &get.environment),
    };
    Some((namespace.clone(), key.clone(), environment.clone()))
}

/// Reads what the transaction speaks of, and shows what it would do to it.
async fn dry_run(client: &Client, request: &v1::TxnRequest, output: Output) -> anyhow::Result<()> {
    let compared = request.compare.iter().map(|compare| {
        (compare.namespace.clone(), compare.key.clone(), compare.environment.clone())
    });
    let touched = request.success.iter().chain(&request.failure).filter_map(place);
    let places: std::collections::BTreeSet<Place> = compared.chain(touched).collect();
    let entries: BTreeMap<Place, Option<State>> = futures::stream::iter(places)
        .map(|place| async move {
            let state = current(client, &place).await?;
            Ok::<_, anyhow::Error>((place, state))
        })
        .buffer_unordered(READS_IN_FLIGHT)
        .try_collect()
        .await?;
    let (preview, holds) = simulate(request, entries)?;
    preview.print(output)?;
    match holds {
        None => Ok(()),
        Some(reason) => bail!("{reason}"),
    }
}

/// What is there now; nothing where there is no entry.
pub(crate) async fn current(
    client: &Client,
    (namespace, key, environment): &Place,
) -> anyhow::Result<Option<State>> {
    let linearizable =
        v1::ReadOptions { consistency: v1::Consistency::Linearizable.into(), ..Default::default() };
    let request = v1::GetRequest {
        namespace: namespace.clone(),
        key: key.clone(),
        environment: environment.clone(),
        read: Some(linearizable),
        ..Default::default()
    };
    match client.get(request).await {
        Ok(entry) => Ok(Some(State {
            version: entry.version,
            value: raw(&entry.value)?,
            secret: entry.secret,
        })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the operations that would run do, and why it would not be those of `success`, or none.
fn simulate(
    request: &v1::TxnRequest,
    before: BTreeMap<Place, Option<State>>,
) -> anyhow::Result<(Preview, Option<String>)> {
    let version = |entries: &BTreeMap<Place, Option<State>>, place: &Place| {
        entries.get(place).and_then(Option::as_ref).map_or(0, |state| state.version)
    };
    let failed = request.compare.iter().find_map(|compare| {
        let place = (compare.namespace.clone(), compare.key.clone(), compare.environment.clone());
        let there = version(&before, &place);
        (there != compare.version).then(|| {
            format!(
                "the comparison of {:?} {:?} does not hold: it is at version {there}, not {}; \
                 the operations of `failure` would run",
                compare.namespace, compare.key, compare.version
            )
        })
    });
    let operations = if failed.is_some() { &request.failure } else { &request.success };
    let mut after = before.clone();
    for op in operations {
        let (Some(op), Some(place)) = (&op.op, place(op)) else { continue };
        let there = version(&after, &place);
        let expected = match op {
            Op::Set(set) => set.expected_version,
            Op::Delete(delete) => delete.expected_version,
            Op::Get(_) => None,
        };
        let refused = |reason: String| {
            let (namespace, key, _) = &place;
            (
                Preview::default(),
                Some(format!("it would be refused as a whole: {namespace:?} {key:?} {reason}")),
            )
        };
        if let Some(expected) = expected
            && expected != there
        {
            return Ok(refused(format!("is at version {there}, not {expected}")));
        }
        match op {
            Op::Set(set) => {
                let was_secret =
                    after.get(&place).and_then(Option::as_ref).is_some_and(|state| state.secret);
                let state = State {
                    version: there + 1,
                    value: raw(&set.value)?,
                    secret: set.secret.unwrap_or(was_secret),
                };
                after.insert(place, Some(state));
            }
            Op::Delete(_) if there == 0 => return Ok(refused("is not there".to_owned())),
            Op::Delete(_) => {
                after.insert(place, None);
            }
            Op::Get(_) => {}
        }
    }
    let mut preview = Preview::default();
    let written: std::collections::BTreeSet<Place> = operations
        .iter()
        .filter(|op| !matches!(op.op, Some(Op::Get(_))))
        .filter_map(place)
        .collect();
    for place in written {
        let (namespace, key, environment) = &place;
        let before = before.get(&place).and_then(Option::as_ref);
        let after = after.get(&place).and_then(Option::as_ref);
        let after = after.map(|state| (&*state.value, state.secret));
        preview.add((namespace.as_str(), key.as_str(), environment.as_str()), before, after);
    }
    Ok((preview, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults<'_> = Defaults { environment: "staging", comment: "why" };

    fn document(text: &str) -> anyhow::Result<v1::TxnRequest> {
        read(text.as_bytes(), None, "-", DEFAULTS)
    }

    fn fails(text: &str) -> String {
        format!("{:#}", document(text).unwrap_err())
    }

    #[test]
    fn a_document_is_read_as_json_and_as_yaml() {
        let json = r#"{"compare":[{"namespace":"n","key":"a","version":3}],
            "success":[{"op":"set","namespace":"n","key":"a","env":"prod","value":1.10,"comment":"c"},
                       {"op":"set","namespace":"n","key":"b","value":null},
                       {"op":"delete","namespace":"n","key":"c","expected_version":2}],
            "failure":[{"op":"get","namespace":"n","key":"a"}]}"#;
        let yaml = "compare:\n- {namespace: n, key: a, version: 3}\nsuccess:\n- {op: set, namespace: n, key: a, env: prod, value: 1.10, comment: c}\n- {op: set, namespace: n, key: b, value: null}\n- {op: delete, namespace: n, key: c, expected_version: 2}\nfailure:\n- {op: get, namespace: n, key: a}\n";
        let request = document(json).unwrap();
        assert_eq!(request, document(yaml).unwrap());
        assert_eq!(request.compare[0].environment, "staging");
        let Some(Op::Set(set)) = &request.success[0].op else { panic!("a set") };
        assert_eq!(
            (&set.value[..], set.environment.as_str(), set.comment.as_str()),
            (&b"1.10"[..], "prod", "c")
        );
        let Some(Op::Set(set)) = &request.success[1].op else { panic!("a set") };
        assert_eq!((&set.value[..], set.comment.as_str()), (&b"null"[..], "why"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        for (text, words) in [
            (r#"{"succes":[]}"#, "succes"),
            (r#"{"success":[{"op":"put","namespace":"n","key":"k"}]}"#, "success[0].op"),
            (r#"{"success":[{"op":"set","namespace":"n","key":"k"}]}"#, "success[0].value"),
            (
                r#"{"failure":[{"op":"get","namespace":"n","key":"k","value":1}]}"#,
                "failure[0].value",
            ),
            (r#"{"failure":[{"op":"get","namespace":"n","key":"k","comment":"c"}]}"#, "comment"),
            (r#"{"compare":[{"namespace":"n","key":"k","version":-1}]}"#, "compare[0].version"),
            ("[]", "transaction"),
            (r#"{"compare":[["n","k",null,1]]}"#, "compare[0]"),
            ("{} {}", "more"),
        ] {
            let error = fails(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_too_much_is_not_sent() {
        let compare = v1::Compare { namespace: "n".into(), ..Default::default() };
        let many =
            v1::TxnRequest { compare: vec![compare; OPERATIONS_MAX + 1], ..Default::default() };
        assert!(check_size(&many).unwrap_err().to_string().contains("compare has 10001"));
        let set = v1::txn_op::Set { value: vec![b'1'; 1 << 20].into(), ..Default::default() };
        let op = v1::TxnOp { op: Some(Op::Set(set)) };
        let mut request = v1::TxnRequest { success: vec![op.clone(); 3], ..Default::default() };
        assert!(check_size(&request).is_ok());
        request.success.push(op);
        assert!(check_size(&request).unwrap_err().to_string().contains("4 MiB"));
    }

    fn there(entries: &[(&str, u64, &str)]) -> BTreeMap<Place, Option<State>> {
        let entry = |(key, version, value): &(&str, u64, &str)| {
            let state = (*version > 0).then(|| State {
                version: *version,
                value: raw(value.as_bytes()).unwrap(),
                secret: false,
            });
            (("n".to_owned(), (*key).to_owned(), "staging".to_owned()), state)
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_simulation_runs_what_the_nodes_would_run() {
        let request = document(
            r#"{"compare":[{"namespace":"n","key":"a","version":3}],
                "success":[{"op":"set","namespace":"n","key":"a","value":2},
                           {"op":"set","namespace":"n","key":"a","value":3,"expected_version":4},
                           {"op":"delete","namespace":"n","key":"b"}],
                "failure":[{"op":"set","namespace":"n","key":"c","value":1}]}"#,
        )
        .unwrap();
        let (preview, reason) =
            simulate(&request, there(&[("a", 3, "1"), ("b", 1, "1"), ("c", 0, "")])).unwrap();
        assert_eq!(
            (preview.counts().as_str(), reason),
            ("0 added, 1 changed, 1 deleted, 0 unchanged", None)
        );
        assert_eq!(preview.changes[0].after.as_ref().unwrap().get(), "3");

        let (preview, reason) =
            simulate(&request, there(&[("a", 4, "1"), ("b", 1, "1"), ("c", 0, "")])).unwrap();
        assert_eq!(preview.counts(), "1 added, 0 changed, 0 deleted, 0 unchanged");
        assert!(reason.unwrap().contains("at version 4, not 3"));

        let (preview, reason) =
            simulate(&request, there(&[("a", 3, "1"), ("b", 0, ""), ("c", 0, "")])).unwrap();
        assert!(preview.changes.is_empty());
        assert!(reason.unwrap().contains("refused as a whole"));
    }
}
