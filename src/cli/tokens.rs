//! `token` and `whoami`: who may use the cluster, and who this program is to it.

use anyhow::Context as _;
use comfy_table::Table;
use llm_config_client::{Client, v1};
use serde::Serialize;

use crate::args::{CreateToken, Format, Tokens};
use crate::cluster::known;
use crate::output::{self, Output, cell, table};
use crate::roles::GrantView;
use crate::scope::{Scope, all};

/// A token as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct TokenView {
    id: String,
    name: String,
    /// How its text begins.
    prefix: String,
    /// The name in the client certificates that prove it; nothing for one with a text.
    certificate: Option<String>,
    roles: Vec<String>,
    namespaces: Vec<String>,
    environments: Vec<String>,
    created_at: Option<String>,
    created_by: String,
    expires_at: Option<String>,
}

impl From<v1::Token> for TokenView {
    fn from(token: v1::Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            prefix: token.prefix,
            certificate: Some(token.certificate).filter(|name| !name.is_empty()),
            roles: token.roles,
            namespaces: token.namespaces,
            environments: token.environments,
            created_at: token.created_at.map(|time| time.to_string()),
            created_by: token.created_by,
            expires_at: token.expires_at.map(|time| time.to_string()),
        }
    }
}

/// A token with the text that is shown this once. It has no `Debug`.
#[derive(Serialize)]
struct CreatedView {
    #[serde(flatten)]
    info: TokenView,
    #[serde(skip_serializing_if = "String::is_empty")]
    token: String,
}

pub(crate) async fn run(
    client: &Client,
    command: Tokens,
    environment: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        Tokens::Create(args) => create(client, args, environment, output).await,
        Tokens::List => {
            let listed = client.list_tokens(v1::ListTokensRequest {}).await?;
            let tokens: Vec<TokenView> = listed.items.into_iter().map(TokenView::from).collect();
            output.print(&tokens, |tokens| tokens_table(tokens))
        }
        Tokens::Revoke { id } => {
            client.revoke_token(v1::RevokeTokenRequest { id: id.clone() }).await?;
            say!("token {} is revoked", cell(&id));
            Ok(())
        }
    }
}

async fn create(
    client: &Client,
    args: CreateToken,
    environment: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    let Scope { namespaces, environments } = Scope::new(args.scope, environment)?;
    let created = client
        .create_token(v1::CreateTokenRequest {
            name: args.name,
            roles: args.roles,
            namespaces,
            environments,
            expires_in_seconds: args.expires_in.map(|time| time.as_secs()),
            certificate: args.certificate,
        })
        .await?;
    let info = created.info.context("the node's answer has no token")?;
    let view = CreatedView { info: info.into(), token: created.token };
    let words = said(&view.info);
    if output.format == Format::Table && !view.token.is_empty() {
        output::line(&view.token)?;
    } else {
        output.print(&view, |view| tokens_table(std::slice::from_ref(&view.info)))?;
    }
    say!("{words}");
    Ok(())
}

fn said(info: &TokenView) -> String {
    let ends = match &info.expires_at {
        Some(time) => format!("until {time}"),
        None => "until it is revoked".to_owned(),
    };
    let (id, name) = (cell(&info.id), cell(&info.name));
    match &info.certificate {
        None => format!("token {id} for {name}, good {ends}; its text is shown this once"),
        Some(certificate) => {
            let certificate = cell(certificate);
            format!(
                "token {id} for {name}, good {ends}, proved by client certificates of {certificate}"
            )
        }
    }
}

fn tokens_table(tokens: &[TokenView]) -> Table {
    let header = ["ID", "NAME", "BEGINS", "ROLES", "NAMESPACES", "ENVIRONMENTS", "EXPIRES", "BY"];
    let mut rows = table(&header);
    for token in tokens {
        let begins = match &token.certificate {
            None => known(&token.prefix),
            Some(certificate) => format!("certificate {}", cell(certificate)),
        };
        rows.add_row([
            cell(&token.id),
            cell(&token.name),
            begins,
            cell(&token.roles.join(",")),
            all(&token.namespaces),
            all(&token.environments),
            token.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
            known(&token.created_by),
        ]);
    }
    rows
}

/// The caller as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct WhoAmIView {
    name: String,
    principal: String,
    method: String,
    grants: Vec<GrantView>,
    namespaces: Vec<String>,
    environments: Vec<String>,
    expires_at: Option<String>,
}

pub(crate) async fn who_am_i(client: &Client, output: Output) -> anyhow::Result<()> {
    let who = client.who_am_i(v1::WhoAmIRequest {}).await?;
    let view = WhoAmIView {
        name: who.name,
        principal: who.principal,
        method: who.method,
        grants: who.grants.into_iter().map(GrantView::from).collect(),
        namespaces: who.namespaces,
        environments: who.environments,
        expires_at: who.expires_at.map(|time| time.to_string()),
    };
    output.print(&view, who_table)
}

fn who_table(who: &WhoAmIView) -> Table {
    let mut rows = table(&["WHAT", "IS"]);
    let expires = who.expires_at.clone().unwrap_or_else(|| "never".to_owned());
    rows.add_row(["name".to_owned(), cell(&who.name)]);
    rows.add_row(["principal".to_owned(), known(&who.principal)]);
    rows.add_row(["known by".to_owned(), cell(&who.method)]);
    rows.add_row(["expires".to_owned(), expires]);
    for grant in &who.grants {
        rows.add_row(["may".to_owned(), cell(&grant.words())]);
    }
    rows.add_row(["only in namespaces".to_owned(), all(&who.namespaces)]);
    rows.add_row(["only in environments".to_owned(), all(&who.environments)]);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> v1::Token {
        v1::Token {
            id: "abc".into(),
            name: "ci".into(),
            prefix: "lcm_abc".into(),
            roles: vec!["viewer".into(), "auditor".into()],
            created_by: "root".into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_token_has_a_row_with_all_columns() {
        let by_certificate = v1::Token {
            prefix: String::new(),
            certificate: "ci.example".into(),
            namespaces: vec!["team/app".into()],
            ..token()
        };
        let tokens = [token(), by_certificate].map(TokenView::from);
        let text = tokens_table(&tokens).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = ["abc", "ci", "lcm_abc", "viewer,auditor", "all", "all", "never", "root"];
        assert_eq!(lines[1], expected);
        assert!(lines[2].contains(&"ci.example") && lines[2].contains(&"team/app"), "{text}");
    }

    #[test]
    fn json_has_the_text_once_and_nothing_instead_of_none() {
        let view = CreatedView { info: token().into(), token: "lcm_abc_text".into() };
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["id"], &json["token"]), (&"abc".into(), &"lcm_abc_text".into()));
        let view = CreatedView { info: token().into(), token: String::new() };
        assert!(serde_json::to_value(&view).unwrap().get("token").is_none());
    }
}
