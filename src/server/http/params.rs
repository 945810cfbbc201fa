//! Query parameters: one table says which a route takes, and both the parser and the OpenAPI document read it.
//!
//! Unknown, repeated and malformed parameters are refused by name, because a misspelt `expected_version` that is
//! ignored costs somebody their data.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required, Schema};

use super::path::{decode, whole_number};
use super::problem::Failure;
use crate::error::ServiceError;
use crate::service::{Consistency, ReadOptions};

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    OneOf(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    kind: Kind,
    description: &'static str,
}

const fn param(name: &'static str, kind: Kind, description: &'static str) -> Param {
    Param { name, kind, description }
}

const ENVIRONMENTS: Kind = Kind::OneOf(&["base", "development", "staging", "production", "edge"]);

pub(super) const ENV: Param = param(
    "env",
    ENVIRONMENTS,
    "The environment; base when absent. dev, stage and prod are understood too.",
);
pub(super) const WATCHED_ENV: Param =
    param("env", ENVIRONMENTS, "Only changes in this environment; all when absent.");
pub(super) const CONSISTENCY: Param = param(
    "consistency",
    Kind::OneOf(&["cached", "linearizable"]),
    "cached (default): what this node has applied. linearizable: confirmed with the leader.",
);
pub(super) const BACKUP_CONSISTENCY: Param = param(
    "consistency",
    Kind::OneOf(&["linearizable", "cached"]),
    "linearizable (default): holds everything acknowledged before. cached: what this node has applied; needs no leader.",
);
pub(super) const MIN_REVISION: Param = param(
    "min_revision",
    Kind::Number,
    "Wait until this node has applied this revision; 503 STALE when that takes too long.",
);
pub(super) const MAX_STALENESS: Param = param(
    "max_staleness_ms",
    Kind::Number,
    "Refuse with 503 STALE when this node has not heard from a leader for this long.",
);
pub(super) const RESOLVE: Param =
    param("resolve", Kind::Flag, "Fall back as the environment does when there is no entry in it.");
pub(super) const VERSION: Param =
    param("version", Kind::Number, "An old version instead of the current one.");
pub(super) const REVEAL: Param = param(
    "reveal",
    Kind::Flag,
    "Show the plaintext of a secret: needs the right to reveal, and is recorded in the audit log before.",
);
pub(super) const AUDIT_TYPE: Param =
    param("type", Kind::Text, "Only records of this type, as `config.set`.");
pub(super) const ACTOR: Param =
    param("actor", Kind::Text, "Only what this caller did, by name or by the id of its token.");
pub(super) const AUDIT_NAMESPACE: Param =
    param("namespace", Kind::Text, "Only records about entries in this namespace.");
pub(super) const AUDIT_KEY: Param =
    param("key", Kind::Text, "Only records about entries with this key.");
pub(super) const SINCE: Param = param("from", Kind::Text, "Not before this time, RFC 3339.");
pub(super) const UNTIL: Param = param("to", Kind::Text, "Before this time, RFC 3339.");
pub(super) const ORDER: Param = param(
    "order",
    Kind::OneOf(&["newest", "oldest"]),
    "Which records come first; the newest when absent.",
);
pub(super) const PREFIX: Param = param("prefix", Kind::Text, "Only names that begin with this.");
pub(super) const LIMIT: Param = param(
    "limit",
    Kind::Number,
    "Items on a page, 1 to 1000, 100 when absent; a page of large items may hold fewer.",
);
pub(super) const CURSOR: Param = param("cursor", Kind::Text, "`next_cursor` of the page before.");
pub(super) const EXPECTED_VERSION: Param = param(
    "expected_version",
    Kind::Number,
    "Refuse with 409 unless the entry is at this version. `If-Match` means the same.",
);
pub(super) const COMMENT: Param = param("comment", Kind::Text, "Why this change.");
pub(super) const FROM: Param = param("from", Kind::Number, "The version to compare from.");
pub(super) const TO: Param =
    param("to", Kind::Number, "The version to compare to; the current one when absent.");
pub(super) const ENV_FROM: Param =
    param("env_from", ENVIRONMENTS, "Compare current values: the environment to compare from.");
pub(super) const ENV_TO: Param =
    param("env_to", ENVIRONMENTS, "Compare current values: the environment to compare to.");
pub(super) const NAMESPACE_PREFIX: Param = param(
    "namespace_prefix",
    Kind::Text,
    "Only changes in namespaces that begin with this; not together with `namespace`.",
);
pub(super) const NAMESPACE: Param =
    param("namespace", Kind::Text, "Only changes in this namespace; all when absent.");
pub(super) const FROM_REVISION: Param = param(
    "from_revision",
    Kind::Number,
    "Begin with this revision itself; with the next change when absent or 0.",
);
pub(super) const FORCE: Param =
    param("force", Kind::Flag, "Do it although the cluster may lose its quorum by it.");

/// A route's query parameters.
pub(super) trait Allowed: Send + Sync {
    const PARAMS: &'static [Param];
}

/// Defines a set of query parameters, for the parser and for the OpenAPI document.
macro_rules! query_parameters {
    ($(#[$doc:meta])* $name:ident: [$($param:ident),* $(,)?]) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl $crate::http::params::Allowed for $name {
            const PARAMS: &'static [$crate::http::params::Param] = &[$($crate::http::params::$param),*];
        }

        impl utoipa::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                <Self as $crate::http::params::Allowed>::PARAMS.iter().map(|param| param.document()).collect()
            }
        }
    };
}
pub(super) use query_parameters;

impl Param {
    pub(super) fn document(&self) -> Parameter {
        let object = match self.kind {
            Kind::Text => ObjectBuilder::new().schema_type(Type::String),
            Kind::Flag => ObjectBuilder::new().schema_type(Type::Boolean),
            Kind::OneOf(words) => ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(words.iter().copied())),
            Kind::Number => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(0)),
        };
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(self.description))
            .schema(Some(RefOr::T(Schema::Object(object.build()))))
            .build()
    }
}

/// The query parameters of a request to a route that takes those of `A`.
pub(super) struct Query<A> {
    values: BTreeMap<String, String>,
    allowed: PhantomData<A>,
}

impl<A: Allowed, S: Sync> FromRequestParts<S> for Query<A> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Ok(Query::parse(parts.uri.query().unwrap_or_default())?)
    }
}

impl<A: Allowed> Query<A> {
    pub(super) fn parse(query: &str) -> Result<Self, ServiceError> {
        let mut values = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(&name.replace('+', " "), "query")?;
            if !A::PARAMS.iter().any(|known| known.name == name) {
                return Err(unknown::<A>(&name));
            }
            let value = decode(&value.replace('+', " "), &name)?;
            if values.insert(name.clone(), value).is_some() {
                return Err(ServiceError::invalid(name, "is given twice"));
            }
        }
        Ok(Query { values, allowed: PhantomData })
    }

    /// The text as given.
    pub(super) fn given(&self, param: Param) -> Option<&str> {
        debug_assert!(
            A::PARAMS.iter().any(|known| known.name == param.name),
            "{} is not in the table",
            param.name
        );
        self.values.get(param.name).map(String::as_str)
    }

    /// The text as given; empty when absent.
    pub(super) fn text(&self, param: Param) -> String {
        self.given(param).unwrap_or_default().to_owned()
    }

    pub(super) fn number(&self, param: Param) -> Result<Option<u64>, ServiceError> {
        let parse = |text: &str| {
            whole_number(text).filter(|_| !text.is_empty()).ok_or_else(|| {
                ServiceError::invalid(
                    param.name,
                    format!("must be a whole number from 0 to {}", u64::MAX),
                )
            })
        };
        self.given(param).map(parse).transpose()
    }

    pub(super) fn flag(&self, param: Param) -> Result<bool, ServiceError> {
        match self.given(param) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ServiceError::invalid(param.name, "must be true or false")),
        }
    }

    pub(super) fn read_options(&self) -> Result<ReadOptions, ServiceError> {
        Ok(ReadOptions {
            consistency: self
                .given(CONSISTENCY)
                .map(Consistency::parse)
                .transpose()?
                .unwrap_or_default(),
            min_revision: self.number(MIN_REVISION)?,
            max_staleness_ms: self.number(MAX_STALENESS)?,
        })
    }
}

fn unknown<A: Allowed>(name: &str) -> ServiceError {
    let shown: String = name.chars().take(64).collect();
    let known: Vec<_> = A::PARAMS.iter().map(|param| param.name).collect();
    let reason = match known.as_slice() {
        [] => "is not a query parameter of this path, which takes none".to_owned(),
        known => format!("is not a query parameter of this path; allowed are {}", known.join(", ")),
    };
    ServiceError::invalid(shown, reason)
}

query_parameters! {
    /// No query parameters.
    Nothing: []
}

#[cfg(test)]
mod tests {
    use super::*;

    query_parameters! {
        Sample: [ENV, LIMIT, RESOLVE, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
    }

    fn parse(query: &str) -> Query<Sample> {
        Query::parse(query).unwrap()
    }

    #[test]
    fn parameters_are_decoded() {
        let query = parse("env=pr%6fd&limit=7&&resolve=true");
        assert_eq!(query.text(ENV), "prod");
        assert_eq!(query.number(LIMIT).unwrap(), Some(7));
        assert!(query.flag(RESOLVE).unwrap());
        assert_eq!(parse("env=a+b%2Bc").text(ENV), "a b+c");
        assert_eq!(parse("").number(LIMIT).unwrap(), None);
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused_by_name() {
        for (query, field) in [
            ("limt=7", "limt: "),
            ("env=a&env=b", "env: "),
            ("en%76=a&env=b", "env: "),
            ("env=%ff", "env: "),
        ] {
            let error = Query::<Sample>::parse(query).err().unwrap();
            assert!(error.to_string().starts_with(field), "{query}: {error}");
        }
        let error = Query::<Nothing>::parse("x").err().unwrap();
        assert!(error.to_string().contains("takes none"));
    }

    #[test]
    fn wrong_types_are_refused_by_name() {
        assert!(parse("limit=").number(LIMIT).is_err());
        assert!(parse("limit=-1").number(LIMIT).is_err());
        assert!(parse("resolve=1").flag(RESOLVE).is_err());
        let error = parse("consistency=strong").read_options().unwrap_err();
        assert_eq!(error.to_string(), "consistency: allowed are cached and linearizable");
    }
}
