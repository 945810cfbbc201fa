//! Who may do what: actions, roles and tokens, and the one rule that says yes or no.
//!
//! Plain data and pure rules, the same where a request enters and where its command is applied. Who a caller is, and how a
//! token is told from a forged one, is the edge's.

use std::fmt;

use crate::limits;
use crate::names::{Address, Environment, InvalidArgument, Namespace, check_line};

/// Something that a right is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// See entries; secrets stay masked.
    Read,
    /// Write entries.
    Write,
    /// Delete entries.
    Delete,
    /// Give entries an old value again.
    Rollback,
    /// See the plaintext of secrets.
    Reveal,
    /// Read the audit log.
    Audit,
    /// Manage tokens, roles, bans and keys.
    Auth,
    /// Manage members and storage.
    Cluster,
    /// Take backups.
    Backup,
}

impl Action {
    /// Every action, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Delete,
        Self::Rollback,
        Self::Reveal,
        Self::Audit,
        Self::Auth,
        Self::Cluster,
        Self::Backup,
    ];

    /// Its word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Rollback => "rollback",
            Self::Reveal => "reveal",
            Self::Audit => "audit",
            Self::Auth => "auth",
            Self::Cluster => "cluster",
            Self::Backup => "backup",
        }
    }

    /// The action of a word.
    pub fn parse(word: &str) -> Result<Self, InvalidArgument> {
        Self::ALL.into_iter().find(|action| action.as_str() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|action| action.as_str()).collect();
            let reason = format!("{word:?} is no action; allowed are {}", known.join(", "));
            InvalidArgument::new("actions", reason)
        })
    }

    /// The number under which it is stored.
    pub fn code(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Delete => 3,
            Self::Rollback => 4,
            Self::Reveal => 5,
            Self::Audit => 6,
            Self::Auth => 7,
            Self::Cluster => 8,
            Self::Backup => 9,
        }
    }

    /// The action stored under a number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.code() == code)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a right holds. An empty list is no restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Namespaces, each with everything below it: `team` holds `team` and `team/app`, not `teams`.
    pub namespaces: Vec<Namespace>,
    /// Environments.
    pub environments: Vec<Environment>,
}

impl Scope {
    /// Whether it restricts nothing.
    pub fn is_everywhere(&self) -> bool {
        self.namespaces.is_empty() && self.environments.is_empty()
    }

    fn holds_namespace(&self, namespace: &Namespace) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|top| is_below(namespace, top))
    }

    fn holds_environment(&self, environment: Environment) -> bool {
        self.environments.is_empty() || self.environments.contains(&environment)
    }

    fn holds(&self, namespace: &Namespace, environment: Environment) -> bool {
        self.holds_namespace(namespace) && self.holds_environment(environment)
    }

    fn validate(&self) -> Result<(), InvalidArgument> {
        if self.namespaces.len() > limits::SCOPE_NAMESPACES_MAX {
            let (count, max) = (self.namespaces.len(), limits::SCOPE_NAMESPACES_MAX);
            let reason = format!("has {count} elements, at most {max} are allowed");
            return Err(InvalidArgument::new("namespaces", reason));
        }
        if self.environments.len() > Environment::ALL.len() {
            return Err(InvalidArgument::new("environments", "names an environment twice"));
        }
        Ok(())
    }
}

/// Whether a namespace is another one or below it.
fn is_below(namespace: &Namespace, top: &Namespace) -> bool {
    match namespace.as_str().strip_prefix(top.as_str()) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// Actions, and where they are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub actions: Vec<Action>,
    /// Where.
    pub scope: Scope,
}

/// A named set of grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it allows.
    pub grants: Vec<Grant>,
}

impl Role {
    /// The roles that are always there and never change.
    pub fn built_in() -> [Self; 4] {
        let role = |name: &str, description: &str, actions: &[Action]| Self {
            name: name.into(),
            description: description.into(),
            grants: vec![Grant { actions: actions.to_vec(), scope: Scope::default() }],
        };
        use Action::{Audit, Delete, Read, Rollback, Write};
        [
            role("admin", "everything", &Action::ALL),
            role(
                "editor",
                "reads and changes entries; secrets stay masked",
                &[Read, Write, Delete, Rollback],
            ),
            role("viewer", "reads entries; secrets stay masked", &[Read]),
            role("auditor", "reads the audit log", &[Audit]),
        ]
    }

    /// Whether a name belongs to a role that never changes.
    pub fn is_built_in(name: &str) -> bool {
        Self::built_in().iter().any(|role| role.name == name)
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidArgument> {
        check_role_name("name", &self.name)?;
        if Self::is_built_in(&self.name) {
            return Err(built_in_refusal(&self.name));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            let reason = format!("has more than {} bytes", limits::DESCRIPTION_BYTES_MAX);
            return Err(InvalidArgument::new("description", reason));
        }
        if self.grants.is_empty() || self.grants.len() > limits::ROLE_GRANTS_MAX {
            let reason = format!("must have 1 to {} elements", limits::ROLE_GRANTS_MAX);
            return Err(InvalidArgument::new("grants", reason));
        }
        for grant in &self.grants {
            if grant.actions.is_empty() || grant.actions.len() > Action::ALL.len() {
                return Err(InvalidArgument::new("actions", "must name each action at most once"));
            }
            grant.scope.validate()?;
        }
        Ok(())
    }
}

/// The refusal to change one of the roles that never change.
pub(crate) fn built_in_refusal(name: &str) -> InvalidArgument {
    let reason = format!("{name} is built in and does not change; choose another name");
    InvalidArgument::new("name", reason)
}

/// A role's name: letters, digits, `.`, `_` and `-`.
pub fn check_role_name(field: &'static str, name: &str) -> Result<(), InvalidArgument> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sane = (1..=limits::ROLE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    if sane && name != "." && name != ".." {
        return Ok(());
    }
    let reason =
        format!("must be 1 to {} letters, digits, '.', '_' or '-'", limits::ROLE_NAME_BYTES_MAX);
    Err(InvalidArgument::new(field, reason))
}

/// How the holder of a token proves that it is the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// By its text, of which only the SHA-256 is kept: it is as long as the text is random.
    Hash([u8; 32]),
    /// By a client certificate that carries this name.
    Certificate(String),
}

/// Somebody who may use the store, until it expires or is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Never used twice.
    pub id: String,
    /// Who it is for: the actor of what is done with it.
    pub name: String,
    /// How its text begins, to tell tokens apart by eye; empty when there is no text.
    pub prefix: String,
    /// What proves it.
    pub credential: Credential,
    /// What it may do.
    pub roles: Vec<String>,
    /// Where: within this and within what its roles say.
    pub scope: Scope,
    /// When it was made. Set by apply.
    pub created_at_ms: u64,
    /// By whom. Set by apply.
    pub created_by: String,
    /// From when on it is void; 0 is never.
    pub expires_at_ms: u64,
}

impl Token {
    /// Whether it is void at a time.
    pub fn is_expired(&self, time_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms <= time_ms
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidArgument> {
        check_line("id", &self.id, limits::TOKEN_ID_BYTES_MAX)?;
        check_line("name", &self.name, limits::TOKEN_NAME_BYTES_MAX)?;
        if self.prefix.len() > limits::TOKEN_ID_BYTES_MAX {
            return Err(InvalidArgument::new("prefix", "is too long"));
        }
        if let Credential::Certificate(name) = &self.credential {
            check_line("certificate", name, limits::CERTIFICATE_NAME_BYTES_MAX)?;
        }
        check_roles(&self.roles)?;
        self.scope.validate()
    }
}

/// The roles of a principal: some, bounded, well-formed. Whether they exist is looked at when they are used.
pub(crate) fn check_roles(roles: &[String]) -> Result<(), InvalidArgument> {
    if roles.is_empty() || roles.len() > limits::PRINCIPAL_ROLES_MAX {
        let reason = format!("must have 1 to {} elements", limits::PRINCIPAL_ROLES_MAX);
        return Err(InvalidArgument::new("roles", reason));
    }
    roles.iter().try_for_each(|role| check_role_name("roles", role))
}

/// What a principal may do: the grants of its roles, within its own scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Of all roles.
    pub grants: Vec<Grant>,
    /// Holds for every grant.
    pub within: Scope,
}

impl Rights {
    /// Whether an action is allowed on a namespace and environment.
    pub fn allow(&self, action: Action, namespace: &Namespace, environment: Environment) -> bool {
        self.within.holds(namespace, environment)
            && self.grants.iter().any(|grant| {
                grant.actions.contains(&action) && grant.scope.holds(namespace, environment)
            })
    }

    /// Whether an action that belongs to no namespace is allowed. Who may act on a part of the store only, may not.
    pub fn allow_everywhere(&self, action: Action) -> bool {
        self.within.is_everywhere()
            && self
                .grants
                .iter()
                .any(|grant| grant.actions.contains(&action) && grant.scope.is_everywhere())
    }

    /// Whether an action is allowed in some environment of a namespace.
    pub fn allow_in_some(&self, action: Action, namespace: &Namespace) -> bool {
        Environment::ALL.iter().any(|environment| self.allow(action, namespace, *environment))
    }

    /// Whether an action is allowed in some namespace, in an environment or in any.
    pub fn allow_anywhere(&self, action: Action, environment: Option<Environment>) -> bool {
        let holds = |scope: &Scope| environment.is_none_or(|env| scope.holds_environment(env));
        holds(&self.within)
            && self
                .grants
                .iter()
                .any(|grant| grant.actions.contains(&action) && holds(&grant.scope))
    }

    /// Whether what is needed is allowed.
    pub fn meet(&self, need: &Need) -> bool {
        match need {
            Need::Everywhere(action) => self.allow_everywhere(*action),
            Need::At { action, namespace, environment } => {
                self.allow(*action, namespace, *environment)
            }
        }
    }

    /// The first thing that `other` allows and this does not, in words: nobody may hand out what they do not have.
    pub fn lack(&self, other: &Self) -> Option<String> {
        let environments: &[Environment] = &Environment::ALL;
        for grant in &other.grants {
            for action in &grant.actions {
                let everywhere = other.within.is_everywhere() && grant.scope.is_everywhere();
                if everywhere && !self.allow_everywhere(*action) {
                    return Some(format!("{action} everywhere"));
                }
                let narrow = |tops: &[Namespace], more: &[Namespace]| narrowed(tops, more);
                let namespaces = narrow(&grant.scope.namespaces, &other.within.namespaces);
                for environment in environments {
                    let held = grant.scope.holds_environment(*environment)
                        && other.within.holds_environment(*environment);
                    if held && let Some(what) = self.lack_at(*action, &namespaces, *environment) {
                        return Some(what);
                    }
                }
            }
        }
        None
    }

    /// `namespaces` as in a scope: none of them is all of them.
    fn lack_at(
        &self,
        action: Action,
        namespaces: &Option<Vec<Namespace>>,
        environment: Environment,
    ) -> Option<String> {
        let covers = |scope: &Scope, namespace: Option<&Namespace>| {
            scope.holds_environment(environment)
                && match namespace {
                    Some(namespace) => scope.holds_namespace(namespace),
                    None => scope.namespaces.is_empty(),
                }
        };
        let held = |namespace: Option<&Namespace>| {
            covers(&self.within, namespace)
                && self
                    .grants
                    .iter()
                    .any(|grant| grant.actions.contains(&action) && covers(&grant.scope, namespace))
        };
        match namespaces {
            None if held(None) => None,
            None => Some(format!("{action} in every namespace, {environment}")),
            Some(namespaces) => namespaces
                .iter()
                .find(|namespace| !held(Some(namespace)))
                .map(|namespace| format!("{action} in {namespace}, {environment}")),
        }
    }
}

/// What two lists of namespaces hold both. `None`: everything; an empty list: nothing.
fn narrowed(one: &[Namespace], other: &[Namespace]) -> Option<Vec<Namespace>> {
    match (one, other) {
        ([], []) => None,
        ([], only) | (only, []) => Some(only.to_vec()),
        (one, other) => {
            let mut both = Vec::new();
            for a in one {
                for b in other {
                    if is_below(a, b) {
                        both.push(a.clone());
                    } else if is_below(b, a) {
                        both.push(b.clone());
                    }
                }
            }
            Some(both)
        }
    }
}

/// A right that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// On a namespace in an environment.
    At {
        /// What is done.
        action: Action,
        /// To what.
        namespace: Namespace,
        /// In which environment.
        environment: Environment,
    },
    /// On the store as a whole.
    Everywhere(Action),
}

impl Need {
    /// An action on an entry.
    pub fn at(action: Action, address: &Address) -> Self {
        let (namespace, environment) = (address.namespace.clone(), address.environment);
        Self::At { action, namespace, environment }
    }

    /// What is done.
    pub fn action(&self) -> Action {
        match self {
            Self::At { action, .. } | Self::Everywhere(action) => *action,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { action, namespace, environment } => {
                write!(f, "{action} in namespace {namespace}, environment {environment}")
            }
            Self::Everywhere(action) => write!(f, "{action} without restriction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    fn scope(namespaces: &[&str], environments: &[Environment]) -> Scope {
        Scope {
            namespaces: namespaces.iter().map(|text| namespace(text)).collect(),
            environments: environments.to_vec(),
        }
    }

    fn rights(actions: &[Action], of_role: Scope, within: Scope) -> Rights {
        Rights { grants: vec![Grant { actions: actions.to_vec(), scope: of_role }], within }
    }

    use Environment::{Base, Production};

    #[test]
    fn a_namespace_holds_what_is_below_it_and_nothing_beside_it() {
        let of_team = rights(&[Action::Read], scope(&["team"], &[]), Scope::default());
        for (name, allowed) in
            [("team", true), ("team/app", true), ("teams", false), ("team-a", false), ("a", false)]
        {
            assert_eq!(of_team.allow(Action::Read, &namespace(name), Base), allowed, "{name}");
        }
        assert!(!of_team.allow(Action::Write, &namespace("team"), Base));
    }

    #[test]
    fn the_role_and_the_token_must_both_allow() {
        let both = rights(&[Action::Read], scope(&["a"], &[]), scope(&[], &[Production]));
        assert!(both.allow(Action::Read, &namespace("a"), Production));
        assert!(!both.allow(Action::Read, &namespace("a"), Base));
        assert!(!both.allow(Action::Read, &namespace("b"), Production));
        assert!(both.allow_in_some(Action::Read, &namespace("a/b")));
    }

    #[test]
    fn what_belongs_to_no_namespace_needs_a_right_without_restriction() {
        let admin = Role::built_in()[0].grants.clone();
        let all = Rights { grants: admin.clone(), within: Scope::default() };
        assert!(all.allow_everywhere(Action::Auth));
        for within in [scope(&["a"], &[]), scope(&[], &[Base])] {
            assert!(!Rights { grants: admin.clone(), within }.allow_everywhere(Action::Auth));
        }
    }

    #[test]
    fn nobody_hands_out_what_they_do_not_have() {
        let reads = |of_role, within| rights(&[Action::Read], of_role, within);
        let everywhere = reads(Scope::default(), Scope::default());
        let of_a = reads(scope(&["a"], &[]), Scope::default());
        let of_ab = reads(scope(&["a/b"], &[Base]), Scope::default());
        let between = reads(scope(&["a"], &[]), scope(&["a/b", "c"], &[Base]));
        assert_eq!(everywhere.lack(&of_a), None);
        assert_eq!(of_a.lack(&of_ab), None);
        assert_eq!(of_a.lack(&between), None, "what both say is below a/b");
        assert_eq!(of_ab.lack(&between), None);
        assert!(of_ab.lack(&of_a).is_some_and(|what| what.contains("read in a")));
        assert!(of_a.lack(&everywhere).is_some_and(|what| what.contains("everywhere")));
        let writes = rights(&[Action::Write], scope(&["a"], &[]), Scope::default());
        assert!(everywhere.lack(&writes).is_some());
        let nothing = reads(scope(&["a"], &[]), scope(&["b"], &[]));
        assert_eq!(of_ab.lack(&nothing), None, "two scopes that share nothing allow nothing");
        let in_every_namespace = reads(scope(&[], &[Base]), Scope::default());
        assert!(
            of_a.lack(&in_every_namespace).is_some_and(|what| what.contains("every namespace"))
        );
    }

    #[test]
    fn actions_have_words_and_codes_of_their_own() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Ok(action));
            assert_eq!(Action::from_code(action.code()), Some(action));
        }
        assert!(Action::parse("own").unwrap_err().to_string().contains("allowed are read, write"));
        assert_eq!(Action::from_code(0), None);
    }

    #[test]
    fn role_names_are_plain_and_built_in_ones_are_taken() {
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(limits::ROLE_NAME_BYTES_MAX + 1)]
        {
            assert!(check_role_name("name", bad).is_err(), "{bad}");
        }
        let role = |name: &str| Role { name: name.into(), ..Role::built_in()[2].clone() };
        assert!(role("reader").validate().is_ok());
        assert!(role("admin").validate().unwrap_err().reason.contains("built in"));
    }
}
