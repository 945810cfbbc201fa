//! `cluster`: shows the members as the leader sees them, and changes them. Each change may be given again: what is done
//! is not done twice, what is half done is completed.

use anyhow::Context as _;
use comfy_table::Table;
use llm_config_client::{Client, v1};
use serde::Serialize;

use crate::args::{AddMember, Cluster, Force, ReplaceMember};
use crate::output::{Output, cell, table};

/// A member as the HTTP API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct MemberView {
    pub(crate) id: u64,
    pub(crate) role: String,
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) raft: String,
    pub(crate) reachable: bool,
    pub(crate) matched_index: Option<u64>,
    pub(crate) version: String,
}

#[derive(Debug, Serialize)]
struct ClusterView {
    cluster_id: String,
    leader_id: Option<u64>,
    committed_index: u64,
    members: Vec<MemberView>,
}

impl From<v1::Member> for MemberView {
    fn from(member: v1::Member) -> Self {
        Self {
            id: member.id,
            role: member.role,
            http: member.http,
            grpc: member.grpc,
            raft: member.raft,
            reachable: member.reachable,
            matched_index: member.matched_index,
            version: member.version,
        }
    }
}

pub(crate) async fn run(client: &Client, command: Cluster, output: Output) -> anyhow::Result<()> {
    match command {
        Cluster::List => list(client, output).await,
        Cluster::Add(args) => add(client, args, output).await,
        Cluster::Promote { id, force: Force { force } } => {
            let changed = client.member_promote(v1::MemberPromoteRequest { id, force }).await?;
            print(changed.members, output)?;
            said(&format!("node {id} votes"));
            Ok(())
        }
        Cluster::Demote { id, force: Force { force } } => {
            let changed = client.member_demote(v1::MemberDemoteRequest { id, force }).await?;
            print(changed.members, output)?;
            said(&format!(
                "node {id} follows without a vote; `cluster promote {id}` gives it back"
            ));
            Ok(())
        }
        Cluster::Remove { id, force: Force { force } } => {
            let changed = client.member_remove(v1::MemberRemoveRequest { id, force }).await?;
            print(changed.members, output)?;
            said(&format!(
                "node {id} is removed and its number is never used again; stop its process and delete its data"
            ));
            Ok(())
        }
        Cluster::Replace(args) => replace(client, args, output).await,
        Cluster::TransferLeader { to, force: Force { force } } => {
            let changed = client.transfer_leader(v1::TransferLeaderRequest { to, force }).await?;
            print(changed.members, output)?;
            let leader = changed.leader_id.context("the node's answer names no leader")?;
            said(&format!("node {leader} leads"));
            Ok(())
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let status = client.cluster().await?;
    let view = ClusterView {
        cluster_id: status.cluster_id,
        leader_id: status.leader_id,
        committed_index: status.committed_index,
        members: status.members.into_iter().map(MemberView::from).collect(),
    };
    output.print(&view, |view| members_table(&view.members))
}

async fn add(client: &Client, args: AddMember, output: Output) -> anyhow::Result<()> {
    let AddMember { id, raft, http, grpc, force: Force { force } } = args;
    let changed = client.member_add(v1::MemberAddRequest { id, raft, http, grpc, force }).await?;
    let learns = changed.members.iter().any(|member| member.id == id && member.role == "learner");
    print(changed.members, output)?;
    if !learns {
        said(&format!("node {id} is a member"));
        return Ok(());
    }
    said(&format!(
        "node {id} is a learner: it follows without a vote. Next: `llm-config cluster promote {id}`, or \
         `llm-config cluster replace OLD --with {id}`; both are refused until it has caught up"
    ));
    Ok(())
}

async fn replace(client: &Client, args: ReplaceMember, output: Output) -> anyhow::Result<()> {
    let ReplaceMember { old, with, force: Force { force } } = args;
    let request = v1::MemberReplaceRequest { old_id: old, new_id: with, force };
    let changed = client.member_replace(request).await?;
    print(changed.members, output)?;
    said(&format!(
        "node {with} votes in the place of node {old}, which is removed; its number is never used again"
    ));
    Ok(())
}

/// What was done, and what comes next: words, for people and for logs.
fn said(text: &str) {
    say!("{text}");
}

/// The members after a change.
fn print(members: Vec<v1::Member>, output: Output) -> anyhow::Result<()> {
    let members: Vec<MemberView> = members.into_iter().map(MemberView::from).collect();
    output.print(&members, |members| members_table(members))
}

fn members_table(members: &[MemberView]) -> Table {
    let mut rows =
        table(&["ID", "ROLE", "REACHABLE", "MATCHED", "VERSION", "HTTP", "GRPC", "RAFT"]);
    for member in members {
        rows.add_row([
            member.id.to_string(),
            cell(&member.role),
            if member.reachable { "yes" } else { "no" }.to_owned(),
            member.matched_index.map_or_else(|| "-".to_owned(), |index| index.to_string()),
            known(&member.version),
            known(&member.http),
            known(&member.grpc),
            known(&member.raft),
        ]);
    }
    rows
}

/// A dash for what a member has not told yet, so that a row keeps its columns.
pub(crate) fn known(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { cell(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_a_row_with_all_columns() {
        let members = [
            v1::Member { id: 1, role: "leader".into(), reachable: true, ..Default::default() },
            v1::Member {
                id: 4,
                role: "learner".into(),
                http: "10.0.0.4:8080".into(),
                matched_index: Some(7),
                version: "0.1.0".into(),
                ..Default::default()
            },
        ]
        .map(MemberView::from);
        let text = members_table(&members).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|line| line.len() == 8), "{text}");
        assert_eq!(lines[2], ["4", "learner", "no", "7", "0.1.0", "10.0.0.4:8080", "-", "-"]);
    }
}
