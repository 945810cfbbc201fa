//! Alerting rules of the thresholds, as a file for Prometheus' `rule_files`.

use super::file::Baselines;
use crate::json::quoted;
use crate::prometheus::Selector;

/// A path in the repository, as the other alerts have it.
const RUNBOOK: &str = "docs/operations/runbooks/alerts.md#baselinedeviation";

/// What the descriptions of all alerts say after what happened, in the order in which all have it.
const POINTS: &str = "Impact: none by itself, the fixed thresholds are the ones that warn. Causes: growth, a change of the applications, a deployment, a baseline that is out of date. Look at: `llm-config baseline compare`, and what was changed or deployed since. Resolve: find out what changed; if it is the new normal, record it anew, `llm-config baseline record`. Escalate: no, not by itself.";

pub(crate) fn yaml(file: &Baselines, selector: &Selector) -> String {
    let mut text = "# Made by `llm-config baseline record`. They need the recording rules of the same Prometheus.\ngroups:\n  - name: llm_config_baseline\n    rules:\n".to_owned();
    let since = match (&file.recorded_at, &file.window) {
        (Some(at), Some(window)) => format!(" recorded at {} over {window}", template(at)),
        _ => String::new(),
    };
    for (measure, baseline, threshold) in file.known() {
        let side = if measure.comparison() == ">" { "above" } else { "below" };
        let expression = format!("{} {} {threshold}", measure.now(selector), measure.comparison());
        let summary = format!("The {} is {side} what is normal", measure.name);
        let description = format!(
            "It is {{{{ $value | humanize }}}} {unit} on cluster {{{{ $labels.cluster }}}}, {side} {threshold} {unit} for an hour; the baseline{since} is {baseline} {unit}. {POINTS}",
            unit = measure.unit,
        );
        text.push_str(&format!(
            "      - alert: BaselineDeviation\n        expr: {}\n        for: 1h\n        labels: {{severity: info, baseline: {}}}\n        annotations:\n          summary: {}\n          description: {}\n          runbook_url: {}\n",
            quoted(&expression),
            measure.key,
            quoted(&summary),
            quoted(&description),
            quoted(RUNBOOK),
        ));
    }
    text
}

/// Text that a template of Prometheus leaves as it is.
fn template(text: &str) -> String {
    text.replace("{{", "{ {")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_threshold_has_its_rule() {
        let text = "recorded_at: \"2026-01-31T12:00:00Z\"\nwindow: 7d\nbaselines: {p95_latency_ms: 45, cache_hit_rate_pct: 85}\n";
        let file = Baselines::parse(text.as_bytes()).unwrap();
        let selector = Selector { job: "llm-config-manager".into(), cluster: "a\"b".into() };
        let rules: Value = serde_saphyr::from_str(&yaml(&file, &selector)).unwrap();
        let rules = rules["groups"][0]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        for (rule, (key, end)) in
            rules.iter().zip([("p95_latency_ms", " > 54"), ("cache_hit_rate_pct", " < 80")])
        {
            assert_eq!(rule["alert"], "BaselineDeviation");
            assert_eq!((&rule["labels"]["severity"], &rule["for"]), (&"info".into(), &"1h".into()));
            assert_eq!(rule["labels"]["baseline"], key);
            let expression = rule["expr"].as_str().unwrap();
            assert!(expression.ends_with(end), "{expression}");
            assert!(expression.contains(r#"job="llm-config-manager", cluster="a\"b""#));
            let annotations = &rule["annotations"];
            assert_eq!(annotations["runbook_url"], RUNBOOK);
            let description = annotations["description"].as_str().unwrap();
            assert!(description.contains("recorded at 2026-01-31T12:00:00Z over 7d is"), "{rule}");
            assert!(annotations["summary"].is_string());
            let mut rest = description;
            for point in ["Impact:", "Causes:", "Look at:", "Resolve:", "Escalate:"] {
                let (said, after) =
                    rest.split_once(point).unwrap_or_else(|| panic!("{point} of {rule}"));
                assert!(said.trim().len() > 1 && said.ends_with(". "), "before {point} of {rule}");
                rest = after;
            }
            assert!(rest.trim().len() > 1, "{rule}");
        }
    }
}
