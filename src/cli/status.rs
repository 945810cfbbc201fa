//! `status`: the cluster at a glance. Every endpoint is asked about itself, then every member that they name; each node's
//! health comes from its HTTP address.
//!
//! Nothing here decides anything: what is shown is what nodes said, and what follows from it about the quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use futures::future::join_all;
use llm_config_client::{Client, Error, Options, v1};
use serde::Serialize;

use crate::args::{Format, Global, Status};
use crate::cluster::{MemberView, known};
use crate::endpoints;
use crate::health::{self, Health};
use crate::output::{self, Output, Paint, cell, table};

/// For what was not named on the command line: a dead member must not keep the others waiting.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);
/// Members that are asked by themselves; a cluster has a handful.
const MEMBERS_MAX: usize = 64;

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) cluster: Option<ClusterView>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) endpoints: Vec<EndpointView>,
    members: Vec<MemberView>,
}

/// What follows from what the best informed node said.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ClusterView {
    pub(crate) cluster_id: String,
    pub(crate) leader_id: Option<u64>,
    pub(crate) term: u64,
    pub(crate) revision: u64,
    pub(crate) committed_index: u64,
    pub(crate) voters: usize,
    pub(crate) voters_reachable: usize,
    pub(crate) quorum: usize,
    pub(crate) has_quorum: bool,
    pub(crate) survives_one_more_loss: bool,
}

/// A node as it sees itself, else as the best informed one sees it.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    pub(crate) id: u64,
    role: String,
    reachable: bool,
    term: Option<u64>,
    /// Entries of the log that are committed and that it has not applied; of one that does not answer, not received.
    lag_entries: Option<u64>,
    revision: Option<u64>,
    version: String,
    http: String,
    grpc: String,
    pub(crate) health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EndpointView {
    pub(crate) endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
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

type Answers = Vec<(String, Result<v1::StatusResponse, Error>)>;

/// Once, or until interrupted. Fails when no endpoint answers; what was found is printed in any case.
pub(crate) async fn run(
    global: &Global,
    options: &Options,
    args: Status,
    output: Output,
) -> anyhow::Result<()> {
    let Some(pause) = args.watch else {
        let view = look(global, options).await?;
        print(&view, output)?;
        anyhow::ensure!(view.answers(), "no endpoint answers");
        return Ok(());
    };
    let redraws = output.format == Format::Table && io::stdout().is_terminal();
    loop {
        let view = look(global, options).await?;
        if redraws {
            // Home, what was there is gone, and everything in one piece: no flicker.
            let text = text(&view, output.paint);
            output::write(&format!("\u{1b}[H\u{1b}[2J{text}\nevery {pause:?}; Ctrl-C ends it\n"))?;
        } else if output.format == Format::Table {
            output::write(&format!("{}\n", text(&view, output.paint)))?;
        } else {
            output.print_one_of_many(&view, |_| String::new())?;
        }
        tokio::time::sleep(pause).await;
    }
}

fn print(view: &StatusView, output: Output) -> anyhow::Result<()> {
    // The reasons are words, and too long for a table.
    for endpoint in &view.endpoints {
        if let Some(error) = &endpoint.error {
            output::say(&format!("{}: {error}", endpoint.endpoint));
        }
    }
    if output.format == Format::Table {
        return output::write(&text(view, output.paint));
    }
    output.print(view, |_| table(&[]))
}

impl StatusView {
    fn answers(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.node.is_some())
    }
}

/// Asks all that there are.
pub(crate) async fn look(global: &Global, options: &Options) -> anyhow::Result<StatusView> {
    let clients = endpoints::each(global, options)?;
    let answers: Answers = join_all(
        clients
            .iter()
            .map(|(endpoint, client)| async move { ((*endpoint).clone(), client.status().await) }),
    )
    .await;
    let secure = options.tls.is_some()
        || global.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let tls = secure.then(|| options.tls.clone().unwrap_or_default());
    let limit = options.timeout.min(MEMBER_TIMEOUT);
    let members = best_informed(&answers).map_or_else(Vec::new, |best| best.members.clone());
    let asked: BTreeSet<u64> =
        answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|s| s.node_id).collect();
    let details = members.iter().take(MEMBERS_MAX).map(|member| {
        let (tls, asked) = (&tls, asked.contains(&member.id));
        async move {
            let itself = async {
                if asked || member.grpc.is_empty() {
                    return None;
                }
                let scheme = if tls.is_some() { "https" } else { "http" };
                let options = options.clone().timeout(limit).attempt_timeout(limit);
                let client = Client::with_options([format!("{scheme}://{}", member.grpc)], options);
                Some(client.ok()?.status().await)
            };
            let health = async {
                if member.http.is_empty() {
                    return None;
                }
                health::ask(&member.http, tls.as_ref(), limit).await.ok()
            };
            (member.id, futures::join!(itself, health))
        }
    });
    let details: BTreeMap<u64, Detail> = join_all(details).await.into_iter().collect();
    Ok(view(answers, &details))
}

/// What a member said when it was asked by itself, and of its health.
type Detail = (Option<Result<v1::StatusResponse, Error>>, Option<Health>);

fn view(answers: Answers, details: &BTreeMap<u64, Detail>) -> StatusView {
    let asked = details.values().filter_map(|(itself, _)| itself.as_ref()?.as_ref().ok());
    let own: BTreeMap<u64, v1::StatusResponse> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .chain(asked)
        .map(|status| (status.node_id, status.clone()))
        .collect();
    let best = own.values().max_by_key(|status| rank(status)).cloned();
    let nodes: Vec<NodeRow> = best
        .iter()
        .flat_map(|best| {
            best.members.iter().map(|member| node_row(member, best, &own, details.get(&member.id)))
        })
        .collect();
    let cluster = best.as_ref().map(|best| cluster(best, &nodes));
    let members =
        best.map_or_else(Vec::new, |best| best.members.into_iter().map(MemberView::from).collect());
    let endpoints = answers
        .into_iter()
        .map(|(endpoint, answer)| match answer {
            Ok(status) => EndpointView { endpoint, error: None, node: Some(node(status)) },
            Err(error) => EndpointView { endpoint, error: Some(error.to_string()), node: None },
        })
        .collect();
    StatusView { cluster, nodes, endpoints, members }
}

/// The leader of the highest term, else the node of the highest term.
fn rank(status: &v1::StatusResponse) -> (u64, bool, u64) {
    (status.term, status.role == "leader", status.applied_index)
}

fn best_informed(answers: &Answers) -> Option<&v1::StatusResponse> {
    answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).max_by_key(|status| rank(status))
}

fn node_row(
    member: &v1::Member,
    best: &v1::StatusResponse,
    own: &BTreeMap<u64, v1::StatusResponse>,
    detail: Option<&Detail>,
) -> NodeRow {
    let itself = own.get(&member.id);
    let position = itself.map(|itself| itself.applied_index).or(member.matched_index);
    let error = detail.and_then(|(itself, _)| itself.as_ref()?.as_ref().err());
    NodeRow {
        id: member.id,
        role: itself.map_or_else(|| member.role.clone(), |itself| itself.role.clone()),
        reachable: itself.is_some() || member.reachable,
        term: itself.map(|itself| itself.term),
        lag_entries: position.map(|position| best.committed_index.saturating_sub(position)),
        revision: itself.map(|itself| itself.revision),
        version: itself.map_or_else(|| member.version.clone(), |itself| itself.version.clone()),
        http: member.http.clone(),
        grpc: member.grpc.clone(),
        health: detail.and_then(|(_, health)| health.clone()),
        error: error.map(ToString::to_string),
    }
}

fn cluster(best: &v1::StatusResponse, nodes: &[NodeRow]) -> ClusterView {
    let voters: Vec<&NodeRow> = nodes.iter().filter(|node| node.role != "learner").collect();
    let reachable = voters.iter().filter(|node| node.reachable).count();
    let quorum = voters.len() / 2 + 1;
    ClusterView {
        cluster_id: best.cluster_id.clone(),
        leader_id: best.leader_id,
        term: best.term,
        revision: best.revision,
        committed_index: best.committed_index,
        voters: voters.len(),
        voters_reachable: reachable,
        quorum,
        has_quorum: reachable >= quorum,
        survives_one_more_loss: reachable > quorum,
    }
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

/// For people: who leads and whether a loss is survived, a row for each node, and what is wrong with it.
fn text(view: &StatusView, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    if let Some(cluster) = &view.cluster {
        let leads = match cluster.leader_id {
            Some(id) => paint.strong(&format!("node {id} leads")),
            None => paint.bad("no node leads"),
        };
        line(format!(
            "cluster {}: {leads}, term {}, revision {}",
            known(&cluster.cluster_id),
            cluster.term,
            cluster.revision
        ));
        line(quorum(cluster, paint));
        line(String::new());
    }
    line(rows(view).trim_fmt());
    for node in &view.nodes {
        let Some(health) = &node.health else { continue };
        for (name, sentence) in health.checks.iter().filter(|(_, sentence)| *sentence != "healthy")
        {
            line(paint.warn(&format!("node {}: {}: {}", node.id, cell(name), cell(sentence))));
        }
    }
    text
}

fn quorum(cluster: &ClusterView, paint: Paint) -> String {
    let ClusterView { voters, voters_reachable, quorum, .. } = cluster;
    let reached = format!("{voters_reachable} of {voters} voters reachable, {quorum} needed: ");
    if cluster.survives_one_more_loss {
        let spare = voters_reachable - quorum;
        let more = if spare == 1 {
            "one more may be lost".to_owned()
        } else {
            format!("{spare} more may be lost")
        };
        return reached + &paint.good(&more);
    }
    if cluster.has_quorum {
        return reached + &paint.warn("none may be lost");
    }
    reached + &paint.bad("no quorum, nothing can be written")
}

fn rows(view: &StatusView) -> comfy_table::Table {
    let mut rows = table(&[
        "NODE",
        "ROLE",
        "HEALTH",
        "TERM",
        "LAG",
        "REVISION",
        "VERSION",
        "UPTIME",
        "REACHABLE",
        "HTTP",
        "GRPC",
    ]);
    let dash = || "-".to_owned();
    let number = |number: Option<u64>| number.map_or_else(dash, |n| n.to_string());
    for node in &view.nodes {
        rows.add_row([
            node.id.to_string(),
            cell(&node.role),
            node.health
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), |health| cell(&health.status)),
            number(node.term),
            number(node.lag_entries),
            number(node.revision),
            known(&node.version),
            node.health.as_ref().map_or_else(dash, |health| uptime(health.uptime_seconds)),
            if node.reachable { "yes" } else { "no" }.to_owned(),
            known(&node.http),
            known(&node.grpc),
        ]);
    }
    // A node that is asked and not a member waits to be one.
    let strangers = view.endpoints.iter().filter_map(|endpoint| match &endpoint.node {
        Some(node) if view.nodes.iter().all(|known| known.id != node.node_id) => {
            Some((endpoint, Some(node)))
        }
        Some(_) => None,
        None => Some((endpoint, None)),
    });
    for (endpoint, node) in strangers {
        rows.add_row([
            node.map_or_else(dash, |node| node.node_id.to_string()),
            node.map_or_else(|| "no answer".to_owned(), |node| cell(&node.role)),
            "unknown".to_owned(),
            number(node.map(|node| node.term)),
            dash(),
            number(node.map(|node| node.revision)),
            node.map_or_else(dash, |node| known(&node.version)),
            dash(),
            if node.is_some() { "yes" } else { "no" }.to_owned(),
            dash(),
            cell(&endpoint.endpoint),
        ]);
    }
    rows
}

/// The two largest units, as people say it.
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node_id: u64, term: u64, role: &str) -> v1::StatusResponse {
        v1::StatusResponse {
            node_id,
            term,
            role: role.into(),
            leader_id: Some(1),
            committed_index: 100,
            applied_index: 90,
            members: (1..=3)
                .map(|id| v1::Member {
                    id,
                    grpc: format!("10.0.0.{id}:50051"),
                    role: "follower".into(),
                    version: format!("9.9.{id}"),
                    reachable: id < 3,
                    matched_index: Some(70),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    fn unsent() -> Error {
        Error::NotSent { reason: "refused".into() }
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
        let answers =
            vec![("a:1".to_owned(), Ok(status(1, 5, "leader"))), ("b:1".to_owned(), Err(unsent()))];
        let health = Health {
            status: "degraded".into(),
            uptime_seconds: 90_000,
            checks: [
                ("disk".to_owned(), "degraded: 5 % free".to_owned()),
                ("raft".to_owned(), "healthy".to_owned()),
            ]
            .into(),
        };
        let details = BTreeMap::from([
            (1, (None, Some(health))),
            (2, (Some(Ok(status(2, 5, "follower"))), None)),
            (3, (Some(Err(unsent())), None)),
        ]);
        let view = view(answers, &details);
        let text = text(&view, Paint(false));
        for shown in [
            "node 1 leads",
            "2 of 3 voters reachable, 2 needed: none may be lost",
            "no answer",
            "10.0.0.3:50051",
            "9.9.3",
            "1d1h",
            "node 1: disk: degraded: 5 % free",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert!(!text.contains("raft: healthy"), "{text}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["endpoints"][0]["node_id"], 1);
        assert!(json["endpoints"][1]["error"].is_string());
        assert_eq!(
            (&json["nodes"][1]["lag_entries"], &json["nodes"][2]["lag_entries"]),
            (&10.into(), &30.into())
        );
        assert_eq!(json["cluster"]["survives_one_more_loss"], false);
        assert_eq!(json["nodes"][2]["reachable"], false);
    }

    #[test]
    fn learners_do_not_count_for_the_quorum() {
        let row = |role: &str, reachable| {
            let member = v1::Member { id: 9, role: role.into(), reachable, ..Default::default() };
            node_row(&member, &v1::StatusResponse::default(), &BTreeMap::new(), None)
        };
        let of = |nodes: &[NodeRow]| cluster(&v1::StatusResponse::default(), nodes);
        let all = of(&[
            row("leader", true),
            row("follower", true),
            row("follower", true),
            row("learner", true),
        ]);
        assert_eq!((all.voters, all.quorum, all.survives_one_more_loss), (3, 2, true));
        let one = of(&[row("follower", true), row("follower", false), row("learner", true)]);
        assert!(!one.has_quorum);
        assert!(quorum(&one, Paint(false)).contains("no quorum"));
        let five: Vec<NodeRow> = (0..5).map(|_| row("follower", true)).collect();
        assert!(quorum(&of(&five), Paint(false)).ends_with("2 more may be lost"));
    }

    #[test]
    fn uptimes_are_short() {
        let texts = [59, 61, 3_700, 90_000].map(uptime);
        assert_eq!(texts, ["59s", "1m1s", "1h1m", "1d1h"]);
    }
}
