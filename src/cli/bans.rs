//! `ban`: addresses that are shut out for a while.

use comfy_table::Table;
use llm_config_client::{Client, v1};
use serde::Serialize;

use crate::args::Bans;
use crate::output::{Output, cell, table};

/// A ban as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct BanView {
    ip: String,
    since: Option<String>,
    until: Option<String>,
    strikes: u32,
    reason: String,
}

impl From<v1::Ban> for BanView {
    fn from(ban: v1::Ban) -> Self {
        Self {
            ip: ban.ip,
            since: ban.since.map(|time| time.to_string()),
            until: ban.until.map(|time| time.to_string()),
            strikes: ban.strikes,
            reason: ban.reason,
        }
    }
}

pub(crate) async fn run(client: &Client, command: Bans, output: Output) -> anyhow::Result<()> {
    match command {
        Bans::List => {
            let listed = client.list_bans(v1::ListBansRequest {}).await?;
            let bans: Vec<BanView> = listed.items.into_iter().map(BanView::from).collect();
            output.print(&bans, |bans| bans_table(bans))
        }
        Bans::Lift { address } => {
            client.lift_ban(v1::LiftBanRequest { ip: address.clone() }).await?;
            say!("{} may come in again", cell(&address));
            Ok(())
        }
    }
}

fn bans_table(bans: &[BanView]) -> Table {
    let mut rows = table(&["ADDRESS", "UNTIL", "STRIKES", "SINCE", "REASON"]);
    for ban in bans {
        rows.add_row([
            cell(&ban.ip),
            ban.until.clone().unwrap_or_default(),
            ban.strikes.to_string(),
            ban.since.clone().unwrap_or_default(),
            cell(&ban.reason),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ban_has_a_row() {
        let ban = v1::Ban { ip: "192.0.2.1".into(), strikes: 2, ..Default::default() };
        let text = bans_table(&[ban.into()]).to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("192.0.2.1"), "{text}");
    }
}
