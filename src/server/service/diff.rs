//! What changed between two versions of an entry, or between two environments.

use llm_config_domain::{Action, Address, Entry, Environment, Need, query};
use llm_config_replica::View;

use super::{Context, DiffAnswer, DiffRequest, Service, environment, query_error};
use crate::error::ServiceError;

/// The two sides of a comparison.
enum Sides {
    /// The second one is the current version when it is absent.
    Versions(u64, Option<u64>),
    Environments(Environment, Environment),
}

impl Service {
    pub async fn diff(
        &self,
        context: &Context,
        request: DiffRequest,
    ) -> Result<DiffAnswer, ServiceError> {
        let result = self.compare(context, request).await;
        self.counted(context, "diff", result)
    }

    async fn compare(
        &self,
        context: &Context,
        request: DiffRequest,
    ) -> Result<DiffAnswer, ServiceError> {
        let address = request.target.parse()?;
        let sides = sides(&request)?;
        let needs = match &sides {
            Sides::Versions(..) => vec![Need::at(Action::Read, &address)],
            Sides::Environments(from, to) => [from, to]
                .map(|side| Address { environment: *side, ..address.clone() })
                .map(|side| Need::at(Action::Read, &side))
                .to_vec(),
        };
        self.fresh(context, &request.read, &needs).await?;
        self.on_view(context, move |view, revision| {
            let (from, to) = match sides {
                Sides::Versions(from, Some(to)) => (
                    version(view, revision, &address, from)?,
                    version(view, revision, &address, to)?,
                ),
                Sides::Versions(from, None) => {
                    (version(view, revision, &address, from)?, current(view, revision, &address)?)
                }
                Sides::Environments(from, to) => {
                    let side = |environment| {
                        current(view, revision, &Address { environment, ..address.clone() })
                    };
                    (side(from)?, side(to)?)
                }
            };
            let patch = query::diff(&from, &to).to_string();
            Ok(DiffAnswer { from, to, patch, revision })
        })
        .await
    }
}

fn sides(request: &DiffRequest) -> Result<Sides, ServiceError> {
    let between_environments =
        !request.environment_from.is_empty() || !request.environment_to.is_empty();
    let between_versions = request.from.is_some() || request.to.is_some();
    match (between_versions, between_environments) {
        (true, true) => Err(ServiceError::invalid(
            "from",
            "compare versions (from, to) or environments (env_from, env_to), not both",
        )),
        (false, true) => Ok(Sides::Environments(
            named("env_from", &request.environment_from)?,
            named("env_to", &request.environment_to)?,
        )),
        (_, false) => {
            let from = request.from.ok_or_else(|| {
                ServiceError::invalid(
                    "from",
                    "is required: the version to compare from, or env_from and env_to",
                )
            })?;
            if from == 0 || request.to == Some(0) {
                let field = if from == 0 { "from" } else { "to" };
                return Err(ServiceError::invalid(field, "versions count from 1"));
            }
            Ok(Sides::Versions(from, request.to))
        }
    }
}

fn named(field: &'static str, text: &str) -> Result<Environment, ServiceError> {
    if text.is_empty() {
        return Err(ServiceError::invalid(field, "is required when environments are compared"));
    }
    environment(text).map_err(|error| match error {
        ServiceError::InvalidArgument { reason, .. } => ServiceError::invalid(field, reason),
        other => other,
    })
}

fn version(
    view: &View,
    revision: u64,
    address: &Address,
    version: u64,
) -> Result<Entry, ServiceError> {
    query::get_version(view, address, version).map_err(|error| {
        query_error(error, revision, || format!("there is no version {version} of {address}"))
    })
}

fn current(view: &View, revision: u64, address: &Address) -> Result<Entry, ServiceError> {
    let missing = || format!("there is no entry {address}");
    query::get(view, address)
        .map_err(|error| query_error(error, revision, missing))?
        .ok_or_else(|| ServiceError::NotFound { what: missing(), revision: Some(revision) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(
        from: Option<u64>,
        to: Option<u64>,
        environment_from: &str,
        environment_to: &str,
    ) -> String {
        let request = DiffRequest {
            from,
            to,
            environment_from: environment_from.into(),
            environment_to: environment_to.into(),
            ..DiffRequest::default()
        };
        sides(&request).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn the_sides_must_be_of_one_kind_and_complete() {
        assert_eq!(refusal(Some(1), Some(2), "", ""), "");
        assert_eq!(refusal(Some(1), None, "", ""), "");
        assert_eq!(refusal(None, None, "base", "prod"), "");
        for (text, field) in [
            (refusal(None, None, "", ""), "from: "),
            (refusal(None, Some(2), "", ""), "from: "),
            (refusal(Some(0), Some(2), "", ""), "from: "),
            (refusal(Some(1), Some(0), "", ""), "to: "),
            (refusal(Some(1), None, "base", "prod"), "from: "),
            (refusal(None, None, "base", ""), "env_to: "),
            (refusal(None, None, "", "base"), "env_from: "),
            (refusal(None, None, "base", "moon"), "env_to: "),
        ] {
            assert!(text.starts_with(field), "{text} does not name {field}");
        }
    }
}
