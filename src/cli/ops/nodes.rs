//! Whether the cluster has a leader and a majority to spare, how every node finds itself, and whether it is scraped.

use llm_config_client::Options;

use super::source::Source;
use super::{Check, Outcome};
use crate::args::Global;
use crate::status::{self, ClusterView, NodeRow};

const CLUSTER: &str = "cluster";
const HEALTH: &str = "health";
const TARGET: &str = "scrape";

pub(crate) async fn check(global: &Global, options: &Options) -> Vec<Check> {
    let view = match status::look(global, options).await {
        Ok(view) => view,
        Err(error) => return vec![Check::broken(CLUSTER, &error)],
    };
    let mut checks = match &view.cluster {
        Some(seen) => vec![cluster(seen)],
        None => {
            let errors = view.endpoints.iter().filter_map(|endpoint| {
                Some(format!("{}: {}", endpoint.endpoint, endpoint.error.as_ref()?))
            });
            let errors: Vec<_> = errors.collect();
            let found = format!("no endpoint answers: {}", errors.join("; "));
            vec![Check::new(CLUSTER, "", Outcome::Failed, found)]
        }
    };
    checks.extend(view.nodes.iter().map(node));
    checks
}

fn cluster(seen: &ClusterView) -> Check {
    let ClusterView { voters, voters_reachable, quorum, .. } = seen;
    let reached = format!("{voters_reachable} of {voters} voters reachable, {quorum} needed");
    let (result, found) = match seen.leader_id {
        None => (Outcome::Failed, format!("no node leads; {reached}")),
        Some(_) if !seen.has_quorum => (Outcome::Failed, format!("no quorum: {reached}")),
        // A cluster of one never survives a loss; that is how it was made.
        Some(id) if !seen.survives_one_more_loss && *voters > 1 => {
            (Outcome::Attention, format!("node {id} leads; none may be lost: {reached}"))
        }
        Some(id) => (Outcome::Ok, format!("node {id} leads; {reached}")),
    };
    Check::new(CLUSTER, "", result, found)
}

fn node(node: &NodeRow) -> Check {
    let subject = format!("node {}", node.id);
    let Some(health) = &node.health else {
        return Check::new(HEALTH, subject, Outcome::Failed, "/health gives no answer");
    };
    let reasons: Vec<String> = health
        .checks
        .iter()
        .filter(|(_, sentence)| *sentence != "healthy")
        .map(|(part, sentence)| format!("{part}: {sentence}"))
        .collect();
    let result = match health.status.as_str() {
        "healthy" => Outcome::Ok,
        "degraded" => Outcome::Attention,
        _ => Outcome::Failed,
    };
    let found = if reasons.is_empty() { health.status.clone() } else { reasons.join("; ") };
    Check::new(HEALTH, subject, result, found)
}

/// Whether Prometheus reads every node: without that its other answers are about fewer.
pub(crate) async fn targets(source: &Source) -> Vec<Check> {
    if !matches!(source, Source::Prometheus(..)) {
        return Vec::new();
    }
    let readings = match source.readings("up").await {
        Ok(readings) => readings,
        Err(error) => return vec![Check::broken(TARGET, &error)],
    };
    let row = |reading: super::source::Reading| match reading.value == 1.0 {
        true => Check::new(TARGET, reading.instance, Outcome::Ok, "Prometheus reads its metrics"),
        false => Check::new(
            TARGET,
            reading.instance,
            Outcome::Failed,
            "Prometheus cannot read its metrics",
        ),
    };
    readings.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(leader_id: Option<u64>, voters: usize, reachable: usize) -> Check {
        let quorum = voters / 2 + 1;
        cluster(&ClusterView {
            leader_id,
            voters,
            voters_reachable: reachable,
            quorum,
            has_quorum: reachable >= quorum,
            survives_one_more_loss: reachable > quorum,
            ..ClusterView::default()
        })
    }

    #[test]
    fn a_cluster_needs_a_leader_and_a_majority_to_spare() {
        let result = |leader, voters, reachable| seen(leader, voters, reachable).result;
        assert_eq!(result(Some(1), 3, 3), Outcome::Ok);
        assert_eq!(result(Some(1), 3, 2), Outcome::Attention);
        assert_eq!(result(Some(1), 3, 1), Outcome::Failed);
        assert_eq!(result(None, 3, 3), Outcome::Failed);
        assert_eq!(result(Some(1), 1, 1), Outcome::Ok, "a cluster of one");
    }
}
