//! A state as a cluster has it after a while: every entry written twice, by requests that can be made again and are recorded.

use llm_config_domain::{
    Applied, Authority, Change, Command, Found, MemoryStore, Operation, Origin, Overlay, Set,
    apply, limits,
};

use crate::{Error, models};

/// When the first command came; each further one came a millisecond later.
const FIRST_MS: u64 = 1_750_000_000_000;
/// How often every entry was written, and so its version.
pub(crate) const ROUNDS: u64 = 2;

/// What a node has.
pub(crate) struct State {
    pub(crate) store: MemoryStore,
    /// When the next command comes.
    pub(crate) time_ms: u64,
    /// The last command for each entry, and what it came to.
    pub(crate) written: Vec<Written>,
}

/// A command that was carried out.
pub(crate) struct Written {
    pub(crate) set: Set,
    pub(crate) command: Command,
    pub(crate) applied: Applied,
    pub(crate) changes: Vec<Change>,
}

impl State {
    pub(crate) fn new() -> Result<Self, Error> {
        let found = Found {
            cluster_id: "0197f3c2-7a44-7c1e-9a52-6f1d3b8f2c10".into(),
            history_limit: limits::HISTORY_LIMIT_DEFAULT,
        };
        let mut state =
            Self { store: MemoryStore::default(), time_ms: FIRST_MS, written: Vec::new() };
        let (founded, _) = state.carry_out(&Command::new("node-1", Operation::Found(found)))?;
        founded.result?;
        for round in 1..=ROUNDS {
            state.written.clear();
            for (number, set) in models::sets()?.into_iter().enumerate() {
                let command = retryable(&set, &format!("write-{round}-{number}"));
                let (applied, changes) = state.carry_out(&command)?;
                applied.result.clone()?;
                state.written.push(Written { set, command, applied, changes });
            }
        }
        Ok(state)
    }

    fn carry_out(&mut self, command: &Command) -> Result<(Applied, Vec<Change>), Error> {
        let mut overlay = Overlay::new(&self.store);
        let done = apply(&mut overlay, self.time_ms, command)?;
        let writes = overlay.into_writes();
        self.store.apply_writes(writes);
        self.time_ms += 1;
        Ok(done)
    }
}

/// As an application writes with its token.
pub(crate) fn recorded(operation: Operation) -> Command {
    Command::new("model-registry", operation).from_origin(Origin {
        principal: "t-4f9d2c81".into(),
        source: "198.51.100.23".into(),
        request_id: "0197f3c2-8d10-7b3e-8c55-2f6a9e41d7b0".into(),
        node: 2,
        authority: Some(Authority {
            policy_revision: 0,
            token_id: Some("t-4f9d2c81".into()),
            roles: Vec::new(),
            expires_at_ms: 0,
        }),
    })
}

/// As the SDK writes: under an idempotency key.
pub(crate) fn retryable(set: &Set, key: &str) -> Command {
    recorded(Operation::Set(set.clone())).with_request_id(key)
}
