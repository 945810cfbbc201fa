//! `role`: what the holders of tokens may do.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::Table;
use llm_config_client::{Client, v1};
use serde::{Deserialize, Serialize};

use crate::Usage;
use crate::args::{Grant, PutRole, Roles};
use crate::cluster::known;
use crate::output::{Output, cell, table};
use crate::scope::all;

/// Actions, and where they are allowed, as the HTTP API shows them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantView {
    actions: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    environments: Vec<String>,
}

impl GrantView {
    /// For people.
    pub(crate) fn words(&self) -> String {
        let actions = self.actions.join(",");
        let (namespaces, environments) = (all(&self.namespaces), all(&self.environments));
        format!("{actions} in namespaces {namespaces}, environments {environments}")
    }
}

impl From<v1::Grant> for GrantView {
    fn from(grant: v1::Grant) -> Self {
        let v1::Grant { actions, namespaces, environments } = grant;
        Self { actions, namespaces, environments }
    }
}

impl From<GrantView> for v1::Grant {
    fn from(grant: GrantView) -> Self {
        let GrantView { actions, namespaces, environments } = grant;
        Self { actions, namespaces, environments }
    }
}

/// A role as the HTTP API shows it, and as `--file` has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleView {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    grants: Vec<GrantView>,
    #[serde(default)]
    built_in: bool,
}

impl From<v1::Role> for RoleView {
    fn from(role: v1::Role) -> Self {
        Self {
            name: role.name,
            description: role.description,
            grants: role.grants.into_iter().map(GrantView::from).collect(),
            built_in: role.built_in,
        }
    }
}

pub(crate) async fn run(
    client: &Client,
    command: Roles,
    environment: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        Roles::List => {
            let listed = client.list_roles(v1::ListRolesRequest {}).await?;
            let roles: Vec<RoleView> = listed.items.into_iter().map(RoleView::from).collect();
            output.print(&roles, |roles| roles_table(roles))
        }
        Roles::Get { name } => {
            print(client.get_role(v1::GetRoleRequest { name }).await?.role, output)
        }
        Roles::Put(args) => {
            if environment.is_some() {
                let reason = "--env: a role has environments in each --grant, like read@team:prod";
                return Err(Usage(reason.to_owned()).into());
            }
            let role = Some(role(args)?);
            print(client.put_role(v1::PutRoleRequest { role }).await?.role, output)
        }
        Roles::Delete { name } => {
            client.delete_role(v1::DeleteRoleRequest { name: name.clone() }).await?;
            say!("role {} is deleted", cell(&name));
            Ok(())
        }
    }
}

fn role(args: PutRole) -> anyhow::Result<v1::Role> {
    let PutRole { name, description, grants, file } = args;
    if let Some(file) = file {
        let text = read(&file)?;
        let unusable = |error| Usage(format!("{}: not a role in JSON: {error}", file.display()));
        let role: RoleView = serde_json::from_slice(&text).map_err(unusable)?;
        let grants = role.grants.into_iter().map(v1::Grant::from).collect();
        return Ok(v1::Role { name, description: role.description, grants, built_in: false });
    }
    let grant = |grant| {
        let Grant { actions, namespaces, environments } = grant;
        v1::Grant { actions, namespaces, environments }
    };
    let grants = grants.into_iter().map(grant).collect();
    Ok(v1::Role { name, description, grants, built_in: false })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    let unreadable = |error| Usage(format!("cannot read {}: {error}", file.display()));
    Ok(std::fs::read(file).map_err(unreadable)?)
}

fn print(role: Option<v1::Role>, output: Output) -> anyhow::Result<()> {
    let role = RoleView::from(role.context("the node's answer has no role")?);
    output.print(&role, |role| roles_table(std::slice::from_ref(role)))
}

/// One row per grant.
fn roles_table(roles: &[RoleView]) -> Table {
    let mut rows = table(&["NAME", "ACTIONS", "NAMESPACES", "ENVIRONMENTS", "DESCRIPTION"]);
    for role in roles {
        for grant in &role.grants {
            rows.add_row([
                cell(&role.name),
                cell(&grant.actions.join(",")),
                all(&grant.namespaces),
                all(&grant.environments),
                known(&role.description),
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(file: Option<std::path::PathBuf>) -> PutRole {
        PutRole {
            name: "ops".into(),
            description: String::new(),
            grants: vec![Grant {
                actions: vec!["read".into()],
                namespaces: vec!["team".into()],
                environments: vec!["prod".into()],
            }],
            file,
        }
    }

    #[test]
    fn a_role_is_made_of_its_grants() {
        let made = role(put(None)).unwrap();
        assert_eq!(made.name, "ops");
        assert_eq!(made.grants[0].namespaces, ["team"]);
        assert_eq!(made.grants[0].environments, ["prod"]);
    }

    #[test]
    fn what_is_shown_can_be_put_again_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("role.json");
        let grant = |action: &str| v1::Grant { actions: vec![action.into()], ..Default::default() };
        let shown = RoleView::from(v1::Role {
            name: "other".into(),
            description: "x".into(),
            grants: vec![grant("read"), grant("audit")],
            built_in: true,
        });
        std::fs::write(&file, serde_json::to_vec(&shown).unwrap()).unwrap();
        let made = role(put(Some(file.clone()))).unwrap();
        assert_eq!((made.name.as_str(), made.grants.len(), made.built_in), ("ops", 2, false));

        std::fs::write(&file, "{\"grant\": []}").unwrap();
        let error = role(put(Some(file))).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("grant"), "{error}");
    }

    #[test]
    fn every_grant_has_a_row() {
        let view = RoleView::from(v1::Role {
            name: "ops".into(),
            grants: vec![
                v1::Grant { actions: vec!["read".into()], ..Default::default() },
                v1::Grant {
                    actions: vec!["write".into(), "delete".into()],
                    namespaces: vec!["team".into()],
                    environments: vec!["edge".into()],
                },
            ],
            ..Default::default()
        });
        let text = roles_table(&[view]).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["ops", "read", "all", "all", "-"]);
        assert_eq!(lines[2], ["ops", "write,delete", "team", "edge", "-"]);
    }
}
