//! Where a token or a role holds, as it is given and as it is shown.

use crate::Usage;
use crate::args;
use crate::output::cell;

/// Namespaces and environments. An empty list is all of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) namespaces: Vec<String>,
    pub(crate) environments: Vec<String>,
}

impl Scope {
    /// `--env` counts too: whoever names an environment does not mean all of them.
    pub(crate) fn new(given: args::Scope, environment: Option<String>) -> Result<Self, Usage> {
        let args::Scope { namespaces, environments } = given;
        let environments = match environment {
            None => environments,
            Some(one) if environments.is_empty() => vec![one],
            Some(_) => {
                return Err(Usage("--env and --environments say the same; give one".to_owned()));
            }
        };
        Ok(Self { namespaces, environments })
    }
}

/// A list in a table.
pub(crate) fn all(list: &[String]) -> String {
    if list.is_empty() { "all".to_owned() } else { cell(&list.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_global_environment_restricts_too() {
        let scope = |environments: &[&str], env: Option<&str>| {
            let environments = environments.iter().map(|text| (*text).to_owned()).collect();
            let given = args::Scope { namespaces: Vec::new(), environments };
            Scope::new(given, env.map(str::to_owned)).map(|scope| scope.environments)
        };
        assert!(scope(&[], None).unwrap().is_empty());
        assert_eq!(scope(&["prod", "edge"], None).unwrap(), ["prod", "edge"]);
        assert_eq!(scope(&[], Some("prod")).unwrap(), ["prod"]);
        assert!(scope(&["edge"], Some("prod")).is_err());
    }
}
