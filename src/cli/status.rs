//! `status`: asks every endpoint about itself, and shows the members as the best informed of them sees them.

use comfy_table::Table;
use futures::future::join_all;
use llm_config_client::{Error, Options, v1};
use serde::Serialize;

use crate::args::Global;
use crate::cluster::{MemberView, known};
use crate::endpoints;
use crate::output::{Output, cell, table};

#[derive(Debug, Serialize)]
struct StatusView {
    endpoints: Vec<EndpointView>,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct EndpointView {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    node: Option<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    cluster_id: String,
    node_id: u64,
    role: String,
    leader_id: Option<u64>,
    term: u64,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    revision: u64,
    version: String,
}

/// Fails when no endpoint answers; what was found is printed in any case.
pub(crate) async fn run(global: &Global, options: &Options, output: Output) -> anyhow::Result<()> {
    let clients = endpoints::each(global, options)?;
    let answers = join_all(
        clients
            .iter()
            .map(|(endpoint, client)| async move { ((*endpoint).clone(), client.status().await) }),
    )
    .await;
    let silent = answers.iter().all(|(_, answer)| answer.is_err());
    let view = view(answers);
    // The reasons are words, and too long for a table.
    for endpoint in &view.endpoints {
        if let Some(error) = &endpoint.error {
            eprintln!("{}: {error}", endpoint.endpoint);
        }
    }
    output.print(&view, tables)?;
    anyhow::ensure!(!silent, "no endpoint answers");
    Ok(())
}

fn view(answers: Vec<(String, Result<v1::StatusResponse, Error>)>) -> StatusView {
    let members = best_informed(&answers).map_or_else(Vec::new, |status| {
        status.members.iter().cloned().map(MemberView::from).collect()
    });
    let endpoints = answers
        .into_iter()
        .map(|(endpoint, answer)| match answer {
            Ok(status) => EndpointView { endpoint, error: None, node: Some(node(status)) },
            Err(error) => EndpointView { endpoint, error: Some(error.to_string()), node: None },
        })
        .collect();
    StatusView { endpoints, members }
}

/// The leader of the highest term, else the node of the highest term.
fn best_informed(
    answers: &[(String, Result<v1::StatusResponse, Error>)],
) -> Option<&v1::StatusResponse> {
    answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .max_by_key(|status| (status.term, status.role == "leader", status.applied_index))
}

fn node(status: v1::StatusResponse) -> NodeView {
    NodeView {
        cluster_id: status.cluster_id,
        node_id: status.node_id,
        role: status.role,
        leader_id: status.leader_id,
        term: status.term,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        revision: status.revision,
        version: status.version,
    }
}

fn tables(view: &StatusView) -> Table {
    let mut rows = table(&[
        "ENDPOINT",
        "NODE",
        "ROLE",
        "LEADER",
        "TERM",
        "APPLIED",
        "REVISION",
        "VERSION",
        "GRPC",
        "REACHABLE",
    ]);
    let dash = || "-".to_owned();
    let number = |number: Option<u64>| number.map_or_else(dash, |n| n.to_string());
    for endpoint in &view.endpoints {
        let Some(node) = &endpoint.node else {
            rows.add_row([cell(&endpoint.endpoint), dash(), "no answer".to_owned()]);
            continue;
        };
        let seen = view.members.iter().find(|member| member.id == node.node_id);
        rows.add_row([
            cell(&endpoint.endpoint),
            node.node_id.to_string(),
            cell(&node.role),
            number(node.leader_id),
            node.term.to_string(),
            node.applied_index.to_string(),
            node.revision.to_string(),
            cell(&node.version),
            seen.map_or_else(dash, |member| cell(&member.grpc)),
            "yes".to_owned(),
        ]);
    }
    for member in &view.members {
        let asked = |endpoint: &EndpointView| {
            endpoint.node.as_ref().is_some_and(|node| node.node_id == member.id)
        };
        if view.endpoints.iter().any(asked) {
            continue;
        }
        rows.add_row([
            dash(),
            member.id.to_string(),
            cell(&member.role),
            dash(),
            dash(),
            dash(),
            dash(),
            known(&member.version),
            cell(&member.grpc),
            if member.reachable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node_id: u64, term: u64, role: &str) -> v1::StatusResponse {
        v1::StatusResponse {
            node_id,
            term,
            role: role.into(),
            members: (1..=3)
                .map(|id| v1::Member {
                    id,
                    grpc: format!("10.0.0.{id}:50051"),
                    role: format!("as-{node_id}-says"),
                    version: format!("9.9.{id}"),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn members_come_from_the_leader_of_the_highest_term() {
        let answers = vec![
            ("a:1".to_owned(), Ok(status(1, 4, "leader"))),
            ("b:1".to_owned(), Ok(status(2, 5, "follower"))),
            ("c:1".to_owned(), Ok(status(3, 5, "leader"))),
        ];
        assert_eq!(best_informed(&answers).unwrap().node_id, 3);
    }

    #[test]
    fn silent_endpoints_and_members_that_were_not_asked_are_shown() {
        let answers = vec![
            ("a:1".to_owned(), Ok(status(1, 5, "leader"))),
            ("b:1".to_owned(), Err(Error::NotSent { reason: "refused".into() })),
        ];
        let view = view(answers);
        let text = tables(&view).to_string();
        assert_eq!(text.lines().count(), 1 + 2 + 2, "{text}");
        assert!(text.contains("no answer") && text.contains("10.0.0.3:50051"), "{text}");
        assert!(text.contains("9.9.3"), "the release of a member that was not asked: {text}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["endpoints"][0]["node_id"], 1);
        assert!(json["endpoints"][1]["error"].is_string());
    }
}
