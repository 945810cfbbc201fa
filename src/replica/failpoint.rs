//! Places where a test may kill the process, to see that every boundary between two writes survives a crash.
//!
//! Present in builds with debug assertions only, and asleep unless a test sets up the `fail` crate.

/// Aborts the process when a test has armed `name`.
#[inline]
pub(crate) fn crash_point(name: &str) {
    #[cfg(debug_assertions)]
    if fail::eval(name, |_| ()).is_some() {
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
