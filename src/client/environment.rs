//! The environments of the store, and which one stands in for which.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Where a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Environment {
    /// What holds wherever nothing else is said.
    #[default]
    Base,
    /// Falls back to base.
    Development,
    /// Falls back to base.
    Staging,
    /// Falls back to base.
    Production,
    /// Falls back to production, then to base.
    Edge,
}

impl Environment {
    /// Its name in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
            Self::Edge => "edge",
        }
    }

    /// Where a value is looked for, in this order, when an application runs in this environment.
    #[must_use]
    pub const fn fallback(self) -> &'static [Self] {
        match self {
            Self::Base => &[Self::Base],
            Self::Development => &[Self::Development, Self::Base],
            Self::Staging => &[Self::Staging, Self::Base],
            Self::Production => &[Self::Production, Self::Base],
            Self::Edge => &[Self::Edge, Self::Production, Self::Base],
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By its name or its short one: `dev`, `stage`, `prod`.
impl FromStr for Environment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "base" => Ok(Self::Base),
            "development" | "dev" => Ok(Self::Development),
            "staging" | "stage" => Ok(Self::Staging),
            "production" | "prod" => Ok(Self::Production),
            "edge" => Ok(Self::Edge),
            _ => Err(Error::InvalidArgument {
                field: "environment",
                reason: format!(
                    "{text:?} is none; give base, development, staging, production or edge"
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_fall_back_to_base() {
        for environment in [
            Environment::Base,
            Environment::Development,
            Environment::Staging,
            Environment::Production,
            Environment::Edge,
        ] {
            assert_eq!(environment.to_string().parse::<Environment>().unwrap(), environment);
            assert_eq!(environment.fallback().first(), Some(&environment));
            assert_eq!(environment.fallback().last(), Some(&Environment::Base));
        }
        assert_eq!("prod".parse::<Environment>().unwrap(), Environment::Production);
        let error = "live".parse::<Environment>().unwrap_err().to_string();
        assert!(error.contains("environment") && error.contains("staging"), "{error}");
    }
}
