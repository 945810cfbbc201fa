//! What is configured: models that a gateway passes requests on to, a few deployments of each.

use std::collections::BTreeMap;

use llm_config_domain::{Address, JsonValue, Set};
use serde_json::value::RawValue;

use crate::Error;

/// As clients send them: with spaces, and not only in ASCII.
const MODELS: &str = include_str!("models.json");
const DEPLOYMENTS: usize = 32;
const NAMESPACE: &str = "gateway/models";

/// How many entries there are.
#[cfg(test)]
pub(crate) const ENTRIES: usize = 8 * DEPLOYMENTS;

/// The values, as they are sent.
pub(crate) fn texts() -> Result<Vec<String>, Error> {
    Ok(named()?.into_values().map(|value| value.get().to_owned()).collect())
}

/// What writes all entries, in an order in which neighbours differ.
pub(crate) fn sets() -> Result<Vec<Set>, Error> {
    let models = named()?;
    let mut sets = Vec::new();
    for deployment in 0..DEPLOYMENTS {
        for (name, value) in &models {
            let key = format!("{name}/deployment-{deployment:02}");
            sets.push(Set {
                address: Address::parse(NAMESPACE, &key, "production")?,
                value: JsonValue::parse(value.get().as_bytes())?.into(),
                description: "How the gateway reaches this model".into(),
                tags: vec!["gateway".into(), "chat".into()],
                comment: "Timeouts as agreed with the provider".into(),
                expected_version: None,
                declassify: false,
            });
        }
    }
    Ok(sets)
}

fn named() -> Result<BTreeMap<&'static str, &'static RawValue>, Error> {
    Ok(serde_json::from_str(MODELS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_large_as_those_of_the_other_benchmarks() {
        let sets = sets().unwrap();
        assert_eq!(sets.len(), ENTRIES);
        for set in sets {
            assert!(
                (240..=272).contains(&set.value.size()),
                "{}: {}",
                set.address,
                set.value.size()
            );
        }
    }
}
