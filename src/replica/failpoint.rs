//! Places where a test may kill the process, to see that every boundary between two writes survives a crash.
//!
//! Present in builds with debug assertions only, and asleep unless a test sets up the `fail` crate, or names one of them
//! in the environment of a process that it starts.

/// Names the crash point of a whole process, for tests that start one.
#[cfg(debug_assertions)]
const VARIABLE: &str = "LLM_CONFIG_TEST_CRASH_AT";

/// Aborts the process when a test has armed `name`.
#[inline]
pub(crate) fn crash_point(name: &str) {
    #[cfg(debug_assertions)]
    if fail::eval(name, |_| ()).is_some() || armed() == Some(name) {
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
fn armed() -> Option<&'static str> {
    static ARMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ARMED.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref()
}
